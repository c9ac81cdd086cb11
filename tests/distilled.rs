//! What was distilled to few steps: LoRAs and merged single files bring what they draw well with (tools/golden/distilled.py).
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, SD1, SDXL, byte_distance, cpu, golden_path, is_same_picture, open, single_file};
use std::rc::Rc;
use tintype::Result;
use tintype::cancel::CancelToken;
use tintype::checkpoint::{Assets, LoraSource, ProgressSink, Source};
use tintype::engine::{Engine, GenerateOptions, Recipe};
use tintype::executor::Executor;
use tintype::library::{DefaultsHint, Inspection, Library, LoadOptions, Resident, Room};

const HUB: &str = "pytorch_lora_weights.safetensors";

/// A LoRA of the goldens under another name.
fn lora(base: &str, path: &str, scale: f32) -> LoraSource {
    let file = if base == "sdxl" { "sdxl" } else { "locon" };
    let bytes = std::fs::read(golden_path(&format!("lora/{file}.safetensors"))).unwrap();
    LoraSource {
        expected: Default::default(),
        source: Source::memory([(path.to_owned(), bytes)]),
        path: path.into(),
        scale,
    }
}

fn recipe(base: &str, loras: &[LoraSource]) -> Recipe {
    Recipe {
        source: Source::Dir(golden_path(&format!("pipelines/{base}"))),
        options: LoadOptions {
            id: Some(base.into()),
            loras: loras.into(),
            ..LoadOptions::default()
        },
    }
}

/// Everything but steps, guidance scale and sampler.
fn ask(base: &str) -> GenerateOptions {
    let case = open(&format!("pipelines/{base}/case.json"));
    let number = |key: &str| case[key].as_u64().map(|n| n as u32);
    GenerateOptions {
        checkpoint: base.into(),
        prompt: case["prompt"].as_str().unwrap().into(),
        negative_prompt: case["negative_prompt"].as_str().unwrap().into(),
        width: number("width"),
        height: number("height"),
        seed: case["seed"].as_u64().map(|n| n.to_string()),
        ..GenerateOptions::default()
    }
}

fn draw(engine: &Engine, options: &GenerateOptions, recipe: &Recipe) -> Vec<u8> {
    let progress = ProgressSink::none();
    let drawing = engine.generate(1, options, || Ok(Some(recipe.clone())), &progress, |_| ());
    let drawn = pollster::block_on(drawing).unwrap();
    let pixels = drawn.pictures[0].pixels.data.chunks_exact(4);
    pixels.flat_map(|p| [p[0], p[1], p[2]]).collect()
}

fn set(engine: &Engine, base: &str, loras: &[LoraSource]) -> Rc<Resident> {
    pollster::block_on(engine.set_loras(2, base, loras, None, &ProgressSink::none())).unwrap()
}

/// The LoRAs' names: which checkpoint, steps, guidance scale and sampler they bring.
const CASES: [(&str, &str, &str, usize, f32, &str); 10] = [
    ("lcm-lora-sdv1-5", "sd1-ddim", "", 4, 1.0, "LCM"),
    ("lcm-lora-sdxl", "sdxl", "", 4, 1.0, "LCM"),
    ("sdxl_lightning_2step_lora", "sdxl", ".safetensors", 2, 0.0, "Euler"),
    ("sdxl_lightning_4step_lora", "sdxl", ".safetensors", 4, 0.0, "Euler"),
    ("Hyper-SD15-8steps-CFG-lora", "sd1-ddim", ".safetensors", 8, 5.0, "DDIM"),
    ("Hyper-SD15-4steps-lora", "sd1-ddim", ".safetensors", 4, 0.0, "DDIM"),
    ("Hyper-SDXL-1step-lora", "sdxl", ".safetensors", 1, 0.0, "TCD"),
    ("TCD-SDXL-LoRA", "sdxl", "", 4, 0.0, "TCD"),
    ("dmd2_sdxl_4step_lora", "sdxl", ".safetensors", 4, 0.0, "LCM"),
    ("sd_xl_turbo_lora_v1", "sdxl", ".safetensors", 4, 0.0, "Euler a"),
];

