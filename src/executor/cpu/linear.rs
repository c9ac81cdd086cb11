//! `x · W`, in tiles: some rows of x are put together, then multiplied with a part of the columns after the other.

use super::chunks::{Tiles, Work};
use super::epilogue::Finish;
use super::kernels::{ROWS, Tall, stack, tall};
use super::memory::{filled, read};
use super::operands::Operands;
use super::source::Source;
use crate::error::Result;
use std::ops::Range;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let source = Source::new(o)?;
    let (rows, k) = (source.shape.rows(), source.shape.channels());
    let mut loaded = Vec::new();
    product(o, rows, move |rows, stacked| {
        if let Some(x) = source.plain() {
            put(&read::<f32>(x)?[rows.start * k..rows.end * k], k, stacked);
            return Ok(());
        }
        loaded.resize(rows.len() * k, 0.0);
        source.load(rows, &mut loaded)?;
        put(&loaded, k, stacked);
        Ok(())
    })
}

/// Puts rows of `k` together.
fn put(x: &[f32], k: usize, stacked: &mut [Tall]) {
    let rows = x.len() / k;
    let tiles = rows.div_ceil(ROWS);
    for t in 0..tiles {
        let row = |r: usize| (t * ROWS + r).min(rows - 1) * k;
        stack(std::array::from_fn(|r| &x[row(r)..][..k]), k, t, tiles, stacked);
    }
}

/// The product of a node's weight with rows that `put` puts together.
pub(super) fn product(
    o: &Operands<'_>,
    rows: usize,
    mut put: impl FnMut(Range<usize>, &mut [Tall]) -> Result<()> + 'static,
) -> Result<Work> {
    let (weight, finish) = (o.param(0)?.clone(), Finish::new(o)?);
    let [k, columns] = weight.dims();
    // Values and their gates are made together.
    let halves = if finish.is_gated() { 2 } else { 1 };
    let tiles = Tiles::new(rows, k, columns / halves);
    let mut stacked = filled(tall(tiles.row_step(), k), [0.0; ROWS], "rows of a product")?;
    Ok(Work::new(tiles.count(), move |i| {
        let (rows, columns) = tiles.tile(i);
        let stacked = &mut stacked[..tall(rows.len(), k)];
        // All columns of a chunk of rows come one after the other.
        if columns.start == 0 {
            put(rows.clone(), stacked)?;
        }
        finish.multiply(stacked, &weight.hold().panels(), rows, columns)
    }))
}
