//! What a step of a UNet costs, counted: dispatches, bytes moved, memory. The UNet is that of the comparison with onnxruntime-web,
//! which runs it in 596 dispatches and 327 MB of buffers.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, Tensor, cpu, distance, open, place, webgpu_as_gpu, webgpu_in_halves};
use pollster::block_on;
use safetensors::Dtype;
use serde_json::json;
use std::collections::BTreeMap;
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::executor::webgpu::{dispatches, gpu_bytes, objects};
use tintype::executor::{Data, Executor, Instance, Weights};
use tintype::graph::{Element, Graph, Pack, ParamSpec, Path, Plan, Rate};
use tintype::models::unet::UnetConfig;
use tintype::nn;
use tintype::sampler::noise::Generator;

/// 52.2 million parameters.
fn unet(size: usize, batch: usize) -> Graph {
    let config = UnetConfig::from_json(&open("models/unet-large/config.json")).unwrap();
    config.graph([batch, size, size], 77, 1).unwrap()
}

/// BK-SDM-Tiny: Stable Diffusion 1.x without its innermost blocks.
fn bk_sdm_tiny(size: usize, batch: usize) -> Graph {
    let config = json!({
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 1,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "mid_block_type": null,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    });
    let config = UnetConfig::from_json(&config).unwrap();
    config.graph([batch, size, size], 77, 1).unwrap()
}

fn weight_bytes(plan: &Plan, size: u64) -> u64 {
    let bytes = |p: &ParamSpec| {
        let [rows, columns] = p.packed();
        (rows * columns) as u64 * if p.pack == Pack::Vector { 4 } else { size }
    };
    plan.params.iter().map(bytes).sum()
}

/// Operations and bytes a second, by data sheets.
const ADAPTERS: [(&str, f64, f64); 3] = [
    ("integrated, 1 TFLOP/s and 50 GB/s", 1e12, 50e9),
    ("Apple M1, 2.6 TFLOP/s and 68 GB/s", 2.6e12, 68e9),
    ("RTX 3060, 12.7 TFLOP/s and 360 GB/s", 12.7e12, 360e9),
];

/// Multiplications and additions of a step for latents of `size` x `size`, by nothing but the names and shapes of a file's tensors:
/// which level a layer is on says for how many pixels it is computed.
fn flops_by_names(plan: &Plan, size: usize) -> f64 {
    let number = |name: &str| -> usize {
        let block = name.split('.').nth(1).unwrap();
        block.parse().unwrap()
    };
    let levels = 1 + plan
        .params
        .iter()
        .flat_map(|spec| &spec.parts)
        .filter(|part| part.name.starts_with("down_blocks"))
        .map(|part| number(&part.name))
        .max()
        .unwrap();
    let mut sum = 0.0;
    for part in plan.params.iter().flat_map(|spec| &spec.parts) {
        let (name, shape) = (part.name.as_str(), &part.shape);
        // Once a prompt and once a schedule.
        let is_of_step = !["attn2.to_k", "attn2.to_v", "time_emb"]
            .iter()
            .any(|other| name.contains(other));
        if shape.len() < 2 || !is_of_step {
            continue;
        }
        let level = match name.split('.').next().unwrap() {
            "down_blocks" if name.contains("downsamplers") => number(name) + 1,
            "down_blocks" => number(name),
            "mid_block" => levels - 1,
            "up_blocks" if name.contains("upsamplers") => levels - 2 - number(name),
            "up_blocks" => levels - 1 - number(name),
            _ => 0,
        };
        let pixels = ((size >> level) * (size >> level)) as f64;
        sum += 2.0 * pixels * shape.iter().product::<usize>() as f64;
        // Scores, and what they weigh: of every pixel, or of a prompt's 77 tokens.
        if name.ends_with("to_q.weight") {
            let keys = if name.contains("attn1") { pixels } else { 77.0 };
            sum += 4.0 * pixels * keys * shape[0] as f64;
        }
    }
    sum
}

#[test]
fn a_roofline_is_what_it_is_by_hand() {
    // Two layers of 4 rows: 4 x 100 x 50 and 4 x 50 x 1000.
    let mut g = Graph::new();
    let x = g.input("x", [4, 100], Element::F32, Rate::Step);
    let y = nn::linear_without_bias(&mut g, &Path::root().pp("a"), x, 50).unwrap();
    let y = nn::linear_without_bias(&mut g, &Path::root().pp("b"), y, 1000).unwrap();
    g.output("y", y);
    let plan = Plan::new(g);
    let traffic = plan.traffic(Rate::Step, 2);
    assert_eq!(traffic.flops, 40_000 + 400_000);
    assert_eq!(traffic.weights, 10_000 + 100_000);
    assert_eq!(traffic.activations, (1600 + 800) + (800 + 16_000));
    // At a byte a second. Arithmetic bounds the first, of 12 400 bytes, up to 3.23 operations a second, the second, of 116 800
    // bytes, up to 3.42.
    let seconds = |flops: f64| plan.roofline(Rate::Step, 2, flops, 1.0);
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert!(near(seconds(3.0), 40_000.0 / 3.0 + 400_000.0 / 3.0), "{}", seconds(3.0));
    assert!(near(seconds(3.3), 12_400.0 + 400_000.0 / 3.3), "{}", seconds(3.3));
    assert!(near(seconds(3.5), 12_400.0 + 116_800.0), "{}", seconds(3.5));
}

