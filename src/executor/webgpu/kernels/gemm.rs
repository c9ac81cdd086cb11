//! Linear layers and convolutions: one product, which differs in how it finds a row of its left operand.

use super::source::Source;
use super::{At, Dispatch, Operand, act, row_stride, word, words};
use crate::error::Result;
use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::{DEPTH, Load, Product, Rows, Tile};
use crate::graph::{Element, Epilogue, Prologue, Unary};

/// A convolution's attributes.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: [usize; 4],
    pub upsample: Option<[usize; 2]>,
}

/// Words of a window in `Args`.
const WINDOW: usize = 10;

pub(super) fn linear(at: At<'_>, epilogue: &Epilogue) -> Result<Vec<Dispatch>> {
    product(at, epilogue, Rows::Matrix, 1, &[0; WINDOW])
}

pub(super) fn conv(at: At<'_>, window: Window, epilogue: &Epilogue) -> Result<Vec<Dispatch>> {
    let [kh, kw] = window.kernel;
    if window.kernel == [1, 1] && window.stride == 1 && window.padding == [0; 4] && window.upsample.is_none() {
        return linear(at, epilogue);
    }
    let [_, h, w, _] = at.input(0).image().unwrap_or([1; 4]);
    let [_, ho, wo, _] = at.out().image().unwrap_or([1; 4]);
    let [uh, uw] = window.upsample.unwrap_or([h, w]);
    let rows = if [uh, uw] == [h, w] {
        Rows::Window
    } else {
        Rows::ScaledWindow
    };
    let [top, left, _, _] = window.padding;
    let sizes: [usize; WINDOW] = [h, w, ho, wo, kw, window.stride, top, left, uh, uw];
    product(at, epilogue, rows, kh * kw, &words(sizes))
}

/// `taps` are the pixels of a window, which the words `window` describe.
fn product(at: At<'_>, epilogue: &Epilogue, rows: Rows, taps: usize, window: &[u32]) -> Result<Vec<Dispatch>> {
    let mut source = Source::of(at);
    let outputs = at.out().channels();
    let product = Product {
        rows,
        m: at.out().rows(),
        n: if epilogue.gate { 2 * outputs } else { outputs },
        k: taps * source.shape.channels(),
        channels: source.channels(),
        joined: source.is_joined(),
        norm: source.statistics.is_some(),
        act: source.act,
        half: at.element() == Element::F16,
        bias: at.node.params.len() > 1,
        row_bias: epilogue.row_bias.is_some(),
        residual: epilogue.residual,
        gate: epilogue.gate,
    };
    let mut choice = at.target.choice(&product)?;
    let mut dispatches = Vec::new();
    if choice.apart {
        let scratch = Operand::Scratch(0, at.element().words(source.shape.len()));
        dispatches.push(source.apply(at, scratch.clone())?);
        source = Source::plain(scratch, source.shape);
    }

    let Product { m, n, k, .. } = product;
    // As many tiles' depths as come next to an equal part.
    let k_slice = k.div_ceil(choice.slices).next_multiple_of(DEPTH);
    let slices = if choice.slices > 1 { k.div_ceil(k_slice) } else { 1 };
    choice.slices = slices;
    let n4 = n.div_ceil(4);
    let [_, tile_columns] = choice.tile.size();
    let tiles = product.tiles(choice.tile);
    let workgroups = match choice.tile {
        // A thread's own, 64 threads a workgroup.
        Tile::Registers => (m.div_ceil(8) * n.div_ceil(8)).div_ceil(64),
        _ => tiles * slices,
    };

    let mut stride = 0;
    let mut operands = Vec::new();
    let place = at.node.op.prologue().map_or(1, Prologue::inputs);
    if epilogue.row_bias.is_some() {
        operands.push((4, at.read(place)));
        stride = row_stride(at.input(place), at.input(place).channels());
    }
    if epilogue.residual {
        operands.push((5, at.read(at.node.inputs.len() - 1)));
    }
    let lane = if product.load(choice.tile) == Load::Ones { 1 } else { 4 };
    let mut args = words([m, n, k, n4, n.div_ceil(tile_columns), tiles, k_slice, slices, stride]);
    args.extend([word(epilogue.row_bias.unwrap_or(0)), act(epilogue.act)]);
    args.extend(post(epilogue.post));
    args.extend(words(source.sizes(lane)));
    args.extend(window);

    let weights = at.node.params.clone();
    let dispatch = at.dispatch(product.variant(choice), args.clone(), workgroups)?;
    if slices == 1 {
        dispatches.push(Dispatch {
            reads: [source.reads(), operands].concat(),
            weights,
            ..dispatch
        });
        return Ok(dispatches);
    }
    let partial = Operand::Scratch(1, slices * m * n4 * 4);
    dispatches.push(Dispatch {
        dst: partial.clone(),
        reads: source.reads(),
        weights: weights[..1].to_vec(),
        ..dispatch
    });
    let finish = at.dispatch(product.finish(), args, (m * n4).div_ceil(64))?;
    dispatches.push(Dispatch {
        reads: [vec![(3, partial)], operands].concat(),
        weights: weights[1..].to_vec(),
        cost: policy::DISPATCH_COST + (slices * m * n) as u64,
        ..finish
    });
    Ok(dispatches)
}

/// What comes last, and two numbers of it.
fn post(post: Option<Unary>) -> [u32; 3] {
    match post {
        None => [0; 3],
        Some(Unary::Act(activation)) => [act(Some(activation)), 0, 0],
        Some(Unary::Affine { mul, add }) => [7, mul.to_bits(), add.to_bits()],
        Some(Unary::Clamp { min, max }) => [8, min.to_bits(), max.to_bits()],
    }
}
