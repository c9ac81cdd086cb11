//! The transformer of a UNet's blocks.

use super::attention::{CrossAttention, cross_attention};
use super::layers::{add, conv1x1, group_norm, layer_norm, linear};
use crate::error::Result;
use crate::graph::{Graph, Op, Path, Value};

/// diffusers' `Transformer2DModel` as UNets use it.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    /// Number of heads.
    pub heads: usize,
    /// Number of `BasicTransformerBlock`s.
    pub layers: usize,
    /// Groups of the norm before it.
    pub groups: usize,
    /// `proj_in` and `proj_out` are linear layers, not convolutions of 1 x 1 (the same arithmetic, other shapes in the file).
    pub use_linear_projection: bool,
}

/// diffusers' `Transformer2DModel` over an image, looking at the text.
pub fn transformer_2d(g: &mut Graph, p: &Path, x: Value, text: Value, options: Transformer) -> Result<Value> {
    let Transformer {
        heads,
        layers,
        groups,
        use_linear_projection,
    } = options;
    let c = g.shape(x).channels();
    let project = if use_linear_projection { linear } else { conv1x1 };
    let h = group_norm(g, &p.pp("norm"), x, groups, 1e-6)?;
    let mut h = project(g, &p.pp("proj_in"), h, c)?;
    for i in 0..layers {
        h = basic_transformer_block(g, &p.pp("transformer_blocks").pp(i), h, text, heads)?;
    }
    let h = project(g, &p.pp("proj_out"), h, c)?;
    add(g, p, x, h)
}

/// diffusers' `BasicTransformerBlock` with a GEGLU feed-forward of four times the width.
fn basic_transformer_block(g: &mut Graph, p: &Path, x: Value, text: Value, heads: usize) -> Result<Value> {
    let c = g.shape(x).channels();
    let mut x = x;
    for (norm, attention, context) in [("norm1", "attn1", None), ("norm2", "attn2", Some(text))] {
        let h = layer_norm(g, &p.pp(norm), x, 1e-5)?;
        let h = cross_attention(g, &p.pp(attention), h, CrossAttention { heads, context })?;
        x = add(g, p, x, h)?;
    }
    let h = layer_norm(g, &p.pp("norm3"), x, 1e-5)?;
    let ff = p.pp("ff").pp("net");
    let h = linear(g, &ff.pp(0).pp("proj"), h, 8 * c)?;
    let h = g.op(&ff.pp(0), Op::Geglu, &[h], &[])?;
    let h = linear(g, &ff.pp(2), h, c)?;
    add(g, p, x, h)
}
