//! Embeddings of the timestep.

use super::layers::{activation, linear};
use crate::error::Result;
use crate::graph::{Activation, Graph, Op, Path, Value};

/// diffusers' `Timesteps` and `TimestepEmbedding`: `timesteps [n]` → `[n, width]`, with `act` after it, which every reader applies.
pub fn time_embedding(
    g: &mut Graph,
    p: &Path,
    timesteps: Value,
    sinusoid: Op,
    width: usize,
    act: Activation,
) -> Result<Value> {
    let x = g.op(p, sinusoid, &[timesteps], &[])?;
    let x = linear(g, &p.pp("linear_1"), x, width)?;
    let x = activation(g, p, x, act)?;
    let x = linear(g, &p.pp("linear_2"), x, width)?;
    activation(g, p, x, act)
}
