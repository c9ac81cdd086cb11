//! Each operation of the WebGPU executor against a plain loop, in odd sizes, with every epilogue and every dtype of weights.
//! Without an adapter these tests fail; `TINTYPE_NO_GPU=1` passes over them.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

use pollster::block_on;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::executor::webgpu::{Choice, Options, Product, Webgpu};
use tintype::executor::{Data, Executor, Instance, View, WeightDtype, Weights};
use tintype::graph::{Activation, Element, Epilogue, Graph, Op, Pack, Path, Plan, Prologue, Rate, Unary, Value};

thread_local! {
    /// Which of the legal ways a product takes, how many there are, and whether it multiplies 16-bit floats.
    static PICK: Cell<usize> = const { Cell::new(0) };
    static CHOICES: Cell<usize> = const { Cell::new(1) };
    static HALF: Cell<bool> = const { Cell::new(false) };
}

/// An executor with tiled kernels and one with those for a processor, made once a thread; `None` where it is known that there
/// is no adapter.
fn executors() -> Option<&'static [Executor; 2]> {
    thread_local! {
        static MADE: std::cell::OnceCell<&'static [Executor; 2]> = const { std::cell::OnceCell::new() };
    }
    if std::env::var_os("TINTYPE_NO_GPU").is_some() {
        return None;
    }
    let make = || {
        Box::leak(Box::new([false, true].map(|software| {
            let options = Options {
                software: Some(software),
                half: true,
                ..Default::default()
            };
            let gpu = block_on(Webgpu::new(options));
            let mut gpu = gpu.unwrap_or_else(|e| panic!("{e}; TINTYPE_NO_GPU=1 passes over the tests that need it"));
            gpu.set_chooser(Some(Rc::new(|_: &Product, choices: &[Choice]| {
                // The number of slices is no other kernel.
                let choices: Vec<_> = choices.iter().filter(|c| [1, 4].contains(&c.slices)).collect();
                CHOICES.set(choices.len());
                let choice = choices.get(PICK.get()).copied().copied();
                HALF.set(choice.is_some_and(|c| c.half));
                choice
            })));
            Executor::Webgpu(gpu)
        })))
    };
    Some(MADE.with(|made| *made.get_or_init(|| make())))
}

/// Numbers that look random, between -1 and 1.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// A graph of one operation, with its operands.
struct Case {
    graph: Graph,
    noise: Noise,
    inputs: Vec<(Value, String, Vec<f32>)>,
    ids: HashMap<String, Vec<u32>>,
    params: Vec<usize>,
    weights: HashMap<usize, (Vec<f32>, WeightDtype)>,
    /// The rows of steps come once a schedule.
    step: usize,
}

impl Case {
    fn new(seed: u32) -> Self {
        Self {
            graph: Graph::new(),
            noise: Noise(seed),
            inputs: Vec::new(),
            ids: HashMap::new(),
            params: Vec::new(),
            weights: HashMap::new(),
            step: 0,
        }
    }

    fn input(&mut self, shape: &[usize]) -> Vec<f32> {
        let values = self.noise.take(shape.iter().product());
        self.given(shape, values)
    }

    fn given(&mut self, shape: &[usize], values: Vec<f32>) -> Vec<f32> {
        let name = format!("input{}", self.inputs.len());
        let value = self.graph.input(&name, shape, Element::F32, Rate::Step);
        self.inputs.push((value, name, values.clone()));
        values
    }

    /// A parameter whose one part is kept as `dtype`; what comes back is what the file holds, as f32.
    fn param(&mut self, pack: Pack, shape: &[usize], dtype: WeightDtype) -> Vec<f32> {
        let name = format!("weight{}", self.params.len());
        let values: Vec<f32> = self
            .noise
            .take(shape.iter().product())
            .into_iter()
            .map(|x| round(x, dtype))
            .collect();
        let index = self.graph.param(pack, [(name, shape.to_vec())]);
        self.params.push(index);
        self.weights.insert(index, (values.clone(), dtype));
        values
    }

    /// Runs the operation on both executors and compares with `expected`, relative to its largest magnitude.
    #[track_caller]
    fn check(mut self, op: Op, expected: &[f64]) {
        let Some(executors) = executors() else { return };
        let values: Vec<Value> = self.inputs.iter().map(|i| i.0).collect();
        let what = format!("{op:?}");
        let value = self
            .graph
            .op(&Path::root().pp("node"), op, &values, &self.params)
            .unwrap();
        self.graph.output("y", value);
        self.graph.stand_half();
        let plan = Rc::new(Plan::new(self.graph.clone()));
        for (gpu, kind) in executors.iter().zip(["tiled", "registers"]) {
            CHOICES.set(1);
            let mut pick = 0;
            while pick < CHOICES.get() {
                PICK.set(pick);
                HALF.set(false);
                let (instance, weights) = self.prepare(gpu, &plan);
                block_on(gpu.run(&instance, &weights, Rate::Step, 0, self.step, &CancelToken::default())).unwrap();
                let y = block_on(gpu.read(&gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap())).unwrap();
                assert_eq!(y.len(), expected.len(), "{what}, {kind}: length");
                let largest = expected.iter().fold(0f64, |m, e| m.max(e.abs()));
                let most = if HALF.get() { 2e-2 } else { 2e-5 };
                for (i, (&y, &e)) in y.iter().zip(expected).enumerate() {
                    let off = (f64::from(y) - e).abs() / largest;
                    assert!(
                        off <= most,
                        "{what}, {kind}, way {pick}: element {i} is {y}, not {e} (of {largest})"
                    );
                }
                pick += 1;
            }
        }
    }

