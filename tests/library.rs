//! What is held of several checkpoints: shared parts once, the rest under a budget, and what was let go comes back.

#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{catalogue, cpu, load, shipped};
use futures_util::future::join;
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::checkpoint::{ProgressSink, Source};
use tintype::engine::{Engine, GenerateOptions, Generated, Recipe};
use tintype::executor::Executor;
use tintype::library::{Library, LoadOptions, Room};
use tintype::{Error, Result};

const STYLES: [&str; 4] = ["soft", "flat", "3d", "ink"];

fn recipe(style: &str) -> Recipe {
    let mut options = LoadOptions {
        id: Some(style.into()),
        ..LoadOptions::default()
    };
    (options.defaults.width, options.defaults.height) = (Some(64), Some(64));
    // With their hashes, shared components are known before they are read.
    let entry = catalogue().into_iter().find(|entry| entry.id == style).unwrap();
    let source = Source::Dir(entry.folder());
    options.open.files = entry.files;
    Recipe { source, options }
}

fn ids(library: &Library) -> Vec<String> {
    library.residents().iter().map(|r| r.id.clone()).collect()
}

/// The bytes that a library holds of all styles, and of the first one alone.
fn weights(styles: &[&str]) -> u64 {
    let library = Library::new(cpu(), None);
    styles.iter().for_each(|style| drop(load(&library, &shipped(style))));
    library.memory().weights
}

async fn draw(engine: &Engine, style: &str) -> Result<Generated> {
    let options = GenerateOptions {
        checkpoint: style.into(),
        prompt: "fox".into(),
        steps: Some(1),
        ..GenerateOptions::default()
    };
    engine
        .generate(1, &options, || Ok(Some(recipe(style))), &ProgressSink::none(), |_| ())
        .await
}

#[test]
fn shared_components_are_held_once() {
    let library = Library::new(cpu(), None);
    let soft = load(&library, &shipped("soft"));
    let alone = library.memory().weights;
    assert_eq!(alone, soft.bytes);
    let flat = load(&library, &shipped("flat"));
    let ids = |r: &tintype::library::Resident| -> Vec<String> { r.components.iter().map(|c| c.id.clone()).collect() };
    let (soft_ids, flat_ids) = (ids(&soft), ids(&flat));
    assert_eq!(
        (&soft_ids[0], &soft_ids[2]),
        (&flat_ids[0], &flat_ids[2]),
        "text encoder and VAE"
    );
    assert_ne!(soft_ids[1], flat_ids[1], "UNet");
    let both = library.memory().weights;
    assert!(both < alone + flat.bytes, "{both}");
    library.unload(&soft.id).unwrap();
    drop(soft);
    assert_eq!(library.memory().weights, flat.bytes, "what the other has stays");
    library.unload(&flat.id).unwrap();
    drop(flat);
    let memory = library.memory();
    assert_eq!((memory.weights, memory.working), (0, 0));
}

#[test]
fn who_was_asked_for_longest_ago_gives_way() {
    let working = {
        let engine = Engine::new(Library::new(cpu(), None));
        pollster::block_on(engine.load(0, &recipe("soft"), &ProgressSink::none())).unwrap();
        engine.library.memory().working
    };
    let budget = weights(&STYLES[..3]) + working + 1000;
    let engine = Engine::new(Library::new(cpu(), Some(budget)));
    let load = |style: &str| pollster::block_on(engine.load(0, &recipe(style), &ProgressSink::none())).map(drop);
    STYLES[..3].iter().for_each(|style| load(style).unwrap());
    assert_eq!(ids(&engine.library), ["soft", "flat", "3d"]);
    let before = pollster::block_on(draw(&engine, "soft")).unwrap();
    load("ink").unwrap();
    assert_eq!(ids(&engine.library), ["soft", "3d", "ink"]);
    assert!(engine.library.memory().weights + engine.library.memory().working <= budget);

    // What gave way comes back, and draws the same.
    pollster::block_on(draw(&engine, "flat")).unwrap();
    assert_eq!(ids(&engine.library), ["soft", "ink", "flat"]);
    for style in ["3d", "ink", "flat"] {
        pollster::block_on(draw(&engine, style)).unwrap();
    }
    let again = pollster::block_on(draw(&engine, "soft")).unwrap();
    assert_eq!(again.pictures[0].pixels.data, before.pictures[0].pixels.data);
    assert_eq!(engine.library.residents().len(), 3);
}

