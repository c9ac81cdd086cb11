//! Each operation against torch (tools/golden/ops.py), on each executor.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, distance, play};
use safetensors::Dtype;
use serde::Deserialize;
use tintype::executor::{Data, Executor};
use tintype::graph::{Activation, Element, Epilogue, Graph, Op, Pack, Path, Prologue, Rate, Unary, Value};

/// What is asked of arithmetic in f32.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    attrs: Attrs,
    inputs: Vec<String>,
    params: Vec<Param>,
    output: String,
}

#[derive(Deserialize)]
struct Param {
    pack: String,
    parts: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Attrs {
    row_bias: bool,
    residual: bool,
    act: Option<String>,
    post: Option<String>,
    step: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 4],
    upsample: Option<[usize; 2]>,
    groups: usize,
    eps: f32,
    heads: usize,
    head_dim: usize,
    causal: bool,
    offsets: [usize; 3],
    mul: Option<f32>,
    add: f32,
    min: Option<f32>,
    max: f32,
    size: [usize; 2],
    dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f32,
}

fn activation(name: &str) -> Activation {
    match name {
        "silu" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        other => panic!("activation {other}"),
    }
}

impl Attrs {
    fn act(&self) -> Option<Activation> {
        self.act.as_deref().map(activation)
    }

    fn epilogue(&self) -> Epilogue {
        Epilogue {
            row_bias: self.row_bias.then_some(0),
            gate: false,
            act: self.act(),
            residual: self.residual,
            post: self.post.as_deref().map(|name| Unary::Act(activation(name))),
        }
    }

    fn unary(&self) -> Unary {
        match (self.act(), self.mul, self.min) {
            (Some(act), None, None) => Unary::Act(act),
            (None, Some(mul), None) => Unary::Affine { mul, add: self.add },
            (None, None, Some(min)) => Unary::Clamp { min, max: self.max },
            _ => panic!("a unary operation that is none or several"),
        }
    }

    fn op(&self, name: &str) -> Op {
        match name {
            "linear" => Op::Linear {
                prologue: Prologue::default(),
                epilogue: self.epilogue(),
            },
            "conv2d" => Op::Conv2d {
                kernel: self.kernel,
                stride: self.stride,
                padding: self.padding,
                upsample: self.upsample,
                prologue: Prologue::default(),
                epilogue: self.epilogue(),
            },
            "group_norm" => Op::GroupNorm {
                groups: self.groups,
                eps: self.eps,
                act: self.act(),
            },
            "layer_norm" => Op::LayerNorm { eps: self.eps },
            "attention" => Op::Attention {
                heads: self.heads,
                head_dim: self.head_dim,
                causal: self.causal,
                offsets: self.offsets,
            },
            "unary" => Op::Unary(self.unary()),
            "geglu" => Op::Geglu,
            "add" => Op::Add,
            "add_row" => Op::AddRow,
            "concat" => Op::Concat,
            "upsample" => Op::Upsample { size: self.size },
            "embedding" => Op::Embedding,
            "timestep_embedding" => Op::TimestepEmbedding {
                dim: self.dim,
                flip_sin_to_cos: self.flip_sin_to_cos,
                freq_shift: self.freq_shift,
            },
            other => panic!("operation {other}"),
        }
    }
}

fn pack(name: &str) -> Pack {
    match name {
        "matrix" => Pack::Matrix,
        "conv" => Pack::Conv,
        "vector" => Pack::Vector,
        "table" => Pack::Table,
        other => panic!("pack {other}"),
    }
}

/// A graph of the one operation. An input given twice is one value.
fn graph(case: &Case, golden: &Golden) -> Graph {
    let mut g = Graph::new();
    let tensor = |name: &str| golden.get(&format!("{}/{name}", case.name));
    let mut inputs: Vec<Value> = Vec::new();
    for (i, name) in case.inputs.iter().enumerate() {
        let first = case.inputs.iter().position(|n| n == name).unwrap();
        let rate = match name.as_str() {
            "row_bias" | "rows" | "timesteps" => Rate::Schedule,
            "ids" => Rate::Prompt,
            _ => Rate::Step,
        };
        let t = tensor(name);
        let element = if t.dtype == Dtype::U32 {
            Element::U32
        } else {
            Element::F32
        };
        inputs.push(if first < i {
            inputs[first]
        } else {
            g.input(name, t.shape.clone(), element, rate)
        });
    }
    let params: Vec<usize> = (case.params.iter())
        .map(|param| {
            let parts = param
                .parts
                .iter()
                .map(|name| (format!("{}/{name}", case.name), tensor(name).shape.clone()));
            g.param(pack(&param.pack), parts)
        })
        .collect();
    let op = case.attrs.op(&case.op);
    let path = Path::root().pp(&case.name);
    let output = g.op(&path, op, &inputs, &params).unwrap_or_else(|e| panic!("{e}"));
    g.output("output", output);
    g
}

/// Whether an operation on elements answers right for each of them: the largest must not hide the others.
fn each_near(ours: &[f32], theirs: &[f32]) -> bool {
    ours.iter()
        .zip(theirs)
        .all(|(a, b)| (a - b).abs() <= TOLERANCE * b.abs().max(0.01))
}

fn agrees_with_torch(executor: Executor) {
    let golden = Golden::read("ops.safetensors");
    let cases: Vec<Case> = serde_json::from_str(&golden.metadata["cases"]).unwrap();
    assert!(cases.len() >= 100);
    let mut wrong = Vec::new();
    let mut worst: (f32, &str) = (0.0, "");
    for case in &cases {
        let tensor = |name: &str| golden.get(&format!("{}/{name}", case.name));
        let floats: Vec<(&str, Vec<f32>)> = (case.inputs.iter())
            .filter(|name| tensor(name).dtype == Dtype::F32)
            .map(|name| (name.as_str(), tensor(name).f32()))
            .collect();
        let ids: Vec<(&str, Vec<u32>)> = (case.inputs.iter())
            .filter(|name| tensor(name).dtype == Dtype::U32)
            .map(|name| (name.as_str(), tensor(name).u32()))
            .collect();
        let inputs: Vec<(&str, Data<'_>)> = (floats.iter().map(|(n, v)| (*n, Data::F32(v))))
            .chain(ids.iter().map(|(n, v)| (*n, Data::U32(v))))
            .collect();
        let outputs = play(&executor, graph(case, &golden), &golden, &inputs, case.attrs.step);
        let (ours, theirs) = (&outputs["output"], tensor(&case.output).f32());
        let far = distance(ours, &theirs);
        if far > worst.0 {
            worst = (far, &case.name);
        }
        if far > TOLERANCE || (case.op == "unary" && !each_near(ours, &theirs)) {
            let at = (0..ours.len()).max_by(|&i, &j| {
                let error = |i: usize| (ours[i] - theirs[i]).abs();
                error(i).total_cmp(&error(j))
            });
            let at = at.unwrap();
            wrong.push(format!(
                "{}: off by {far:.1e}; at {at} {} for {}",
                case.name, ours[at], theirs[at]
            ));
        }
    }
    println!("{} operations, worst {:.1e} ({})", cases.len(), worst.0, worst.1);
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

on_each_executor!(agrees_with_torch);
