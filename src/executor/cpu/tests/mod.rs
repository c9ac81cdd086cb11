//! Every operation against plain loops in f64 over the file's own layouts ([`naive`]), at odd sizes, whole and cut in the smallest
//! slices; and what the executor does around them.

mod bands;
mod executor;
mod naive;
mod odd;
mod ops;
#[cfg(not(target_arch = "wasm32"))]
mod speed;

use super::*;
use crate::cancel::CancelToken;
use crate::executor::{Data, Executor, WeightDtype, Weights};
use crate::graph::{Element, Graph, Op, Pack, Path, Plan, Rate, Value};
use std::rc::Rc;

/// Numbers that look random, between -1 and 1.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// A parameter as the file has it: the shape and values of each part.
#[derive(Clone)]
struct Param {
    pack: Pack,
    parts: Vec<(Vec<usize>, Vec<f32>)>,
}

fn param(pack: Pack, shapes: &[&[usize]], seed: u64) -> Param {
    let part = |(i, shape): (usize, &&[usize])| (shape.to_vec(), numbers(shape.iter().product(), seed + i as u64));
    Param {
        pack,
        parts: shapes.iter().enumerate().map(part).collect(),
    }
}

/// An operation with its operands' values.
struct Case {
    op: Op,
    inputs: Vec<(Vec<usize>, Vec<f32>)>,
    ids: Option<Vec<u32>>,
    params: Vec<Param>,
    step: usize,
}

impl Case {
    fn new(op: Op, shapes: &[&[usize]], params: Vec<Param>) -> Self {
        let input = |(i, s): (usize, &&[usize])| (s.to_vec(), numbers(s.iter().product(), 100 + i as u64));
        Self {
            op,
            inputs: shapes.iter().enumerate().map(input).collect(),
            ids: None,
            params,
            step: 0,
        }
    }

    fn plan(&self) -> Plan {
        let mut g = Graph::new();
        let element = |i| {
            if i == 0 && self.ids.is_some() {
                Element::U32
            } else {
                Element::F32
            }
        };
        let inputs: Vec<Value> = (self.inputs.iter().enumerate())
            .map(|(i, (shape, _))| g.input(&i.to_string(), shape.clone(), element(i), Rate::Step))
            .collect();
        let params: Vec<usize> = (self.params.iter().enumerate())
            .map(|(i, p)| {
                let parts = p.parts.iter().enumerate();
                g.param(
                    p.pack,
                    parts.map(|(j, (shape, _))| (format!("p{i}.{j}"), shape.clone())),
                )
            })
            .collect();
        let out = g
            .op(&Path::root().pp("tested"), self.op.clone(), &inputs, &params)
            .unwrap();
        g.output("out", out);
        Plan::new(g)
    }

    fn run(&self, threads: usize, slice_ms: f64) -> Vec<f32> {
        pollster::block_on(async {
            let executor = Executor::Cpu(Cpu::with(threads, slice_ms));
            let plan = Rc::new(self.plan());
            let weights = upload(&executor, &plan, &self.params).await;
            let instance = executor.prepare(plan.clone(), 1).await.unwrap();
            for (i, (_, values)) in self.inputs.iter().enumerate() {
                let data = match &self.ids {
                    Some(ids) if i == 0 => Data::U32(ids),
                    _ => Data::F32(values),
                };
                executor.write(&instance, &i.to_string(), 0, data).unwrap();
            }
            executor
                .run(&instance, &weights, Rate::Step, 0, self.step, &CancelToken::default())
                .await
                .unwrap();
            let out = executor.view(&instance, plan.output("out").unwrap(), 0).unwrap();
            executor.read(&out).await.unwrap()
        })
    }

    /// Runs whole and cut, and compares with `want`, relative to its largest element.
    fn check(&self, want: &[f64]) {
        let got = self.run(1, 1e9);
        assert_eq!(got.len(), want.len());
        let size = want.iter().fold(1e-3f64, |a, w| a.max(w.abs()));
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let off = (f64::from(*got) - want).abs() / size;
            assert!(off < 1e-5, "{:?} element {i}: {got} for {want}", self.op);
        }
        for threads in [1, 2, 3, 8] {
            let cut = self.run(threads, 0.0);
            assert!(
                got.iter().zip(&cut).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{:?} cut in slices, for {threads} threads",
                self.op
            );
        }
    }
}

async fn upload(executor: &Executor, plan: &Plan, params: &[Param]) -> Weights {
    let specs: Vec<_> = plan.params.iter().map(|p| (p.clone(), WeightDtype::F32)).collect();
    let weights = executor.allocate(&specs).await.unwrap();
    for (spec, param) in plan.params.iter().zip(params) {
        for (i, (_, values)) in param.parts.iter().enumerate() {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            executor.upload(&weights, spec, i, WeightDtype::F32, 0, &bytes).unwrap();
        }
    }
    weights
}
