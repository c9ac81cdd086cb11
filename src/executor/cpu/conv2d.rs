//! Convolution as a product: patches of a chunk of output pixels are gathered, a tile's at a time (zeros around the image, stride
//! and scaling are part of the gather), then multiplied. A kernel of one pixel needs no gather.

use super::chunks::Work;
use super::kernels::{ROWS, stack};
use super::memory::{filled, read};
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::Op;
use std::ops::Range;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let Op::Conv2d {
        kernel,
        stride,
        padding,
        upsample,
        ..
    } = o.node.op
    else {
        return Err(Error::Internal("no convolution".into()));
    };
    let x = o.input(0)?;
    let (Some([batch, h, w, ci]), Some([_, ho, wo, _])) = (x.shape.image(), o.node.shape.image()) else {
        return Err(Error::Internal(format!("no image: {}", x.shape)));
    };
    if kernel == [1, 1] && stride == 1 && padding == [0; 4] && upsample.is_none() {
        return super::linear::work(o);
    }
    let (x, k) = (x.tensor.clone(), kernel[0] * kernel[1] * ci);
    let patches = Patches {
        from: [h, w],
        scaled: upsample.unwrap_or([h, w]),
        channels: ci,
        kernel,
        stride,
        origin: [padding[0], padding[1]],
        out: [ho, wo],
    };
    let mut four = filled(ROWS * k, 0.0, "patches of a convolution")?;
    super::linear::product(o, batch * ho * wo, move |pixels, stacked| {
        let x = read::<f32>(&x)?;
        let tiles = pixels.len().div_ceil(ROWS);
        for (t, first) in pixels.clone().step_by(ROWS).enumerate() {
            patches.gather(&x, first..pixels.end.min(first + ROWS), &mut four);
            stack(std::array::from_fn(|r| &four[r * k..][..k]), k, t, tiles, stacked);
        }
        Ok(())
    })
}

/// Which pixels a convolution sees. Pairs are vertical, horizontal.
struct Patches {
    from: [usize; 2],
    scaled: [usize; 2],
    channels: usize,
    kernel: [usize; 2],
    stride: usize,
    /// Zeros above and to the left.
    origin: [usize; 2],
    out: [usize; 2],
}

impl Patches {
    /// Writes the patch of each output pixel in `pixels`: kernel rows, in them kernel columns, in them channels.
    fn gather(&self, x: &[f32], pixels: Range<usize>, to: &mut [f32]) {
        let (line, [kh, kw], [h, w]) = (self.kernel[1] * self.channels, self.kernel, self.from);
        for (pixel, patch) in pixels.zip(to.chunks_exact_mut(kh * line)) {
            let (image, oy, ox) = {
                let rest = pixel / self.out[1];
                (rest / self.out[0], rest % self.out[0], pixel % self.out[1])
            };
            let left = ox * self.stride;
            // Kernel columns that lie in the image.
            let first = self.origin[1].saturating_sub(left).min(kw);
            let end = (self.scaled[1] + self.origin[1]).saturating_sub(left).clamp(first, kw);
            for (ky, taps) in patch.chunks_exact_mut(line).enumerate() {
                let Some(y) = (oy * self.stride + ky)
                    .checked_sub(self.origin[0])
                    .filter(|y| *y < self.scaled[0])
                else {
                    taps.fill(0.0);
                    continue;
                };
                let y = nearest(y, h, self.scaled[0]);
                let row = &x[(image * h + y) * w * self.channels..][..w * self.channels];
                let (before, rest) = taps.split_at_mut(first * self.channels);
                let (inside, after) = rest.split_at_mut((end - first) * self.channels);
                before.fill(0.0);
                after.fill(0.0);
                if self.scaled[1] == w {
                    // The bound is for a patch that lies beside the image, of which nothing is copied.
                    let at = (left + first).saturating_sub(self.origin[1]).min(w - (end - first)) * self.channels;
                    inside.copy_from_slice(&row[at..at + inside.len()]);
                } else {
                    for (kx, tap) in (first..end).zip(inside.chunks_exact_mut(self.channels)) {
                        let at = nearest(left + kx - self.origin[1], w, self.scaled[1]) * self.channels;
                        tap.copy_from_slice(&row[at..at + self.channels]);
                    }
                }
            }
        }
    }
}

/// The pixel of `from` that stands at pixel `i` of `to`.
pub(super) fn nearest(i: usize, from: usize, to: usize) -> usize {
    // In 64 bits: a product of two lengths may not fit the address space of wasm.
    (i as u64 * from as u64 / to as u64) as usize
}