    fn prepare(&self, gpu: &Executor, plan: &Rc<Plan>) -> (Instance, Weights) {
        let dtypes: Vec<_> = plan
            .params
            .iter()
            .enumerate()
            .map(|(i, s)| (s.clone(), self.weights[&i].1))
            .collect();
        block_on(gpu.warm(plan, &dtypes)).unwrap();
        let weights = block_on(gpu.allocate(&dtypes)).unwrap();
        for (i, (spec, dtype)) in dtypes.iter().enumerate() {
            gpu.upload(&weights, spec, 0, *dtype, 0, &bytes(&self.weights[&i].0, *dtype))
                .unwrap();
        }
        let instance = block_on(gpu.prepare(Rc::clone(plan), 1)).unwrap();
        for (_, name, values) in &self.inputs {
            match self.ids.get(name) {
                Some(ids) => gpu.write(&instance, name, 0, Data::U32(ids)).unwrap(),
                None => gpu.write(&instance, name, 0, Data::F32(values)).unwrap(),
            }
        }
        (instance, weights)
    }
}

fn round(x: f32, dtype: WeightDtype) -> f32 {
    match dtype {
        WeightDtype::F32 => x,
        WeightDtype::F16 => half::f16::from_f32(x).to_f32(),
        WeightDtype::Bf16 => half::bf16::from_f32(x).to_f32(),
    }
}

fn bytes(values: &[f32], dtype: WeightDtype) -> Vec<u8> {
    let each = |&x: &f32| match dtype {
        WeightDtype::F32 => x.to_le_bytes().to_vec(),
        WeightDtype::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        WeightDtype::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(each).collect()
}

/// The error function by its series, and by its continued fraction where that converges better.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let y = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (z + f));
        1.0 - (-z * z).exp() / ((z + tail) * std::f64::consts::PI.sqrt())
    };
    y.copysign(x)
}

fn act(kind: Option<Activation>, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        None => x,
        Some(Activation::Silu) => x * sigmoid(x),
        Some(Activation::Gelu) => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
        Some(Activation::GeluTanh) => {
            x * 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Some(Activation::QuickGelu) => x * sigmoid(1.702 * x),
        Some(Activation::Relu) => x.max(0.0),
        Some(Activation::Tanh) => x.tanh(),
    }
}

const ACTS: [Option<Activation>; 7] = [
    None,
    Some(Activation::Silu),
    Some(Activation::Gelu),
    Some(Activation::GeluTanh),
    Some(Activation::QuickGelu),
    Some(Activation::Relu),
    Some(Activation::Tanh),
];

const DTYPES: [WeightDtype; 3] = [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16];

/// Adds the operands of an epilogue to a case, and gives what it makes of a sum at (row, column).
fn epilogue(case: &mut Case, e: Epilogue, out: &[usize], bias: Vec<f32>) -> impl Fn(usize, usize, f64) -> f64 + use<> {
    let n = *out.last().unwrap();
    let step = case.step;
    let first = e.row_bias.unwrap_or(0);
    let rows = e.row_bias.map(|_| case.input(&[3, n + 5]));
    let residual = e.residual.then(|| case.input(out));
    move |row, column, sum| {
        let mut y = sum;
        y += bias.get(column).map_or(0.0, |&b| f64::from(b));
        y += rows
            .as_ref()
            .map_or(0.0, |r| f64::from(r[step * (n + 5) + first + column]));
        y = act(e.act, y);
        y += residual.as_ref().map_or(0.0, |r| f64::from(r[row * n + column]));
        match e.post {
            None => y,
            Some(Unary::Act(kind)) => act(Some(kind), y),
            Some(Unary::Affine { mul, add }) => y * f64::from(mul) + f64::from(add),
            Some(Unary::Clamp { min, max }) => y.clamp(f64::from(min), f64::from(max)),
        }
    }
}

fn epilogues() -> impl Iterator<Item = Epilogue> {
    (0..8).map(|i| Epilogue {
        row_bias: (i & 1 == 1).then_some(i % 3),
        gate: false,
        act: ACTS[i % 7],
        residual: i & 2 == 2,
        post: match i {
            4 => Some(Unary::Affine { mul: -0.5, add: 2.0 }),
            5 => Some(Unary::Clamp { min: -0.25, max: 0.5 }),
            _ if i & 2 == 2 => ACTS[(i * 3) % 7].map(Unary::Act),
            _ => None,
        },
    })
}

