//! Layer norm, row by row: the mean, then squared deviations from it.

use super::chunks::Work;
use super::kernels::{sum, sum_of_squares};
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::Op;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let Op::LayerNorm { eps } = o.node.op else {
        return Err(Error::Internal("no layer norm".into()));
    };
    let x = o.input(0)?.clone();
    let (dst, channels, pool) = (o.dst.clone(), x.shape.channels(), o.pool);
    let affine = o.param(0)?.vector();
    Ok(Work::rows(x.shape.rows(), channels, move |rows| {
        let at = rows.start * channels..rows.end * channels;
        let x = &read::<f32>(&x.tensor)?[at.clone()];
        let (gamma, beta) = affine.split_at(channels);
        write(&dst, |dst: &mut [f32]| {
            pool.rows(&mut dst[at], channels, |rows, dst| {
                let x = x[rows.start * channels..].chunks_exact(channels);
                for (d, x) in dst.chunks_exact_mut(channels).zip(x) {
                    let mean = sum(x) / channels as f32;
                    let variance = sum_of_squares(x, mean) / channels as f32;
                    let scale = 1.0 / (variance + eps).sqrt();
                    for (((d, x), gamma), beta) in d.iter_mut().zip(x).zip(gamma).zip(beta) {
                        *d = (x - mean) * scale * gamma + beta;
                    }
                }
            });
        })
    }))
}
