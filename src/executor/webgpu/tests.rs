//! What only the inside of the executor can bring about.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

use super::run::submits;
use super::*;
use crate::cancel::CancelToken;
use crate::executor::{Data, Executor, WeightDtype};
use crate::graph::{Activation, Element, Epilogue, Graph, Op, Pack, Path, Prologue, Unary};
use pollster::block_on;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Whether it is known that there is no adapter.
pub(super) fn has_no_gpu() -> bool {
    std::env::var_os("TINTYPE_NO_GPU").is_some_and(|v| v == "1")
}

fn gpu(software: bool) -> Option<Webgpu> {
    if has_no_gpu() {
        return None;
    }
    let options = Options {
        software: Some(software),
        ..Default::default()
    };
    Some(block_on(Webgpu::new(options)).unwrap())
}

/// A little of everything that has a grid of its own.
fn graph() -> Graph {
    let mut g = Graph::new();
    let p = Path::root();
    let x = g.input("x", [2, 12, 10, 8], Element::F32, Rate::Step);
    let affine = g.param(Pack::Vector, [("affine", vec![16])]);
    let norm = Op::GroupNorm {
        groups: 2,
        eps: 1e-5,
        act: Some(Activation::Silu),
    };
    let h = g.op(&p, norm, &[x], &[affine]).unwrap();
    let weight = g.param(Pack::Conv, [("weight", vec![36, 8, 3, 3])]);
    let conv = Op::Conv2d {
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        upsample: None,
        prologue: Prologue::default(),
        epilogue: Epilogue::default(),
    };
    let h = g.op(&p, conv, &[h], &[weight]).unwrap();
    let attention = Op::Attention {
        heads: 3,
        head_dim: 4,
        causal: false,
        offsets: [0, 12, 24],
    };
    let h = g.op(&p, attention, &[h, h, h], &[]).unwrap();
    let affine = g.param(Pack::Vector, [("layer", vec![24])]);
    let h = g.op(&p, Op::LayerNorm { eps: 1e-5 }, &[h], &[affine]).unwrap();
    let h = g.op(&p, Op::Upsample { size: [24, 21] }, &[h], &[]).unwrap();
    g.output("y", h);
    g.stand_half();
    g
}

fn play(gpu: Webgpu) -> Vec<f32> {
    let gpu = Executor::Webgpu(gpu);
    let plan = Rc::new(gpu.plan(graph()));
    let params: Vec<_> = plan.params.iter().map(|p| (p.clone(), WeightDtype::F32)).collect();
    let weights = block_on(gpu.allocate(&params)).unwrap();
    let numbers = |n: usize| {
        (0..n)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
            .collect::<Vec<f32>>()
    };
    for (spec, _) in &params {
        let values = numbers(spec.parts[0].shape.iter().product());
        gpu.upload(&weights, spec, 0, WeightDtype::F32, 0, bytemuck::cast_slice(&values))
            .unwrap();
    }
    let instance = block_on(gpu.prepare(Rc::clone(&plan), 1)).unwrap();
    gpu.write(&instance, "x", 0, Data::F32(&numbers(2 * 120 * 8))).unwrap();
    block_on(gpu.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
    let y = gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap();
    block_on(gpu.read(&y)).unwrap()
}

#[test]
fn huge_dispatches_run_in_parts() {
    for software in [false, true] {
        let (Some(whole), Some(mut parted)) = (gpu(software), gpu(software)) else {
            return;
        };
        parted.most = policy::DISPATCH_COST / 3;
        let plan = Plan::new(graph());
        let count = |gpu: &Webgpu| {
            let target = gpu.target(&plan);
            let all = plan
                .phase(Rate::Step)
                .map(|i| kernels::dispatches(&plan, i, &target).unwrap().len());
            all.sum::<usize>()
        };
        assert!(
            count(&parted) >= count(&whole) * 2,
            "{} of {}",
            count(&parted),
            count(&whole)
        );
        assert_eq!(play(whole), play(parted));
    }
}

#[test]
fn submits_are_small() {
    let costs = [5, 5, 1, 100, 1, 1].into_iter().chain([1; 40]);
    let cut = submits(costs.clone(), 7, 11);
    let all: Vec<usize> = cut.iter().flat_map(|(range, _)| range.clone()).collect();
    assert_eq!(all, (7..7 + costs.clone().count()).collect::<Vec<_>>());
    for (range, cost) in &cut {
        assert!(range.len() <= policy::DISPATCHES_PER_SUBMIT);
        assert!(*cost <= 11 || range.len() == 1, "{range:?} costs {cost}");
    }
}

/// A graph of one operation over inputs of these shapes.
fn of_one(op: Op, inputs: &[&[usize]], params: &[(Pack, &[usize])]) -> Graph {
    let mut g = Graph::new();
    let element = if op == Op::Embedding {
        Element::U32
    } else {
        Element::F32
    };
    let read: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, shape)| g.input(&format!("x{i}"), *shape, element, Rate::Step))
        .collect();
    let params: Vec<_> = params
        .iter()
        .enumerate()
        .map(|(i, (pack, shape))| g.param(*pack, [(format!("p{i}"), shape.to_vec())]))
        .collect();
    let y = g.op(&Path::root(), op, &read, &params).unwrap();
    g.output("y", y);
    g
}

