//! Values in 16-bit floats: which models have them, what they leave in 32 bits, and how far off a model is with them. Each operation
//! by itself is compared in `webgpu_ops`.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{
    Golden, PIPELINES, Tensor, cpu, distance, golden_path, load, open, play, random_weights, webgpu_in_halves,
};
use safetensors::Dtype;
use tintype::executor::webgpu::{Options, Webgpu};
use tintype::executor::{Data, Executor};
use tintype::graph::{Element, Graph, Op, Path, Plan, Rate, Unary, Value};
use tintype::library::Library;
use tintype::models::unet::UnetConfig;
use tintype::models::vae::VaeConfig;
use tintype::nn;

/// What rounding to 16 bits takes at most from a number: half of its last of 11 bits, or all of it, as an adapter may cut.
const ROUNDED: f32 = 1.0 / 1024.0;

/// Numbers from -1 to 1 that 16 bits hold exactly.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 2039) as f32 - 1019.0;
    (0..len).map(|i| number(i) / 1024.0).collect()
}

/// Weights that 16 bits hold.
fn in_halves(weights: &Golden) -> Golden {
    let rounded = |(name, tensor): (&String, &Tensor)| {
        let halves = tensor.f32().into_iter().map(half::f16::from_f32);
        let (dtype, shape) = (Dtype::F16, tensor.shape.clone());
        let bytes = halves.flat_map(half::f16::to_le_bytes).collect();
        (name.clone(), Tensor { dtype, shape, bytes })
    };
    Golden {
        tensors: weights.tensors.iter().map(rounded).collect(),
        metadata: weights.metadata.clone(),
    }
}

/// The tiled kernels, and those for a processor.
fn executors() -> Option<[Executor; 2]> {
    let tiled = webgpu_in_halves()?;
    let (half, software) = (true, Some(true));
    let options = Options {
        half,
        software,
        ..Options::default()
    };
    let registers = pollster::block_on(Webgpu::new(options)).unwrap();
    Some([tiled, Executor::Webgpu(registers)])
}

/// A graph of inputs of these shapes, and what `make` makes of them.
fn graph(shapes: &[Vec<usize>], make: impl FnOnce(&mut Graph, &[Value]) -> tintype::Result<Value>) -> Graph {
    let mut g = Graph::new();
    g.stand_half();
    let input = |(i, shape): (usize, &Vec<usize>)| g.input(&format!("x{i}"), shape.clone(), Element::F32, Rate::Step);
    let inputs: Vec<_> = shapes.iter().enumerate().map(input).collect();
    let y = make(&mut g, &inputs).unwrap();
    g.output("y", y);
    g
}

fn named<'a>(names: &'a [String], values: &'a [Vec<f32>]) -> Vec<(&'a str, Data<'a>)> {
    let both = names.iter().zip(values);
    both.map(|(name, v)| (name.as_str(), Data::F32(v))).collect()
}

/// A sum in halves of eight products may lose a rounding a term: no number is further off than so many roundings of the sum of all
/// magnitudes, which the CPU computes.
#[test]
fn products_in_halves_are_as_near_as_their_sums_allow() {
    let Some([tiled, _]) = executors() else { return };
    let p = Path::root();
    for (m, k, n) in [(64, 64, 64), (32, 128, 32), (128, 1280, 64), (8, 64, 64)] {
        let graph = graph(&[vec![m, k]], |g, x| nn::linear_without_bias(g, &p, x[0], n));
        let weights = in_halves(&random_weights(&graph));
        let x = numbers(m * k, 1);
        let mut magnitudes = in_halves(&random_weights(&graph));
        for tensor in magnitudes.tensors.values_mut() {
            // Without signs.
            tensor
                .bytes
                .iter_mut()
                .skip(1)
                .step_by(2)
                .for_each(|byte| *byte &= 0x7f);
        }
        let positive: Vec<f32> = x.iter().map(|x| x.abs()).collect();
        let sum = play(&cpu(), graph.clone(), &magnitudes, &[("x0", Data::F32(&positive))], 0);
        let theirs = play(&cpu(), graph.clone(), &weights, &[("x0", Data::F32(&x))], 0);
        let ours = play(&tiled, graph.clone(), &weights, &[("x0", Data::F32(&x))], 0);
        let mut worst = 0f32;
        for ((ours, theirs), sum) in ours["y"].iter().zip(&theirs["y"]).zip(&sum["y"]) {
            let most = 4.0 * ROUNDED * sum + ROUNDED * theirs.abs();
            worst = worst.max((ours - theirs).abs() / most);
            assert!(
                (ours - theirs).abs() <= most,
                "{m} x {k} x {n}: {ours}, not {theirs} (of {sum})"
            );
        }
        println!("{m} x {k} x {n}: {worst:.3} of what may be");
    }
}

