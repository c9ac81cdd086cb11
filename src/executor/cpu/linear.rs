//! `x · W`, in tiles: some rows of x are put together, then multiplied with a part of the columns after the other.

use super::chunks::{Tiles, Work};
use super::epilogue::Finish;
use super::kernels::{self, ROWS, Tall, stack, tall};
use super::memory::{filled, grow};
use super::operands::Operands;
use super::source::Source;
use crate::error::Result;
use std::ops::Range;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let source = Source::new(o)?;
    let (rows, k, pool) = (source.shape.rows(), source.shape.channels(), o.pool);
    let mut loaded = Vec::new();
    product(o, rows, move |rows, tiles| {
        let held = source.hold()?;
        let x = match held.plain() {
            Some(x) => &x[rows.start * k..rows.end * k],
            None => {
                grow(&mut loaded, rows.len() * k, 0.0, "rows of a product")?;
                let loaded = &mut loaded[..rows.len() * k];
                pool.rows(loaded, k, |part, to| {
                    held.load(rows.start + part.start..rows.start + part.end, to);
                });
                loaded
            }
        };
        pool.rows(tiles, 1, |part, tiles| {
            for (t, tile) in part.zip(tiles) {
                let row = |r: usize| (t * ROWS + r).min(rows.len() - 1) * k;
                stack(std::array::from_fn(|r| &x[row(r)..][..k]), tile);
            }
        });
        Ok(())
    })
}

/// The product of a node's weight with rows that `put` puts together, in tiles of four.
pub(super) fn product(
    o: &Operands<'_>,
    rows: usize,
    mut put: impl FnMut(Range<usize>, &mut [Vec<&mut [Tall]>]) -> Result<()> + 'static,
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
            put(rows.clone(), &mut kernels::tiles(stacked, k))?;
        }
        finish.multiply(stacked, &weight.hold().panels(), rows, columns)
    }))
}
