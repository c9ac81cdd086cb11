//! Convolutions of 3 x 3 by Winograd's way: a square of 4 x 4 pixels takes 36 multiplications where it would take 144. Everything is
//! evaluated at the points 0, ±3/4, ±3/2 and infinity, whose rounding errors are near those of a plain sum (±1, ±2, the usual ones,
//! make four times as large ones), and which are exact numbers, as their squares are.

use super::super::memory::filled;
use super::four::Four;
use super::panels::Panels;
use super::strips;
use super::tile::{COLUMNS, ROWS, Sums, Tall, Wide, tile, transpose};
use crate::error::Result;

/// Pixels of a square, each way.
pub(in super::super) const SIDE: usize = 4;
/// Pixels that it is made of, each way.
pub(in super::super) const FIELD: usize = SIDE + 2;
/// The points, two dimensions of them.
pub(in super::super) const POINTS: usize = FIELD * FIELD;
/// Channels whose weights are transformed before they are multiplied.
const STEPS: usize = 128;
/// From one point's transformed weights to the next one's: not a power of two, for what lies that far apart shares a place in the
/// nearest cache.
const POINT_STEPS: usize = STEPS + 4;

/// The same for transformed pixels.
fn point_pixels(groups: usize, channels: usize) -> usize {
    groups * channels + 4
}

/// The same for sums.
fn point_sums(groups: usize) -> usize {
    groups | 1
}

/// How many [`Tall`] the transformed pixels of so many groups of squares take.
pub(in super::super) fn room(groups: usize, channels: usize) -> usize {
    POINTS * point_pixels(groups, channels)
}

const A: f32 = 0.75;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;

#[inline(always)]
fn input_line(x: [Four; FIELD]) -> [Four; FIELD] {
    let (even_a, odd_a) = (x[4] - x[2] * B2, (x[3] - x[1] * B2) * A);
    let (even_b, odd_b) = (x[4] - x[2] * A2, (x[3] - x[1] * A2) * B);
    [
        x[0] * (A2 * B2) - x[2] * (A2 + B2) + x[4],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        x[1] * (A2 * B2) - x[3] * (A2 + B2) + x[5],
    ]
}

#[inline(always)]
fn weight_line(w: [Four; 3]) -> [Four; FIELD] {
    let (a, b) = (0.5 / (A2 * (A2 - B2)), 0.5 / (B2 * (B2 - A2)));
    let (even_a, odd_a) = ((w[0] + w[2] * A2) * a, w[1] * (a * A));
    let (even_b, odd_b) = ((w[0] + w[2] * B2) * b, w[1] * (b * B));
    [
        w[0] * (1.0 / (A2 * B2)),
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        w[2],
    ]
}

#[inline(always)]
fn output_line(m: [Four; FIELD]) -> [Four; SIDE] {
    let (even_a, odd_a) = (m[1] + m[2], (m[1] - m[2]) * A);
    let (even_b, odd_b) = (m[3] + m[4], (m[3] - m[4]) * B);
    [
        m[0] + even_a + even_b,
        odd_a + odd_b,
        even_a * A2 + even_b * B2,
        odd_a * A2 + odd_b * B2 + m[5],
    ]
}

/// Transforms a square of `N` x `N` to one of `M` x `M`, columns first.
#[inline(always)]
fn square<const N: usize, const M: usize>(
    at: impl Fn(usize, usize) -> Four,
    line: impl Fn([Four; N]) -> [Four; M],
) -> [[Four; M]; M] {
    let columns: [[Four; M]; N] = std::array::from_fn(|x| line(std::array::from_fn(|y| at(y, x))));
    std::array::from_fn(|y| line(columns.map(|column| column[y])))
}

/// Pixels that four squares are made of, row by row: the channels of each.
pub(in super::super) type Fields<'a> = [[&'a [f32]; POINTS]; ROWS];

/// What of `stacked` is each group's: a part for every point.
pub(in super::super) fn groups_of(stacked: &mut [Tall], groups: usize, channels: usize) -> Vec<Vec<&mut [Tall]>> {
    let each = (0..groups).map(|group| group * channels..(group + 1) * channels);
    strips(stacked, point_pixels(groups, channels), each)
}

/// Transforms four squares' fields, of `channels`, a multiple of four, to a group of [`groups_of`].
pub(in super::super) fn transform(fields: &Fields<'_>, channels: usize, to: &mut [&mut [Tall]]) {
    for channel in (0..channels).step_by(4) {
        let four = |pixel: &[f32]| -> Four {
            let (fours, _) = pixel.as_chunks();
            Four::new(fours[channel / 4])
        };
        let points = fields
            .each_ref()
            .map(|field| square(|y, x| four(field[y * FIELD + x]), input_line));
        for (point, to) in to.iter_mut().enumerate() {
            let rows = points.each_ref().map(|p| p[point / FIELD][point % FIELD].get());
            to[channel..channel + 4].copy_from_slice(&transpose(rows));
        }
    }
}

/// What products of one panel need beside their operands.
pub(in super::super) struct Scratch {
    /// Weights as the file has them, where they must be widened.
    wide: Vec<Wide>,
    weights: Vec<Wide>,
    sums: Vec<Sums>,
}

