//! What is done to each element by itself.

use super::chunks::Work;
use super::kernels::{activate, geglu};
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::{Op, Unary};

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let Op::Unary(unary) = o.node.op else {
        return Err(Error::Internal("no unary operation".into()));
    };
    let (x, dst, pool) = (o.input(0)?.clone(), o.dst.clone(), o.pool);
    Ok(Work::rows(x.shape.len(), 1, move |at| {
        let x = &read::<f32>(&x.tensor)?[at.clone()];
        write(&dst, |dst: &mut [f32]| {
            pool.rows(&mut dst[at], 1, |at, dst| {
                dst.copy_from_slice(&x[at]);
                apply(unary, dst);
            });
        })
    }))
}

/// In place.
pub(super) fn apply(unary: Unary, x: &mut [f32]) {
    match unary {
        Unary::Act(act) => activate(act, x),
        Unary::Affine { mul, add } => x.iter_mut().for_each(|v| *v = *v * mul + add),
        Unary::Clamp { min, max } => x.iter_mut().for_each(|v| *v = clamp(*v, min, max)),
    }
}

/// Unlike `f32::clamp`, does not mind bounds that are NaN or the wrong way round.
#[inline(always)]
pub(super) fn clamp(v: f32, min: f32, max: f32) -> f32 {
    let v = if v < min { min } else { v };
    if v > max { max } else { v }
}

/// `x[..n] · gelu(x[n..])` of each row.
pub(super) fn geglu_work(o: &Operands<'_>) -> Result<Work> {
    let (x, dst, pool) = (o.input(0)?.clone(), o.dst.clone(), o.pool);
    let n = x.shape.channels() / 2;
    Ok(Work::rows(x.shape.rows(), n, move |rows| {
        let x = &read::<f32>(&x.tensor)?[rows.start * 2 * n..rows.end * 2 * n];
        write(&dst, |dst: &mut [f32]| {
            pool.rows(&mut dst[rows.start * n..rows.end * n], n, |rows, dst| {
                let x = x[rows.start * 2 * n..].chunks_exact(2 * n);
                for (dst, row) in dst.chunks_exact_mut(n).zip(x) {
                    geglu(dst, &row[..n], &row[n..]);
                }
            });
        })
    }))
}
