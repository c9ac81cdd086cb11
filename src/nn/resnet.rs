//! The residual block of UNets and autoencoders.

use super::layers::{activation, add, conv1x1, conv2d, group_norm, linear, unary};
use crate::error::Result;
use crate::graph::{Activation, Graph, Op, Path, Unary, Value};

/// diffusers' `ResnetBlock2D`.
#[derive(Clone, Copy, Debug)]
pub struct Resnet {
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups of both norms.
    pub groups: usize,
    /// Added to the variance in both norms.
    pub eps: f32,
    /// Activation after the norms.
    pub act: Activation,
    /// The sum is divided by it.
    pub output_scale_factor: f32,
}

/// diffusers' `ResnetBlock2D`; `time` is the activated time embedding, a row a step.
pub fn resnet_block(g: &mut Graph, p: &Path, x: Value, time: Option<Value>, options: Resnet) -> Result<Value> {
    let Resnet {
        out_channels,
        groups,
        eps,
        act,
        output_scale_factor,
    } = options;
    // First what the later convolutions take in, so that they can.
    let shortcut = if g.shape(x).channels() == out_channels {
        x
    } else {
        conv1x1(g, &p.pp("conv_shortcut"), x, out_channels)?
    };
    let time = time
        .map(|time| linear(g, &p.pp("time_emb_proj"), time, out_channels))
        .transpose()?;

    let h = group_norm(g, &p.pp("norm1"), x, groups, eps)?;
    let h = activation(g, p, h, act)?;
    let mut h = conv2d(g, &p.pp("conv1"), h, out_channels, 3)?;
    if let Some(time) = time {
        h = g.op(&p.pp("time_emb_proj"), Op::AddRow, &[h, time], &[])?;
    }
    let h = group_norm(g, &p.pp("norm2"), h, groups, eps)?;
    let h = activation(g, p, h, act)?;
    let h = conv2d(g, &p.pp("conv2"), h, out_channels, 3)?;
    let h = add(g, p, shortcut, h)?;
    if output_scale_factor == 1.0 {
        Ok(h)
    } else {
        unary(
            g,
            p,
            h,
            Unary::Affine {
                mul: 1.0 / output_scale_factor,
                add: 0.0,
            },
        )
    }
}