#[test]
fn what_can_never_fit_is_refused_and_nobody_goes() {
    let budget = weights(&STYLES[..1]) + 40_000_000;
    let library = Library::new(cpu(), Some(budget));
    let soft = load(&library, &shipped("soft"));
    let (id, mut options) = (soft.id.clone(), LoadOptions::default());
    drop(soft);
    (options.defaults.width, options.defaults.height) = (Some(2048), Some(2048));
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let source = Source::Dir(shipped("flat"));
    let refused = pollster::block_on(library.load(source, &options, Room::Any, &progress, &cancel));
    let message = match refused {
        Err(Error::OutOfMemory(message)) => message,
        other => panic!("{:?}", other.map(|r| r.id.clone())),
    };
    assert!(message.contains(&format!("memoryBudget is {budget}")), "{message}");
    assert_eq!(ids(&library), [id]);
}

#[test]
fn pictures_with_more_checkpoints_than_fit_are_drawn_one_after_the_other() {
    let working = 4_000_000;
    let budget = weights(&STYLES[..1]) + working;
    let engine = Engine::new(Library::new(cpu(), Some(budget)));
    // All are asked for at once; there is room for one at a time.
    let (a, b) = (draw(&engine, "soft"), draw(&engine, "flat"));
    let (c, d) = (draw(&engine, "3d"), draw(&engine, "ink"));
    let ((a, b), (c, d)) = pollster::block_on(join(join(a, b), join(c, d)));
    for (style, drawn) in STYLES.iter().zip([a, b, c, d]) {
        let drawn = drawn.unwrap_or_else(|e| panic!("{style}: {e}"));
        assert_eq!(drawn.pictures.len(), 1, "{style}");
    }
    assert_eq!(engine.library.residents().len(), 1);
    let memory = engine.library.memory();
    assert!(memory.weights + memory.working <= budget);
}

#[test]
fn a_checkpoint_that_draws_does_not_give_way() {
    let working = 4_000_000;
    let library = Library::new(cpu(), Some(weights(&STYLES[..1]) + working));
    let source = |style| Source::Dir(shipped(style));
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let options = recipe("soft").options;
    let soft = pollster::block_on(library.load(source("soft"), &options, Room::Any, &progress, &cancel)).unwrap();
    let options = recipe("flat").options;
    let refused = pollster::block_on(library.load(source("flat"), &options, Room::Any, &progress, &cancel));
    assert_eq!(refused.err().map(|e| e.code()), Some("out-of-memory"));
    let id = soft.id.clone();
    drop(soft);
    {
        let _reserved = library.reserve(&id);
        let refused = pollster::block_on(library.load(source("flat"), &options, Room::Idle, &progress, &cancel));
        assert_eq!(refused.err().map(|e| e.code()), Some("out-of-memory"));
        assert!(library.is_crowded());
    }
    let flat = pollster::block_on(library.load(source("flat"), &options, Room::Idle, &progress, &cancel)).unwrap();
    assert_eq!(Rc::strong_count(&flat), 2);
    assert_eq!(library.residents().len(), 1);
}

#[test]
fn a_load_that_fails_takes_nothing_from_what_is_drawn() {
    let soft = recipe("soft");
    let engine = Engine::new(Library::new(cpu(), Some(weights(&STYLES) + 6_000_000)));
    pollster::block_on(engine.load(0, &soft, &ProgressSink::none())).unwrap();
    let larger = larger();
    let draw = || pollster::block_on(engine.generate(1, &larger, || Ok(None), &ProgressSink::none(), |_| ()));
    draw().unwrap();
    // Room was made for its weights before its bytes proved to be others.
    let mut forged = recipe("flat");
    for file in forged.options.open.files.values_mut() {
        file.sha256 = file.sha256.as_ref().map(|_| "0".repeat(64));
    }
    let failed = pollster::block_on(engine.load(2, &forged, &ProgressSink::none()));
    assert_eq!(failed.err().map(|e| e.code()), Some("corrupt"));
    draw().unwrap();
    assert_eq!(engine.library.memory().weights, weights(&STYLES[..1]));
}