/// Adds the operands of a prologue to a case, and gives what a layer reads then.
fn prologue(case: &mut Case, p: Prologue, shape: &[usize]) -> Vec<f64> {
    let (c, batch) = (*shape.last().unwrap(), shape[0]);
    let parts = if p.joined {
        vec![c / 4 * 2 + c % 4, c / 4 * 2]
    } else {
        vec![c]
    };
    let of = |c: usize| [&shape[..shape.len() - 1], &[c]].concat();
    let values: Vec<(usize, Vec<f32>)> = parts.into_iter().map(|c| (c, case.input(&of(c)))).collect();
    let rows = shape.iter().product::<usize>() / c;
    let row = |r: usize| {
        values
            .iter()
            .flat_map(move |(c, v)| v[r * c..(r + 1) * c].iter().map(|&x| f64::from(x)))
    };
    let mut x: Vec<f64> = (0..rows).flat_map(row).collect();
    if p.norm {
        let s = case.input(&[batch, 3 * c]);
        for (i, x) in x.iter_mut().enumerate() {
            let first = i / (rows / batch * c) * 3 * c + i % c;
            *x = (*x - f64::from(s[first])) * f64::from(s[first + c]) + f64::from(s[first + 2 * c]);
        }
    }
    x.into_iter().map(|x| act(p.act, x)).collect()
}

/// Every way to read that fusion brings about, and an activation that no loader has.
fn prologues() -> Vec<Prologue> {
    let mut all = Vec::new();
    for (joined, norm) in [(false, false), (false, true), (true, false), (true, true)] {
        for act in if norm { &ACTS[..3] } else { &ACTS[..1] } {
            all.push(Prologue {
                joined,
                norm,
                act: *act,
            });
        }
    }
    all
}

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
            linear_of(i as u32, shape, n, p, Epilogue::default(), true, DTYPES[i % 3]);
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
        linear(i as u32, m, k, n, gate, i % 2 == 0, DTYPES[i % 3]);
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
        linear(i as u32, m, k, n, Epilogue::default(), true, DTYPES[i % 3]);
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
        for dtype in DTYPES {
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
    let plain = Conv {
        size: [5, 7, 3],
        co: 5,
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        upsample: None,
    };
    let cases = [
        plain,
        Conv {
            size: [8, 8, 32],
            co: 32,
            ..plain
        },
        Conv {
            size: [9, 6, 4],
            co: 8,
            ..plain
        },
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
        Conv {
            size: [1, 1, 64],
            co: 64,
            ..plain
        },
    ];
    for (i, c) in cases.into_iter().enumerate() {
        for dtype in DTYPES {
            conv(i as u32, c, Epilogue::default(), dtype);
        }
    }
}

#[test]
fn convolutions_that_join_scale_and_activate() {
    let plain = Conv {
        size: [8, 8, 32],
        co: 64,
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        upsample: None,
    };
    let cases = [
        plain,
        Conv {
            size: [5, 7, 12],
            co: 20,
            ..plain
        },
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
            conv_of(i as u32, c, p, Epilogue::default(), DTYPES[i % 3]);
        }
    }
}

#[test]
fn convolutions_with_every_epilogue() {
    let c = Conv {
        size: [5, 6, 8],
        co: 12,
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        upsample: None,
    };
    for (i, e) in epilogues().enumerate() {
        conv(i as u32, c, e, WeightDtype::Bf16);
        conv(i as u32, Conv { co: 3, ..c }, e, WeightDtype::F32);
    }
}

fn group_norm(batch: usize, h: usize, w: usize, c: usize, groups: usize, kind: Option<Activation>, mean: f32) {
    let mut case = Case::new((h * w * c) as u32);
    let x: Vec<f32> = case.noise.take(batch * h * w * c).iter().map(|v| v + mean).collect();
    let x = case.given(&[batch, h, w, c], x);
    let affine = case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
    let width = c / groups;
    let mut y = vec![0.0; x.len()];
    for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
        let at = |p: usize, j: usize| (b * h * w + p) * c + g * width + j;
        let all = || (0..h * w).flat_map(|p| (0..width).map(move |j| (p, j)));
        let n = (h * w * width) as f64;
        let mean = all().map(|(p, j)| f64::from(x[at(p, j)])).sum::<f64>() / n;
        let variance = all().map(|(p, j)| (f64::from(x[at(p, j)]) - mean).powi(2)).sum::<f64>() / n;
        for (p, j) in all() {
            let v = (f64::from(x[at(p, j)]) - mean) / (variance + 1e-5).sqrt();
            let channel = g * width + j;
            y[at(p, j)] = act(kind, v * f64::from(affine[channel]) + f64::from(affine[c + channel]));
        }
    }
    case.check(
        Op::GroupNorm {
            groups,
            eps: 1e-5,
            act: kind,
        },
        &y,
    );
}

