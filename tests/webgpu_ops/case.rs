//! A graph of one operation, run on the executors in every legal way and compared.

use crate::eighth::{eighths, nearest};
use pollster::block_on;
use safetensors::Dtype;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::executor::cpu::Cpu;
use tintype::executor::webgpu::{Choice, Options, Product, Webgpu};
use tintype::executor::{Data, Executor, Instance, WeightDtype, Weights};
use tintype::graph::{Activation, Element, Epilogue, Graph, Op, Pack, Path, Plan, Prologue, Rate, Unary, Value};

thread_local! {
    /// Which of the legal ways a product takes, how many there are, and whether it multiplies 16-bit floats.
    static PICK: Cell<usize> = const { Cell::new(0) };
    static CHOICES: Cell<usize> = const { Cell::new(1) };
    static HALF: Cell<bool> = const { Cell::new(false) };
}

/// An executor with tiled kernels and one with those for a processor, made once a thread; `None` where it is known that there
/// is no adapter.
pub(crate) fn executors() -> Option<&'static [Executor; 2]> {
    thread_local! {
        static MADE: std::cell::OnceCell<&'static [Executor; 2]> = const { std::cell::OnceCell::new() };
    }
    if crate::executors::has_no_gpu() {
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

/// Numbers that look random, between -1 and 1, in steps that 16-bit floats hold.
pub(crate) struct Noise(pub(crate) u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 21) as f32 / 1024.0 - 1.0
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// No element is further off than `stored` of itself and `within` of the largest.
#[track_caller]
fn near(found: &[f32], expected: &[f64], [stored, within]: [f64; 2], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0f64, |m, e| m.max(e.abs()));
    for (i, (&y, &e)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(y) - e).abs();
        assert!(
            off <= stored * e.abs() + within * largest,
            "{what}: element {i} is {y}, not {e} (of {largest})"
        );
    }
}

/// In f32: sums are in another order.
const WIDE: [f64; 2] = [0.0, 2e-5];

/// In 16 bits, multiplied in f32: what rounding takes at most from a number, half of its last of 11 bits, or all of it, as an adapter may cut.
const ROUNDED: [f64; 2] = [1.0 / 1024.0, 1e-4];

/// Where what is read is scaled, shifted and rounded again before it is multiplied.
const ROUNDED_TWICE: [f64; 2] = [1.0 / 1024.0, 2.0 / 1024.0];

/// Where products are added up in 16 bits.
const HALVES: [f64; 2] = [0.0, 2e-2];

/// A graph of one operation, with its operands.
pub(crate) struct Case {
    pub(crate) graph: Graph,
    pub(crate) noise: Noise,
    pub(crate) inputs: Vec<(Value, String, Vec<f32>)>,
    pub(crate) ids: HashMap<String, Vec<u32>>,
    pub(crate) params: Vec<usize>,
    pub(crate) weights: HashMap<usize, (Vec<f32>, WeightDtype)>,
    /// The rows of steps come once a schedule.
    pub(crate) step: usize,
}

