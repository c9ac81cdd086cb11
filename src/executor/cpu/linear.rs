//! `x · W`, in tiles, straight from the slot that holds x where it is read as it is.

use super::chunks::{Tiles, Work};
use super::epilogue::Finish;
use super::memory::{matrix, write, zeros};
use super::operands::Operands;
use super::source::Source;
use crate::error::Result;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let (source, weight, finish) = (Source::new(o)?, o.param(0)?.clone(), Finish::new(o)?);
    let (k, columns) = weight.dims2()?;
    // Values and their gates are made together.
    let halves = if finish.is_gated() { 2 } else { 1 };
    let tiles = Tiles::new(source.shape.rows(), k * halves, columns / halves, false);
    let scratch = match source.plain() {
        Some(_) => zeros::<f32>(0, "nothing")?,
        None => zeros::<f32>(tiles.row_step() * k, "rows of a layer")?,
    };
    Ok(Work::new(tiles.count(), move |i| {
        let (rows, columns) = tiles.tile(i);
        let x = match source.plain() {
            Some(x) => matrix(x, rows.clone(), k)?,
            None => {
                let loaded = matrix(&scratch, 0..rows.len(), k)?;
                // All columns of a chunk of rows come one after the other.
                if columns.start == 0 {
                    let mut done = Ok(());
                    write(&loaded, |to: &mut [f32]| done = source.load(rows.clone(), to))?;
                    done?;
                }
                loaded
            }
        };
        let sums = |first: usize| x.matmul(&weight.narrow(1, first, columns.len())?);
        if finish.is_gated() {
            let half = weight.dim(1)? / 2;
            let (values, gates) = (sums(columns.start)?, sums(half + columns.start)?);
            return finish.write_gated(&values, &gates, rows, columns);
        }
        finish.write(&sums(columns.start)?, rows, columns)
    }))
}
