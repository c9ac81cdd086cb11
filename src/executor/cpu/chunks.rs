//! Into what a node's work is cut. A unit runs without a break: a slice of time is whole units, so a unit must be short, and
//! what it allocates is all the memory that a node takes beside its slots. All the numbers that tuning may change are here.

use super::kernels::{COLUMNS, ROWS};
use crate::error::Result;
use std::ops::Range;

/// Milliseconds after which other tasks get their turn.
pub(super) const SLICE_MS: f64 = 30.0;
/// Multiplications and additions of one unit: 10 ms at 20 GFLOP/s.
const UNIT_FLOPS: usize = 200 << 20;
/// Elements that a unit of element-wise work goes over.
const UNIT_ELEMENTS: usize = 512 << 10;
/// Elements of the rows that are put together for a product: 4 MiB, which is 88 rows of the deepest convolution of Stable
/// Diffusion 1.5.
const STACKED_ELEMENTS: usize = 1 << 20;
/// Rows above which a product gains nothing by being taller: they stay in the second cache while the columns go by.
const TALLEST: usize = 128;
/// Elements of queries of a head that attend at once, and how many of them that may be.
const QUERY_ELEMENTS: usize = 4 << 10;
/// See [`QUERY_ELEMENTS`].
const FEWEST_QUERIES: usize = 64;
/// See [`QUERY_ELEMENTS`].
const MOST_QUERIES: usize = 256;
/// Columns below which a product is not cut.
const NARROWEST: usize = 32;

/// What a node does, in order.
pub(super) struct Work {
    pub(super) units: usize,
    pub(super) unit: Box<dyn FnMut(usize) -> Result<()>>,
}

impl Work {
    pub(super) fn new(units: usize, unit: impl FnMut(usize) -> Result<()> + 'static) -> Self {
        Self {
            units,
            unit: Box::new(unit),
        }
    }

    /// Work on `rows` of `columns` elements each that are independent of each other.
    pub(super) fn rows(rows: usize, columns: usize, mut f: impl FnMut(Range<usize>) -> Result<()> + 'static) -> Self {
        let step = rows_of(columns);
        Self::new(rows.div_ceil(step), move |i| f(part(i, step, rows)))
    }
}

/// How many rows of `columns` elements a unit of element-wise work takes.
pub(super) fn rows_of(columns: usize) -> usize {
    (UNIT_ELEMENTS / columns.max(1)).max(1)
}

/// Part `i` of `len` things in parts of `step`.
pub(super) fn part(i: usize, step: usize, len: usize) -> Range<usize> {
    (i * step).min(len)..((i + 1) * step).min(len)
}

/// How many lines of an image a unit takes, whose products have `columns`: they stay in the second cache.
pub(super) fn lines_of(elements: usize, columns: usize) -> usize {
    fit(UNIT_FLOPS, &[2, elements, columns]).clamp(1, 8)
}

/// Of how many heads, and of how many of their queries, a unit takes the attention; and how many queries of one head attend at once.
pub(super) fn some_heads(heads: usize, tokens: usize, keys: usize, head_dim: usize) -> [usize; 3] {
    let queries = fit(UNIT_FLOPS, &[4, keys, head_dim]);
    // Keys and values of all these heads are put together.
    let held = fit(STACKED_ELEMENTS, &[2, keys, head_dim]);
    let heads = (queries / tokens.max(1)).min(held).clamp(1, heads.max(1));
    let queries = even(tokens, queries);
    // Their sums stay in the nearest cache, and there are enough for what comes with each.
    let most = fit(QUERY_ELEMENTS, &[head_dim]).clamp(FEWEST_QUERIES, MOST_QUERIES);
    let at_once = even(queries, most).next_multiple_of(COLUMNS);
    [heads, queries.next_multiple_of(at_once), at_once]
}

/// The parts of a product `[rows, k] · [k, columns]`: rows outside, columns inside.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    rows: usize,
    row_step: usize,
    columns: usize,
    column_step: usize,
}

impl Tiles {
    pub(super) fn new(rows: usize, k: usize, columns: usize) -> Self {
        let most = fit(STACKED_ELEMENTS, &[k]).min(TALLEST) / ROWS * ROWS;
        let row_step = even(rows, most.max(ROWS)).next_multiple_of(ROWS);
        let column_step = fit(UNIT_FLOPS, &[2, k, row_step]).max(NARROWEST);
        let column_step = even(columns, column_step).next_multiple_of(COLUMNS);
        Self {
            rows,
            row_step,
            columns,
            column_step,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.rows.div_ceil(self.row_step) * self.columns.div_ceil(self.column_step)
    }

    /// The rows and columns of a tile.
    pub(super) fn tile(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let across = self.columns.div_ceil(self.column_step);
        (
            part(i / across, self.row_step, self.rows),
            part(i % across, self.column_step, self.columns),
        )
    }

    /// The most rows that a tile has, which is a multiple of [`ROWS`].
    pub(super) fn row_step(&self) -> usize {
        self.row_step
    }
}

/// How many times the product of `factors` fits in `budget`.
fn fit(budget: usize, factors: &[usize]) -> usize {
    budget / factors.iter().fold(1usize, |n, &f| n.saturating_mul(f)).max(1)
}

/// The step, at most `most`, that cuts `len` in as few parts, of nearly one size.
fn even(len: usize, most: usize) -> usize {
    let most = most.max(1);
    len.div_ceil(len.div_ceil(most).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn tiles_cover_a_product_once_and_stay_small() {
        for (rows, k, columns) in [
            (1, 1, 1),
            (4096, 2880, 320),
            (64, 11520, 1280),
            (262_144, 36, 3),
            (4096, 320, 2560),
            (1, 1280, 1280),
            (100, 40_000, 17),
            (77, 768, 3072),
        ] {
            let tiles = Tiles::new(rows, k, columns);
            let mut seen = 0;
            for i in 0..tiles.count() {
                let (r, c) = tiles.tile(i);
                assert!(!r.is_empty() && !c.is_empty());
                assert!(r.len() <= tiles.row_step() && c.start % COLUMNS == 0);
                assert!(2 * r.len() * k * c.len() <= 3 * UNIT_FLOPS / 2, "{rows} {k} {columns}");
                assert!(tiles.row_step() * k <= STACKED_ELEMENTS);
                seen += r.len() * c.len();
            }
            assert_eq!(seen, rows * columns);
        }
    }

    #[test]
    fn steps_are_never_none() {
        assert_eq!(rows_of(usize::MAX), 1);
        assert_eq!(some_heads(8, 100, 1 << 30, 64), [1, COLUMNS, COLUMNS]);
        assert_eq!(some_heads(8, 4, 77, 40), [8, COLUMNS, COLUMNS]);
        assert_eq!(some_heads(8, 4096, 4096, 40), [1, 320, 80]);
        assert_eq!(part(3, 4, 10), 10..10);
    }
}
