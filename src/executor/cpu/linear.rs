//! `x · W`, in tiles: some rows of x are put together, then multiplied with a part of the columns after the other.

use super::chunks::{Tiles, Work};
use super::epilogue::Finish;
use super::kernels::{ROWS, Tall, stack, tall};
use super::memory::{filled, read};
use super::operands::Operands;
use crate::error::Result;
use std::ops::Range;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let x = o.input(0)?.clone();
    let (rows, k) = (x.shape.rows(), x.shape.channels());
    product(o, rows, move |rows, stacked| {
        let x = read::<f32>(&x.tensor)?;
        let tiles = rows.len().div_ceil(ROWS);
        for t in 0..tiles {
            let row = |r: usize| (rows.start + t * ROWS + r).min(rows.end - 1) * k;
            stack(std::array::from_fn(|r| &x[row(r)..][..k]), k, t, tiles, stacked);
        }
        Ok(())
    })
}

/// The product of a node's weight with rows that `put` puts together.
pub(super) fn product(
    o: &Operands<'_>,
    rows: usize,
    mut put: impl FnMut(Range<usize>, &mut [Tall]) -> Result<()> + 'static,
) -> Result<Work> {
    let (weight, finish) = (o.param(0)?.clone(), Finish::new(o)?);
    let [k, columns] = weight.dims();
    let tiles = Tiles::new(rows, k, columns);
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
