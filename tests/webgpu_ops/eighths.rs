//! Weights of eight bits, which are widened where they are used: each is what torch makes of it, on every executor.

use crate::case::executors;
use crate::eighth::eighths;
use pollster::block_on;
use safetensors::Dtype;
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::executor::cpu::Cpu;
use tintype::executor::{Data, Executor, WeightDtype};
use tintype::graph::{Element, Epilogue, Graph, Op, Pack, Path, Plan, Prologue, Rate};

const KINDS: [(WeightDtype, Dtype); 2] = [(WeightDtype::E4m3, Dtype::F8_E4M3), (WeightDtype::E5m2, Dtype::F8_E5M2)];

struct Layer<'a> {
    op: Op,
    pack: Pack,
    weight: &'a [usize],
    input: &'a [usize],
}

impl Layer<'_> {
    /// What comes out, and the weights read back.
    fn run(&self, executor: &Executor, x: Data<'_>, dtype: WeightDtype, bytes: &[u8]) -> [Vec<f32>; 2] {
        let mut graph = Graph::new();
        let element = match x {
            Data::F32(_) => Element::F32,
            Data::U32(_) => Element::U32,
        };
        let input = graph.input("x", self.input, element, Rate::Step);
        let mut params = vec![graph.param(self.pack, [("weight".to_owned(), self.weight.to_vec())])];
        if self.pack == Pack::Table {
            params.push(graph.param(Pack::Table, [("positions".to_owned(), self.weight.to_vec())]));
        }
        let y = graph
            .op(&Path::root().pp("node"), self.op.clone(), &[input], &params)
            .unwrap();
        graph.output("y", y);
        let plan = Rc::new(Plan::new(graph));
        let dtypes: Vec<_> = plan.params.iter().map(|spec| (spec.clone(), dtype)).collect();
        let weights = block_on(executor.allocate(&dtypes)).unwrap();
        executor.upload(&weights, &dtypes[0].0, 0, dtype, 0, bytes).unwrap();
        if let Some((positions, _)) = dtypes.get(1) {
            let nothing = vec![0; bytes.len()];
            executor.upload(&weights, positions, 0, dtype, 0, &nothing).unwrap();
        }
        let instance = block_on(executor.prepare(Rc::clone(&plan), 1)).unwrap();
        executor.write(&instance, "x", 0, x).unwrap();
        block_on(executor.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
        let view = executor.view(&instance, plan.output("y").unwrap(), 0).unwrap();
        let y = block_on(executor.read(&view)).unwrap();
        [y, block_on(executor.tensors(&weights, &dtypes[0].0)).unwrap().remove(0)]
    }
}

fn linear(gate: bool) -> Op {
    let epilogue = Epilogue {
        gate,
        ..Default::default()
    };
    Op::Linear {
        prologue: Prologue::default(),
        epilogue,
    }
}

fn conv() -> Op {
    Op::Conv2d {
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        upsample: None,
        prologue: Prologue::default(),
        epilogue: Epilogue::default(),
    }
}

fn each_executor(f: impl Fn(&Executor, &str)) {
    f(&Executor::Cpu(Cpu::new()), "CPU");
    for (executor, kind) in executors().into_iter().flatten().zip(["tiled", "registers"]) {
        f(executor, kind);
    }
}

/// To the bit, but for the sign of nothing, which a sum loses, and what kind of no number it is.
#[track_caller]
fn same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            a == b || a.is_nan() && b.is_nan(),
            "{what}: element {i} is {a}, not {b}"
        );
    }
}

#[test]
fn every_float_of_eight_bits_is_what_torch_makes_of_it() {
    let all: Vec<u8> = (0..=255).collect();
    // In the middle of a kernel around one pixel.
    let middle: Vec<u8> = all.iter().flat_map(|&b| [0, 0, 0, 0, b, 0, 0, 0, 0]).collect();
    for (dtype, name) in KINDS {
        let values = eighths(name);
        each_executor(|executor, kind| {
            let what = |layer: &str| format!("{name:?}, {kind}, {layer}");
            let one = Layer {
                op: linear(false),
                pack: Pack::Matrix,
                weight: &[256, 1],
                input: &[1, 1, 1],
            };
            let [y, read] = one.run(executor, Data::F32(&[1.0]), dtype, &all);
            same(&y, &values, &what("a linear layer"));
            let bits = |x: &[f32]| -> Vec<u32> {
                let one = |x: &f32| if x.is_nan() { f32::NAN } else { *x }.to_bits();
                x.iter().map(one).collect()
            };
            assert_eq!(bits(&read), bits(&values), "{}", what("read back"));
            let around = Layer {
                op: conv(),
                pack: Pack::Conv,
                weight: &[256, 1, 3, 3],
                input: &[1, 1, 1, 1],
            };
            let [y, _] = around.run(executor, Data::F32(&[1.0]), dtype, &middle);
            same(&y, &values, &what("a convolution"));
            let table = Layer {
                op: Op::Embedding,
                pack: Pack::Table,
                weight: &[8, 32],
                input: &[1, 8],
            };
            let [y, _] = table.run(executor, Data::U32(&[0, 1, 2, 3, 4, 5, 6, 7]), dtype, &all);
            same(&y, &values, &what("a table"));
        });
    }
}

/// In odd sizes, and with gates beside their values: what the same values in f32 make, to the bit.
#[test]
fn products_are_those_of_wider_weights() {
    for (dtype, name) in KINDS {
        let values = eighths(name);
        let finite: Vec<u8> = (0..=255).filter(|&b| values[usize::from(b)].is_finite()).collect();
        let x: Vec<f32> = (0..9 * 7 * 35).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let layers = [
            (linear(false), Pack::Matrix, &[37, 35][..], &[1, 63, 35][..]),
            (linear(true), Pack::Gated, &[38, 35], &[1, 63, 35]),
            (conv(), Pack::Conv, &[21, 35, 3, 3], &[1, 9, 7, 35]),
            (conv(), Pack::Conv, &[64, 35, 3, 3], &[1, 9, 7, 35]),
        ];
        for (op, pack, weight, input) in layers {
            let count: usize = weight.iter().product();
            let bytes: Vec<u8> = (0..count).map(|i| finite[i * 41 % finite.len()]).collect();
            let wide: Vec<f32> = bytes.iter().map(|&b| values[usize::from(b)]).collect();
            let layer = Layer {
                op,
                pack,
                weight,
                input,
            };
            each_executor(|executor, kind| {
                let [y, read] = layer.run(executor, Data::F32(&x), dtype, &bytes);
                let [expected, _] = layer.run(executor, Data::F32(&x), WeightDtype::F32, bytemuck::cast_slice(&wide));
                let what = format!("{name:?}, {kind}, {weight:?}");
                same(&y, &expected, &what);
                same(&read, &wide, &what);
            });
        }
    }
}
