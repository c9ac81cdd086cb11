//! Convolutions.

use crate::case::{Case, epilogue, epilogues, prologue, prologues};
use tintype::executor::WeightDtype;
use tintype::graph::{Epilogue, Op, Pack, Prologue};

/// The attributes of a convolution, and its input's height, width and channels.
#[derive(Clone, Copy)]
struct Conv {
    size: [usize; 3],
    co: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 4],
    upsample: Option<[usize; 2]>,
}

/// Of 3 x 3, which leaves the size as it is.
fn three(size: [usize; 3], co: usize) -> Conv {
    Conv {
        size,
        co,
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        upsample: None,
    }
}

fn conv(seed: u32, c: Conv, e: Epilogue, dtype: WeightDtype) {
    conv_of(seed, c, Prologue::default(), e, dtype);
}

fn conv_of(seed: u32, c: Conv, p: Prologue, e: Epilogue, dtype: WeightDtype) {
    let Conv {
        size: [h, w, ci],
        co,
        kernel: [kh, kw],
        stride,
        padding: [top, left, bottom, right],
        upsample,
    } = c;
    let batch = 2;
    let mut case = Case::new(seed);
    case.step = 1;
    let x = prologue(&mut case, p, &[batch, h, w, ci]);
    let weight = case.param(Pack::Conv, &[co, ci, kh, kw], dtype);
    let bias = case.param(Pack::Vector, &[co], dtype);
    let [uh, uw] = upsample.unwrap_or([h, w]);
    let (ho, wo) = (
        (uh + top + bottom - kh) / stride + 1,
        (uw + left + right - kw) / stride + 1,
    );
    let finish = epilogue(&mut case, e, &[batch, ho, wo, co], bias);
    let mut y = Vec::new();
    for row in 0..batch * ho * wo {
        let (b, oy, ox) = (row / (ho * wo), row / wo % ho, row % wo);
        for o in 0..co {
            let mut sum = 0.0;
            for (dy, dx) in (0..kh).flat_map(|dy| (0..kw).map(move |dx| (dy, dx))) {
                let (sy, sx) = (oy * stride + dy, ox * stride + dx);
                if sy < top || sx < left || sy - top >= uh || sx - left >= uw {
                    continue;
                }
                let (sy, sx) = ((sy - top) * h / uh, (sx - left) * w / uw);
                for i in 0..ci {
                    let a = x[((b * h + sy) * w + sx) * ci + i];
                    sum += a * f64::from(weight[((o * ci + i) * kh + dy) * kw + dx]);
                }
            }
            y.push(finish(row, o, sum));
        }
    }
    let op = Op::Conv2d {
        kernel: c.kernel,
        stride,
        padding: c.padding,
        upsample,
        prologue: p,
        epilogue: e,
    };
    case.check(op, &y);
}

#[test]
fn convolutions_in_odd_sizes() {
    let plain = three([5, 7, 3], 5);
    let cases = [
        plain,
        three([8, 8, 32], 32),
        three([9, 6, 4], 8),
        Conv {
            size: [7, 7, 20],
            co: 12,
            stride: 2,
            ..plain
        },
        Conv {
            size: [8, 6, 16],
            co: 16,
            stride: 2,
            padding: [0, 0, 1, 1],
            ..plain
        },
        Conv {
            size: [5, 4, 6],
            co: 4,
            kernel: [1, 1],
            padding: [0; 4],
            ..plain
        },
        Conv {
            size: [5, 4, 8],
            co: 3,
            kernel: [1, 1],
            padding: [0; 4],
            stride: 2,
            ..plain
        },
        Conv {
            size: [5, 3, 8],
            co: 8,
            upsample: Some([10, 6]),
            ..plain
        },
        Conv {
            size: [3, 5, 3],
            co: 4,
            upsample: Some([7, 8]),
            ..plain
        },
        Conv {
            size: [6, 6, 4],
            co: 4,
            kernel: [2, 5],
            padding: [1, 0, 2, 3],
            ..plain
        },
        three([1, 1, 64], 64),
    ];
    for (i, c) in cases.into_iter().enumerate() {
        for dtype in WeightDtype::ALL {
            conv(i as u32, c, Epilogue::default(), dtype);
        }
    }
}

#[test]
fn convolutions_that_join_scale_and_activate() {
    let plain = three([8, 8, 32], 64);
    let cases = [
        plain,
        three([5, 7, 12], 20),
        Conv {
            size: [5, 3, 9],
            co: 3,
            stride: 2,
            ..plain
        },
        Conv {
            size: [3, 4, 8],
            co: 8,
            upsample: Some([6, 8]),
            ..plain
        },
    ];
    for (i, p) in prologues().into_iter().enumerate() {
        for c in cases {
            conv_of(i as u32, c, p, Epilogue::default(), WeightDtype::ALL[i % 5]);
        }
    }
}

#[test]
fn convolutions_with_every_epilogue() {
    let c = three([5, 6, 8], 12);
    for (i, e) in epilogues().enumerate() {
        conv(i as u32, c, e, WeightDtype::Bf16);
        conv(i as u32, Conv { co: 3, ..c }, e, WeightDtype::F32);
    }
}