fn draws_what_diffusers_draws(executor: Executor) {
    let engine = Engine::new(Library::new(executor, None));
    let expected = Golden::read("distilled/expected.safetensors");
    let mut wrong = Vec::new();
    let mut before = Vec::new();
    for base in ["sd1-ddim", "sdxl"] {
        let recipe = recipe(base, &[]);
        let own = pollster::block_on(engine.load(0, &recipe, &ProgressSink::none())).unwrap();
        before.push((base, own.defaults.clone(), own.models.scheduler.clone()));
        drop(own);
    }
    for (name, base, ending, steps, guidance, sampler) in CASES {
        // Of a repository whose file has no name of its own, or a file.
        let path = match ending {
            "" => format!("latent/{name}/resolve/main/{HUB}"),
            ending => format!("{name}{ending}"),
        };
        let lora = lora(base, &path, 1.0);
        let resident = set(&engine, base, std::slice::from_ref(&lora));
        let d = &resident.defaults;
        let own = &before.iter().find(|(of, ..)| *of == base).unwrap().1;
        assert_eq!(
            (d.steps, d.guidance_scale, &d.sampler),
            (steps, guidance, &None),
            "{name}"
        );
        assert_eq!((d.width, d.height), (own.width, own.height), "{name}");
        assert_eq!(resident.models.scheduler.sampler_name(), sampler, "{name}");
        drop(resident);
        let ours = draw(&engine, &ask(base), &recipe(base, &[lora]));
        let far = byte_distance(&ours, &expected.get(name).bytes);
        println!("{name}: off by at most {}, by {:.4} in the mean", far.0, far.1);
        if !is_same_picture(far) {
            wrong.push(format!("{name}: {far:?}"));
        }
    }
    for (base, defaults, scheduler) in before {
        let bare = set(&engine, base, &[]);
        assert_eq!(
            (&bare.defaults, &bare.models.scheduler),
            (&defaults, &scheduler),
            "{base} taken off"
        );
    }
    // What a pipeline passes to a step is 0 where nothing is said.
    let tcd = GenerateOptions {
        sampler: Some("TCD".into()),
        steps: open("pipelines/sdxl/case.json")["steps"].as_u64().map(|n| n as u32),
        guidance_scale: open("pipelines/sdxl/case.json")["guidance_scale"]
            .as_f64()
            .map(|n| n as f32),
        ..ask("sdxl")
    };
    let far = byte_distance(&draw(&engine, &tcd, &recipe("sdxl", &[])), &expected.get("tcd").bytes);
    if !is_same_picture(far) {
        wrong.push(format!("TCD over SDXL: {far:?}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

on_each_executor!(draws_what_diffusers_draws);

fn loaded(recipe: &Recipe) -> (Engine, Rc<Resident>) {
    let engine = Engine::new(Library::new(cpu(), None));
    let resident = pollster::block_on(engine.load(0, recipe, &ProgressSink::none())).unwrap();
    (engine, resident)
}

#[test]
fn what_is_asked_for_and_what_a_catalogue_says_go_first() {
    let lightning = lora("sdxl", "sdxl_lightning_4step_lora.safetensors", 0.8);
    let mut recipe = recipe("sdxl", std::slice::from_ref(&lightning));
    recipe.options.defaults = DefaultsHint {
        steps: Some(6),
        sampler: Some("DDIM".into()),
        ..DefaultsHint::default()
    };
    let (engine, resident) = loaded(&recipe);
    assert_eq!((resident.defaults.steps, resident.defaults.guidance_scale), (6, 0.0));
    assert_eq!(resident.defaults.sampler.as_deref(), Some("DDIM"));
    drop(resident);
    let parameters = |options: &GenerateOptions| {
        let progress = ProgressSink::none();
        let drawing = engine.generate(1, options, || Ok(None), &progress, |_| ());
        let drawn = pollster::block_on(drawing).unwrap();
        let p = drawn.pictures[0].parameters.clone();
        (p.steps, p.guidance_scale, p.sampler)
    };
    assert_eq!(parameters(&ask("sdxl")), (Some(6), Some(0.0), Some("DDIM".into())));
    let asked = GenerateOptions {
        steps: Some(2),
        guidance_scale: Some(3.0),
        sampler: Some("Euler a".into()),
        ..ask("sdxl")
    };
    assert_eq!(parameters(&asked), (Some(2), Some(3.0), Some("Euler a".into())));
    assert!(engine.library.get("sdxl").unwrap().loras.warnings.len() <= 1);
}

#[test]
fn only_a_lora_that_is_laid_on_as_it_was_trained_counts() {
    let (engine, own) = loaded(&recipe("sdxl", &[]));
    let own = (own.defaults.clone(), own.models.scheduler.clone());
    let defaults = |loras: &[LoraSource]| {
        let resident = set(&engine, "sdxl", loras);
        (resident.defaults.clone(), resident.models.scheduler.clone())
    };
    let lcm = |scale| lora("sdxl", "lcm.safetensors", scale);
    let style = || lora("sdxl", "warm style.safetensors", 1.0);
    assert_eq!(defaults(&[lcm(0.0)]), own);
    assert_eq!(defaults(&[lcm(-1.0)]), own);
    assert_eq!(defaults(&[style()]), own);
    assert_eq!(defaults(&[style(), lcm(0.1)]).0.steps, 4);
    // Of two the first.
    let lightning = lora("sdxl", "sdxl_lightning_2step_lora.safetensors", 1.0);
    assert_eq!(defaults(&[lightning.clone(), lcm(1.0)]).0.steps, 2);
    assert_eq!(defaults(&[lcm(1.0), lightning]).1.sampler_name(), "LCM");
    assert_eq!(defaults(&[]), own);
}

#[test]
fn it_comes_back_with_what_its_loras_bring() {
    let recipe = recipe("sdxl", &[lora("sdxl", "lcm-lora-sdxl.safetensors", 1.0)]);
    let (engine, resident) = loaded(&recipe);
    assert_eq!(resident.defaults.steps, 4);
    drop(resident);
    let before = draw(&engine, &ask("sdxl"), &recipe);
    engine.library.unload("sdxl").unwrap();
    assert_eq!(draw(&engine, &ask("sdxl"), &recipe), before);
}

#[test]
fn where_its_scheduler_cannot_be_a_warning_says_so() {
    let lcm = lora("sdxl", "lcm-lora-sdxl.safetensors", 1.0);
    let mut recipe = recipe("sdxl", &[lcm]);
    // More steps than LCM has.
    recipe.options.defaults.steps = Some(60);
    let (_, resident) = loaded(&recipe);
    assert_eq!(resident.defaults.steps, 60);
    assert_eq!(resident.models.scheduler.sampler_name(), "Euler");
    let warnings = &resident.loras.warnings;
    let warned = warnings
        .iter()
        .filter(|w| w.contains("it draws with SDXL LCM: 4 steps"));
    assert_eq!(warned.count(), 1, "{warnings:?}");
}

/// What is said of a golden as a single file of this name, with these remarks.
fn inspected(case: &str, encoders: &[(&str, &str, bool)], name: &str, remarks: &[(&str, &str)]) -> Inspection {
    let bytes = single_file(case, encoders, |_, tensor| tensor);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let remarks = remarks
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let bytes = safetensors::serialize(file.iter(), Some(remarks)).unwrap();
    let library = Library::new(cpu(), None);
    let mut options = LoadOptions::default();
    options.open.file = Some(name.into());
    let merges = std::fs::File::open("www/tintype/assets/clip-merges.txt.gz").unwrap();
    let merges = std::io::read_to_string(flate2::read::GzDecoder::new(merges)).unwrap();
    let merges = merges
        .lines()
        .take(200)
        .fold(String::new(), |text, line| text + line + "\n");
    options.open.assets = Assets::memory(merges.into_bytes());
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let source = Source::memory([(name.to_owned(), bytes)]);
    let said = pollster::block_on(library.inspect(source.clone(), &options, &progress, &cancel)).unwrap();
    let loaded: Result<_> = pollster::block_on(library.load(source, &options, Room::Any, &progress, &cancel));
    let loaded = loaded.unwrap();
    assert_eq!(Some((loaded.defaults.clone(), loaded.factor)), said.defaults);
    assert_eq!((Some(loaded.family), &loaded.warnings), (said.family, &said.warnings));
    assert_eq!(said.sampler, Some(loaded.models.scheduler.sampler_name()));
    said
}

#[test]
fn a_single_file_is_taken_for_what_its_name_says() {
    let known = |case: &str, encoders: &[(&str, &str, bool)], name: &str, remarks: &[(&str, &str)]| {
        let said = inspected(case, encoders, name, remarks);
        let (defaults, factor) = said.defaults.unwrap();
        let of = (defaults.steps, defaults.guidance_scale, defaults.width / factor);
        (
            said.family.unwrap(),
            of,
            said.sampler.unwrap(),
            said.prediction_type.unwrap(),
            said.warnings,
        )
    };
    let by_name = |case: &str, encoders: &[(&str, &str, bool)], name: &str| {
        let (family, of, sampler, prediction, warnings) = known(case, encoders, name, &[]);
        let stem = name.trim_end_matches(".safetensors");
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert!(
            warnings[0].contains(&format!("by the name {stem:?} it is taken for {family}: ")),
            "{warnings:?}"
        );
        (family, of, sampler, prediction)
    };
    let epsilon = || "epsilon".to_owned();
    let is = by_name("sdxl-lightning", SDXL, "sd_xl_turbo_1.0_fp16.safetensors");
    assert_eq!(is, ("SDXL Turbo", (1, 0.0, 64), "Euler a", epsilon()));
    let is = by_name("sdxl-lightning", SDXL, "sdxl_lightning_8step.safetensors");
    assert_eq!(is, ("SDXL Lightning", (8, 0.0, 128), "Euler", epsilon()));
    let is = by_name("sdxl-lightning", SDXL, "DreamShaperXL_Turbo_v2_1.safetensors");
    assert_eq!(is, ("SDXL Turbo", (6, 2.0, 128), "Euler a", epsilon()));
    let is = by_name("sd1-ddim", SD1, "dreamshaper_8LCM.safetensors");
    assert_eq!(is, ("LCM", (4, 1.0, 64), "LCM", epsilon()));
    let is = by_name("sd-turbo", common::SD2, "sd_turbo.safetensors");
    assert_eq!(is, ("SD Turbo", (1, 0.0, 64), "Euler", epsilon()));

    // Remarks of the file go before its name; what it says of itself, neither changes.
    let title = [("modelspec.title", "Something Hyper-SDXL 4step")];
    let (family, of, sampler, _, warnings) = known("sdxl-lightning", SDXL, "x_lightning.safetensors", &title);
    assert_eq!((family, of, sampler), ("Hyper-SDXL", (4, 0.0, 128), "DDIM"));
    assert!(
        warnings[0].contains("by the name \"Something Hyper-SDXL 4step\""),
        "{warnings:?}"
    );
    let v = [("modelspec.prediction_type", "v")];
    let (family, _, _, prediction, _) = known("sd-turbo", common::SD2, "sd_turbo.safetensors", &v);
    assert_eq!((family, prediction.as_str()), ("SD Turbo", "v_prediction"));
    // What is told the guidance scale was distilled in another way.
    let (family, of, _, _, warnings) = known("lcm", SD1, "lightning_hyper-sd-4step.safetensors", &[]);
    assert_eq!((family, of.0, warnings), ("LCM", 4, Vec::new()));
    // Nothing is known of another one's name.
    let (family, of, _, _, warnings) = known("sd1-ddim", SD1, "sdxl_lightning_4step.safetensors", &[]);
    assert_eq!((family, of.0, warnings), ("SD 1.x", 20, Vec::new()));
}
