//! Operations with a thread for each element, or for four.

use super::{At, Dispatch, Operand, act, row_stride, word, words};
use crate::error::Result;
use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::{self, Variant};
use crate::graph::{Op, Unary};

/// Elements at once, where all these numbers of channels allow it.
fn lane(channels: &[usize]) -> usize {
    if channels.iter().all(|c| c.is_multiple_of(4)) {
        4
    } else {
        1
    }
}

/// Between the value of an input or output and what is outside.
pub(super) fn convert(at: At<'_>) -> Result<Dispatch> {
    let (value, edge) = (Operand::Value(at.index), Operand::Edge(at.index));
    let is_input = matches!(at.node.op, Op::Input { .. });
    let (from, to) = if is_input { (edge, value) } else { (value, edge) };
    // Fours; the last may reach beyond the value, as buffers do.
    let fours = at.out().len().div_ceil(4);
    let dispatch = at.dispatch_wide(select::convert(is_input), words([fours]), fours.div_ceil(64))?;
    Ok(Dispatch {
        dst: to,
        reads: vec![(3, from)],
        cost: policy::DISPATCH_COST + at.out().len() as u64,
        ..dispatch
    })
}

/// A thread for each of the first word of `args`.
fn each(at: At<'_>, variant: Variant, args: Vec<u32>, reads: Vec<(u32, Operand)>) -> Result<Vec<Dispatch>> {
    let len = args.first().copied().unwrap_or(0) as usize;
    Ok(vec![Dispatch {
        reads,
        ..at.dispatch(variant, args, len.div_ceil(64))?
    }])
}

pub(super) fn unary(at: At<'_>, unary: Unary) -> Result<Vec<Dispatch>> {
    // Buffers are as long as a multiple of four elements, so the last four may reach beyond the value.
    let len = word(at.out().len().div_ceil(4));
    let args = match unary {
        Unary::Act(activation) => vec![len, 0, act(Some(activation)), 0, 0],
        Unary::Affine { mul, add } => vec![len, 1, 0, mul.to_bits(), add.to_bits()],
        Unary::Clamp { min, max } => vec![len, 2, 0, min.to_bits(), max.to_bits()],
    };
    each(at, Variant::new("unary"), args, vec![(3, at.read(0))])
}

pub(super) fn geglu(at: At<'_>) -> Result<Vec<Dispatch>> {
    let c = at.out().channels();
    let lane = lane(&[c]);
    let args = words([at.out().len() / lane, c / lane]);
    each(
        at,
        Variant::new("geglu").flag("SCALAR", lane == 1),
        args,
        vec![(3, at.read(0))],
    )
}

pub(super) fn add(at: At<'_>) -> Result<Vec<Dispatch>> {
    let args = words([at.out().len().div_ceil(4), 0, 0]);
    each(at, Variant::new("add"), args, vec![(3, at.read(0)), (4, at.read(1))])
}

pub(super) fn add_row(at: At<'_>) -> Result<Vec<Dispatch>> {
    let c = at.out().channels();
    let lane = lane(&[c]);
    let args = words([at.out().len() / lane, c / lane, row_stride(at.input(1), c / lane)]);
    let variant = Variant::new("add").flag("SCALAR", lane == 1).flag("ROWS", true);
    each(at, variant, args, vec![(3, at.read(0)), (4, at.read(1))])
}

pub(super) fn upsample(at: At<'_>, [ho, wo]: [usize; 2]) -> Result<Vec<Dispatch>> {
    let [_, h, w, c] = at.input(0).image().unwrap_or([1; 4]);
    let lane = lane(&[c]);
    let args = words([at.out().len() / lane, c / lane, h, w, ho, wo]);
    each(
        at,
        Variant::new("upsample").flag("SCALAR", lane == 1),
        args,
        vec![(3, at.read(0))],
    )
}

pub(super) fn embedding(at: At<'_>) -> Result<Vec<Dispatch>> {
    let (c, tokens) = (at.out().channels(), at.input(0).channels());
    let vocabulary = at.plan.params[at.node.params[0]].packed()[0];
    let args = words([at.out().rows() * c.div_ceil(4), c.div_ceil(4), c, tokens, vocabulary]);
    let mut dispatches = each(at, Variant::new("embedding"), args, vec![(3, at.read(0))])?;
    dispatches.iter_mut().for_each(|d| d.weights = at.node.params.clone());
    Ok(dispatches)
}

pub(super) fn timestep(at: At<'_>, dim: usize, flip: bool, shift: f32) -> Result<Vec<Dispatch>> {
    let half = dim / 2;
    // In the order and precision in which diffusers computes them.
    let exponent = |i: usize| -(10000f64.ln() as f32) * i as f32 / (half as f32 - shift);
    let frequencies: Vec<f32> = (0..half).map(|i| f64::from(exponent(i)).exp() as f32).collect();
    let args = words([at.out().len(), dim, usize::from(flip)]);
    let reads = vec![(3, at.read(0)), (4, Operand::Table(frequencies.into()))];
    each(at, Variant::new("timestep"), args, reads)
}