/// Operations that are no products, at sizes for each of their kernels.
fn operations() -> Vec<Graph> {
    let mut all = vec![graph()];
    let mut add = |op: Op, inputs: &[&[usize]], params: &[(Pack, &[usize])]| all.push(of_one(op, inputs, params));
    add(Op::Add, &[&[2, 5], &[2, 5]], &[]);
    add(Op::Unary(Unary::Act(Activation::Silu)), &[&[2, 5]], &[]);
    add(
        Op::Embedding,
        &[&[1, 7]],
        &[(Pack::Table, &[99, 8]), (Pack::Table, &[7, 8])],
    );
    let timestep = Op::TimestepEmbedding {
        dim: 8,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
    };
    add(timestep, &[&[1]], &[]);
    for c in [8, 5] {
        add(Op::Geglu, &[&[3, 2 * c]], &[]);
        add(Op::AddRow, &[&[3, c], &[1, c]], &[]);
        add(Op::Concat, &[&[3, c], &[3, c]], &[]);
        add(Op::Upsample { size: [8, 8] }, &[&[1, 4, 4, c]], &[]);
        add(Op::LayerNorm { eps: 1e-5 }, &[&[3, c]], &[(Pack::Vector, &[2 * c])]);
        for pixels in [16, 2 * policy::GROUP_NORM_WHOLE] {
            let (groups, eps, act) = (1, 1e-5, None);
            let x = &[1, pixels, 1, c][..];
            add(Op::GroupNorm { groups, eps, act }, &[x], &[(Pack::Vector, &[2 * c])]);
            let statistics = Op::GroupStatistics { groups, eps };
            add(statistics, &[x, x], &[(Pack::Vector, &[4 * c])]);
        }
    }
    // Heads of every width, which begin at a multiple of four or not, with few queries and with many.
    for head_dim in (4..=512).step_by(4) {
        for (offset, queries) in [(0, 2), (1, 2), (0, 1 << 14), (1, 1 << 14)] {
            let attention = Op::Attention {
                heads: 1,
                head_dim,
                causal: false,
                offsets: [offset; 3],
            };
            let (q, k) = (&[1, queries, head_dim + 4][..], &[1, 7, head_dim + 4][..]);
            add(attention, &[q, k, k], &[]);
        }
    }
    all
}

/// A layer or convolution.
#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    rows: usize,
    columns: usize,
    channels: usize,
    /// Over a picture; and over one that is scaled up.
    window: Option<bool>,
    prologue: Prologue,
    bias: bool,
    epilogue: Epilogue,
}

impl Layer {
    fn graph(self) -> Graph {
        let (p, mut g) = (Path::root(), Graph::new());
        let taps = if self.window.is_some() { 7 } else { 1 };
        let height = if self.window == Some(true) {
            self.rows.div_ceil(2)
        } else {
            self.rows
        };
        let shape = [1, height, 1, self.channels];
        let mut input = |name: &str, shape: &[usize]| g.input(name, shape, Element::F32, Rate::Step);
        let mut read = vec![input("x", &shape)];
        read.extend(self.prologue.joined.then(|| input("more", &shape)));
        let channels = read.len() * self.channels;
        let row = self.epilogue.row_bias.map(|_| input("row", &[1, self.columns]));
        let residual = (self.epilogue.residual).then(|| input("residual", &[1, self.rows, 1, self.columns]));
        if self.prologue.norm {
            let affine = g.param(Pack::Vector, [("affine", vec![2 * channels])]);
            let statistics = Op::GroupStatistics { groups: 1, eps: 1e-5 };
            read.push(g.op(&p, statistics, &read, &[affine]).unwrap());
        }
        read.extend(row.into_iter().chain(residual));
        let (pack, shape) = match (self.window, self.epilogue.gate) {
            (Some(_), _) => (Pack::Conv, vec![self.columns, channels, taps, 1]),
            (None, true) => (Pack::Gated, vec![self.columns, channels]),
            (None, false) => (Pack::Matrix, vec![self.columns, channels]),
        };
        let mut params = vec![g.param(pack, [("weight", shape)])];
        params.extend(self.bias.then(|| g.param(Pack::Vector, [("bias", vec![self.columns])])));
        let Self { prologue, epilogue, .. } = self;
        let op = match self.window {
            None => Op::Linear { prologue, epilogue },
            Some(scaled) => Op::Conv2d {
                kernel: [taps, 1],
                stride: 1,
                padding: [3, 0, 3, 0],
                upsample: scaled.then_some([self.rows, 1]),
                prologue,
                epilogue,
            },
        };
        let y = g.op(&p, op, &read, &params).unwrap();
        g.output("y", y);
        g
    }

