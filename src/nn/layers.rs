//! Layers with one operation each.

use crate::error::Result;
use crate::graph::{Activation, Epilogue, Graph, Op, Pack, Path, Prologue, Unary, Value};

/// `torch.nn.Linear` to `n` channels.
pub fn linear(g: &mut Graph, p: &Path, x: Value, n: usize) -> Result<Value> {
    linear_joined(g, p, &[""], x, n, true)
}

/// `torch.nn.Linear(bias=False)` to `n` channels.
pub fn linear_without_bias(g: &mut Graph, p: &Path, x: Value, n: usize) -> Result<Value> {
    linear_joined(g, p, &[""], x, n, false)
}

/// Several linear layers of one input, each to `n` channels, as one: their outputs side by side. `names` are below `p`.
pub fn linear_joined(g: &mut Graph, p: &Path, names: &[&str], x: Value, n: usize, bias: bool) -> Result<Value> {
    let k = g.shape(x).channels();
    let place = |name: &str| if name.is_empty() { p.clone() } else { p.pp(name) };
    let weights = names
        .iter()
        .map(|name| (place(name).pp("weight").name().to_owned(), vec![n, k]));
    let mut params = vec![g.param(Pack::Matrix, weights)];
    if bias {
        let biases = names
            .iter()
            .map(|name| (place(name).pp("bias").name().to_owned(), vec![n]));
        params.push(g.param(Pack::Vector, biases));
    }
    let at = if names.len() == 1 { place(names[0]) } else { p.clone() };
    g.op(
        &at,
        Op::Linear {
            prologue: Prologue::default(),
            epilogue: Epilogue::default(),
        },
        &[x],
        &params,
    )
}

/// `torch.nn.Conv2d(kernel_size=1)` to `co` channels: a linear layer of each pixel.
pub fn conv1x1(g: &mut Graph, p: &Path, x: Value, co: usize) -> Result<Value> {
    let weight = (p.pp("weight").name().to_owned(), vec![co, g.shape(x).channels(), 1, 1]);
    let params = [
        g.param(Pack::Matrix, [weight]),
        g.param(Pack::Vector, [(p.pp("bias").name(), vec![co])]),
    ];
    g.op(
        p,
        Op::Linear {
            prologue: Prologue::default(),
            epilogue: Epilogue::default(),
        },
        &[x],
        &params,
    )
}

/// `torch.nn.Conv2d(kernel_size=kernel, padding=(kernel - 1) // 2)` to `co` channels.
pub fn conv2d(g: &mut Graph, p: &Path, x: Value, co: usize, kernel: usize) -> Result<Value> {
    conv2d_padded(g, p, x, co, kernel, 1, [kernel.saturating_sub(1) / 2; 4], true)
}

/// [`conv2d`] of 3 x 3 without a bias, with a stride.
pub fn conv2d_without_bias(g: &mut Graph, p: &Path, x: Value, co: usize, stride: usize) -> Result<Value> {
    conv2d_padded(g, p, x, co, 3, stride, [1; 4], false)
}

/// `torch.nn.Conv2d` to `co` channels with zeros around the image: top, left, bottom, right.
#[expect(clippy::too_many_arguments, reason = "torch's own arguments")]
pub fn conv2d_padded(
    g: &mut Graph,
    p: &Path,
    x: Value,
    co: usize,
    kernel: usize,
    stride: usize,
    padding: [usize; 4],
    bias: bool,
) -> Result<Value> {
    let weight = (
        p.pp("weight").name().to_owned(),
        vec![co, g.shape(x).channels(), kernel, kernel],
    );
    let mut params = vec![g.param(Pack::Conv, [weight])];
    if bias {
        params.push(g.param(Pack::Vector, [(p.pp("bias").name(), vec![co])]));
    }
    let op = Op::Conv2d {
        kernel: [kernel; 2],
        stride,
        padding,
        upsample: None,
        prologue: Prologue::default(),
        epilogue: Epilogue::default(),
    };
    g.op(p, op, &[x], &params)
}

/// diffusers' `Downsample2D` with a convolution: halves height and width. Without padding it pads right and below, as diffusers does.
pub fn downsample(g: &mut Graph, p: &Path, x: Value, padding: usize) -> Result<Value> {
    let co = g.shape(x).channels();
    let padding = if padding == 0 { [0, 0, 1, 1] } else { [padding; 4] };
    conv2d_padded(g, &p.pp("conv"), x, co, 3, 2, padding, true)
}

/// diffusers' `Upsample2D` with a convolution: nearest neighbour to height and width `size`, then 3 x 3.
pub fn upsample(g: &mut Graph, p: &Path, x: Value, size: [usize; 2]) -> Result<Value> {
    let co = g.shape(x).channels();
    let x = g.op(p, Op::Upsample { size }, &[x], &[])?;
    conv2d(g, &p.pp("conv"), x, co, 3)
}

fn gamma_beta(g: &mut Graph, p: &Path, c: usize) -> usize {
    g.param(
        Pack::Vector,
        [
            (p.pp("weight").name().to_owned(), vec![c]),
            (p.pp("bias").name().to_owned(), vec![c]),
        ],
    )
}

/// `torch.nn.GroupNorm`.
pub fn group_norm(g: &mut Graph, p: &Path, x: Value, groups: usize, eps: f32) -> Result<Value> {
    let param = gamma_beta(g, p, g.shape(x).channels());
    g.op(p, Op::GroupNorm { groups, eps, act: None }, &[x], &[param])
}

/// `torch.nn.LayerNorm` over the channels.
pub fn layer_norm(g: &mut Graph, p: &Path, x: Value, eps: f32) -> Result<Value> {
    let param = gamma_beta(g, p, g.shape(x).channels());
    g.op(p, Op::LayerNorm { eps }, &[x], &[param])
}

/// An activation function.
pub fn activation(g: &mut Graph, p: &Path, x: Value, act: Activation) -> Result<Value> {
    unary(g, p, x, Unary::Act(act))
}

/// An operation on each element by itself.
pub fn unary(g: &mut Graph, p: &Path, x: Value, op: Unary) -> Result<Value> {
    g.op(p, Op::Unary(op), &[x], &[])
}

/// `a + b` of one shape.
pub fn add(g: &mut Graph, p: &Path, a: Value, b: Value) -> Result<Value> {
    g.op(p, Op::Add, &[a, b], &[])
}

/// `row [1, channels]` is added to every row of `x`.
pub fn add_row(g: &mut Graph, p: &Path, x: Value, row: Value) -> Result<Value> {
    g.op(p, Op::AddRow, &[x, row], &[])
}

/// a's channels, then b's.
pub fn concat(g: &mut Graph, p: &Path, a: Value, b: Value) -> Result<Value> {
    g.op(p, Op::Concat, &[a, b], &[])
}