#[test]
fn a_step_is_few_dispatches_and_moves_few_bytes() {
    for (name, graph, [size, batch], most, ms, in_halves) in [
        (
            "unet of 52 M, 32 x 32",
            unet(32, 1),
            [32, 1],
            180,
            [18.8, 7.6, 1.53],
            [[18.5, 9.4], [7.2, 4.0], [1.47, 0.80]],
        ),
        (
            "the same, a batch of two",
            unet(32, 2),
            [32, 2],
            180,
            [37.5, 15.1, 3.06],
            [[37.0, 18.8], [14.4, 7.6], [2.94, 1.53]],
        ),
        (
            "BK-SDM-Tiny, 64 x 64",
            bk_sdm_tiny(64, 1),
            [64, 1],
            200,
            [489.0, 190.0, 38.9],
            [[487.0, 245.0], [188.0, 95.0], [38.5, 19.4]],
        ),
    ] {
        let alone = graph.traffic(Rate::Step, 2);
        let halves = Plan::in_halves(graph.clone());
        let plan = Plan::new(graph);
        let step = plan.traffic(Rate::Step, 2);
        let half_step = halves.traffic(Rate::Step, 2);
        let count = dispatches(&plan, Rate::Step, false).unwrap();
        let others = [Rate::Prompt, Rate::Schedule].map(|rate| dispatches(&plan, rate, false).unwrap());
        let mb = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "{name}: {count} dispatches a step, {} a prompt, {} a schedule; {:.1} GFLOP; {:.1} MB of values and {:.1} MB of weights \
             moved, {:.1} MB of values operation by operation; {:.1} MB of weights, {:.1} MB of slots",
            others[0],
            others[1],
            step.flops as f64 / 1e9,
            mb(step.activations),
            mb(step.weights),
            mb(alone.activations),
            mb(weight_bytes(&plan, 2)),
            mb(plan.peak_bytes(1)),
        );
        println!(
            "  in halves: {} dispatches, {:.1} MB of values moved, {:.1} MB of slots",
            dispatches(&halves, Rate::Step, false).unwrap(),
            mb(half_step.activations),
            mb(halves.peak_bytes(1)),
        );
        // What is made of times and statistics is not halved, and little.
        assert!(
            half_step.activations * 100 < step.activations * 52 && halves.peak_bytes(1) * 100 < plan.peak_bytes(1) * 56
        );
        assert_eq!((half_step.flops, half_step.weights), (step.flops, step.weights));
        for (((adapter, flops, bytes), expected), halved) in ADAPTERS.into_iter().zip(ms).zip(in_halves) {
            let found = plan.roofline(Rate::Step, 2, flops, bytes) * 1e3;
            let (moved, twice) = (
                halves.roofline(Rate::Step, 2, flops, bytes) * 1e3,
                halves.roofline(Rate::Step, 2, 2.0 * flops, bytes) * 1e3,
            );
            println!(
                "  {adapter}: {found:.2} ms a step at least; in halves {moved:.2}, and {twice:.2} where arithmetic is twice as fast"
            );
            // To the digits that there are.
            for (found, expected) in [(found, expected), (moved, halved[0]), (twice, halved[1])] {
                let most = f64::max(if expected < 4.0 { 0.006 } else { 0.06 }, 0.002 * expected);
                assert!(
                    (found - expected).abs() <= most,
                    "{name}, {adapter}: {found} ms, README has {expected}"
                );
            }
            assert!(twice < moved && moved < found);
        }
        let by_hand = flops_by_names(&plan, size) * batch as f64;
        let off = step.flops as f64 / by_hand - 1.0;
        // Norms and activations, which that leaves out, are the rest.
        assert!(
            (0.0..0.01).contains(&off),
            "{name}: {} operations, {by_hand} by hand",
            step.flops
        );
        assert!(count <= most, "{name}: {count} dispatches");
        assert!(
            step.activations * 10 < alone.activations * 6,
            "{name}: {step:?}, {alone:?} operation by operation"
        );
    }
}

fn crc32(name: &str) -> u32 {
    let shift = |c: u32, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 };
    !name.bytes().fold(!0, |c, byte| (0..8).fold(c ^ u32::from(byte), shift))
}

/// The random numbers of a name, as tools/golden/large.py draws them.
fn drawn(name: &str, len: usize) -> Vec<f32> {
    Generator::new(u64::from(crc32(name))).randn(len)
}

