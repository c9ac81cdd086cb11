//! What only the inside of the executor can bring about.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

use super::run::submits;
use super::*;
use crate::cancel::CancelToken;
use crate::executor::{Data, Executor, WeightDtype};
use crate::graph::{Activation, Element, Epilogue, Graph, Op, Pack, Path, Prologue};
use pollster::block_on;
use std::collections::HashSet;
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

#[test]
fn what_is_selected_is_listed() {
    let listed: HashSet<String> = variants().iter().map(ToString::to_string).collect();
    let (wide, mut graph) = (Plan::new(graph()), graph());
    graph.stand_half();
    let halves = Plan::in_halves(graph);
    for (plan, registers) in [&wide, &halves]
        .into_iter()
        .flat_map(|plan| [(plan, false), (plan, true)])
    {
        let target = kernels::Target {
            registers,
            max_workgroups: 65_535,
            most: policy::DISPATCH_MOST,
            chooser: None,
        };
        for node in 0..plan.nodes.len() {
            for dispatch in kernels::dispatches(plan, node, &target).unwrap() {
                for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
                    let variant = dispatch.variant_with(plan, |_| Ok(dtype)).unwrap();
                    assert!(listed.contains(&variant.to_string()), "{variant}");
                }
            }
        }
    }
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
