//! Linear layers.

use crate::case::{Case, act, epilogue, epilogues, prologue, prologues};
use tintype::executor::WeightDtype;
use tintype::graph::{Activation, Epilogue, Op, Pack, Prologue};

fn linear(seed: u32, m: usize, k: usize, n: usize, e: Epilogue, bias: bool, dtype: WeightDtype) {
    linear_of(seed, [1, m, k], n, Prologue::default(), e, bias, dtype);
}

fn linear_of(seed: u32, [b, m, k]: [usize; 3], n: usize, p: Prologue, e: Epilogue, bias: bool, dtype: WeightDtype) {
    let mut case = Case::new(seed);
    case.step = 2;
    let x = prologue(&mut case, p, &[b, m, k]);
    let (pack, columns) = if e.gate {
        (Pack::Gated, 2 * n)
    } else {
        (Pack::Matrix, n)
    };
    let w = case.param(pack, &[columns, k], dtype);
    let bias = if bias {
        case.param(Pack::Vector, &[columns], dtype)
    } else {
        Vec::new()
    };
    let of_gates = bias.get(n..).unwrap_or_default().to_vec();
    let gate_bias = |column: usize| of_gates.get(column).map_or(0.0, |&b| f64::from(b));
    let finish = epilogue(&mut case, e, &[b, m, n], bias);
    let mut y = Vec::new();
    for row in 0..b * m {
        let sum = |column: usize| -> f64 { (0..k).map(|i| x[row * k + i] * f64::from(w[column * k + i])).sum() };
        for column in 0..n {
            let y0 = finish(row, column, sum(column));
            y.push(if e.gate {
                y0 * act(Some(Activation::Gelu), sum(n + column) + gate_bias(column))
            } else {
                y0
            });
        }
    }
    case.check(
        Op::Linear {
            prologue: p,
            epilogue: e,
        },
        &y,
    );
}

#[test]
fn linear_layers_that_join_scale_and_activate() {
    for (i, p) in prologues().into_iter().enumerate() {
        for (shape, n) in [([2, 32, 64], 64), ([3, 5, 20], 8), ([2, 3, 7], 5), ([1, 77, 36], 68)] {
            linear_of(
                i as u32,
                shape,
                n,
                p,
                Epilogue::default(),
                true,
                WeightDtype::ALL[i % 5],
            );
        }
    }
}

#[test]
fn linear_layers_with_gates() {
    let gate = Epilogue {
        gate: true,
        ..Default::default()
    };
    for (i, (m, k, n)) in [
        (64, 32, 64),
        (1, 1, 1),
        (3, 5, 77),
        (77, 20, 6),
        (5, 64, 3),
        (33, 48, 130),
    ]
    .into_iter()
    .enumerate()
    {
        linear(i as u32, m, k, n, gate, i % 2 == 0, WeightDtype::ALL[i % 5]);
    }
}

#[test]
fn linear_layers_in_the_sizes_of_texts() {
    for (i, (m, k, n)) in [
        (1, 1023, 77),
        (77, 1023, 5),
        (1023, 77, 3),
        (5, 77, 1023),
        (3, 1, 1023),
        (1, 1024, 64),
        (8, 512, 128),
    ]
    .into_iter()
    .enumerate()
    {
        linear(i as u32, m, k, n, Epilogue::default(), true, WeightDtype::ALL[i % 5]);
    }
}

#[test]
fn linear_layers_in_odd_sizes() {
    for (i, &(m, k, n)) in [
        (1, 1, 1),
        (3, 5, 7),
        (77, 64, 36),
        (5, 20, 4),
        (64, 48, 32),
        (33, 16, 130),
    ]
    .iter()
    .enumerate()
    {
        for dtype in WeightDtype::ALL {
            linear(i as u32, m, k, n, Epilogue::default(), true, dtype);
        }
        linear(i as u32, m, k, n, Epilogue::default(), false, WeightDtype::F32);
    }
}

#[test]
fn linear_layers_with_every_epilogue() {
    for (i, e) in epilogues().enumerate() {
        linear(i as u32, 35, 24, 40, e, true, WeightDtype::F32);
        linear(i as u32, 6, 10, 5, e, i % 2 == 0, WeightDtype::F16);
    }
}