#[test]
fn group_norms() {
    group_norm(2, 3, 5, 6, 3, None, 0.0);
    group_norm(1, 8, 8, 32, 8, ACTS[1], 3.0);
    group_norm(1, 1, 1, 130, 1, None, 0.0);
    group_norm(2, 65, 64, 8, 2, ACTS[1], 0.0);
    // Statistics of these are put together from chunks.
    group_norm(1, 110, 100, 6, 1, None, -2.0);
}

fn group_statistics(batch: usize, pixels: usize, parts: &[usize], groups: usize, mean: f32) {
    let mut case = Case::new((pixels * groups) as u32);
    let c: usize = parts.iter().sum();
    let mut values = Vec::new();
    for &own in parts {
        let x = case.noise.take(batch * pixels * own).iter().map(|v| v + mean).collect();
        values.push((own, case.given(&[batch, pixels, own], x)));
    }
    let affine = case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
    let at = |row: usize| {
        values
            .iter()
            .flat_map(move |(own, x)| x[row * own..(row + 1) * own].iter())
    };
    let mut y = Vec::new();
    for b in 0..batch {
        let rows: Vec<Vec<f64>> = (0..pixels)
            .map(|p| at(b * pixels + p).map(|&v| f64::from(v)).collect())
            .collect();
        let width = c / groups;
        let of_group = |g: usize| rows.iter().flat_map(move |row| row[g * width..(g + 1) * width].iter());
        let n = (pixels * width) as f64;
        let each: Vec<(f64, f64)> = (0..groups)
            .map(|g| {
                let mean = of_group(g).sum::<f64>() / n;
                let variance = of_group(g).map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                (mean, 1.0 / (variance + 1e-5).sqrt())
            })
            .collect();
        y.extend((0..c).map(|i| each[i / width].0));
        y.extend((0..c).map(|i| each[i / width].1 * f64::from(affine[i])));
        y.extend((0..c).map(|i| f64::from(affine[c + i])));
    }
    case.check(Op::GroupStatistics { groups, eps: 1e-5 }, &y);
}

#[test]
fn statistics_of_groups() {
    group_statistics(2, 15, &[6], 3, 0.0);
    group_statistics(1, 64, &[32], 8, 3.0);
    group_statistics(3, 77, &[4, 8], 2, 0.0);
    // A group may lie in both values.
    group_statistics(2, 5, &[5, 7], 3, -1.0);
    group_statistics(1, 1023, &[3, 1], 1, 0.0);
    // Of these they are put together from chunks.
    group_statistics(2, 9000, &[16], 2, 0.0);
    group_statistics(1, 8200, &[7, 9], 2, -2.0);
}

#[test]
fn layer_norms() {
    for c in [4, 5, 63, 64, 320] {
        let mut case = Case::new(c as u32);
        let x = case.input(&[1, 7, c]);
        let affine = case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
        let mut y = Vec::new();
        for row in x.chunks(c) {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / c as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / c as f64;
            y.extend(row.iter().enumerate().map(|(i, &v)| {
                (f64::from(v) - mean) / (variance + 1e-5).sqrt() * f64::from(affine[i]) + f64::from(affine[c + i])
            }));
        }
        case.check(Op::LayerNorm { eps: 1e-5 }, &y);
    }
}

/// What an attention reads: one joined value, or three.
#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    d: usize,
    queries: usize,
    keys: usize,
    causal: bool,
    joined: bool,
    shared_keys: bool,
}

fn attention(seed: u32, a: Heads) {
    let Heads {
        heads,
        d,
        queries,
        keys,
        causal,
        joined,
        shared_keys,
    } = a;
    let (batch, width) = (2, heads * d);
    let mut case = Case::new(seed);
    let key_batch = if shared_keys { 1 } else { batch };
    let (offsets, c) = if joined {
        ([0, width, 2 * width], 3 * width)
    } else {
        ([0; 3], width)
    };
    let q = case.input(&[batch, queries, c]);
    let (k, v) = if joined {
        let value = case.inputs[0].clone();
        case.inputs.extend([value.clone(), value]);
        (q.clone(), q.clone())
    } else {
        (case.input(&[key_batch, keys, c]), case.input(&[key_batch, keys, c]))
    };
    let mut y = vec![0.0; batch * queries * width];
    for b in 0..batch {
        let kb = if shared_keys { 0 } else { b };
        for h in 0..heads {
            for i in 0..queries {
                let end = if causal { i + 1 } else { keys };
                let dot = |j: usize| -> f64 {
                    let q = &q[(b * queries + i) * c + offsets[0] + h * d..][..d];
                    let k = &k[(kb * keys + j) * c + offsets[1] + h * d..][..d];
                    q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * 4.0
                        / (d as f64).sqrt()
                        / 4.0
                };
                let scores: Vec<f64> = (0..end).map(dot).collect();
                let top = scores.iter().fold(f64::MIN, |m, &s| m.max(s));
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for (j, s) in scores.iter().enumerate() {
                    for n in 0..d {
                        let v = f64::from(v[(kb * keys + j) * c + offsets[2] + h * d + n]);
                        y[(b * queries + i) * width + h * d + n] += (s - top).exp() / total * v;
                    }
                }
            }
        }
    }
    case.check(
        Op::Attention {
            heads,
            head_dim: d,
            causal,
            offsets,
        },
        &y,
    );
}