    /// Sizes that fit into tiles and sizes that don't, with all that can be done before and after the sums.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        let sizes = [
            (128, 64, 112),
            (128, 64, 35),
            (33, 68, 112),
            (33, 68, 35),
            (33, 67, 112),
            (33, 67, 35),
        ];
        for ((rows, columns, channels), window) in sizes
            .into_iter()
            .flat_map(|s| [None, Some(false), Some(true)].map(|w| (s, w)))
        {
            for bits in 0..64 {
                let bit = |i: u32| bits >> i & 1 == 1;
                let [joined, norm, activated, bias, row_bias, residual] = [0, 1, 2, 3, 4, 5].map(bit);
                // Whatever is activated is normed before.
                if activated && !norm {
                    continue;
                }
                let act = activated.then_some(Activation::Silu);
                let layer = Self {
                    rows,
                    columns,
                    channels,
                    window,
                    prologue: Prologue { joined, norm, act },
                    bias,
                    epilogue: Epilogue {
                        row_bias: row_bias.then_some(0),
                        residual,
                        ..Epilogue::default()
                    },
                };
                all.push(layer);
                if window.is_none() && layer.prologue == Prologue::default() && !row_bias && !residual {
                    let gate = Epilogue {
                        gate: true,
                        ..Epilogue::default()
                    };
                    all.push(Self {
                        columns: columns / 2 * 2,
                        epilogue: gate,
                        ..layer
                    });
                }
            }
        }
        all
    }
}

/// The dispatches of a plan, each product in every way that is legal.
fn every_way(plan: &Plan, registers: bool, mut see: impl FnMut(&kernels::Dispatch)) {
    for node in 0..plan.nodes.len() {
        let (mut way, ways) = (0, Rc::new(Cell::new(1)));
        while way < ways.get() {
            let count = Rc::clone(&ways);
            let target = kernels::Target {
                registers,
                max_workgroups: 65_535,
                most: policy::DISPATCH_MOST,
                chooser: Some(Rc::new(move |_, choices| {
                    count.set(choices.len());
                    choices.get(way).copied()
                })),
            };
            kernels::dispatches(plan, node, &target)
                .unwrap()
                .iter()
                .for_each(&mut see);
            way += 1;
        }
    }
}

/// Each variant that is listed is one that some operation runs, and no other is run.
#[test]
fn what_is_listed_is_what_is_selected() {
    let graphs = operations()
        .into_iter()
        .chain(Layer::all().into_iter().map(Layer::graph));
    let pairs = WeightDtype::ALL.map(|a| WeightDtype::ALL.map(|b| (a, b)));
    // What samplers and races run, of no plan.
    let mut selected: BTreeSet<String> = ["combine", "compare"].map(String::from).into();
    for mut graph in graphs {
        graph.stand_half();
        for plan in [Plan::new(graph.clone()), Plan::in_halves(graph)] {
            for registers in [false, true] {
                every_way(&plan, registers, |dispatch| {
                    for (first, second) in pairs.into_iter().flatten() {
                        let dtype = |p: usize| Ok(if p == dispatch.weights[0] { first } else { second });
                        selected.insert(dispatch.variant_with(&plan, dtype).unwrap().to_string());
                    }
                });
            }
        }
    }
    let listed: BTreeSet<String> = variants().iter().map(ToString::to_string).collect();
    let [unused, unlisted] =
        [listed.difference(&selected), selected.difference(&listed)].map(|names| names.collect::<Vec<_>>());
    assert!(
        unused.is_empty() && unlisted.is_empty(),
        "listed and selected by nothing: {unused:#?}\nselected and not listed: {unlisted:#?}"
    );
}

/// What an adapter does not have is not used, whoever asks for it.
#[test]
fn without_16_bit_floats_values_are_f32() {
    if has_no_gpu() {
        return;
    }
    let with = |half: bool, features: wgpu::Features| {
        let (software, options) = (Some(false), Options::default());
        block_on(Webgpu::with(
            Options {
                software,
                half,
                ..options
            },
            features,
        ))
        .unwrap()
    };
    let without = with(true, wgpu::Features::TIMESTAMP_QUERY);
    assert!(!without.keeps_halves() && !without.multiplies_halves());
    let executor = Executor::Webgpu(without);
    let plan = executor.plan(graph());
    assert!(plan.values.iter().all(|value| value.element == Element::F32));
    let Executor::Webgpu(without) = executor else { return };
    assert_eq!(play(without), play(with(false, wgpu::Features::empty())));
}
