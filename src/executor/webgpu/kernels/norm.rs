//! Normalisation over groups of channels, and over the channels of a row.

use super::{At, Dispatch, Operand, act, word, words};
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

pub(super) fn group(at: At<'_>, groups: usize, eps: f32, activation: Option<Activation>) -> Result<Vec<Dispatch>> {
    let (batch, pixels, c) = (at.out().batch(), at.out().tokens(), at.out().channels());
    let width = c / groups;
    let weights = at.node.params.clone();
    let x = vec![(3, at.read(0))];
    let sizes = |chunk: usize, chunks: usize, total: usize, partials: usize| {
        let mut args = words([pixels, chunk, chunks, c, groups, total]);
        args.extend([eps.to_bits(), act(activation), word(partials)]);
        args
    };
    if pixels * width <= policy::GROUP_NORM_WHOLE {
        let total = batch * groups;
        let variant = select::group_norm(true);
        let dispatch = at.dispatch(variant, sizes(pixels, 1, total, 0), total)?;
        return Ok(vec![Dispatch {
            reads: x,
            weights,
            ..dispatch
        }]);
    }

    let chunk = (policy::GROUP_NORM_CHUNK / width).max(1);
    let chunks = pixels.div_ceil(chunk);
    // Means and reciprocals for each channel, then mean and spread of each chunk.
    let partials = 2 * batch * c;
    let scratch = partials + 2 * batch * groups * chunks;
    let total = batch * groups * chunks;
    let sums = at.dispatch(select::group_norm(false), sizes(chunk, chunks, total, partials), total)?;
    let sums = Dispatch {
        dst: Operand::Scratch(scratch),
        reads: x.clone(),
        ..sums
    };

    let mut args = words([pixels, chunk, chunks, c, groups, batch * c]);
    args.extend([eps.to_bits(), word(partials)]);
    let finish = at.dispatch(Variant::new("group_finish"), args, (batch * c).div_ceil(64))?;
    let finish = Dispatch {
        dst: Operand::Scratch(scratch),
        cost: policy::DISPATCH_COST,
        ..finish
    };

    let scalar = !c.is_multiple_of(4);
    let lane = if scalar { 1 } else { 4 };
    let len = at.out().len() / lane;
    let mut args = words([len, c / lane, batch * c / lane, pixels * c / lane]);
    args.push(act(activation));
    let apply = at.dispatch(
        Variant::new("group_apply").flag("SCALAR", scalar),
        args,
        len.div_ceil(64),
    )?;
    let reads = [x, vec![(4, Operand::Scratch(scratch))]].concat();
    Ok(vec![
        sums,
        finish,
        Dispatch {
            reads,
            weights,
            ..apply
        },
    ])
}
