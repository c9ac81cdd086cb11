//! Embeddings of the timestep.

use super::layers::{activation, linear};
use crate::error::Result;
use crate::graph::{Activation, Graph, Path, Value};

/// diffusers' `TimestepEmbedding`: `[n, k]` → `[n, width]`.
pub fn timestep_embedding(g: &mut Graph, p: &Path, x: Value, width: usize, act: Activation) -> Result<Value> {
    let x = linear(g, &p.pp("linear_1"), x, width)?;
    let x = activation(g, p, x, act)?;
    linear(g, &p.pp("linear_2"), x, width)
}