impl Scratch {
    /// For so many groups of four squares.
    pub(in super::super) fn new(groups: usize) -> Result<Self> {
        let what = "products of squares";
        Ok(Self {
            wide: filled(9 * STEPS, [0.0; COLUMNS], what)?,
            weights: filled(POINTS * POINT_STEPS, [0.0; COLUMNS], what)?,
            sums: filled(POINTS * point_sums(groups), [[0.0; COLUMNS]; ROWS], what)?,
        })
    }
}

/// Multiplies what was transformed with a panel of weights `[9 · channels, columns]`. `write(square, pixels)` takes what comes of it.
pub(in super::super) fn multiply(
    stacked: &[Tall],
    groups: usize,
    panels: &Panels<'_>,
    panel: usize,
    scratch: &mut Scratch,
    mut write: impl FnMut(usize, [[Wide; SIDE]; SIDE]),
) {
    let channels = panels.steps / 9;
    let Scratch { wide, weights, sums } = scratch;
    let sums = &mut sums[..POINTS * point_sums(groups)];
    sums.fill([[0.0; COLUMNS]; ROWS]);
    for start in (0..channels).step_by(STEPS) {
        let len = STEPS.min(channels - start);
        let mut wide = wide.chunks_exact_mut(STEPS);
        let taps: [&[Wide]; 9] = std::array::from_fn(|tap| {
            let steps = tap * channels + start..tap * channels + start + len;
            panels.part(panel, steps, wide.next().unwrap_or_default())
        });
        transform_weights(taps, len, weights);
        for (point, sums) in sums.chunks_exact_mut(point_sums(groups)).enumerate() {
            let weights = &weights[point * POINT_STEPS..][..len];
            let stacked = &stacked[point * point_pixels(groups, channels)..][..groups * channels];
            for (sums, stacked) in sums.iter_mut().zip(stacked.chunks_exact(channels)) {
                tile(&stacked[start..start + len], weights, sums);
            }
        }
    }
    for i in 0..groups * ROWS {
        let mut out = [[[0.0; COLUMNS]; SIDE]; SIDE];
        for lane in 0..COLUMNS / 4 {
            let at = |y: usize, x: usize| {
                let (fours, _) = sums[(y * FIELD + x) * point_sums(groups) + i / ROWS][i % ROWS].as_chunks();
                Four::new(fours[lane])
            };
            for (out, pixels) in out.iter_mut().zip(square(at, output_line)) {
                for (out, pixel) in out.iter_mut().zip(pixels) {
                    out.as_chunks_mut().0[lane] = pixel.get();
                }
            }
        }
        write(i, out);
    }
}

/// Of `len` channels, to [`POINT_STEPS`] for each point.
fn transform_weights(taps: [&[Wide]; 9], len: usize, to: &mut [Wide]) {
    for i in 0..len {
        for lane in 0..COLUMNS / 4 {
            let at = |y: usize, x: usize| Four::new(taps[y * 3 + x][i].as_chunks().0[lane]);
            let points = square(at, weight_line);
            for (point, value) in points.as_flattened().iter().enumerate() {
                to[point * POINT_STEPS + i].as_chunks_mut().0[lane] = value.get();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Elements;
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    #[test]
    fn squares_are_those_of_plain_sums() {
        for channels in [4, 12, STEPS, STEPS + 4, 3 * STEPS - 8] {
            let groups = 3;
            let mut stacked = vec![[0.0; ROWS]; room(groups, channels)];
            let pixels = numbers(groups * ROWS * POINTS * channels, 1);
            let pixel = |square: usize, point: usize| &pixels[(square * POINTS + point) * channels..][..channels];
            for (group, to) in groups_of(&mut stacked, groups, channels).iter_mut().enumerate() {
                let fields = std::array::from_fn(|r| std::array::from_fn(|p| pixel(group * ROWS + r, p)));
                transform(&fields, channels, to);
            }
            let weights = numbers(2 * 9 * channels * COLUMNS, 2);
            let panels = Panels {
                elements: Elements::F32(&weights),
                steps: 9 * channels,
            };
            let mut scratch = Scratch::new(groups).unwrap();
            for panel in 0..2 {
                let weight = |tap: usize, i: usize, c: usize| {
                    f64::from(weights[((panel * 9 + tap) * channels + i) * COLUMNS + c])
                };
                let mut squares = 0;
                multiply(&stacked, groups, &panels, panel, &mut scratch, |square, out| {
                    squares += 1;
                    for (y, row) in out.iter().enumerate() {
                        for (x, got) in row.iter().enumerate() {
                            for c in [0, COLUMNS - 1] {
                                let mut want = 0.0;
                                for tap in 0..9 {
                                    let from = pixel(square, (y + tap / 3) * FIELD + x + tap % 3);
                                    want += (0..channels)
                                        .map(|i| f64::from(from[i]) * weight(tap, i, c))
                                        .sum::<f64>();
                                }
                                let off = (f64::from(got[c]) - want).abs();
                                assert!(
                                    off < 2e-6 * (3.0 * channels as f64),
                                    "{channels}: {} for {want}",
                                    got[c]
                                );
                            }
                        }
                    }
                });
                assert_eq!(squares, groups * ROWS);
            }
        }
    }
}