#[test]
fn a_larger_picture_makes_the_idle_give_way() {
    let small = {
        let engine = Engine::new(Library::new(cpu(), None));
        pollster::block_on(engine.load(0, &recipe("soft"), &ProgressSink::none())).unwrap();
        engine.library.memory().working
    };
    let engine = Engine::new(Library::new(cpu(), Some(weights(&STYLES[..2]) + small + 1000)));
    for style in &STYLES[..2] {
        pollster::block_on(engine.load(0, &recipe(style), &ProgressSink::none())).unwrap();
    }
    assert_eq!(ids(&engine.library), ["soft", "flat"]);
    let larger = GenerateOptions {
        checkpoint: "soft".into(),
        steps: Some(1),
        width: Some(128),
        height: Some(128),
        ..GenerateOptions::default()
    };
    pollster::block_on(engine.generate(1, &larger, || Ok(None), &ProgressSink::none(), |_| ())).unwrap();
    assert_eq!(ids(&engine.library), ["soft"]);
    let all = GenerateOptions {
        width: Some(4096),
        height: Some(4096),
        ..larger
    };
    let refused = pollster::block_on(engine.generate(1, &all, || Ok(None), &ProgressSink::none(), |_| ()));
    assert_eq!(refused.err().map(|e| e.code()), Some("out-of-memory"));
    assert_eq!(ids(&engine.library), ["soft"]);
}

#[test]
fn a_checkpoint_is_inspected_without_being_loaded() {
    let library = Library::new(cpu(), None);
    let inspect = |source: Source, options: &LoadOptions| {
        let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
        pollster::block_on(library.inspect(source, options, &progress, &cancel))
    };
    let said = inspect(Source::Dir(shipped("soft")), &LoadOptions::default()).unwrap();
    assert_eq!(
        (said.kind, said.layout, said.unsupported.len(), said.warnings.len()),
        (Some("checkpoint"), "diffusers", 0, 0)
    );
    let nothing = library.memory();
    assert_eq!((nothing.weights, nothing.working), (0, 0));
    let loaded = load(&library, &shipped("soft"));
    let held = library.memory();
    let needs = said.memory.unwrap();
    assert_eq!((needs.weights, needs.working), (held.weights, held.working));
    assert_eq!(said.family, Some(loaded.family));
    assert_eq!(said.prediction_type.as_deref(), Some("v_prediction"));
    assert_eq!(said.defaults, Some((loaded.defaults.clone(), loaded.factor)));
    let bytes: u64 = loaded.components.iter().map(|c| c.bytes).sum();
    assert_eq!(said.bytes, bytes);
    for (said, loaded) in said.components.iter().zip(&loaded.components) {
        let (mut said, loaded) = (said.clone(), loaded.clone());
        said.id.clone_from(&loaded.id);
        assert_eq!(said, loaded);
    }

    // What can't be loaded is said, not thrown; what is not there is.
    let single = |name: &str| {
        let mut options = LoadOptions::default();
        options.open.file = Some(name.into());
        options
    };
    let file = |bytes: Vec<u8>| Source::memory([("x".to_owned(), bytes)]);
    let gguf = inspect(file(b"GGUF\x03\0\0\0more".to_vec()), &single("x")).unwrap();
    assert_eq!(
        (gguf.kind, gguf.layout, gguf.family, gguf.memory),
        (None, "single-file", None, None)
    );
    assert!(gguf.unsupported[0].contains("found GGUF"), "{:?}", gguf.unsupported);
    let missing = inspect(file(Vec::new()), &single("y"));
    assert_eq!(missing.unwrap_err().code(), "not-found");
    let damaged = inspect(file(vec![1; 4]), &single("x"));
    assert_eq!(damaged.unwrap_err().code(), "corrupt");
    let lora = inspect(
        file(std::fs::read(common::golden_path("lora/kohya.safetensors")).unwrap()),
        &single("x"),
    )
    .unwrap();
    assert_eq!(
        (lora.kind, lora.name.as_str(), lora.unsupported.len()),
        (Some("lora"), "x", 0)
    );

    let small = Library::new(cpu(), Some(1000));
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let options = LoadOptions::default();
    let tight = pollster::block_on(small.inspect(Source::Dir(shipped("soft")), &options, &progress, &cancel)).unwrap();
    assert_eq!((tight.memory, tight.budget), (said.memory, Some(1000)));
    assert!(
        tight.unsupported[0].contains("memoryBudget is 1000"),
        "{:?}",
        tight.unsupported
    );
}

