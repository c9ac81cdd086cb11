//! Sums of two values, or of a value and one row.

use super::chunks::Work;
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::Result;

/// Two values of one shape.
pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let (a, b, dst, pool) = (o.input(0)?.clone(), o.input(1)?.clone(), o.dst.clone(), o.pool);
    Ok(Work::rows(a.shape.len(), 1, move |at| {
        let (a, b) = (
            &read::<f32>(&a.tensor)?[at.clone()],
            &read::<f32>(&b.tensor)?[at.clone()],
        );
        write(&dst, |dst: &mut [f32]| {
            pool.rows(&mut dst[at], 1, |at, dst| sum(dst, &a[at.clone()], &b[at]));
        })
    }))
}

/// The current step's row is added to every row.
pub(super) fn row_work(o: &Operands<'_>) -> Result<Work> {
    let (x, row, dst) = (o.input(0)?.clone(), o.row(o.input(1)?)?, o.dst.clone());
    let channels = x.shape.channels();
    Ok(Work::rows(x.shape.rows(), channels, move |rows| {
        let at = rows.start * channels..rows.end * channels;
        let (x, row) = (&read::<f32>(&x.tensor)?[at.clone()], read::<f32>(&row)?);
        write(&dst, |dst: &mut [f32]| {
            let dst = dst[at].chunks_exact_mut(channels);
            dst.zip(x.chunks_exact(channels)).for_each(|(d, x)| sum(d, x, &row));
        })
    }))
}

fn sum(dst: &mut [f32], a: &[f32], b: &[f32]) {
    for ((d, a), b) in dst.iter_mut().zip(a).zip(b) {
        *d = a + b;
    }
}
