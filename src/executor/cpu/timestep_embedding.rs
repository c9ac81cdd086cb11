//! diffusers' `get_timestep_embedding`: each f32 operation of it is rounded as there.

use super::chunks::Work;
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::Op;

const MAX_PERIOD: f64 = 10_000.0;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let Op::TimestepEmbedding {
        dim,
        flip_sin_to_cos,
        freq_shift,
    } = o.node.op
    else {
        return Err(Error::Internal("no time embedding".into()));
    };
    let (timesteps, dst, half) = (o.input(0)?.clone(), o.dst.clone(), dim / 2);
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let exponent = -MAX_PERIOD.ln() as f32 * i as f32 / (half as f32 - freq_shift);
            f64::from(exponent).exp() as f32
        })
        .collect();
    Ok(Work::rows(timesteps.shape.len(), dim, move |rows| {
        let timesteps = read::<f32>(&timesteps.tensor)?;
        write(&dst, |dst: &mut [f32]| {
            for row in rows {
                let (first, second) = dst[row * dim..(row + 1) * dim].split_at_mut(half);
                let (sin, cos) = if flip_sin_to_cos {
                    (second, first)
                } else {
                    (first, second)
                };
                for ((frequency, sin), cos) in frequencies.iter().zip(sin).zip(cos) {
                    let angle = f64::from(timesteps[row] * frequency);
                    (*sin, *cos) = (angle.sin() as f32, angle.cos() as f32);
                }
            }
        })
    }))
}
