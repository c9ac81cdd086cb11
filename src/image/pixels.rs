//! Floats to pixels.

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
}
