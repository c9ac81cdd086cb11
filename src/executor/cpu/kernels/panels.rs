//! Weights in panels of columns, and products with them.

use super::tile::{COLUMNS, ROWS, Sums, Tall, Wide, interleave, tile};
use crate::executor::dtype::{bf16_to_f32, e4m3_to_f32, e5m2_to_f32, half_to_f32};
use std::ops::Range;

/// Steps that are multiplied before the next panel's turn: what a panel has of them stays in the nearest cache.
const STEPS: usize = 512;

/// Elements as they are kept.
#[derive(Clone, Copy)]
pub(in super::super) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    E4m3(&'a [u8]),
    E5m2(&'a [u8]),
}

impl Elements<'_> {
    /// One of them.
    pub(in super::super) fn at(&self, i: usize) -> f32 {
        let mut one = [0.0];
        self.widen(i, &mut one);
        one[0]
    }

    /// Widens those from `at` on.
    pub(in super::super) fn widen(&self, at: usize, to: &mut [f32]) {
        fn each<T: Copy>(from: &[T], to: &mut [f32], f: impl Fn(T) -> f32) {
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = f(x));
        }
        let at = at..at + to.len();
        match self {
            Self::F32(x) => to.copy_from_slice(&x[at]),
            Self::F16(x) => each(&x[at], to, half_to_f32),
            Self::Bf16(x) => each(&x[at], to, bf16_to_f32),
            Self::E4m3(x) => each(&x[at], to, e4m3_to_f32),
            Self::E5m2(x) => each(&x[at], to, e5m2_to_f32),
        }
    }
}

/// A matrix `[steps, columns]` in panels of [`COLUMNS`] columns: a panel's steps lie one after the other.
#[derive(Clone, Copy)]
pub(in super::super) struct Panels<'a> {
    pub(in super::super) elements: Elements<'a>,
    pub(in super::super) steps: usize,
}

impl Panels<'_> {
    /// The first columns of a step.
    pub(in super::super) fn row(&self, step: usize, to: &mut [f32]) {
        for (panel, to) in to.chunks_mut(COLUMNS).enumerate() {
            self.elements.widen((panel * self.steps + step) * COLUMNS, to);
        }
    }

    /// Some steps of a panel, widened into `scratch` where they have to be.
    pub(super) fn part<'a>(&'a self, panel: usize, steps: Range<usize>, scratch: &'a mut [Wide]) -> &'a [Wide] {
        let first = panel * self.steps + steps.start;
        match self.elements {
            Elements::F32(x) => &x.as_chunks().0[first..first + steps.len()],
            narrow => {
                let scratch = &mut scratch[..steps.len()];
                narrow.widen(first * COLUMNS, scratch.as_flattened_mut());
                scratch
            }
        }
    }
}

/// How many [`Tall`] a chunk of rows takes.
pub(in super::super) fn tall(rows: usize, steps: usize) -> usize {
    rows.div_ceil(ROWS) * steps
}

/// What of `stacked` is each tile's: a part for every [`STEPS`] steps.
pub(in super::super) fn tiles(stacked: &mut [Tall], steps: usize) -> Vec<Vec<&mut [Tall]>> {
    let count = stacked.len() / steps.max(1);
    let mut tiles: Vec<Vec<&mut [Tall]>> = (0..count).map(|_| Vec::with_capacity(steps.div_ceil(STEPS))).collect();
    for some in stacked.chunks_mut((STEPS * count).max(1)) {
        let each = some.chunks_exact_mut((some.len() / count.max(1)).max(1));
        tiles.iter_mut().zip(each).for_each(|(tile, part)| tile.push(part));
    }
    tiles
}

/// Puts four rows into a tile, of [`tiles`].
pub(in super::super) fn stack(rows: [&[f32]; ROWS], to: &mut [&mut [Tall]]) {
    let mut start = 0;
    for part in to {
        interleave(rows.map(|r| &r[start..start + part.len()]), part);
        start += part.len();
    }
}

/// Writes `addend + stacked · panels`, of which `to` has the columns `columns` of each row. `columns` starts at a panel.
pub(in super::super) fn multiply(
    stacked: &[Tall],
    panels: &Panels<'_>,
    columns: Range<usize>,
    addend: Option<&[f32]>,
    to: &mut [&mut [f32]],
) {
    let (tiles, steps) = (to.len().div_ceil(ROWS), panels.steps);
    let mut scratch = [[0.0; COLUMNS]; STEPS];
    for start in (0..steps).step_by(STEPS) {
        let len = STEPS.min(steps - start);
        let stacked = &stacked[start * tiles..][..len * tiles];
        for column in columns.clone().step_by(COLUMNS) {
            let width = COLUMNS.min(columns.end - column);
            let part = panels.part(column / COLUMNS, start..start + len, &mut scratch);
            let mut first = [0.0; COLUMNS];
            if let Some(addend) = addend {
                first[..width].copy_from_slice(&addend[column..column + width]);
            }
            let at = column - columns.start..column - columns.start + width;
            for (a, to) in stacked.chunks_exact(len).zip(to.chunks_mut(ROWS)) {
                let mut sums: Sums = [first; ROWS];
                if start > 0 {
                    each_row(&mut sums, to, at.clone(), |sums, to| sums.copy_from_slice(to));
                }
                tile(a, part, &mut sums);
                each_row(&mut sums, to, at.clone(), |sums, to| to.copy_from_slice(sums));
            }
        }
    }
}

