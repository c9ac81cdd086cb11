//! LoRAs over tiny checkpoints: merged weights as torch has them, pictures as diffusers draws them with the LoRA loaded
//! (tools/golden/lora.py), and what is no LoRA, or none for this checkpoint, refused by name.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, byte_distance, cpu, draw, golden_path, is_same_picture, load, open};
use safetensors::Dtype;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::checkpoint::{ExpectedFile, LoraSource, ProgressSink, Source};
use tintype::engine::{Engine, GenerateOptions, Recipe};
use tintype::executor::{Executor, Weights};
use tintype::graph::{Graph, Plan};
use tintype::library::{Library, LoadOptions, Resident, Room};
use tintype::pipeline::Request;
use tintype::{Error, Result};

#[derive(Deserialize)]
struct Case {
    pipeline: String,
    loras: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    scale: f32,
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_value(open("lora/cases.json")).unwrap()
}

fn lora(file: &str, scale: f32) -> LoraSource {
    LoraSource {
        source: Source::Dir(golden_path("lora")),
        path: file.into(),
        expected: ExpectedFile::default(),
        scale,
    }
}

impl Case {
    fn loras(&self) -> Vec<LoraSource> {
        self.loras.iter().map(|e| lora(&e.file, e.scale)).collect()
    }
}

fn request(pipeline: &str) -> Request {
    let case = open(&format!("pipelines/{pipeline}/case.json"));
    let size = |key: &str| case[key].as_u64().unwrap() as usize;
    Request {
        prompt: case["prompt"].as_str().unwrap().into(),
        negative_prompt: case["negative_prompt"].as_str().unwrap().into(),
        width: size("width"),
        height: size("height"),
        steps: size("steps"),
        guidance_scale: case["guidance_scale"].as_f64().unwrap() as f32,
        sampler: None,
        seed: case["seed"].as_u64().unwrap(),
        preview: false,
        image: None,
    }
}

fn set(library: &Library, id: &str, loras: &[LoraSource]) -> Result<Rc<Resident>> {
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    pollster::block_on(library.set_loras(id, loras, Room::Any, &progress, &cancel))
}

/// All tensors of a model, as they are on the device.
fn tensors(executor: &Executor, graph: Graph, weights: &Weights) -> HashMap<String, Vec<f32>> {
    let plan = Plan::new(graph);
    let mut all = HashMap::new();
    for spec in &plan.params {
        let read = pollster::block_on(executor.tensors(weights, spec)).unwrap();
        all.extend(spec.parts.iter().map(|p| p.name.clone()).zip(read));
    }
    all
}

fn all_tensors(library: &Library, resident: &Resident) -> HashMap<String, Vec<f32>> {
    let (models, executor) = (&resident.models, &library.executor);
    let tokens = models.text_encoders[0].tokenizer.length();
    let unet = models.unet.config.graph([1, 8, 8], tokens, 1).unwrap();
    let mut all = vec![("unet", tensors(executor, unet, &models.unet.weights))];
    for (name, text) in ["text_encoder", "text_encoder_2"]
        .into_iter()
        .zip(&models.text_encoders)
    {
        let graph = text.model.config.graph(1, tokens).unwrap();
        all.push((name, tensors(executor, graph, &text.model.weights)));
    }
    let named = |(component, tensors): (&str, HashMap<String, Vec<f32>>)| -> Vec<(String, Vec<f32>)> {
        let each = tensors.into_iter();
        each.map(|(name, values)| (format!("{component}.{name}"), values))
            .collect()
    };
    all.into_iter().flat_map(named).collect()
}

