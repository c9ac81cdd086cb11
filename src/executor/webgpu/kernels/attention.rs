//! Attention with a running maximum.

use super::{At, Dispatch, words};
use crate::error::Result;
use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::Attention;

/// Threads of a workgroup, in the shader too.
const THREADS: usize = 64;

pub(super) fn attention(
    at: At<'_>,
    heads: usize,
    head_dim: usize,
    causal: bool,
    offsets: [usize; 3],
) -> Result<Vec<Dispatch>> {
    let (q, k, v) = (at.input(0), at.input(1), at.input(2));
    let (queries, keys, batch) = (q.tokens(), k.tokens(), q.batch());
    let strides = [q.channels(), k.channels(), v.channels()];
    let fours = head_dim.is_multiple_of(4) && strides.iter().chain(&offsets).all(|n| n.is_multiple_of(4));
    let kernel =
        Attention::select(head_dim, !fours, at.target.registers, at.element()).map_err(|e| e.at(&at.node.label))?;
    let tiles_of = |kernel: Attention| queries.div_ceil(THREADS / kernel.team * kernel.per);
    let is_enough = |paired: &Attention| !causal && batch * heads * tiles_of(*paired) >= policy::ENOUGH_WORKGROUPS;
    let kernel = kernel.paired().filter(is_enough).unwrap_or(kernel);
    let tiles = tiles_of(kernel);
    let total = batch * heads * tiles;
    let shared = if k.batch() == batch { keys } else { 0 };
    let mut args = words([queries, keys, heads, head_dim, strides[0], strides[1], strides[2]]);
    args.extend(words([offsets[0], offsets[1], offsets[2], shared, usize::from(causal)]));
    args.push((1.0 / (head_dim as f32).sqrt()).to_bits());
    args.extend(words([tiles, total]));
    let dispatch = at.dispatch(kernel.variant(), args, total)?;
    Ok(vec![Dispatch {
        reads: vec![(3, at.read(0)), (4, at.read(1)), (5, at.read(2))],
        ..dispatch
    }])
}
