//! How long nodes of Stable Diffusion 1.5 take, beside candle's product of the same size. Run by hand:
//! `RAYON_NUM_THREADS=1 cargo test --config profile.dev.opt-level=3 --lib speed -- --ignored --nocapture`.

use super::*;
use crate::graph::{Activation, Epilogue, Prologue};
use crate::platform::now_ms;
use candle_core::{Device, Tensor};

/// The best of a few, in milliseconds.
fn best(mut f: impl FnMut()) -> f64 {
    let once = |()| {
        let start = now_ms();
        f();
        now_ms() - start
    };
    std::iter::repeat_n((), 5).map(once).fold(f64::INFINITY, f64::min)
}

fn product(m: usize, k: usize, n: usize) -> f64 {
    let matrix = |rows, columns| Tensor::from_vec(numbers(rows * columns, 1), (rows, columns), &Device::Cpu).unwrap();
    let (a, b) = (matrix(m, k), matrix(k, n));
    best(|| drop(a.matmul(&b).unwrap()))
}

fn node(case: &Case) -> (f64, f64) {
    let executor = Executor::Cpu(Cpu::with(pool::available(), 1e9));
    let plan = Rc::new(case.plan());
    let weights = pollster::block_on(upload(&executor, &plan, &case.params));
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    let cancel = CancelToken::default();
    let run = || pollster::block_on(executor.run(&instance, &weights, Rate::Step, 0, 0, &cancel)).unwrap();
    let flops = (0..plan.nodes.len()).map(|i| plan.flops(i)).sum::<u64>() as f64;
    let ms = best(run);
    (ms, flops / ms * 1e-6)
}

#[test]
#[ignore = "a measurement"]
fn speed_of_convolutions() {
    for (size, ci, co, kernel) in [
        (64, 4, 320, 3),
        (64, 320, 320, 3),
        (32, 640, 640, 3),
        (16, 1280, 1280, 3),
        (8, 1280, 1280, 3),
        (64, 320, 4, 3),
        (256, 64, 64, 3),
        (64, 640, 320, 1),
    ] {
        let op = Op::Conv2d {
            prologue: Prologue::default(),
            kernel: [kernel; 2],
            stride: 1,
            padding: [kernel / 2; 4],
            upsample: None,
            epilogue: Epilogue {
                act: Some(Activation::Silu),
                ..Epilogue::default()
            },
        };
        let weight = param(Pack::Conv, &[&[co, ci, kernel, kernel]], 1);
        let bias = param(Pack::Vector, &[&[co]], 2);
        let (ms, rate) = node(&Case::new(op, &[&[1, size, size, ci]], vec![weight, bias]));
        let plain = product(size * size, kernel * kernel * ci, co);
        println!(
            "conv {size}² {ci} → {co} {kernel}x{kernel}: {ms:.1} ms, {rate:.1} GFLOP/s, {:.2} of plain",
            ms / plain
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn speed_of_the_rest() {
    for (rows, k, n) in [
        (4096, 320, 320),
        (4096, 320, 2560),
        (256, 1280, 10240),
        (77, 768, 3072),
        (1, 1280, 1280),
    ] {
        let weight = param(Pack::Matrix, &[&[n, k]], 1);
        let op = Op::Linear {
            prologue: Prologue::default(),
            epilogue: Epilogue {
                residual: true,
                ..Epilogue::default()
            },
        };
        let (ms, rate) = node(&Case::new(op, &[&[rows, k], &[rows, n]], vec![weight]));
        let plain = product(rows, k, n);
        println!(
            "linear {rows} x {k} → {n}: {ms:.1} ms, {rate:.1} GFLOP/s, {:.2} of plain",
            ms / plain
        );
    }
    for (tokens, keys, heads, head_dim) in [
        (4096, 4096, 8, 40),
        (4096, 77, 8, 40),
        (1024, 1024, 8, 80),
        (256, 256, 8, 160),
    ] {
        let width = heads * head_dim;
        let op = Op::Attention {
            heads,
            head_dim,
            causal: false,
            offsets: [0; 3],
        };
        let case = Case::new(op, &[&[1, tokens, width], &[1, keys, width], &[1, keys, width]], vec![]);
        let (ms, rate) = node(&case);
        println!("attention {tokens} over {keys}, {heads} x {head_dim}: {ms:.1} ms, {rate:.1} GFLOP/s");
    }
    let affine = |c: usize| vec![param(Pack::Vector, &[&[c], &[c]], 9)];
    let group = |act| Op::GroupNorm {
        groups: 32,
        eps: 1e-5,
        act,
    };
    for (name, case) in [
        ("group norm", Case::new(group(None), &[&[1, 64, 64, 320]], affine(320))),
        (
            "group norm, silu",
            Case::new(group(Some(Activation::Silu)), &[&[1, 64, 64, 320]], affine(320)),
        ),
        (
            "layer norm",
            Case::new(Op::LayerNorm { eps: 1e-5 }, &[&[1, 4096, 320]], affine(320)),
        ),
        ("geglu", Case::new(Op::Geglu, &[&[1, 4096, 2560]], vec![])),
        ("add", Case::new(Op::Add, &[&[1, 4096, 320], &[1, 4096, 320]], vec![])),
        (
            "concat",
            Case::new(Op::Concat, &[&[1, 4096, 320], &[1, 4096, 320]], vec![]),
        ),
    ] {
        let len = case.plan().nodes.last().map_or(0, |n| n.shape.len());
        let (ms, _) = node(&case);
        println!(
            "{name} of {len}: {ms:.2} ms, {:.2} ns an element",
            ms * 1e6 / len as f64
        );
    }
}
