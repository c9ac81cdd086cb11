//! Channels of one value, then channels of another.

use super::chunks::Work;
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::Result;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let (a, b, dst) = (o.input(0)?.clone(), o.input(1)?.clone(), o.dst.clone());
    let (na, nb) = (a.shape.channels(), b.shape.channels());
    Ok(Work::rows(a.shape.rows(), na + nb, move |rows| {
        let (a, b) = (read::<f32>(&a.tensor)?, read::<f32>(&b.tensor)?);
        write(&dst, |dst: &mut [f32]| {
            for row in rows {
                let (da, db) = dst[row * (na + nb)..(row + 1) * (na + nb)].split_at_mut(na);
                da.copy_from_slice(&a[row * na..(row + 1) * na]);
                db.copy_from_slice(&b[row * nb..(row + 1) * nb]);
            }
        })
    }))
}
