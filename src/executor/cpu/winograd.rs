//! Convolutions of 3 x 3 in squares of pixels (`kernels::winograd` says how). A square in which something is no finite number is
//! made again by plain sums: elsewhere such a number would spread further than it does there.

use super::chunks::{Tiles, Work};
use super::conv2d::Patches;
use super::epilogue::Finish;
use super::kernels::winograd::{FIELD, Fields, POINTS, SIDE, Scratch, groups_of, multiply, room, transform};
use super::kernels::{self, COLUMNS, ROWS, tall};
use super::memory::{filled, grow};
use super::operands::Operands;
use super::source::{Lines, Source};
use crate::error::Result;
use std::ops::Range;

/// Channels below which plain sums are as fast.
const FEWEST: usize = 16;

/// Squares below which transforming weights takes more than it saves.
const FEWEST_SQUARES: usize = 3;

/// Whether a convolution to so many whole pictures of `height` can be made in squares, and gains by it.
pub(super) fn suits(patches: &Patches, [batch, height]: [usize; 2], columns: usize) -> bool {
    let channels = patches.channels;
    let squares = [height, patches.out[1]].map(|n| n.div_ceil(SIDE));
    let squares = squares.iter().fold(batch, |n, &count| n.saturating_mul(count));
    let is_plain = patches.kernel == [3, 3] && patches.stride == 1 && channels.is_multiple_of(4);
    is_plain && channels.min(columns) >= FEWEST && squares >= FEWEST_SQUARES
}

/// Squares of all pictures, line by line.
#[derive(Clone, Copy)]
struct Squares {
    /// Down and across one picture.
    grid: [usize; 2],
    out: [usize; 2],
}

impl Squares {
    /// The picture of a square, and its uppermost and leftmost pixel.
    fn place(&self, square: usize) -> (usize, usize, usize) {
        let [down, across] = self.grid;
        let line = square / across;
        (line / down, line % down * SIDE, square % across * SIDE)
    }

    /// All pictures' pixels in the lines of some squares.
    fn pixels(&self, squares: Range<usize>) -> Range<usize> {
        let [height, width] = self.out;
        let ((first, top, _), (last, bottom, _)) = (self.place(squares.start), self.place(squares.end - 1));
        (first * height + top) * width..(last * height + height.min(bottom + SIDE)) * width
    }

    /// All pixels of some squares, as far as they lie one after the other.
    fn runs(self, squares: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let across = self.grid[1];
        (squares.start / across..squares.end.div_ceil(across)).flat_map(move |line| {
            let (first, end) = (squares.start.max(line * across), squares.end.min((line + 1) * across));
            let both = self.lines(first).zip(self.lines(end - 1));
            both.map(|((_, first), (_, last))| first.start..last.end)
        })
    }

    /// Its pixels, a line at a time: which line of it, and all pictures' pixels.
    fn lines(self, square: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (image, top, left) = self.place(square);
        let [height, width] = self.out;
        (top..height.min(top + SIDE)).map(move |y| {
            let start = (image * height + y) * width;
            (y - top, start + left..start + width.min(left + SIDE))
        })
    }
}

pub(super) fn work(o: &Operands<'_>, source: Source, patches: Patches, batch: usize) -> Result<Work> {
    let (weight, finish, pool) = (o.param(0)?.clone(), Finish::new(o)?, o.pool);
    let mut image = Lines::new(source, patches.from()[1], pool);
    let [k, columns] = weight.dims();
    let channels = patches.channels;
    let squares = Squares {
        grid: patches.out.map(|n| n.div_ceil(SIDE)),
        out: patches.out,
    };
    let count = batch * squares.grid[0] * squares.grid[1];
    let tiles = Tiles::new(count, POINTS * channels, columns);
    let groups = tiles.row_step().div_ceil(ROWS);
    let mut stacked = filled(room(groups, channels), [0.0; ROWS], "squares of a convolution")?;
    // With which squares are odd.
    let odd = || filled(tiles.row_step(), false, "odd squares");
    let mut scratch = pool.own(|| Ok((Scratch::new(groups)?, odd()?)))?;
    let zeros = filled(channels, 0.0, "zeros around an image")?;
    let (mut plain, mut four) = (Vec::new(), Vec::new());
    Ok(Work::new(tiles.count(), move |i| {
        let (rows, columns) = tiles.tile(i);
        let groups = rows.len().div_ceil(ROWS);
        let seen = patches.lines(squares.pixels(rows.clone()));
        // All columns of some squares come one after the other.
        if columns.start == 0 {
            image.see(seen.clone(), |x| {
                let held = patches.held(x);
                let mut groups = groups_of(&mut stacked[..room(groups, channels)], groups, channels);
                pool.each(&mut groups, |group, to| {
                    let fields: Fields<'_> = std::array::from_fn(|r| {
                        let (image, top, left) = squares.place((rows.start + group * ROWS + r).min(rows.end - 1));
                        std::array::from_fn(|point| {
                            let from = patches.pixel(held, image, top + point / FIELD, left + point % FIELD);
                            from.map_or(&zeros[..], |at| &x[at..at + channels])
                        })
                    });
                    transform(&fields, channels, to);
                });
            })?;
        }
        let held = weight.hold();
        let panels = held.panels();
        let (pixels, each) = (squares.pixels(rows.clone()), pool.cut(columns.clone(), COLUMNS));
        let runs = || squares.runs(rows.clone());
        finish.fill_parts(pixels.clone(), &each, runs(), |addend, rest, strips| {
            let own = &mut scratch[..each.len()];
            pool.each_with(strips, own, |part, strip, (scratch, odd)| {
                let columns = each[part].clone();
                odd.fill(false);
                for column in columns.clone().step_by(COLUMNS) {
                    let width = COLUMNS.min(columns.end - column);
                    let mut first = [0.0; COLUMNS];
                    if let Some(addend) = addend {
                        first[..width].copy_from_slice(&addend[column..column + width]);
                    }
                    let at = column - columns.start..column - columns.start + width;
                    multiply(&stacked, groups, &panels, column / COLUMNS, scratch, |i, mut out| {
                        if i >= rows.len() {
                            return;
                        }
                        let mut all = 0.0;
                        for sum in out.as_flattened_mut() {
                            sum.iter_mut().zip(&first).for_each(|(sum, first)| *sum += first);
                            all += sum.iter().map(|sum| sum * 0.0).sum::<f32>();
                        }
                        odd[i] |= all != 0.0;
                        for (y, line) in squares.lines(rows.start + i) {
                            for (pixel, sums) in line.zip(&out[y]) {
                                strip[pixel - pixels.start][at.clone()].copy_from_slice(&sums[..width]);
                            }
                        }
                    });
                }
                for pixel in runs().flatten() {
                    rest.finish(pixel, columns.start, strip[pixel - pixels.start]);
                }
            });
        })?;
        let odd = |square: &usize| scratch[..each.len()].iter().any(|(_, odd)| odd[square - rows.start]);
        for (_, pixels) in rows.clone().filter(odd).flat_map(|square| squares.lines(square)) {
            // A square's lines are no longer than a tile is tall.
            grow(&mut plain, tall(SIDE, k), [0.0; ROWS], "patches of a convolution")?;
            if four.is_empty() {
                four = patches.four()?;
            }
            image.see(seen.clone(), |x| {
                for tile in &mut kernels::tiles(&mut plain, k) {
                    patches.stack(x, pixels.clone(), &mut four, tile);
                }
            })?;
            finish.multiply(&plain, &panels, pixels, columns.clone())?;
        }
        Ok(())
    }))
}