#[test]
fn guidance_runs_in_two_passes_where_a_batch_has_no_room() {
    let Some(gpu) = common::webgpu() else { return };
    let mut soft = recipe("soft");
    soft.options.defaults.steps = Some(2);
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let inspect = |library: &Library| {
        let said = library.inspect(soft.source.clone(), &soft.options, &progress, &cancel);
        pollster::block_on(said).unwrap()
    };
    let drawn = |engine: &Engine| {
        let loaded = pollster::block_on(engine.load(0, &soft, &ProgressSink::none()));
        assert!(loaded.unwrap().defaults.guidance_scale > 1.0);
        let options = GenerateOptions {
            checkpoint: "soft".into(),
            prompt: "fox".into(),
            ..GenerateOptions::default()
        };
        let drawing = engine.generate(1, &options, || Ok(Some(soft.clone())), &progress, |_| ());
        let generated = pollster::block_on(drawing).unwrap();
        (generated.pictures[0].pixels.data.clone(), engine.library.memory())
    };
    let roomy = Engine::new(Library::new(gpu, None));
    let needs = inspect(&roomy.library).memory.unwrap();
    let (batched, held) = drawn(&roomy);
    assert_eq!(held.weights + held.working, needs.peak());

    let budget = needs.peak() - 1;
    let tight = Engine::new(Library::new(common::webgpu().unwrap(), Some(budget)));
    let said = inspect(&tight.library);
    assert!(said.unsupported.is_empty(), "{:?}", said.unsupported);
    let (apart, held) = drawn(&tight);
    assert_eq!(held.weights + held.working, said.memory.unwrap().peak());
    assert!(held.weights == needs.weights && held.weights + held.working <= budget);
    let furthest = batched.iter().zip(&apart).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest <= Some(1), "{furthest:?}");

    // Where not even that has room, nothing is loaded.
    let library = Library::new(common::webgpu().unwrap(), Some(held.weights + held.working - 1));
    assert!(inspect(&library).unsupported[0].contains("memoryBudget is"));
    let refused = library.load(soft.source.clone(), &soft.options, Room::Any, &progress, &cancel);
    assert_eq!(pollster::block_on(refused).err().unwrap().code(), "out-of-memory");
}

/// A GPU of so much memory.
fn engine_with(memory: u64) -> Engine {
    let options = tintype::executor::webgpu::Options {
        memory: Some(memory),
        ..Default::default()
    };
    let gpu = pollster::block_on(tintype::executor::webgpu::Webgpu::new(options)).unwrap();
    Engine::new(Library::new(Executor::Webgpu(gpu), None))
}

/// Bytes of buffers that there are.
fn used(engine: &Engine, memory: u64) -> u64 {
    match &engine.library.executor {
        Executor::Webgpu(gpu) => memory - gpu.memory_left().unwrap(),
        Executor::Cpu(_) => 0,
    }
}

/// A picture that is larger than what "soft" draws by default.
fn larger() -> GenerateOptions {
    GenerateOptions {
        checkpoint: "soft".into(),
        prompt: "fox".into(),
        steps: Some(1),
        width: Some(128),
        height: Some(128),
        ..GenerateOptions::default()
    }
}

