//! Convolutions of 3 x 3 to few channels. Those alone would leave most of a tile's columns empty: instead each pixel is multiplied with
//! the weights of all taps side by side, once, and `kernels::taps` adds up what belongs together.

use super::chunks::{Work, lines_of, part};
use super::conv2d::Patches;
use super::epilogue::Finish;
use super::kernels::taps::{MOST, SIDE, columns, sum};
use super::kernels::{COLUMNS, Elements, Panels, ROWS, multiply, stack, tall, tiles};
use super::memory::filled;
use super::operands::Operands;
use super::source::{Lines, Source, places};
use crate::error::Result;
use std::ops::Range;

/// Channels of the input below which a product of one pixel is too short to gain anything.
const FEWEST: usize = 16;

/// Whether a convolution can be made so, and gains by it.
pub(super) fn suits(patches: &Patches, channels: usize) -> bool {
    let plain = patches.kernel == [SIDE; 2] && patches.stride == 1 && !patches.is_scaled();
    plain && channels < MOST && patches.channels >= FEWEST
}

/// Weights `[taps · ci, co]` as `[ci, taps · co]`, both in panels.
fn side_by_side(panels: &Panels<'_>, ci: usize, co: usize) -> Result<Vec<f32>> {
    let mut beside = filled(columns(co) * ci, 0.0, "weights of a convolution")?;
    let mut row = [0.0; MOST];
    for (tap, i) in (0..SIDE * SIDE).flat_map(|tap| (0..ci).map(move |i| (tap, i))) {
        panels.row(tap * ci + i, &mut row[..co]);
        for (to, weight) in (tap * co..).zip(&row[..co]) {
            beside[(to / COLUMNS * ci + i) * COLUMNS + to % COLUMNS] = *weight;
        }
    }
    Ok(beside)
}

pub(super) fn work(o: &Operands<'_>, source: Source, patches: Patches, batch: usize) -> Result<Work> {
    let (weight, finish, pool) = (o.param(0)?, Finish::new(o)?, o.pool);
    let (ci, co) = (patches.channels, weight.dims()[1]);
    let weights = side_by_side(&weight.hold().panels(), ci, co)?;
    let ([height, width], [from_height, from_width]) = (patches.out, patches.from());
    let stride = columns(co);
    let step = lines_of(from_width * ci, stride);
    // Products of the lines that a unit sees, each at its number modulo as many.
    let held = step + SIDE - 1;
    let line = from_width * stride;
    let mut products = filled(held * line, 0.0, "products of a convolution")?;
    let mut made = 0..0;
    // For each part of the work a line's pixels.
    let mut stacks = pool.own(|| filled(tall(from_width, ci), [0.0; ROWS], "a line of a convolution"))?;
    let mut image = Lines::new(source, from_width, pool);
    let parts = height.div_ceil(step);
    Ok(Work::new(batch * parts, move |i| {
        let picture = i / parts;
        let lines = part(i % parts, step, height);
        let at = |line: usize| (picture * height + line) * width;
        let pixels = at(lines.start)..at(lines.end);
        let seen = patches.lines(pixels.clone());
        let new = missing(&made, &seen);
        let panels = Panels {
            elements: Elements::F32(&weights),
            steps: ci,
        };
        if !new.is_empty() {
            let mut places = places(&mut products, line, new.clone());
            image.see(new, |x| {
                pool.each_with(&mut places, &mut stacks, |_, (number, to), stacked| {
                    let x = &x[*number % patches.held(x) * from_width * ci..][..from_width * ci];
                    for (t, tile) in tiles(stacked, ci).iter_mut().enumerate() {
                        let row = |r: usize| &x[(t * ROWS + r).min(from_width - 1) * ci..][..ci];
                        stack(std::array::from_fn(row), tile);
                    }
                    let mut to: Vec<_> = to.chunks_exact_mut(stride).collect();
                    multiply(stacked, &panels, 0..stride, None, &mut to);
                });
            })?;
        }
        made = seen;
        finish.fill(pixels, |addend, rest, dst| {
            pool.rows(dst, width * co, |some, dst| {
                let first = lines.start + some.start;
                for (y, to) in (first..).zip(dst.chunks_exact_mut(width * co)) {
                    let row = |tap: usize| {
                        let from = (y + tap)
                            .checked_sub(patches.above())
                            .filter(|from| *from < from_height)?;
                        Some(&products[(picture * from_height + from) % held * line..][..line])
                    };
                    sum(std::array::from_fn(row), [from_width, patches.left(), co], addend, to);
                }
                rest.finish(at(first), 0, dst);
            });
        })
    }))
}

/// What of `seen` lies beyond what was made before.
fn missing(made: &Range<usize>, seen: &Range<usize>) -> Range<usize> {
    match made.contains(&seen.start) {
        true => made.end.min(seen.end)..seen.end,
        false => seen.clone(),
    }
}
