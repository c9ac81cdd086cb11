//! Convolution as a product: patches of a chunk of output pixels are gathered in a scratch (zeros around the image, stride and
//! scaling are part of the gather), then multiplied. A kernel of one pixel needs no gather.

use super::chunks::{Tiles, Work};
use super::epilogue::Finish;
use super::memory::{matrix, read, write, zeros};
use super::operands::Operands;
use super::source::Source;
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
        return super::linear::work(o);
    }
    let (weight, finish) = (o.param(0)?.clone(), Finish::new(o)?);
    let (k, columns) = weight.dims2()?;
    let patches = Patches {
        from: [h, w],
        scaled: upsample.unwrap_or([h, w]),
        channels: ci,
        kernel,
        stride,
        origin: [padding[0], padding[1]],
        out: [ho, wo],
    };
    let tiles = Tiles::new(batch * ho * wo, k, columns, true);
    let scratch = zeros::<f32>(tiles.row_step() * k, "patches of a convolution")?;
    let (mut lines, mut loaded) = (Vec::new(), 0);
    if source.plain().is_none() {
        let most = (0..tiles.count()).map(|i| patches.lines(tiles.tile(i).0).len()).max();
        lines.resize(most.unwrap_or(0) * w * ci, 0.0);
    }
    Ok(Work::new(tiles.count(), move |i| {
        let (rows, columns) = tiles.tile(i);
        let gathered = matrix(&scratch, 0..rows.len(), k)?;
        // All columns of a chunk of rows come one after the other.
        if columns.start == 0 {
            let gather = |x: &[f32]| write(&gathered, |to: &mut [f32]| patches.gather(x, rows.clone(), to));
            match source.plain() {
                Some(x) => gather(&read::<f32>(x)?)?,
                None => {
                    // What this chunk sees of the image: a line that the one before saw too is there already.
                    let seen = patches.lines(rows.clone());
                    let kept = lines.len() / (w * ci);
                    for line in seen.start.max(loaded)..seen.end {
                        let to = &mut lines[line % kept * w * ci..][..w * ci];
                        source.load(line * w..(line + 1) * w, to)?;
                    }
                    loaded = seen.end;
                    gather(&lines)?;
                }
            }
        }
        let sums = gathered.matmul(&weight.narrow(1, columns.start, columns.len())?)?;
        finish.write(&sums, rows, columns)
    }))
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
    /// The lines of all images, one below the other, that output pixels see, with those between.
    fn lines(&self, pixels: Range<usize>) -> Range<usize> {
        let [h, _] = self.from;
        let line = |pixel: usize, tap: usize| {
            let (image, oy) = (pixel / self.out[1] / self.out[0], pixel / self.out[1] % self.out[0]);
            let y = (oy * self.stride + tap).saturating_sub(self.origin[0]);
            image * h + nearest(y.min(self.scaled[0] - 1), h, self.scaled[0])
        };
        line(pixels.start, 0)..line(pixels.end - 1, self.kernel[0] - 1) + 1
    }

    /// `x` holds as many lines of images as there is room for, each at its number modulo that many. Writes the patch of each output pixel in `pixels`: kernel rows, in them kernel columns, in them channels.
    fn gather(&self, x: &[f32], pixels: Range<usize>, to: &mut [f32]) {
        let (line, [kh, kw], [h, w]) = (self.kernel[1] * self.channels, self.kernel, self.from);
        let held = x.len() / (w * self.channels);
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