#[inline(always)]
fn each_row(sums: &mut Sums, to: &mut [&mut [f32]], at: Range<usize>, f: impl Fn(&mut [f32], &mut [f32])) {
    for (sums, to) in sums.iter_mut().zip(to) {
        let to = &mut to[at.clone()];
        // A length that the compiler knows is copied in registers.
        match <&mut Wide>::try_from(&mut *to) {
            Ok(to) => f(sums, to),
            _ => f(&mut sums[..to.len()], to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::strips;
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    /// `[steps, columns]` in panels.
    fn panelled(x: &[f32], steps: usize, columns: usize) -> Vec<f32> {
        let mut to = vec![f32::NAN; columns.div_ceil(COLUMNS) * steps * COLUMNS];
        for step in 0..steps {
            for column in 0..columns {
                to[((column / COLUMNS) * steps + step) * COLUMNS + column % COLUMNS] = x[step * columns + column];
            }
        }
        to
    }

    fn stack_all(rows: usize, steps: usize, a: &[f32], to: &mut [Tall]) {
        for (t, tile) in tiles(to, steps).iter_mut().enumerate() {
            let four = std::array::from_fn(|r| &a[(t * ROWS + r).min(rows - 1) * steps..][..steps]);
            stack(four, tile);
        }
    }

    fn check(rows: usize, steps: usize, columns: usize, a: &[f32], b: &[f32]) {
        let packed = panelled(b, steps, columns);
        let panels = Panels {
            elements: Elements::F32(&packed),
            steps,
        };
        let mut stacked = vec![[0.0; ROWS]; tall(rows, steps)];
        stack_all(rows, steps, a, &mut stacked);
        let addend = numbers(columns, 9);
        let mut got = vec![f32::NAN; rows * columns];
        let half = (columns / 2).next_multiple_of(COLUMNS).min(columns);
        let parts = [0..half, half..columns];
        for (to, part) in strips(&mut got, columns, parts.iter().cloned()).iter_mut().zip(&parts) {
            multiply(&stacked, &panels, part.clone(), Some(&addend), to);
        }
        for (i, got) in got.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let products = (0..steps).map(|k| f64::from(a[row * steps + k]) * f64::from(b[k * columns + column]));
            let want = f64::from(addend[column]) + products.sum::<f64>();
            let near = (f64::from(*got) - want).abs() <= 1e-6 * (1.0 + steps as f64);
            let same = f64::from(*got) == want || got.is_nan() && want.is_nan();
            assert!(near || same, "{rows} {steps} {columns}, element {i}: {got}, not {want}");
        }
    }

    #[test]
    fn products_of_any_size() {
        let sizes = [1, 3, 5, 7, 8, 9, 77];
        for rows in sizes {
            for columns in sizes {
                for steps in [1, 3, 8, 77, STEPS, STEPS + 1, 2 * STEPS + 5] {
                    check(
                        rows,
                        steps,
                        columns,
                        &numbers(rows * steps, 1),
                        &numbers(steps * columns, 2),
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_in_its_row_and_column() {
        let (rows, steps, columns) = (9, 20, 19);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40] {
            for at in [0, 50, rows * steps - 1] {
                let mut a = numbers(rows * steps, 3);
                a[at] = odd;
                check(rows, steps, columns, &a, &numbers(steps * columns, 4));
            }
            let mut b = numbers(steps * columns, 4);
            b[77] = odd;
            check(rows, steps, columns, &numbers(rows * steps, 3), &b);
        }
    }

    #[test]
    fn what_is_kept_in_less_is_widened_on_the_way() {
        let (rows, steps, columns) = (6, 700, 19);
        let (a, b) = (
            numbers(rows * steps, 1),
            panelled(&numbers(steps * columns, 2), steps, columns),
        );
        let mut stacked = vec![[0.0; ROWS]; tall(rows, steps)];
        stack_all(rows, steps, &a, &mut stacked);
        let f16: Vec<u16> = b.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect();
        let bf16: Vec<u16> = b.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
        // All of them are numbers, of either kind.
        let bytes: Vec<u8> = (0..b.len()).map(|i| (i % 251) as u8 & 0xfb).collect();
        for elements in [
            Elements::F16(&f16),
            Elements::Bf16(&bf16),
            Elements::E4m3(&bytes),
            Elements::E5m2(&bytes),
        ] {
            let mut wide = vec![0.0; b.len()];
            elements.widen(0, &mut wide);
            let product = |elements| {
                let mut to = vec![f32::NAN; rows * columns];
                let mut rows: Vec<_> = to.chunks_exact_mut(columns).collect();
                multiply(&stacked, &Panels { elements, steps }, 0..columns, None, &mut rows);
                to
            };
            assert_eq!(product(elements), product(Elements::F32(&wide)));
        }
    }
}
