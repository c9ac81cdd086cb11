//! Token embedding: a row of the table for each id, and a row of positions for each place.

use super::chunks::Work;
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let ids = o.input(0)?.clone();
    let (table, positions, dst) = (o.param(0)?.clone(), o.param(1)?.clone(), o.dst.clone());
    let [vocabulary, channels] = table.dims();
    let tokens = ids.shape.channels();
    Ok(Work::rows(ids.shape.len(), channels, move |rows| {
        let (ids, table, positions) = (read::<u32>(&ids.tensor)?, table.hold(), positions.hold());
        let mut position = vec![0.0; channels];
        if let Some(id) = ids[rows.clone()].iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::Internal(format!("token {id} of a vocabulary of {vocabulary}")));
        }
        write(&dst, |dst: &mut [f32]| {
            for row in rows {
                let dst = &mut dst[row * channels..(row + 1) * channels];
                table.elements().widen(ids[row] as usize * channels, dst);
                positions.elements().widen(row % tokens * channels, &mut position);
                dst.iter_mut().zip(&position).for_each(|(d, p)| *d += p);
            }
        })
    }))
}