fn draw_larger(engine: &Engine) -> Result<Vec<u8>> {
    let (options, progress) = (larger(), ProgressSink::none());
    let drawing = engine.generate(1, &options, || Ok(None), &progress, |_| ());
    pollster::block_on(drawing).map(|drawn| drawn.pictures[0].pixels.data.clone())
}

fn furthest(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

const PLENTY: u64 = 1 << 40;

#[test]
fn on_a_device_with_less_memory_than_was_thought_the_idle_give_way() {
    if common::webgpu().is_none() {
        return;
    }
    let both = |memory: u64| -> Result<Engine> {
        let engine = engine_with(memory);
        for style in ["flat", "soft"] {
            pollster::block_on(engine.load(0, &recipe(style), &ProgressSink::none()))?;
        }
        Ok(engine)
    };
    let roomy = both(PLENTY).unwrap();
    let right = draw_larger(&roomy).unwrap();
    let (all, working) = (used(&roomy, PLENTY), roomy.library.memory().working);
    assert_eq!(ids(&roomy.library), ["flat", "soft"]);
    // Less and less, until slots that are freed and guidance in two passes do not do any more.
    let engine = (1..=16).find_map(|sixteenths| {
        let engine = both(all - working * sixteenths / 16).unwrap();
        assert_eq!(
            ids(&engine.library),
            ["flat", "soft"],
            "there is room for both without a picture"
        );
        let drawn = draw_larger(&engine).unwrap();
        assert!(furthest(&right, &drawn) <= 1);
        (ids(&engine.library) == ["soft"]).then_some(engine)
    });
    // From what one picture holds with guidance as a batch on: the first that has room beside both runs it in two passes.
    roomy.library.plans.clear();
    assert_eq!(furthest(&right, &draw_larger(&roomy).unwrap()), 0);
    let (held, batch) = (used(&roomy, PLENTY), roomy.library.memory().working);
    let apart = (0..16).find_map(|steps| {
        let engine = both(held + steps * batch / 64).unwrap();
        assert!(furthest(&right, &draw_larger(&engine).unwrap()) <= 1);
        let has_both = ids(&engine.library) == ["flat", "soft"];
        has_both.then(|| engine.library.memory().working)
    });
    assert!(apart.unwrap() < batch, "{apart:?} bytes of slots, a batch has {batch}");
    // Who gave way comes back when it is asked for.
    let engine = engine.unwrap();
    let back = pollster::block_on(draw(&engine, "flat")).unwrap();
    assert_eq!(back.pictures.len(), 1);
    assert!(ids(&engine.library).contains(&"flat".to_owned()));
}

#[test]
fn a_checkpoint_whose_batch_has_no_room_on_the_device_is_loaded_for_two_passes() {
    if common::webgpu().is_none() {
        return;
    }
    // Large enough for a batch to take more than two prompts' keys and values do.
    let mut recipe = recipe("soft");
    (recipe.options.defaults.width, recipe.options.defaults.height) = (Some(256), Some(256));
    let loaded = |memory: u64| -> Result<Engine> {
        let engine = engine_with(memory);
        pollster::block_on(engine.load(0, &recipe, &ProgressSink::none())).map(|_| engine)
    };
    let roomy = loaded(PLENTY).unwrap();
    let (all, working) = (used(&roomy, PLENTY), roomy.library.memory().working);
    let right = pollster::block_on(draw(&roomy, "soft")).unwrap();
    // A byte less than the batch takes, and less, until not even two passes have room.
    let mut passed = 0;
    for sixteenths in 0..16 {
        match loaded(all - 1 - working * sixteenths / 16) {
            Ok(engine) => {
                assert!(engine.library.memory().working < working);
                let drawn = pollster::block_on(draw(&engine, "soft")).unwrap();
                assert!(furthest(&right.pictures[0].pixels.data, &drawn.pictures[0].pixels.data) <= 1);
                passed += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), "out-of-memory");
                break;
            }
        }
    }
    assert!(passed > 0);
}
