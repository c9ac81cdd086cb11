//! Normalisation over groups of channels, and over the channels of a row.

use super::source::Source;
use super::{At, Dispatch, Operand, words};
use crate::error::Result;
use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::{self, Variant};
use crate::graph::Activation;

pub(super) fn layer(at: At<'_>, eps: f32) -> Result<Vec<Dispatch>> {
    let (rows, c) = (at.out().rows(), at.out().channels());
    let scalar = !c.is_multiple_of(4);
    let mut args = words([rows, c, if scalar { c } else { c / 4 }]);
    args.push(eps.to_bits());
    let dispatch = at.dispatch(select::layer_norm(scalar), args, rows)?;
    Ok(vec![Dispatch {
        reads: vec![(3, at.read(0))],
        weights: at.node.params.clone(),
        ..dispatch
    }])
}

pub(super) fn statistics(at: At<'_>, groups: usize, eps: f32) -> Result<Vec<Dispatch>> {
    of_groups(at, &Source::of(at), groups, eps, Operand::Value(at.index))
}

/// A group norm that no layer takes in.
pub(super) fn group(at: At<'_>, groups: usize, eps: f32, act: Option<Activation>) -> Result<Vec<Dispatch>> {
    let mut source = Source::of(at);
    let statistics = Operand::Scratch(1, 3 * at.out().batch() * at.out().channels());
    let mut dispatches = of_groups(at, &source, groups, eps, statistics.clone())?;
    (source.statistics, source.act) = (Some(statistics), act);
    dispatches.push(source.apply(at, Operand::Value(at.index))?);
    Ok(dispatches)
}

/// Means, scales and shifts of the channels of each picture.
fn of_groups(at: At<'_>, x: &Source, groups: usize, eps: f32, dst: Operand) -> Result<Vec<Dispatch>> {
    let (batch, pixels, c) = (x.shape.batch(), x.shape.tokens(), x.shape.channels());
    let width = c / groups;
    let is_whole = pixels * width <= policy::GROUP_NORM_WHOLE;
    let chunk = if is_whole {
        pixels
    } else {
        (policy::GROUP_NORM_CHUNK / width).max(1)
    };
    let chunks = pixels.div_ceil(chunk);
    let total = batch * groups * chunks;
    let [lanes, lanes_a, _] = x.sizes(1);
    let mut args = words([lanes, lanes_a, pixels, chunk, chunks, groups, total]);
    args.push(eps.to_bits());
    let sums = at.dispatch(select::group_statistics(is_whole, x.is_joined()), args, total)?;
    let sums = Dispatch {
        reads: x.reads(),
        cost: policy::DISPATCH_COST + 6 * x.shape.len() as u64,
        ..sums
    };
    let weights = at.node.params.clone();
    if is_whole {
        return Ok(vec![Dispatch { dst, weights, ..sums }]);
    }
    let partial = Operand::Scratch(0, 2 * total);
    let mut args = words([batch * c, pixels, chunk, chunks, c, groups]);
    args.push(eps.to_bits());
    let finish = at.dispatch_wide(Variant::new("group_finish"), args, (batch * c).div_ceil(64))?;
    Ok(vec![
        Dispatch {
            dst: partial.clone(),
            ..sums
        },
        Dispatch {
            dst,
            reads: vec![(3, partial)],
            weights,
            cost: policy::DISPATCH_COST,
            ..finish
        },
    ])
}