#[test]
fn what_is_beyond_becomes_infinite_and_what_lies_between_can_be_read() {
    let Some(gpus) = executors() else { return };
    let double = Unary::Affine { mul: 2.0, add: 0.0 };
    let graph = graph(&[vec![1, 5]], |g, x| {
        let h = nn::unary(g, &Path::root(), x[0], double)?;
        // Two of them would be one operation.
        let h = g.op(&Path::root(), Op::Concat, &[h, h], &[])?;
        nn::unary(g, &Path::root(), h, double)
    });
    for gpu in &gpus {
        pollster::block_on(async {
            let plan = std::rc::Rc::new(gpu.plan(graph.clone()));
            let instance = gpu.prepare(plan.clone(), 1).await.unwrap();
            let weights = gpu.allocate(&[]).await.unwrap();
            let x = [20_000.0, -20_000.0, 0.333_25, -1.0, 7.0];
            gpu.write(&instance, "x0", 0, Data::F32(&x)).unwrap();
            let cancel = tintype::cancel::CancelToken::default();
            gpu.run(&instance, &weights, Rate::Step, 0, 0, &cancel).await.unwrap();
            let y = gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap();
            let y = gpu.read(&y.part(1, 2)).await.unwrap();
            assert_eq!(
                y,
                [f32::INFINITY, f32::NEG_INFINITY, 1.333, -4.0, 28.0].map(|x: f32| half::f16::from_f32(x).to_f32())
            );
            let joined = (0..plan.nodes.len()).find(|&i| plan.nodes[i].op == Op::Concat).unwrap();
            let inner = gpu.view(&instance, Value(joined), 0).unwrap();
            assert_eq!(inner.len, 10);
            let halves = gpu.read(&inner.part(1, 2)).await.unwrap();
            assert_eq!(
                halves,
                [40_000.0, -40_000.0, 0.6665, -2.0, 14.0].map(|x: f32| half::f16::from_f32(x).to_f32())
            );
            let refused = gpu.fill(&inner, &[0.0; 10]).unwrap_err();
            assert_eq!(refused.code(), "internal");
        });
    }
}

/// Elements of a plan's values by how they are kept: 16 bits, 32.
fn kept(plan: &Plan) -> [usize; 2] {
    [Element::F16, Element::F32].map(|element| {
        let of = plan.values.iter().filter(|v| v.element == element);
        of.map(|v| v.shape.len()).sum()
    })
}

