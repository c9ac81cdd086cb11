//! `x · W`, in tiles, straight from the slot that holds x.

use super::chunks::{Tiles, Work};
use super::epilogue::Finish;
use super::memory::matrix;
use super::operands::Operands;
use crate::error::Result;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let (x, weight, finish) = (o.input(0)?.clone(), o.param(0)?.clone(), Finish::new(o)?);
    let (k, columns) = weight.dims2()?;
    let tiles = Tiles::new(x.shape.rows(), k, columns, false);
    Ok(Work::new(tiles.count(), move |i| {
        let (rows, columns) = tiles.tile(i);
        let part = weight.narrow(1, columns.start, columns.len())?;
        let sums = matrix(&x.tensor, rows.clone(), k)?.matmul(&part)?;
        finish.write(&sums, rows, columns)
    }))
}