#[test]
fn attention_of_all_widths() {
    let plain = Heads {
        heads: 2,
        d: 8,
        queries: 9,
        keys: 9,
        causal: false,
        joined: false,
        shared_keys: false,
    };
    for (i, d) in [4, 5, 6, 8, 16, 20, 32, 40, 48, 64, 80, 96, 128, 160, 512]
        .into_iter()
        .enumerate()
    {
        let heads = if d > 160 { 1 } else { 2 };
        attention(
            i as u32,
            Heads {
                heads,
                d,
                queries: 7,
                keys: 37,
                ..plain
            },
        );
        attention(
            i as u32,
            Heads {
                heads,
                d,
                queries: 35,
                keys: 35,
                causal: true,
                joined: true,
                ..plain
            },
        );
    }
    attention(
        1,
        Heads {
            queries: 70,
            keys: 77,
            shared_keys: true,
            ..plain
        },
    );
    attention(
        2,
        Heads {
            queries: 130,
            keys: 130,
            joined: true,
            ..plain
        },
    );
    attention(
        3,
        Heads {
            queries: 1,
            keys: 1,
            ..plain
        },
    );
    attention(
        4,
        Heads {
            heads: 1,
            d: 3,
            queries: 5,
            keys: 6,
            ..plain
        },
    );
}

#[test]
fn attention_of_many_heads() {
    // So much work that a thread takes two queries.
    for (i, d) in [3, 4, 8, 16, 32, 40].into_iter().enumerate() {
        attention(
            i as u32,
            Heads {
                heads: 40,
                d,
                queries: 131,
                keys: 77,
                causal: false,
                joined: false,
                shared_keys: i % 2 == 0,
            },
        );
    }
}

#[test]
fn each_element_by_itself() {
    let x: Vec<f32> = (-500..=500)
        .map(|i| i as f32 * 0.02)
        .chain([100.0, -100.0, 0.0, -0.0])
        .collect();
    let map = |op: Unary, f: &dyn Fn(f64) -> f64| {
        let mut case = Case::new(0);
        let x = case.given(&[1, x.len()], x.clone());
        let y: Vec<f64> = x.iter().map(|&v| f(f64::from(v))).collect();
        case.check(Op::Unary(op), &y);
    };
    for kind in ACTS.into_iter().flatten() {
        map(Unary::Act(kind), &|x| act(Some(kind), x));
    }
    map(Unary::Affine { mul: -2.5, add: 0.75 }, &|x| x * -2.5 + 0.75);
    map(Unary::Clamp { min: -1.0, max: 0.5 }, &|x| x.clamp(-1.0, 0.5));
}

#[test]
fn activations_near_zero() {
    // Relative to the largest of these, not to 100.
    let x: Vec<f32> = (-300..=300).map(|i| i as f32 * 0.01).collect();
    for kind in ACTS.into_iter().flatten() {
        let mut case = Case::new(0);
        let x = case.given(&[1, x.len()], x.clone());
        let y: Vec<f64> = x.iter().map(|&v| act(Some(kind), f64::from(v))).collect();
        case.check(Op::Unary(Unary::Act(kind)), &y);
    }
}

#[test]
fn gated_halves() {
    for n in [4, 3] {
        let mut case = Case::new(n as u32);
        let x = case.input(&[2, 5, 2 * n]);
        let gated = |row: &[f32]| -> Vec<f64> {
            (0..n)
                .map(|i| f64::from(row[i]) * act(Some(Activation::Gelu), f64::from(row[n + i])))
                .collect()
        };
        let y: Vec<f64> = x.chunks(2 * n).flat_map(gated).collect();
        case.check(Op::Geglu, &y);
    }
}

#[test]
fn sums() {
    for c in [3, 8] {
        let mut case = Case::new(c as u32);
        let (a, b) = (case.input(&[2, 3, c]), case.input(&[2, 3, c]));
        let y: Vec<f64> = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
        case.check(Op::Add, &y);
        for (rows, step) in [(1, 4), (5, 4)] {
            let mut case = Case::new(c as u32);
            case.step = step;
            let (x, r) = (case.input(&[2, 3, c]), case.input(&[rows, c]));
            let first = if rows == 1 { 0 } else { step * c };
            let y: Vec<f64> = x
                .iter()
                .enumerate()
                .map(|(i, &x)| f64::from(x) + f64::from(r[first + i % c]))
                .collect();
            case.check(Op::AddRow, &y);
        }
    }
}

#[test]
fn joined_channels() {
    for (a, b) in [(4, 8), (3, 4), (5, 2)] {
        let mut case = Case::new(7);
        let (x, z) = (case.input(&[2, 2, 3, a]), case.input(&[2, 2, 3, b]));
        let rows = x.chunks(a).zip(z.chunks(b));
        let y: Vec<f64> = rows
            .flat_map(|(x, z)| x.iter().chain(z))
            .map(|&v| f64::from(v))
            .collect();
        case.check(Op::Concat, &y);
    }
}