/// Every case over its checkpoint: the merged weights, the picture; and taken off again, the checkpoint to the bit.
fn draws_what_diffusers_draws(executor: Executor) {
    let is_gpu = executor.info().kind == "webgpu";
    let library = Library::new(executor, None);
    let expected = Golden::read("lora/expected.safetensors");
    let mut bases = HashMap::new();
    let mut wrong = Vec::new();
    for (name, case) in cases() {
        let request = request(&case.pipeline);
        let (id, plain, before) = bases.entry(case.pipeline.clone()).or_insert_with(|| {
            let resident = load(&library, &golden_path(&format!("pipelines/{}", case.pipeline)));
            let plain = draw(&library, &resident, &request);
            (resident.id.clone(), plain, all_tensors(&library, &resident))
        });
        let resident = set(&library, id, &case.loras()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(resident.all_warnings(), library.get(id).unwrap().all_warnings());
        // SDXL leaves the last layer of its text encoders alone: what a LoRA has for it is told to be of no use.
        let leaves_a_layer = case.pipeline == "sdxl";
        let warnings = &resident.loras.warnings;
        assert_eq!(warnings.len(), usize::from(leaves_a_layer), "{name}: {warnings:?}");

        let merged = all_tensors(&library, &resident);
        let mut compared = 0;
        for (key, tensor) in &expected.tensors {
            let Some(parameter) = key.strip_prefix(&format!("{name}/")).filter(|p| *p != "picture") else {
                continue;
            };
            let parameter = &parameter.replacen(".text_model.", ".", 1);
            let Some(ours) = merged.get(parameter) else {
                assert!(
                    leaves_a_layer && parameter.contains("layers.1."),
                    "{name}: {parameter} is missing"
                );
                continue;
            };
            compared += 1;
            let f16 = match case.pipeline.as_str() {
                "dpm-karras" | "sdxl" => true,
                "sd1-ddim" => parameter.starts_with("text"),
                _ => false,
            };
            let half = is_gpu && f16;
            let near = if half { 1e-3 } else { 2e-6 };
            for (i, (a, b)) in ours.iter().zip(tensor.f32()).enumerate() {
                let tolerance = near * b.abs().max(1.0);
                assert!(
                    (a - b).abs() <= tolerance,
                    "{name}: {parameter}[{i}]: {a}, torch has {b}"
                );
            }
            assert_ne!(ours, &before[parameter], "{name}: {parameter} is as it was");
        }
        let touched = merged.iter().filter(|(key, values)| *values != &before[*key]).count();
        assert_eq!(touched, compared, "{name}: what no LoRA changes is as it was");
        assert!(compared > 10, "{name}: {compared} parameters");

        let picture = &expected.get(&format!("{name}/picture")).bytes;
        let far = byte_distance(&draw(&library, &resident, &request), picture);
        println!("{name}: off by at most {}, by {:.4} in the mean", far.0, far.1);
        if !is_same_picture(far) {
            wrong.push(format!("{name}: off by at most {}, by {:.4} in the mean", far.0, far.1));
        }
        drop(resident);
        let bare = set(&library, id, &[]).unwrap();
        assert_eq!(&draw(&library, &bare, &request), plain, "{name} taken off");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

on_each_executor!(draws_what_diffusers_draws);

fn recipe(pipeline: &str, loras: &[LoraSource]) -> Recipe {
    Recipe {
        source: Source::Dir(golden_path(&format!("pipelines/{pipeline}"))),
        options: LoadOptions {
            id: Some(pipeline.into()),
            loras: loras.into(),
            ..LoadOptions::default()
        },
    }
}

fn ask(pipeline: &str) -> GenerateOptions {
    let request = request(pipeline);
    let number = |n: usize| Some(n as u32);
    GenerateOptions {
        checkpoint: pipeline.into(),
        prompt: request.prompt,
        negative_prompt: request.negative_prompt,
        width: number(request.width),
        height: number(request.height),
        steps: number(request.steps),
        guidance_scale: Some(request.guidance_scale),
        seed: Some(request.seed.to_string()),
        ..GenerateOptions::default()
    }
}

fn generated(engine: &Engine, recipe: &Recipe) -> Result<(Vec<u8>, String)> {
    let options = ask(recipe.options.id.as_deref().unwrap());
    let progress = ProgressSink::none();
    let drawing = engine.generate(1, &options, || Ok(Some(recipe.clone())), &progress, |_| ());
    let mut drawn = pollster::block_on(drawing)?;
    let picture = drawn.pictures.remove(0);
    let rgb = picture.pixels.data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]);
    Ok((rgb.collect(), picture.parameters.to_string()))
}

#[test]
fn loaded_with_a_lora_given_way_and_come_back() {
    let expected = Golden::read("lora/expected.safetensors");
    let picture = |case: &str| expected.get(&format!("{case}/picture")).bytes.clone();
    let kohya = [lora("kohya.safetensors", 0.8)];
    let engine = Engine::new(Library::new(cpu(), None));
    let with = recipe("sd2-euler", &kohya);
    let progress = ProgressSink::none();
    let resident = pollster::block_on(engine.load(0, &with, &progress)).unwrap();
    let bytes = resident.lora_bytes();
    assert!(bytes > 0);
    assert_eq!(engine.library.memory().weights, resident.bytes + bytes);
    drop(resident);
    let (first, parameters) = generated(&engine, &with).unwrap();
    assert!(is_same_picture(byte_distance(&first, &picture("kohya"))));
    assert!(parameters.contains("Loras: \"kohya: 0.8\""), "{parameters}");

    // Gone, and back by its recipe: the same picture, the same bytes.
    engine.library.unload("sd2-euler").unwrap();
    assert_eq!(engine.library.memory().weights, 0);
    assert_eq!(generated(&engine, &with).unwrap().0, first);
    assert_eq!(engine.library.get("sd2-euler").unwrap().lora_bytes(), bytes);

    // One more of the same checkpoint and LoRA has both in common with it; another scale has its own.
    let mut second = recipe("sd2-euler", &kohya);
    second.options.id = Some("other".into());
    let held = engine.library.memory().weights;
    pollster::block_on(engine.load(0, &second, &progress)).unwrap();
    assert_eq!(engine.library.memory().weights, held);
    let other = [lora("kohya.safetensors", 0.5)];
    pollster::block_on(engine.set_loras(0, "other", &other, None, &progress)).unwrap();
    assert_eq!(engine.library.memory().weights, held + bytes);
    engine.library.unload("other").unwrap();
    assert_eq!(engine.library.memory().weights, held);

    // What is not in memory is brought back by a change of its LoRAs.
    engine.library.unload("sd2-euler").unwrap();
    let peft = [lora("peft.safetensors", -0.5)];
    pollster::block_on(engine.set_loras(0, "sd2-euler", &peft, Some(&with), &progress)).unwrap();
    assert!(is_same_picture(byte_distance(
        &generated(&engine, &with).unwrap().0,
        &picture("peft")
    )));
}

#[test]
fn a_change_waits_for_the_picture_and_an_error_leaves_what_was() {
    let engine = Engine::new(Library::new(cpu(), None));
    let plain = recipe("sd2-euler", &[]);
    let progress = ProgressSink::none();
    pollster::block_on(engine.load(0, &plain, &progress)).unwrap();
    let before = generated(&engine, &plain).unwrap().0;
    let kohya = [lora("kohya.safetensors", 0.8)];
    let options = ask("sd2-euler");
    let (during, set) = pollster::block_on(futures_util::future::join(
        engine.generate(1, &options, || Ok(Some(plain.clone())), &progress, |_| ()),
        engine.set_loras(2, "sd2-euler", &kohya, Some(&plain), &progress),
    ));
    set.unwrap();
    let during = &during.unwrap().pictures[0].pixels.data;
    let during: Vec<u8> = during.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    assert_eq!(during, before, "what was asked for before is drawn without");
    let after = generated(&engine, &plain).unwrap().0;
    assert_ne!(after, before);

    let missing = [lora("missing.safetensors", 1.0)];
    let error = pollster::block_on(engine.set_loras(3, "sd2-euler", &missing, None, &progress));
    assert_eq!(error.err().map(|e| e.code()), Some("not-found"));
    assert_eq!(generated(&engine, &plain).unwrap().0, after, "the former LoRA stays");
    let nan = [lora("kohya.safetensors", f32::NAN)];
    let error = pollster::block_on(engine.set_loras(3, "sd2-euler", &nan, None, &progress));
    assert_eq!(error.err().map(|e| e.code()), Some("invalid-argument"));
    assert_eq!(generated(&engine, &plain).unwrap().0, after, "the former LoRA stays");
}

#[test]
fn overlays_count_in_the_budget() {
    let alone = {
        let engine = Engine::new(Library::new(cpu(), None));
        let kohya = [lora("kohya.safetensors", 0.8)];
        let (with, progress) = (recipe("sd2-euler", &kohya), ProgressSink::none());
        let resident = pollster::block_on(engine.load(0, &with, &progress)).unwrap();
        let working = engine.library.memory().working;
        (resident.bytes, resident.lora_bytes(), working)
    };
    let (base, over, working) = alone;
    let kohya = [lora("kohya.safetensors", 0.8)];
    let progress = ProgressSink::none();

    // No room for the overlay: refused with figures, before and after loading.
    let engine = Engine::new(Library::new(cpu(), Some(base + working + over - 1)));
    let refused = pollster::block_on(engine.load(0, &recipe("sd2-euler", &kohya), &progress));
    assert!(matches!(refused, Err(Error::OutOfMemory(m)) if m.contains("memoryBudget")));
    let plain = recipe("sd2-euler", &[]);
    pollster::block_on(engine.load(0, &plain, &progress)).unwrap();
    let before = generated(&engine, &plain).unwrap().0;
    let refused = pollster::block_on(engine.set_loras(0, "sd2-euler", &kohya, Some(&plain), &progress));
    assert!(matches!(refused, Err(Error::OutOfMemory(_))));
    assert_eq!(generated(&engine, &plain).unwrap().0, before);

    // Room for one: the next takes the former one's place.
    let engine = Engine::new(Library::new(cpu(), Some(base + working + over)));
    pollster::block_on(engine.load(0, &recipe("sd2-euler", &kohya), &progress)).unwrap();
    let less = [lora("kohya.safetensors", 0.4)];
    pollster::block_on(engine.set_loras(0, "sd2-euler", &less, None, &progress)).unwrap();
    let memory = engine.library.memory();
    assert_eq!(memory.weights, base + over);
    // One that fails then leaves nothing half done: the checkpoint comes back with what it had.
    let with = recipe("sd2-euler", &less);
    let before = generated(&engine, &with).unwrap().0;
    let huge = [file(
        "huge.safetensors",
        &changed("kohya.safetensors", |tensors| {
            for (name, (_, _, bytes)) in tensors {
                if name.contains("lora_up") {
                    bytes.iter_mut().for_each(|b| *b = 0xff);
                }
            }
        }),
    )];
    let refused = pollster::block_on(engine.set_loras(0, "sd2-euler", &huge, Some(&with), &progress));
    assert_eq!(refused.err().map(|e| e.code()), Some("corrupt"));
    assert_eq!(generated(&engine, &with).unwrap().0, before);

    // Another checkpoint gives way to an overlay.
    let mut ddpm = recipe("ddpm", &[]);
    (ddpm.options.defaults.width, ddpm.options.defaults.height) = (Some(8), Some(8));
    let other = {
        let engine = Engine::new(Library::new(cpu(), None));
        pollster::block_on(engine.load(0, &ddpm, &progress)).unwrap();
        engine.library.memory()
    };
    assert!(other.working <= working, "{} {working}", other.working);
    let budget = base + other.weights + working;
    let engine = Engine::new(Library::new(cpu(), Some(budget)));
    for recipe in [&ddpm, &plain] {
        pollster::block_on(engine.load(0, recipe, &progress)).unwrap();
    }
    assert_eq!(engine.library.residents().len(), 2);
    pollster::block_on(engine.set_loras(0, "sd2-euler", &kohya, None, &progress)).unwrap();
    let ids: Vec<String> = engine.library.residents().iter().map(|r| r.id.clone()).collect();
    assert_eq!(ids, ["sd2-euler"]);
    assert!(engine.library.memory().weights + engine.library.memory().working <= budget);
}

type Raw = (Dtype, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Raw>;

/// A file of `tests/golden/lora`, changed.
fn changed(name: &str, change: impl FnOnce(&mut Tensors)) -> Vec<u8> {
    let golden = Golden::read(&format!("lora/{name}"));
    let each = golden.tensors.into_iter();
    let mut tensors: Tensors = each.map(|(name, t)| (name, (t.dtype, t.shape, t.bytes))).collect();
    change(&mut tensors);
    written(&tensors)
}

fn written(tensors: &Tensors) -> Vec<u8> {
    let view = |(name, (dtype, shape, bytes)): (&String, &Raw)| {
        let view =
            safetensors::tensor::TensorView::new(*dtype, shape.clone(), Box::leak(bytes.clone().into_boxed_slice()));
        (name.clone(), view.unwrap())
    };
    safetensors::serialize(tensors.iter().map(view), None).unwrap()
}

fn file(name: &str, bytes: &[u8]) -> LoraSource {
    LoraSource {
        source: Source::memory([(name.to_owned(), bytes.to_vec())]),
        path: name.into(),
        expected: ExpectedFile::default(),
        scale: 1.0,
    }
}

fn floats(shape: &[usize], value: f32) -> Raw {
    let len = if shape.contains(&0) { 0 } else { shape.iter().product() };
    (
        Dtype::F32,
        shape.into(),
        (0..len).flat_map(|_| value.to_le_bytes()).collect(),
    )
}

/// A module of the kohya file.
const Q: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";

#[test]
fn what_is_no_lora_is_refused_by_name() {
    let library = Library::new(cpu(), None);
    let resident = load(&library, &golden_path("pipelines/sd2-euler"));
    let (id, request) = (resident.id.clone(), request("sd2-euler"));
    let before = draw(&library, &resident, &request);
    drop(resident);
    let weights = library.memory().weights;
    let kohya = |change: fn(&mut Tensors)| changed("kohya.safetensors", change);
    let only = |entries: &[(&str, Raw)]| {
        written(
            &entries
                .iter()
                .map(|(name, t)| (format!("{Q}.{name}"), t.clone()))
                .collect(),
        )
    };
    let checkpoint = std::fs::read(golden_path(
        "pipelines/sd2-euler/unet/diffusion_pytorch_model.safetensors",
    ))
    .unwrap();
    let sd1 = std::fs::read(golden_path("lora/locon.safetensors")).unwrap();
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        (
            "a checkpoint",
            checkpoint,
            "unsupported",
            "expected a LoRA, found a checkpoint's weights",
        ),
        ("nothing", written(&Tensors::new()), "unsupported", "expected a LoRA"),
        ("a LoRA cut off", kohya(|_| ())[..9000].to_vec(), "corrupt", "expected"),
        (
            "an embedding",
            written(&[("emb_params".to_owned(), floats(&[1, 12], 1.0))].into()),
            "unsupported",
            "expected a LoRA, found tensors of another kind (emb_params)",
        ),
        (
            "one of another family",
            written(
                &[(
                    "transformer.blocks.0.attn.to_q.lora_A.weight".to_owned(),
                    floats(&[1, 12], 1.0),
                )]
                .into(),
            ),
            "unsupported",
            "nothing in it is for this checkpoint",
        ),
        ("other sizes", sd1, "unsupported", "it is for another family"),
        (
            "no lora_up",
            kohya(|t| drop(t.remove(&format!("{Q}.lora_up.weight")).unwrap())),
            "corrupt",
            "its lora_up (lora_B) is missing",
        ),
        (
            "no lora_down",
            kohya(|t| drop(t.remove(&format!("{Q}.lora_down.weight")).unwrap())),
            "corrupt",
            "its lora_down (lora_A) is missing",
        ),
        (
            "an alpha alone",
            only(&[("alpha", floats(&[], 1.0))]),
            "corrupt",
            "what it belongs to is missing",
        ),
        (
            "two ranks",
            only(&[
                ("lora_up.weight", floats(&[4, 3], 1.0)),
                ("lora_down.weight", floats(&[2, 4], 1.0)),
            ]),
            "corrupt",
            "to be of one rank, found 3 and 2",
        ),
        (
            "a rank of 0",
            only(&[
                ("lora_up.weight", floats(&[4, 0], 1.0)),
                ("lora_down.weight", floats(&[0, 4], 1.0)),
            ]),
            "corrupt",
            "to be of one rank, found 0 and 0",
        ),
        (
            "other inputs",
            only(&[
                ("lora_up.weight", floats(&[4, 2], 1.0)),
                ("lora_down.weight", floats(&[2, 5], 1.0)),
            ]),
            "unsupported",
            "expected 4 inputs as the checkpoint has it, found shape [2, 5]",
        ),
        (
            "a vector",
            only(&[
                ("lora_up.weight", floats(&[4], 1.0)),
                ("lora_down.weight", floats(&[1, 4], 1.0)),
            ]),
            "corrupt",
            "expected two dimensions, found shape [4]",
        ),
        (
            "an alpha that is not finite",
            kohya(|t| drop(t.insert(format!("{Q}.alpha"), floats(&[], f32::INFINITY)))),
            "corrupt",
            "alpha inf is no factor",
        ),
        (
            "an alpha that is too large",
            kohya(|t| {
                t.insert(format!("{Q}.alpha"), floats(&[], 3e38));
                t.insert(format!("{Q}.lora_up.weight"), floats(&[4, 4], 1e3));
            }),
            "corrupt",
            "attn1.to_q.weight: the weights with it are no finite numbers",
        ),
        (
            "an alpha of two numbers",
            kohya(|t| drop(t.insert(format!("{Q}.alpha"), floats(&[2], 1.0)))),
            "corrupt",
            "expected one number, found shape [2]",
        ),
        (
            "NaN",
            kohya(|t| drop(t.insert(format!("{Q}.lora_up.weight"), floats(&[4, 4], f32::NAN)))),
            "corrupt",
            "attn1.to_q.weight: the weights with it are no finite numbers",
        ),
        (
            "one module twice",
            kohya(|t| {
                drop(t.insert(
                    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight".into(),
                    floats(&[4, 4], 1.0),
                ))
            }),
            "corrupt",
            "are the same tensor of down_blocks.0",
        ),
        (
            "two kinds at once",
            kohya(|t| drop(t.insert(format!("{Q}.hada_w1_a"), floats(&[4, 4], 1.0)))),
            "corrupt",
            "does not belong to the others",
        ),
        (
            "8-bit floats",
            only(&[
                ("lora_up.weight", (Dtype::F8_E4M3, vec![4, 2], vec![0; 8])),
                ("lora_down.weight", floats(&[2, 4], 1.0)),
            ]),
            "unsupported",
            "expected dtype F32, F16 or BF16, found F8_E4M3",
        ),
        (
            "OFT",
            only(&[("oft_blocks", floats(&[2, 2, 2], 1.0))]),
            "unsupported",
            "OFT is not implemented",
        ),
        (
            "LoHa with a factor missing",
            only(&[
                ("hada_w1_a", floats(&[4, 2], 1.0)),
                ("hada_w1_b", floats(&[2, 4], 1.0)),
                ("hada_w2_a", floats(&[4, 2], 1.0)),
            ]),
            "corrupt",
            "right factor (_b) is missing",
        ),
        (
            "LoKr of another size",
            only(&[("lokr_w1", floats(&[2, 2], 1.0)), ("lokr_w2", floats(&[2, 3], 1.0))]),
            "unsupported",
            "expected factors of [4, 4]",
        ),
        (
            "LoKr of sizes that overflow",
            only(&[
                ("lokr_w1", floats(&[0, 1 << 40], 1.0)),
                ("lokr_w2", floats(&[0, 1 << 40], 1.0)),
            ]),
            "unsupported",
            "expected factors of [4, 4]",
        ),
        (
            "a LoRA of sizes that overflow",
            only(&[
                ("lora_up.weight", floats(&[4, 0], 1.0)),
                ("lora_down.weight", floats(&[0, 1 << 40, 1 << 40], 1.0)),
            ]),
            "corrupt",
            "to be of one rank, found 0 and 0",
        ),
        (
            "DoRA of another size",
            kohya(|t| drop(t.insert(format!("{Q}.dora_scale"), floats(&[3, 1], 1.0)))),
            "unsupported",
            "expected [4, 1] or [1, 4]",
        ),
        (
            "a difference of another size",
            only(&[("diff", floats(&[4, 3], 1.0))]),
            "unsupported",
            "it is for another family",
        ),
    ];
    for (what, bytes, code, message) in cases {
        let error = set(
            &library,
            &id,
            &[lora("kohya.safetensors", 0.5), file("bad.safetensors", &bytes)],
        );
        let error = error.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert_eq!(error.code(), code, "{what}: {error}");
        assert!(error.message().starts_with("bad.safetensors: "), "{what}: {error}");
        assert!(error.message().contains(message), "{what}: {error}");
        assert_eq!(library.memory().weights, weights, "{what} leaves nothing");
    }
    let resident = library.get(&id).unwrap();
    assert_eq!(draw(&library, &resident, &request), before);
}

#[test]
fn keys_that_match_nothing_are_told() {
    let library = Library::new(cpu(), None);
    let id = load(&library, &golden_path("pipelines/sd2-euler")).id.clone();
    let more = changed("kohya.safetensors", |tensors| {
        for i in 0..4 {
            tensors.insert(
                format!("lora_te2_text_model_encoder_layers_{i}_mlp_fc1.alpha"),
                floats(&[], 1.0),
            );
        }
        tensors.insert("bundle_emb.style.string_to_param".into(), floats(&[2], 1.0));
    });
    let resident = set(&library, &id, &[file("more.safetensors", &more)]).unwrap();
    let [warning] = resident.loras.warnings.as_slice() else {
        panic!("{:?}", resident.loras.warnings);
    };
    assert!(
        warning.starts_with("more.safetensors: keys of no use here: 5 ("),
        "{warning}"
    );
    assert!(
        warning.contains("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"),
        "{warning}"
    );
    // A bias, and norms, which some files change as they are.
    let norm = "lora_unet_down_blocks_0_attentions_0_norm";
    let extra: Tensors = [
        (format!("{norm}.w_norm"), floats(&[4], 0.25)),
        (format!("{norm}.b_norm"), floats(&[4], -0.5)),
        ("lora_unet_conv_in.diff_b".into(), floats(&[4], 0.125)),
        ("lora_unet_conv_in.diff".into(), floats(&[4, 4, 3, 3], 0.5)),
    ]
    .into();
    let before = all_tensors(&library, &set(&library, &id, &[]).unwrap());
    let mut source = file("extra.safetensors", &written(&extra));
    source.scale = 2.0;
    let after = all_tensors(&library, &set(&library, &id, &[source]).unwrap());
    for (name, by) in [
        ("unet.down_blocks.0.attentions.0.norm.weight", 0.5),
        ("unet.down_blocks.0.attentions.0.norm.bias", -1.0),
        ("unet.conv_in.bias", 0.25),
        ("unet.conv_in.weight", 1.0),
    ] {
        let expected: Vec<f32> = before[name].iter().map(|x| x + by).collect();
        assert_eq!(after[name], expected, "{name}");
    }
}
