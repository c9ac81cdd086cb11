//! What a step of a UNet costs, counted: dispatches, bytes moved, memory; and that README says so, figure by figure. The UNet is that
//! of the comparison with onnxruntime-web, which runs it in 596 dispatches and 327 MB of buffers.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{
    Golden, Tensor, cpu, distance, golden_path, load, load_encoder, open, place, webgpu, webgpu_as_gpu,
    webgpu_in_halves,
};
use pollster::block_on;
use safetensors::Dtype;
use serde_json::json;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Mutex;
use tintype::cancel::CancelToken;
use tintype::executor::webgpu::{dispatches, gpu_bytes, objects};
use tintype::executor::{Data, Executor, Instance, Weights};
use tintype::graph::{Element, Graph, Pack, ParamSpec, Path, Plan, Rate};
use tintype::image::Rgba;
use tintype::library::{Library, Resident};
use tintype::models::unet::UnetConfig;
use tintype::nn;
use tintype::pipeline::{InitImage, Request, draw as draw_picture, encode_image};
use tintype::sampler::SamplerKind;
use tintype::sampler::noise::Generator;

const README: &str = include_str!("../README.md");

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

/// The cells of README's table whose second column is `second`, row by row.
fn table(second: &str) -> Vec<Vec<&'static str>> {
    let begin = format!("| UNet | {second}");
    let rows = README.lines().skip_while(|line| !line.starts_with(&begin)).skip(2);
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "README has no table {begin:?}");
    rows
}

/// What README's text has behind `before`, and nowhere else.
fn figure(before: &str) -> &'static str {
    let mut parts = README.split(before).skip(1);
    let (behind, more) = (parts.next(), parts.next());
    assert!(more.is_none(), "README says {before:?} twice");
    let word = behind.and_then(|behind| behind.split_whitespace().next());
    word.unwrap_or_else(|| panic!("README doesn't say {before:?}"))
        .trim_end_matches([',', '.'])
}

fn scale(unit: &str) -> f64 {
    match unit {
        "" => 1.0,
        "ms" => 1e-3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => panic!("README counts in {unit:?}"),
    }
}

/// Says what README has wrong, where the numbers of a cell such as `104.5 + 6.2 MB` aren't `found`, to the digits that it has.
fn wrong(name: &str, cell: &str, found: &[f64]) -> Option<String> {
    let words: Vec<&str> = cell.split(' ').filter(|word| !["+", "to"].contains(word)).collect();
    let (written, unit) = words.split_at(found.len());
    let scale = scale(unit.first().unwrap_or(&""));
    let rounded = |(written, found): (&&str, &f64)| {
        let decimals = written.split_once('.').map_or(0, |(_, behind)| behind.len());
        format!("{:.decimals$}", found / scale)
    };
    let found: Vec<_> = written.iter().zip(found).map(rounded).collect();
    (found != written).then(|| format!("{name}: found {found:?}, README has {cell:?}"))
}