#[test]
fn nearly_all_of_a_unet_is_in_halves_and_its_times_are_not() {
    for name in [
        "sd1-ddim",
        "sd2-euler",
        "sdxl",
        "lcm",
        "sd1-inpaint",
        "ssd-1b",
        "koala",
        "bk-sdm-tiny",
    ] {
        let config = UnetConfig::from_json(&open(&format!("pipelines/{name}/unet/config.json"))).unwrap();
        let graph = config.graph([1, 32, 32], 77, 4).unwrap();
        let (wide, plan) = (Plan::new(graph.clone()), Plan::in_halves(graph));
        let [half, rest] = kept(&plan);
        println!(
            "{name}: {half} values in halves, {rest} not; slots {} of {}",
            plan.peak_bytes(1),
            wide.peak_bytes(1)
        );
        assert!(half > 10 * rest, "{name}: {half} values in halves, {rest} not\n{plan}");
        for (node, value) in plan.nodes.iter().zip(&plan.values) {
            let is_wide = value.element == Element::F32;
            let of_times = node.rate == Rate::Schedule
                || matches!(node.op, Op::TimestepEmbedding { .. } | Op::GroupStatistics { .. });
            assert!(is_wide || !of_times, "{name}: {}", node.label);
            if node.rate == Rate::Step {
                assert_eq!(is_wide, of_times, "{name}: {}", node.label);
            }
        }
        // What is outside is f32, and counts.
        for name in plan.input_names() {
            let value = &plan.values[plan.input(name).unwrap().0];
            assert_eq!(value.edge.is_some(), value.element == Element::F16, "{name}");
        }
        let outside = plan.values[plan.output("sample").unwrap().0].edge.unwrap();
        assert!(plan.slots[outside].persistent);
        assert_eq!(plan.slots[outside].len, 32 * 32 * 4);
        // What is outside is much of so little.
        assert!(
            plan.peak_bytes(1) * 100 < wide.peak_bytes(1) * 70,
            "{name}: {} of {}",
            plan.peak_bytes(1),
            wide.peak_bytes(1)
        );
        let moved = |plan: &Plan| plan.traffic(Rate::Step, 2).activations;
        assert!(
            moved(&plan) * 100 < moved(&wide) * 60,
            "{name}: {} of {}",
            moved(&plan),
            moved(&wide)
        );
        assert!(
            moved(&plan) * 2 > moved(&wide),
            "{name}: {} of {}",
            moved(&plan),
            moved(&wide)
        );
    }
}

/// The same weights in 16-bit floats, every other one with another last bit.
fn nudged(weights: &Golden) -> Golden {
    let nudged = |(name, tensor): (&String, &Tensor)| {
        let (dtype, shape) = (Dtype::F16, tensor.shape.clone());
        let values: Vec<half::f16> = match tensor.dtype {
            Dtype::F16 => bytemuck::pod_collect_to_vec::<u8, u16>(&tensor.bytes)
                .into_iter()
                .map(half::f16::from_bits)
                .collect(),
            _ => tensor.f32().into_iter().map(half::f16::from_f32).collect(),
        };
        let bits = (values.into_iter().enumerate()).map(|(i, x)| x.to_bits() ^ (i * 7919 % 5 % 2) as u16);
        let bytes = bits.flat_map(u16::to_le_bytes).collect();
        (name.clone(), Tensor { dtype, shape, bytes })
    };
    Golden {
        tensors: weights.tensors.iter().map(nudged).collect(),
        metadata: weights.metadata.clone(),
    }
}

/// A tiny UNet that nobody trained may be ill-conditioned: how ill, shows what becomes of it where weights have another last bit.
#[test]
fn in_halves_a_unet_is_as_far_off_as_with_another_bit_in_weights() {
    let Some(gpu) = webgpu_in_halves() else { return };
    for name in PIPELINES {
        let path = format!("pipelines/{name}/unet");
        let config = UnetConfig::from_json(&open(&format!("{path}/config.json"))).unwrap();
        let graph = config.graph([1, 16, 16], 16, 1).unwrap();
        let plan = Plan::new(graph.clone());
        let file = Golden::read(&format!("{path}/diffusion_pytorch_model.safetensors"));
        let names: Vec<String> = plan.input_names().map(str::to_owned).collect();
        let values: Vec<Vec<f32>> = (names.iter().enumerate())
            .map(|(seed, name)| match name.as_str() {
                "timesteps" => vec![501.0],
                "time_ids" => vec![128.0, 128.0, 0.0, 0.0, 128.0, 128.0],
                _ => numbers(plan.values[plan.input(name).unwrap().0].shape.len(), seed),
            })
            .collect();
        let inputs = named(&names, &values);
        let output = |executor: &Executor, weights: &Golden| {
            play(executor, graph.clone(), weights, &inputs, 0)
                .remove("sample")
                .unwrap()
        };
        let exact = output(&cpu(), &file);
        let far = [output(&cpu(), &nudged(&file)), output(&gpu, &file)].map(|y| distance(&y, &exact));
        println!("{name}: {:.1e} by weights, {:.1e} by values", far[0], far[1]);
        assert!(far[1] < 2e-3 + 4.0 * far[0], "{name}: {far:?}");
    }
}

