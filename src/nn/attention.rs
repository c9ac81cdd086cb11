//! Attention with its projections.

use super::layers::{linear, linear_joined, linear_without_bias};
use crate::error::{Error, Result};
use crate::graph::{Graph, Op, Path, Value};

fn head_dim(p: &Path, channels: usize, heads: usize) -> Result<usize> {
    if heads == 0 || !channels.is_multiple_of(heads) {
        return Err(Error::Corrupt(format!(
            "{}: {channels} channels cannot be parted in {heads} heads",
            p.name()
        )));
    }
    Ok(channels / heads)
}

/// Attention of a value over itself, without the projection of the result. `names` are those of the projections to q, k and v below
/// `p`, which run as one.
pub fn self_attention(
    g: &mut Graph,
    p: &Path,
    x: Value,
    heads: usize,
    names: [&str; 3],
    bias: bool,
    causal: bool,
) -> Result<Value> {
    let c = g.shape(x).channels();
    let op = Op::Attention {
        heads,
        head_dim: head_dim(p, c, heads)?,
        causal,
        offsets: [0, c, 2 * c],
    };
    let qkv = linear_joined(g, p, &names, x, c, bias)?;
    g.op(p, op, &[qkv, qkv, qkv], &[])
}

/// diffusers' `Attention` in a transformer block.
#[derive(Clone, Copy, Debug)]
pub struct CrossAttention {
    /// Number of heads.
    pub heads: usize,
    /// What is looked at, if it is not the input itself.
    pub context: Option<Value>,
}

/// diffusers' `Attention` with `to_q`, `to_k`, `to_v` without biases, and `to_out.0`. Keys and values of a context depend on it
/// alone, so they run as seldom as it changes.
pub fn cross_attention(g: &mut Graph, p: &Path, x: Value, options: CrossAttention) -> Result<Value> {
    let c = g.shape(x).channels();
    let CrossAttention { heads, context } = options;
    let attended = match context {
        None => self_attention(g, p, x, heads, ["to_q", "to_k", "to_v"], false, false)?,
        Some(context) => {
            let op = Op::Attention {
                heads,
                head_dim: head_dim(p, c, heads)?,
                causal: false,
                offsets: [0, 0, c],
            };
            let kv = linear_joined(g, p, &["to_k", "to_v"], context, c, false)?;
            let q = linear_without_bias(g, &p.pp("to_q"), x, c)?;
            g.op(p, op, &[q, kv, kv], &[])?
        }
    };
    linear(g, &p.pp("to_out").pp(0), attended, c)
}