#[test]
fn a_step_is_few_dispatches_and_moves_few_bytes() {
    let (wide, narrow, rooflines) = (
        table("dispatches a step"),
        table("values moved | slots"),
        table("1 TFLOP/s"),
    );
    let unets = [
        (unet(32, 1), [32, 1]),
        (unet(32, 2), [32, 2]),
        (bk_sdm_tiny(64, 1), [64, 1]),
    ];
    assert_eq!([wide.len(), narrow.len(), rooflines.len()], [3, 3, 6]);
    let mut errors = Vec::new();
    for (i, (graph, [size, batch])) in unets.into_iter().enumerate() {
        let (wide, narrow, rooflines) = (&wide[i], &narrow[i], [&rooflines[2 * i], &rooflines[2 * i + 1]]);
        let name = wide[0];
        assert_eq!(
            [narrow[0], rooflines[0][0], rooflines[1][0]],
            [name, name, "in 16-bit floats"]
        );
        let alone = graph.traffic(Rate::Step, 2);
        let halves = Plan::in_halves(graph.clone());
        let plan = Plan::new(graph);
        let step = plan.traffic(Rate::Step, 2);
        let half_step = halves.traffic(Rate::Step, 2);
        let [count, prompt, schedule] =
            [Rate::Step, Rate::Prompt, Rate::Schedule].map(|rate| dispatches(&plan, rate, false).unwrap());
        println!("{name}: {count} dispatches a step, {prompt} a prompt, {schedule} a schedule");
        let weights = weight_bytes(&plan, 2);
        for (cell, found) in [
            (wide[1], &[count as f64][..]),
            (wide[2], &[step.flops as f64 / 1e9]),
            (wide[3], &[step.activations as f64]),
            (wide[4], &[alone.activations as f64]),
            (wide[5], &[step.weights as f64]),
            (wide[6], &[weights as f64, plan.peak_bytes(1) as f64]),
            (narrow[1], &[half_step.activations as f64]),
            (narrow[2], &[halves.peak_bytes(1) as f64]),
        ] {
            errors.extend(wrong(name, cell, found));
        }
        assert_eq!(dispatches(&halves, Rate::Step, false).unwrap(), count + 2);
        // What is made of times and statistics is not halved, and little.
        assert!(
            half_step.activations * 100 < step.activations * 52 && halves.peak_bytes(1) * 100 < plan.peak_bytes(1) * 56
        );
        assert_eq!((half_step.flops, half_step.weights), (step.flops, step.weights));
        for (column, (adapter, flops, bytes)) in (1..).zip(ADAPTERS) {
            let found = plan.roofline(Rate::Step, 2, flops, bytes);
            let (moved, twice) = (
                halves.roofline(Rate::Step, 2, flops, bytes),
                halves.roofline(Rate::Step, 2, 2.0 * flops, bytes),
            );
            let name = format!("{name}, {adapter}");
            errors.extend(wrong(&name, rooflines[0][column], &[found]));
            errors.extend(wrong(&name, rooflines[1][column], &[moved, twice]));
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
    }
    assert!(errors.is_empty(), "{errors:#?}");
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

/// Buffers and objects are counted for all devices together.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_gpu_agrees_with_torch_and_makes_nothing_after_the_first_step() {
    let _alone = ALONE.lock();
    let mut all = Vec::new();
    for (dtype, size, buffers, most, open) in [
        (
            Dtype::F32,
            4,
            None,
            "Its output is at most ",
            webgpu_as_gpu as fn() -> Option<Executor>,
        ),
        (
            Dtype::F16,
            2,
            Some("All GPU buffers together take "),
            "with f32 weights, and ",
            webgpu_as_gpu,
        ),
        (
            Dtype::F16,
            2,
            Some("All GPU buffers of the first then take "),
            "and its output is at most ",
            webgpu_in_halves,
        ),
    ] {
        let Some(executor) = open() else { return };
        let (plan, instance, weights) = ready(&executor, dtype);
        step(&executor, &instance, &weights);
        let (bytes, made) = (gpu_bytes(), objects());
        let planned = weight_bytes(&plan, size) + plan.peak_bytes(1);
        let mb = bytes as f64 / 1e6;
        println!(
            "{dtype:?}: {mb:.1} MB of buffers, {:.1} MB planned",
            planned as f64 / 1e6
        );
        assert!(
            bytes * 100 <= planned * 115,
            "{dtype:?}: {bytes} bytes of buffers, {planned} planned"
        );
        if let Some(before) = buffers {
            // Adapters differ in where uniforms may begin.
            let written: f64 = figure(before).parse().unwrap();
            assert!((mb - written).abs() < 0.1, "{mb} MB of buffers, README has {written}");
        }
        if buffers.is_some() && all.len() == 1 {
            let written = format!("{} MB", figure("for the first of them, where "));
            assert_eq!(wrong("planned", &written, &[planned as f64]), None);
        }
        step(&executor, &instance, &weights);
        assert_eq!(
            (gpu_bytes(), objects()),
            (bytes, made),
            "{dtype:?}: made after the first step"
        );
        let far = off(&executor, &plan, &instance);
        let most: f32 = figure(most).parse().unwrap();
        println!("{dtype:?}: off by {far:.1e}");
        assert!(
            far <= most,
            "{dtype:?}: off by {far:.1e}, README has at most {most:.1e}"
        );
        all.push(bytes);
    }
    // The slots are 6.2 MB in f32.
    assert!(all[2] + 2_500_000 < all[1], "{all:?} bytes of buffers");
}

/// Draws a picture of eight steps with guidance, and counts after each. Reading back makes a buffer, so there is none of that either.
fn is_frugal(library: &Library, resident: &Resident, sampler: &str, image: Option<InitImage>) {
    let request = Request {
        prompt: "a red apple".into(),
        negative_prompt: "a pear".into(),
        width: 64,
        height: 64,
        steps: 8,
        guidance_scale: 4.0,
        sampler: Some(SamplerKind::from_name(sampler).unwrap()),
        seed: 1,
        preview: false,
        image,
    };
    let (executor, models, plans) = (&library.executor, &resident.models, &library.plans);
    let (mut made, cancel) = (Vec::new(), CancelToken::default());
    block_on(async {
        let image = encode_image(executor, models, plans, &request, &cancel).await.unwrap();
        let count = |_| made.push((gpu_bytes(), objects(), executor.pipelines()));
        let drawing = draw_picture(executor, models, plans, &request, image.as_ref(), count, &cancel);
        drawing.await.unwrap();
    });
    let name = format!("{}, {sampler}", resident.name);
    assert!(made.len() >= 8, "{name}: {} steps", made.len());
    assert!(
        made.iter().all(|then| *then == made[0]),
        "{name}: bytes, objects and pipelines after each step: {made:?}"
    );
}

#[test]
fn a_picture_makes_nothing_after_its_first_step() {
    let _alone = ALONE.lock();
    let Some(executor) = webgpu() else { return };
    let library = Library::new(executor, None);
    let folder = |name: &str| golden_path(&format!("pipelines/{name}"));
    let resident = load(&library, &folder("sd1-ddim"));
    // One after the other, for what combines buffers of former pictures is kept, up to a number.
    for sampler in SamplerKind::names() {
        is_frugal(&library, &resident, sampler, None);
    }
    // Guidance in two contexts.
    is_frugal(&library, &load(&library, &folder("sdxl")), "UniPC", None);
    // A part of an image stays.
    let resident = load(&library, &folder("sd1-image"));
    let resident = load_encoder(&library, &resident, &folder("sd1-image"));
    let grey = |of: fn(usize) -> u8| {
        let data = (0..64 * 64).flat_map(|i| [of(i), of(i), of(i), 255]).collect();
        Rc::new(Rgba {
            width: 64,
            height: 64,
            data,
        })
    };
    for sampler in ["UniPC", "DPM++ 2M"] {
        let image = InitImage {
            pixels: grey(|i| (i % 251) as u8),
            mask: Some(grey(|i| if i % 64 < 32 { 255 } else { 0 })),
            strength: InitImage::MASKED_STRENGTH,
        };
        is_frugal(&library, &resident, sampler, Some(image));
    }
}