fn weights(plan: &Plan, dtype: Dtype) -> Golden {
    let parts = plan.params.iter().flat_map(|spec| &spec.parts);
    let each = parts.map(|part| {
        let (name, shape) = (&part.name, part.shape.clone());
        let (scale, shift) = match (shape.len(), name.ends_with("weight")) {
            (1, true) => (0.25, 1.0),
            (1, false) => (0.2, 0.0),
            _ => ((shape[1..].iter().product::<usize>() as f64).sqrt().recip() as f32, 0.0),
        };
        let values = drawn(name, shape.iter().product())
            .into_iter()
            .map(|x| x * scale + shift);
        let bytes = match dtype {
            Dtype::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        (name.clone(), Tensor { dtype, shape, bytes })
    });
    Golden {
        tensors: each.collect(),
        metadata: BTreeMap::new(),
    }
}

/// The large UNet on a device, its inputs written, and what depends on prompt and schedule computed.
fn ready(executor: &Executor, dtype: Dtype) -> (Rc<Plan>, Instance, Weights) {
    block_on(async {
        let plan = Rc::new(executor.plan(unet(32, 1)));
        let file = weights(&plan, dtype);
        let (weights, params) = place(executor, &plan, &file).await;
        executor.warm(&plan, &params).await.unwrap();
        let instance = executor.prepare(plan.clone(), 1).await.unwrap();
        let sample = drawn("sample", 4 * 1024);
        let sample: Vec<f32> = (0..1024)
            .flat_map(|p| (0..4).map(move |c| (p, c)))
            .map(|(p, c)| sample[c * 1024 + p])
            .collect();
        let text = drawn("text", 77 * 768);
        let inputs = [
            ("sample", &sample[..]),
            ("timesteps", &[501.0][..]),
            ("encoder_hidden_states", &text[..]),
        ];
        for (name, values) in inputs {
            executor.write(&instance, name, 0, Data::F32(values)).unwrap();
        }
        let cancel = CancelToken::default();
        for rate in [Rate::Load, Rate::Prompt, Rate::Schedule] {
            let run = executor.run(&instance, &weights, rate, 0, 0, &cancel);
            run.await.unwrap();
        }
        (plan, instance, weights)
    })
}

fn step(executor: &Executor, instance: &Instance, weights: &Weights) {
    block_on(executor.run(instance, weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
}

/// How far the output is from torch's, whose weights are f32.
fn off(executor: &Executor, plan: &Plan, instance: &Instance) -> f32 {
    let view = executor.view(instance, plan.output("sample").unwrap(), 0).unwrap();
    let ours = block_on(executor.read(&view)).unwrap();
    let theirs = Golden::read("models/unet-large/io.safetensors").get("output").f32();
    distance(&ours, &theirs)
}

#[test]
fn the_cpu_agrees_with_torch() {
    let executor = cpu();
    let (plan, instance, weights) = ready(&executor, Dtype::F32);
    step(&executor, &instance, &weights);
    let far = off(&executor, &plan, &instance);
    println!("off by {far:.1e}");
    assert!(far < 1e-4, "off by {far:.1e}");
}

/// One test, as buffers and objects are counted for all devices together.
#[test]
fn a_gpu_agrees_with_torch_and_makes_nothing_after_the_first_step() {
    let mut all = Vec::new();
    for (dtype, size, most, open) in [
        (Dtype::F32, 4, 1e-4, webgpu_as_gpu as fn() -> Option<Executor>),
        (Dtype::F16, 2, 2e-3, webgpu_as_gpu),
        (Dtype::F16, 2, 2e-3, webgpu_in_halves),
    ] {
        let Some(executor) = open() else { return };
        let (plan, instance, weights) = ready(&executor, dtype);
        step(&executor, &instance, &weights);
        let (bytes, made) = (gpu_bytes(), objects());
        let planned = weight_bytes(&plan, size) + plan.peak_bytes(1);
        println!(
            "{dtype:?}: {:.1} MB of buffers, {:.1} MB planned",
            bytes as f64 / 1e6,
            planned as f64 / 1e6
        );
        assert!(
            bytes * 100 <= planned * 115,
            "{dtype:?}: {bytes} bytes of buffers, {planned} planned"
        );
        assert!(dtype == Dtype::F32 || bytes <= 130_000_000, "{bytes} bytes of buffers");
        step(&executor, &instance, &weights);
        assert_eq!(
            (gpu_bytes(), objects()),
            (bytes, made),
            "{dtype:?}: made after the first step"
        );
        let far = off(&executor, &plan, &instance);
        println!("{dtype:?}: off by {far:.1e}");
        assert!(far < most, "{dtype:?}: off by {far:.1e}");
        all.push(bytes);
    }
    // The slots are 6.2 MB in f32.
    assert!(all[2] + 2_500_000 < all[1], "{all:?} bytes of buffers");
}