impl Case {
    pub(crate) fn new(seed: u32) -> Self {
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

    pub(crate) fn input(&mut self, shape: &[usize]) -> Vec<f32> {
        let values = self.noise.take(shape.iter().product());
        self.given(shape, values)
    }

    pub(crate) fn given(&mut self, shape: &[usize], values: Vec<f32>) -> Vec<f32> {
        let name = format!("input{}", self.inputs.len());
        let value = self.graph.input(&name, shape, Element::F32, Rate::Step);
        self.inputs.push((value, name, values.clone()));
        values
    }

    /// A parameter whose one part is kept as `dtype`; what comes back is what the file holds, as f32.
    pub(crate) fn param(&mut self, pack: Pack, shape: &[usize], dtype: WeightDtype) -> Vec<f32> {
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

    /// Whether 16-bit floats hold all that is read.
    fn is_exact_in_halves(&self) -> bool {
        let inputs = self.inputs.iter().flat_map(|i| &i.2);
        inputs.into_iter().all(|&x| round(x, WeightDtype::F16) == x)
    }

    /// Runs the operation on the CPU and in every way that it has on a GPU, and compares with `expected`, relative to its largest
    /// magnitude.
    #[track_caller]
    pub(crate) fn check(self, op: Op, expected: &[f64]) {
        self.compare(op, Some(expected));
    }

    /// Compares every way that the operation has on a GPU with the CPU.
    #[track_caller]
    pub(crate) fn check_with_cpu(self, op: Op) {
        self.compare(op, None);
    }

    #[track_caller]
    fn compare(mut self, op: Op, expected: Option<&[f64]>) {
        let Some(executors) = executors() else { return };
        let values: Vec<Value> = self.inputs.iter().map(|i| i.0).collect();
        let what = format!("{op:?}");
        let rounded = match &op {
            Op::Linear { prologue, .. } | Op::Conv2d { prologue, .. } if prologue.norm => ROUNDED_TWICE,
            _ => ROUNDED,
        };
        let value = self
            .graph
            .op(&Path::root().pp("node"), op, &values, &self.params)
            .unwrap();
        self.graph.output("y", value);
        self.graph.stand_half();
        let [wide, halves] = [Plan::new, Plan::in_halves].map(|plan| Rc::new(plan(self.graph.clone())));
        let has_halves = halves.values.iter().any(|v| v.element == Element::F16) && self.is_exact_in_halves();
        let cpu = self.output(&Executor::Cpu(Cpu::new()), &wide);
        if let Some(expected) = expected {
            near(&cpu, expected, WIDE, &format!("{what}, CPU"));
        }
        let cpu: Vec<f64> = cpu.into_iter().map(f64::from).collect();
        let plans = [(wide, WIDE)]
            .into_iter()
            .chain(has_halves.then_some((halves, rounded)));
        let kinds = || executors.iter().zip(["tiled", "registers"]);
        for ((plan, most), (gpu, kind)) in plans.flat_map(|plan| kinds().map(move |kind| (plan.clone(), kind))) {
            CHOICES.set(1);
            let mut pick = 0;
            while pick < CHOICES.get() {
                PICK.set(pick);
                HALF.set(false);
                let y = self.output(gpu, &plan);
                let (most, what) = (
                    if HALF.get() { HALVES } else { most },
                    format!("{what}, {kind}, way {pick}"),
                );
                if let Some(expected) = expected {
                    near(&y, expected, most, &what);
                }
                // Each of the two may be off to its own side.
                near(&y, &cpu, most.map(|x| 2.0 * x), &format!("{what}, beside the CPU"));
                pick += 1;
            }
        }
    }

    /// What the operation makes on a device.
    fn output(&self, executor: &Executor, plan: &Rc<Plan>) -> Vec<f32> {
        let (instance, weights) = self.prepare(executor, plan);
        let cancel = CancelToken::default();
        block_on(executor.run(&instance, &weights, Rate::Step, 0, self.step, &cancel)).unwrap();
        let view = executor.view(&instance, plan.output("y").unwrap(), 0).unwrap();
        block_on(executor.read(&view)).unwrap()
    }

    pub(crate) fn prepare(&self, gpu: &Executor, plan: &Rc<Plan>) -> (Instance, Weights) {
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

pub(crate) fn round(x: f32, dtype: WeightDtype) -> f32 {
    match dtype {
        WeightDtype::F32 => x,
        WeightDtype::F16 => half::f16::from_f32(x).to_f32(),
        WeightDtype::Bf16 => half::bf16::from_f32(x).to_f32(),
        WeightDtype::E4m3 | WeightDtype::E5m2 => of_eighths(dtype, |table| table[usize::from(nearest(table, x))]),
    }
}

pub(crate) fn bytes(values: &[f32], dtype: WeightDtype) -> Vec<u8> {
    let each = |&x: &f32| match dtype {
        WeightDtype::F32 => x.to_le_bytes().to_vec(),
        WeightDtype::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        WeightDtype::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        WeightDtype::E4m3 | WeightDtype::E5m2 => vec![of_eighths(dtype, |table| nearest(table, x))],
    };
    values.iter().flat_map(each).collect()
}

/// By what the bytes of a dtype are.
fn of_eighths<T>(dtype: WeightDtype, f: impl Fn(&[f32]) -> T) -> T {
    thread_local! {
        static TABLES: [Vec<f32>; 2] = [Dtype::F8_E4M3, Dtype::F8_E5M2].map(eighths);
    }
    TABLES.with(|tables| f(&tables[usize::from(dtype == WeightDtype::E5m2)]))
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

pub(crate) fn act(kind: Option<Activation>, x: f64) -> f64 {
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

pub(crate) const ACTS: [Option<Activation>; 7] = [
    None,
    Some(Activation::Silu),
    Some(Activation::Gelu),
    Some(Activation::GeluTanh),
    Some(Activation::QuickGelu),
    Some(Activation::Relu),
    Some(Activation::Tanh),
];

/// Adds the operands of an epilogue to a case, and gives what it makes of a sum at (row, column).
pub(crate) fn epilogue(
    case: &mut Case,
    e: Epilogue,
    out: &[usize],
    bias: Vec<f32>,
) -> impl Fn(usize, usize, f64) -> f64 + use<> {
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

pub(crate) fn epilogues() -> impl Iterator<Item = Epilogue> {
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
pub(crate) fn prologue(case: &mut Case, p: Prologue, shape: &[usize]) -> Vec<f64> {
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
pub(crate) fn prologues() -> Vec<Prologue> {
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
