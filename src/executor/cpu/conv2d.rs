//! Convolution as a product: patches of a chunk of output pixels are gathered, a tile's at a time (zeros around the image, stride
//! and scaling are part of the gather), then multiplied. A kernel of one pixel needs no gather.

use super::chunks::Work;
use super::kernels::{ROWS, Tall, stack};
use super::memory::filled;
use super::operands::Operands;
use super::source::{Lines, Source};
use super::{few, linear, winograd};
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
    let source = Source::new(o)?;
    let (Some([batch, h, w, ci]), Some([_, ho, wo, _])) = (source.shape.image(), o.node.shape.image()) else {
        return Err(Error::Internal(format!("no image: {}", source.shape)));
    };
    if kernel == [1, 1] && stride == 1 && padding == [0; 4] && upsample.is_none() {
        return linear::work(o);
    }
    let patches = Patches {
        from: [h, w],
        scaled: upsample.unwrap_or([h, w]),
        channels: ci,
        kernel,
        stride,
        origin: [padding[0], padding[1]],
        skipped: o.skipped,
        out: [ho, wo],
    };
    if winograd::suits(&patches, [batch, o.height], o.param(0)?.dims()[1]) {
        return winograd::work(o, source, patches, batch);
    }
    if few::suits(&patches, o.param(0)?.dims()[1]) {
        return few::work(o, source, patches, batch);
    }
    let (mut lines, pool) = (Lines::new(source, w, o.pool), o.pool);
    let mut fours = pool.own(|| patches.four())?;
    linear::product(o, batch * ho * wo, move |pixels, tiles| {
        let seen = patches.lines(pixels.clone());
        lines.see(seen, |x| {
            pool.each_with(tiles, &mut fours, |t, tile, four| {
                let first = pixels.start + t * ROWS;
                patches.stack(x, first..pixels.end.min(first + ROWS), four, tile);
            });
        })
    })
}

/// Which pixels a convolution sees. Pairs are vertical, horizontal.
pub(super) struct Patches {
    from: [usize; 2],
    scaled: [usize; 2],
    pub(super) channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    /// Zeros above and to the left.
    origin: [usize; 2],
    /// Lines of the scaled image that lie above what is seen. There are no zeros above then.
    skipped: usize,
    pub(super) out: [usize; 2],
}

impl Patches {
    /// The lines of all images, one below the other, that output pixels see, with those between.
    pub(super) fn lines(&self, pixels: Range<usize>) -> Range<usize> {
        let [h, _] = self.from;
        let line = |pixel: usize, tap: usize| {
            let (image, oy) = (pixel / self.out[1] / self.out[0], pixel / self.out[1] % self.out[0]);
            let y = (oy * self.stride + tap + self.skipped).saturating_sub(self.origin[0]);
            image * h + nearest(y.min(self.scaled[0] - 1), h, self.scaled[0])
        };
        line(pixels.start, 0)..line(pixels.end - 1, self.kernel[0] - 1) + 1
    }

    /// Memory for the patches of a tile.
    pub(super) fn four(&self) -> Result<Vec<f32>> {
        let k = self.kernel[0] * self.kernel[1] * self.channels;
        filled(ROWS * k, 0.0, "patches of a convolution")
    }

    /// Puts the patches of `pixels`, of which there are no more than a tile has rows, together for a product. They go through `four`.
    pub(super) fn stack(&self, x: &[f32], pixels: Range<usize>, four: &mut [f32], tile: &mut [&mut [Tall]]) {
        let k = four.len() / ROWS;
        self.gather(x, pixels, four);
        stack(std::array::from_fn(|r| &four[r * k..][..k]), tile);
    }

    /// Where a pixel of the scaled image and the zeros around it begins in so many lines, if it is no zero.
    pub(super) fn pixel(&self, held: usize, image: usize, y: usize, x: usize) -> Option<usize> {
        let within = |at: usize, i: usize| {
            let at = at.checked_sub(self.origin[i])?;
            (at < self.scaled[i]).then(|| nearest(at, self.from[i], self.scaled[i]))
        };
        let (y, x) = (within(y + self.skipped, 0)?, within(x, 1)?);
        Some(((image * self.from[0] + y) % held * self.from[1] + x) * self.channels)
    }

    /// Height and width of an image that is read.
    pub(super) fn from(&self) -> [usize; 2] {
        self.from
    }

    /// Whether an image is scaled as it is read.
    pub(super) fn is_scaled(&self) -> bool {
        self.from != self.scaled || self.skipped > 0
    }

    /// Lines of zeros above it.
    pub(super) fn above(&self) -> usize {
        self.origin[0]
    }

    /// Columns of zeros to the left of it.
    pub(super) fn left(&self) -> usize {
        self.origin[1]
    }

    /// How many lines of images `x` holds: each at its number modulo that many.
    pub(super) fn held(&self, x: &[f32]) -> usize {
        x.len() / (self.from[1] * self.channels)
    }

    /// Writes the patch of each output pixel in `pixels`: kernel rows, in them kernel columns, in them channels.
    fn gather(&self, x: &[f32], pixels: Range<usize>, to: &mut [f32]) {
        let (line, [kh, kw], [h, w]) = (self.kernel[1] * self.channels, self.kernel, self.from);
        let held = self.held(x);
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
                let Some(y) = (oy * self.stride + ky + self.skipped)
                    .checked_sub(self.origin[0])
                    .filter(|y| *y < self.scaled[0])
                else {
                    taps.fill(0.0);
                    continue;
                };
                let y = nearest(y, h, self.scaled[0]);
                let row = &x[(image * h + y) % held * w * self.channels..][..w * self.channels];
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