#[test]
fn nearest_neighbours() {
    for (size, c) in [([10, 6], 4), ([7, 8], 3), ([2, 2], 4)] {
        let mut case = Case::new(c as u32);
        let (h, w) = (5, 3);
        let x = case.input(&[2, h, w, c]);
        let mut y = Vec::new();
        for (b, i) in (0..2).flat_map(|b| (0..size[0]).map(move |i| (b, i))) {
            for j in 0..size[1] {
                let from = ((b * h + i * h / size[0]) * w + j * w / size[1]) * c;
                y.extend(x[from..from + c].iter().map(|&v| f64::from(v)));
            }
        }
        case.check(Op::Upsample { size }, &y);
    }
}

#[test]
fn embeddings() {
    for (c, dtype) in [(8, WeightDtype::F32), (6, WeightDtype::F16), (5, WeightDtype::Bf16)] {
        let mut case = Case::new(c as u32);
        let (vocabulary, tokens) = (50, 7);
        let ids: Vec<u32> = (0..2 * tokens).map(|i| (i * 17 % vocabulary) as u32).collect();
        let value = case.graph.input("ids", [2, tokens], Element::U32, Rate::Step);
        case.inputs.push((value, "ids".into(), Vec::new()));
        case.ids.insert("ids".into(), ids.clone());
        let table = case.param(Pack::Table, &[vocabulary, c], dtype);
        let positions = case.param(Pack::Table, &[tokens + 2, c], WeightDtype::F32);
        let mut y = Vec::new();
        for (i, &id) in ids.iter().enumerate() {
            let at = |n: usize| f64::from(table[id as usize * c + n]) + f64::from(positions[i % tokens * c + n]);
            y.extend((0..c).map(at));
        }
        case.check(Op::Embedding, &y);
    }
}

#[test]
fn timestep_embeddings() {
    let times = || vec![0.0, 1.0, 19.0, 499.5, 981.0, 999.0, 1000.0];
    // Sizes of pictures, as SDXL is told them: several a row, which lie side by side.
    let sizes = || vec![1024.0, 1024.0, 0.0, 8192.0, 7001.0, 512.0, 768.0, 2047.0];
    for (dim, flip, shift, shape, steps) in [
        (320, true, 0.0, &[7][..], times()),
        (64, false, 1.0, &[7], times()),
        (6, true, 0.5, &[7], times()),
        (256, true, 0.0, &[2, 4], sizes()),
        (6, false, 0.0, &[1, 8], sizes()),
    ] {
        let mut case = Case::new(0);
        let steps = case.given(shape, steps);
        let half = dim / 2;
        let mut y = Vec::new();
        for t in steps {
            // The product is rounded to f32, as torch does.
            let angle = |i: usize| {
                let exponent = -(10000f64.ln() as f32) * i as f32 / (half as f32 - shift);
                f64::from(t * f64::from(exponent).exp() as f32)
            };
            let sines = (0..half).map(|i| angle(i).sin());
            let cosines = (0..half).map(|i| angle(i).cos());
            if flip {
                y.extend(cosines.chain(sines));
            } else {
                y.extend(sines.chain(cosines));
            }
        }
        case.check(
            Op::TimestepEmbedding {
                dim,
                flip_sin_to_cos: flip,
                freq_shift: shift,
            },
            &y,
        );
    }
}

