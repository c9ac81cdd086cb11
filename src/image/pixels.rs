//! Floats to pixels and back.

use crate::error::{Error, Result};

/// The most pixels of a side.
pub const MAX_SIDE: usize = 8192;

/// A picture of four bytes a pixel, opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgba {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue and 255 of each pixel, row after row.
    pub data: Vec<u8>,
}

impl Rgba {
    /// Makes pixels of `[height, width, 3]` floats in -1 to 1, rounded as diffusers does (`(x / 2 + 0.5).clamp(0, 1) * 255`, half to
    /// even), and counts the floats that are no finite numbers: bytes would hide them.
    pub fn from_floats(floats: &[f32], width: usize, height: usize) -> (Self, usize) {
        let byte = |x: &f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let data = floats
            .chunks_exact(3)
            .flat_map(|p| [byte(&p[0]), byte(&p[1]), byte(&p[2]), 255])
            .collect();
        (
            Self { width, height, data },
            floats.iter().filter(|x| !x.is_finite()).count(),
        )
    }

    /// `[height, width, 3]` floats in -1 to 1, as diffusers makes them.
    pub fn to_floats(&self) -> Vec<f32> {
        let pixels = self.data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]);
        pixels.map(|byte| 2.0 * (f32::from(byte) / 255.0) - 1.0).collect()
    }

    /// For each pixel whether it is rather white than black, as diffusers reads a mask: by PIL's luma, from one half of 255 on.
    pub fn is_white(&self) -> Vec<bool> {
        let luma = |p: &[u8]| {
            let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
            (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16
        };
        self.data.chunks_exact(4).map(|p| luma(p) >= 128).collect()
    }

    /// Refuses what is no picture that can be worked on, naming the `option` that it was given for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a size out of range, too few bytes or too many, and a pixel that is not opaque.
    pub fn check(&self, option: &str) -> Result<()> {
        let Self { width, height, data } = self;
        let wrong = |what: String| Err(Error::InvalidArgument(format!("{option}: expected {what}")));
        if ![width, height].into_iter().all(|side| (1..=MAX_SIDE).contains(side)) {
            return wrong(format!("1 to {MAX_SIDE} pixels a side, found {width} x {height}"));
        }
        if data.len() != width * height * 4 {
            let bytes = data.len();
            return wrong(format!(
                "four bytes for each of {width} x {height} pixels, found {bytes}"
            ));
        }
        match data.chunks_exact(4).position(|p| p[3] != 255) {
            None => Ok(()),
            Some(i) => wrong(format!(
                "opaque pixels, found an alpha of {} in column {}, row {}: lay it over a colour first",
                data[4 * i + 3],
                i % width,
                i / width
            )),
        }
    }
}