/// No slot is used by two values that live at once, and a node reads and writes in one type.
#[test]
fn slots_of_halves_are_as_apart_as_others() {
    let config = UnetConfig::from_json(&open("pipelines/sdxl/unet/config.json")).unwrap();
    let plan = Plan::in_halves(config.graph([1, 8, 8], 77, 4).unwrap());
    for (i, (node, value)) in plan.nodes.iter().zip(&plan.values).enumerate() {
        assert!(
            plan.slots[value.slot].len >= value.element.words(value.shape.len()),
            "%{i} is larger than its slot"
        );
        assert!(value.edge != Some(value.slot));
        let plain = node
            .inputs
            .iter()
            .filter(|v| Some(**v) != node.row_bias() && Some(**v) != node.statistics());
        for v in plain {
            let read = &plan.values[v.0];
            assert_ne!(read.slot, value.slot, "%{i}");
            if !matches!(node.op, Op::GroupStatistics { .. } | Op::Embedding | Op::AddRow) {
                assert_eq!(read.element, value.element, "%{i} reads %{}", v.0);
            }
            let between = (v.0 + 1..i).filter(|&j| plan.values[j].slot == read.slot);
            assert_eq!(between.count(), 0, "%{} is written over before %{i} reads it", v.0);
        }
    }
}

#[test]
fn an_autoencoder_that_says_force_upcast_stays_in_f32() {
    let decoder = |class: &str, json: &serde_json::Value| {
        let config = VaeConfig::from_json(class, json).unwrap();
        let both = [config.decoder([1, 8, 8]), config.encoder([1, 8, 8])];
        both.map(|graph| kept(&Plan::in_halves(graph.unwrap()))[0] > 0)
    };
    for (class, path, by_itself) in [
        ("AutoencoderKL", "vae/kl/config.json", false),
        ("AutoencoderTiny", "vae/taesd/config.json", true),
    ] {
        let mut json = open(path);
        for says in [true, false] {
            json["force_upcast"] = says.into();
            assert_eq!(decoder(class, &json), [!says; 2], "{class}: {says}");
        }
        json.as_object_mut().unwrap().remove("force_upcast");
        assert_eq!(decoder(class, &json), [by_itself; 2], "{class}, which says nothing");
    }
    // A checkpoint as it is loaded.
    let Some(executor) = webgpu_in_halves() else { return };
    let library = Library::new(executor, None);
    let resident = load(&library, &golden_path("pipelines/sdxl"));
    let models = &resident.models;
    let vae = library.executor.plan(models.vae.config.decoder([1, 8, 8]).unwrap());
    let unet = library
        .executor
        .plan(models.unet.config.graph([1, 8, 8], 77, 1).unwrap());
    assert_eq!(kept(&vae)[0], 0);
    assert!(kept(&unet)[0] > 0);
}

#[test]
fn a_device_that_is_not_asked_for_halves_has_none() {
    let graph = graph(&[vec![3, 5]], |g, x| nn::add(g, &Path::root(), x[0], x[0]));
    let halves = std::rc::Rc::new(Plan::in_halves(graph.clone()));
    for executor in [Some(cpu()), common::webgpu()].into_iter().flatten() {
        assert_eq!(kept(&executor.plan(graph.clone()))[0], 0);
        let refused = pollster::block_on(executor.prepare(halves.clone(), 1));
        assert_eq!(refused.err().map(|e| e.code()), Some("internal"));
    }
}