/// Runs a graph of one operation over values with a NaN in the middle and gives the result.
fn with_nan(gpu: &Executor, op: Op, params: bool) -> Vec<f32> {
    let mut case = Case::new(3);
    let mut x = case.noise.take(2 * 16 * 8);
    x[100] = f32::NAN;
    case.given(&[2, 16, 8], x);
    if params {
        case.param(Pack::Matrix, &[8, 8], WeightDtype::F32);
    }
    let inputs = vec![case.inputs[0].0; if matches!(op, Op::Attention { .. }) { 3 } else { 1 }];
    let value = case.graph.op(&Path::root(), op, &inputs, &case.params).unwrap();
    case.graph.output("y", value);
    let plan = Rc::new(Plan::new(case.graph.clone()));
    let (instance, weights) = case.prepare(gpu, &plan);
    block_on(gpu.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
    block_on(gpu.read(&gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap())).unwrap()
}

#[test]
fn nan_is_never_hidden() {
    let Some(executors) = executors() else { return };
    for gpu in executors {
        for kind in ACTS.into_iter().flatten() {
            let y = with_nan(gpu, Op::Unary(Unary::Act(kind)), false);
            assert!(y[100].is_nan(), "{kind:?} of NaN is {}", y[100]);
            let e = Epilogue {
                act: Some(kind),
                ..Default::default()
            };
            let y = with_nan(
                gpu,
                Op::Linear {
                    prologue: Prologue::default(),
                    epilogue: e,
                },
                true,
            );
            assert_eq!(
                y.iter().filter(|v| v.is_nan()).count(),
                8,
                "{kind:?}: one row of a layer is NaN"
            );
        }
        let y = with_nan(gpu, Op::Unary(Unary::Clamp { min: -1.0, max: 1.0 }), false);
        assert!(y[100].is_nan(), "clamped NaN is {}", y[100]);
        let op = Op::Attention {
            heads: 2,
            head_dim: 4,
            causal: false,
            offsets: [0; 3],
        };
        let y = with_nan(gpu, op, false);
        assert_eq!(
            y.iter().filter(|v| v.is_nan()).count(),
            64,
            "every query of that head sees NaN"
        );
    }
}

fn fill(gpu: &Executor, values: &[f32]) -> View {
    let buffer = block_on(gpu.buffer(values.len())).unwrap();
    let view = View {
        buffer,
        offset: 0,
        len: values.len(),
    };
    gpu.fill(&view, values).unwrap();
    view
}

#[test]
fn combinations_of_buffers() {
    let Some([gpu, _]) = executors() else { return };
    let mut noise = Noise(1);
    let (a, b) = (noise.take(2 * 1001), noise.take(1001));
    let (va, vb) = (fill(gpu, &a), fill(gpu, &b));
    let second = va.part(1, 2);
    gpu.combine(
        &vb,
        &[(va.part(0, 2), 2.0), (second.clone(), -3.0), (vb.clone(), 0.5)],
        Some(1.25),
    )
    .unwrap();
    let y = block_on(gpu.read(&vb)).unwrap();
    for i in 0..1001 {
        let e = (2.0 * a[i] - 3.0 * a[1001 + i] + 0.5 * b[i]).clamp(-1.25, 1.25);
        assert!((y[i] - e).abs() < 1e-5, "element {i} is {}, not {e}", y[i]);
    }
    // Into part of a buffer, from the other part of the same one.
    gpu.combine(&second, &[(va.part(0, 2), 1.0)], None).unwrap();
    assert_eq!(
        block_on(gpu.read(&second)).unwrap(),
        a[..1001],
        "a copy within one buffer"
    );
    gpu.combine(&va.part(0, 2), &[], None).unwrap();
    assert_eq!(
        block_on(gpu.read(&va.part(0, 2))).unwrap(),
        vec![0.0; 1001],
        "no terms make zeros"
    );

    // Where a mask is not 0.
    let (values, mask) = (
        fill(gpu, &b),
        fill(gpu, &a.iter().map(|x| f32::from(*x > 0.0)).collect::<Vec<_>>()),
    );
    let (first, mask) = (va.part(0, 2), mask.part(1, 2));
    gpu.fill(&first, &a[1001..]).unwrap();
    gpu.combine_where(&mask, &values, &[(first.clone(), 2.0), (values.clone(), 1.0)])
        .unwrap();
    let y = block_on(gpu.read(&values)).unwrap();
    for i in 0..1001 {
        let x = a[1001 + i];
        let e = if x > 0.0 { 2.0 * x + b[i] } else { b[i] };
        assert!((y[i] - e).abs() < 1e-5, "masked element {i} is {}, not {e}", y[i]);
    }
    for mask in [&va, &values] {
        let refused = gpu.combine_where(mask, &values, &[(first.clone(), 1.0)]);
        assert_eq!(refused.unwrap_err().code(), "internal");
    }

    let nan = fill(gpu, &[f32::NAN, 9.0, -9.0]);
    gpu.combine(&nan, &[(nan.clone(), 1.0)], Some(1.0)).unwrap();
    let y = block_on(gpu.read(&nan)).unwrap();
    assert!(y[0].is_nan() && y[1..] == [1.0, -1.0], "clamped to {y:?}");

    let overlapping = View {
        offset: 1,
        len: 1000,
        ..va.clone()
    };
    let overlaps = gpu.combine(
        &overlapping,
        &[(
            View {
                offset: 0,
                ..overlapping.clone()
            },
            1.0,
        )],
        None,
    );
    assert_eq!(overlaps.unwrap_err().code(), "internal", "ranges that overlap");
    let beyond = View {
        offset: 2000,
        ..vb.clone()
    };
    assert_eq!(
        gpu.combine(&beyond, &[], None).unwrap_err().code(),
        "internal",
        "beyond the end"
    );
}

#[test]
fn joined_weights_arrive_in_any_order() {
    let Some([gpu, _]) = executors() else { return };
    for dtype in DTYPES {
        let (k, widths) = (6, [3usize, 5, 2]);
        let mut noise = Noise(9);
        let parts: Vec<Vec<f32>> = widths
            .iter()
            .map(|n| noise.take(n * k).into_iter().map(|v| round(v, dtype)).collect())
            .collect();
        let x = noise.take(k);
        let mut graph = Graph::new();
        let input = graph.input("x", [1, k], Element::F32, Rate::Step);
        let names = ["q", "k", "v"];
        let param = graph.param(Pack::Matrix, names.iter().zip(widths).map(|(n, w)| (*n, vec![w, k])));
        let y = graph
            .op(
                &Path::root(),
                Op::Linear {
                    prologue: Prologue::default(),
                    epilogue: Epilogue::default(),
                },
                &[input],
                &[param],
            )
            .unwrap();
        graph.output("y", y);
        let plan = Rc::new(Plan::new(graph));
        let spec = plan.params[0].clone();
        let weights = block_on(gpu.allocate(&[(spec.clone(), dtype)])).unwrap();
        let instance = block_on(gpu.prepare(Rc::clone(&plan), 1)).unwrap();
        gpu.write(&instance, "x", 0, Data::F32(&x)).unwrap();
        for part in [2, 0] {
            gpu.upload(&weights, &spec, part, dtype, 0, &bytes(&parts[part], dtype))
                .unwrap();
        }
        let run = || block_on(gpu.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default()));
        let early = run().unwrap_err();
        assert!(
            early.code() == "internal" && early.message().contains("q+k+v"),
            "{early}"
        );
        gpu.upload(&weights, &spec, 1, dtype, 0, &bytes(&parts[1], dtype))
            .unwrap();
        run().unwrap();
        let y = block_on(gpu.read(&gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap())).unwrap();
        let rows = parts.iter().flat_map(|p| p.chunks(k));
        for (y, row) in y.iter().zip(rows) {
            let e: f32 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert!((y - e).abs() < 1e-4, "{y} is not {e}");
        }
    }
}

