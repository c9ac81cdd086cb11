//! Linear layers and convolutions: one product, which differs in how it finds a row of its left operand.

use super::{At, Dispatch, act, row_stride, words};
use crate::error::Result;
use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::{Gemm, Rows};
use crate::graph::Epilogue;

/// A convolution's attributes.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: [usize; 4],
    pub upsample: Option<[usize; 2]>,
}

pub(super) fn linear(at: At<'_>, epilogue: &Epilogue) -> Result<Vec<Dispatch>> {
    let k = at.input(0).channels();
    product(at, epilogue, Rows::Matrix, k, k, &[])
}

pub(super) fn conv(at: At<'_>, window: Window, epilogue: &Epilogue) -> Result<Vec<Dispatch>> {
    let ci = at.input(0).channels();
    let [kh, kw] = window.kernel;
    if window.kernel == [1, 1] && window.stride == 1 && window.padding == [0; 4] && window.upsample.is_none() {
        return product(at, epilogue, Rows::Matrix, ci, ci, &[]);
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
    let sizes = words([h, w, ci, ho, wo, kw, window.stride, top, left, uh, uw]);
    product(at, epilogue, rows, kh * kw * ci, ci, &sizes)
}

/// `k` is the depth, in which neighbours come in groups of `channels`; `window` are the words of `Args` that describe one.
fn product(
    at: At<'_>,
    epilogue: &Epilogue,
    rows: Rows,
    k: usize,
    channels: usize,
    window: &[u32],
) -> Result<Vec<Dispatch>> {
    let (m, n) = (at.out().rows(), at.out().channels());
    let n4 = n.div_ceil(4);
    let registers = at.target.registers;
    let gemm = Gemm {
        rows,
        load: Gemm::load(k, channels, registers),
        scalar_out: !n.is_multiple_of(4),
        bias: at.node.params.len() > 1,
        row_bias: epilogue.row_bias,
        residual: epilogue.residual,
        registers,
    };
    let tiles_n = n.div_ceil(policy::GEMM_TILE);
    let tiles = tiles_n * m.div_ceil(policy::GEMM_TILE);
    let workgroups = if registers {
        (m.div_ceil(policy::GEMM_THREAD) * n.div_ceil(policy::GEMM_THREAD)).div_ceil(64)
    } else {
        tiles
    };

    let mut reads = vec![(3, at.read(0))];
    let mut stride = 0;
    if epilogue.row_bias {
        reads.push((4, at.read(1)));
        stride = row_stride(at.input(1), n);
    }
    if epilogue.residual {
        reads.push((5, at.read(at.node.inputs.len() - 1)));
    }
    let mut args = words([m, n, k, n4, tiles_n, tiles, stride]);
    args.extend([act(epilogue.act), act(epilogue.post)]);
    args.extend(window);
    // The struct is one for all variants.
    args.resize(20, 0);
    let dispatch = at.dispatch(gemm.variant(), args, workgroups)?;
    Ok(vec![Dispatch {
        reads,
        weights: at.node.params.clone(),
        ..dispatch
    }])
}
