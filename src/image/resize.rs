//! Pictures of another size, as PIL's `Image.resize` makes them with `LANCZOS`, to the bit: diffusers resizes with it.

use super::Rgba;

/// How far the filter reaches, in pixels of the coarser grid.
const SUPPORT: f64 = 3.0;
/// Weights are whole numbers, of which 1 is so many bits.
const BITS: u32 = 22;

impl Rgba {
    /// The picture with `width` and `height`; itself, if it has them.
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        let mut picture = self.clone();
        // Across first, as PIL does: each pass rounds to bytes. (Since its version 13 it begins with the height where that shrinks far
        // more than the width.)
        if width != picture.width {
            let data = stretched(&picture.data, [picture.height, picture.width, 1], width);
            picture = Self { width, data, ..picture };
        }
        if height != picture.height {
            let data = stretched(&picture.data, [1, picture.height, picture.width], height);
            picture = Self {
                height,
                data,
                ..picture
            };
        }
        picture
    }
}

/// Pixels of `[outer, from, inner]` as `[outer, to, inner]`.
fn stretched(pixels: &[u8], [outer, from, inner]: [usize; 3], to: usize) -> Vec<u8> {
    let (row, taps) = (inner * 4, taps(from, to));
    let mut out = Vec::with_capacity(outer * to * row);
    let mut sums = vec![0i32; row];
    for block in pixels.chunks_exact((from * row).max(1)).take(outer) {
        for (first, weights) in &taps {
            sums.fill(1 << (BITS - 1));
            for (source, weight) in block.chunks_exact(row).skip(*first).zip(weights) {
                let pairs = sums.iter_mut().zip(source);
                pairs.for_each(|(sum, byte)| *sum += i32::from(*byte) * weight);
            }
            out.extend(sums.iter().map(|sum| (sum >> BITS).clamp(0, 255) as u8));
        }
    }
    out
}

/// For each of `to` pixels, the first of the `from` that it is made of, and the weight of each from there on.
fn taps(from: usize, to: usize) -> Vec<(usize, Vec<i32>)> {
    let scale = from as f64 / to as f64;
    // Made smaller, what a pixel stands for is that much more.
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let tap = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |x: usize| lanczos((x as f64 - center + 0.5) / stretch);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |weight: f64| {
            let weight = if sum == 0.0 { weight } else { weight / sum };
            (weight * f64::from(1 << BITS) + 0.5f64.copysign(weight)) as i32
        };
        (first, weights.into_iter().map(whole).collect())
    };
    (0..to).map(tap).collect()
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| match x * std::f64::consts::PI {
        0.0 => 1.0,
        angle => libm::sin(angle) / angle,
    };
    if (-SUPPORT..SUPPORT).contains(&x) {
        sinc(x) * sinc(x / SUPPORT)
    } else {
        0.0
    }
}