#[test]
fn too_much_memory_is_refused_with_figures() {
    let Some([gpu, _]) = executors() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 1 << 15, 1 << 15], Element::F32, Rate::Step);
    graph.output("y", x);
    let error = block_on(gpu.prepare(Rc::new(Plan::new(graph)), 1)).err().unwrap();
    assert_eq!(error.code(), "out-of-memory", "{error}");
    assert!(error.message().contains("4294967296 bytes"), "{error}");
    let mut graph = Graph::new();
    let param = graph.param(Pack::Table, [("huge", vec![1 << 20, 1 << 14])]);
    let error = block_on(gpu.allocate(&[(graph.params()[param].clone(), WeightDtype::F32)]))
        .err()
        .unwrap();
    assert!(
        error.code() == "out-of-memory" && error.message().contains("huge"),
        "{error}"
    );
    // The device still works.
    assert_eq!(
        block_on(gpu.read(&fill(gpu, &[1.0]))).unwrap(),
        [1.0],
        "after a refusal"
    );
}

#[test]
fn cancelling_and_wrong_calls() {
    let Some([gpu, _]) = executors() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4], Element::F32, Rate::Step);
    let rows = graph.input("rows", [3, 4], Element::F32, Rate::Schedule);
    let y = graph.op(&Path::root(), Op::AddRow, &[x, rows], &[]).unwrap();
    graph.output("y", y);
    let instance = block_on(gpu.prepare(Rc::new(Plan::new(graph)), 2)).unwrap();
    let weights = block_on(gpu.allocate(&[])).unwrap();
    let cancel = CancelToken::default();
    let run = |context, step| block_on(gpu.run(&instance, &weights, Rate::Step, context, step, &cancel));
    assert_eq!(run(0, 3).unwrap_err().code(), "internal", "a step beyond the schedule");
    assert_eq!(run(2, 0).unwrap_err().code(), "internal", "a context that is not there");
    run(1, 2).unwrap();
    cancel.cancel();
    assert_eq!(run(0, 0).unwrap_err().code(), "cancelled", "after cancelling");
    assert_eq!(
        gpu.write(&instance, "x", 0, Data::F32(&[0.0; 5])).unwrap_err().code(),
        "internal",
        "too long"
    );
    assert_eq!(
        gpu.write(&instance, "x", 0, Data::U32(&[0; 4])).unwrap_err().code(),
        "internal",
        "wrong type"
    );
    assert_eq!(
        gpu.write(&instance, "z", 0, Data::F32(&[])).unwrap_err().code(),
        "internal",
        "no such input"
    );
}

#[test]
fn contexts_are_apart() {
    let Some([gpu, _]) = executors() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4], Element::F32, Rate::Step);
    let double = Op::Unary(Unary::Affine { mul: 2.0, add: 0.0 });
    let y = graph.op(&Path::root(), double, &[x], &[]).unwrap();
    graph.output("y", y);
    let plan = Rc::new(Plan::new(graph));
    let instance = block_on(gpu.prepare(Rc::clone(&plan), 2)).unwrap();
    let weights = block_on(gpu.allocate(&[])).unwrap();
    for context in 0..2 {
        gpu.write(&instance, "x", context, Data::F32(&[1.0 + context as f32; 4]))
            .unwrap();
    }
    for context in 0..2 {
        block_on(gpu.run(&instance, &weights, Rate::Step, context, 0, &CancelToken::default())).unwrap();
    }
    for context in 0..2 {
        let view = gpu.view(&instance, plan.output("y").unwrap(), context).unwrap();
        assert_eq!(
            block_on(gpu.read(&view)).unwrap(),
            [2.0 + 2.0 * context as f32; 4],
            "context {context}"
        );
    }
}
