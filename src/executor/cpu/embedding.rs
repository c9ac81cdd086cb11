//! Token embedding: a row of the table for each id, and a row of positions for each place.

use super::chunks::Work;
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let ids = o.input(0)?.clone();
    let (table, positions, dst) = (o.param(0)?.clone(), o.param(1)?.clone(), o.dst.clone());
    let (vocabulary, channels) = table.dims2()?;
    let tokens = ids.shape.channels();
    Ok(Work::rows(ids.shape.len(), channels, move |rows| {
        let (ids, table, positions) = (
            read::<u32>(&ids.tensor)?,
            read::<f32>(&table)?,
            read::<f32>(&positions)?,
        );
        if let Some(id) = ids[rows.clone()].iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::Internal(format!("token {id} of a vocabulary of {vocabulary}")));
        }
        write(&dst, |dst: &mut [f32]| {
            for row in rows {
                let (from, place) = (ids[row] as usize * channels, row % tokens * channels);
                let sums = table[from..from + channels]
                    .iter()
                    .zip(&positions[place..place + channels]);
                let dst = &mut dst[row * channels..(row + 1) * channels];
                dst.iter_mut().zip(sums).for_each(|(d, (t, p))| *d = t + p);
            }
        })
    }))
}
