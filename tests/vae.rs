//! Autoencoders from elsewhere: in every form in which they are published they draw what diffusers draws with them
//! (tools/golden/vae.py); what does not fit is refused by name; one that is here already is not read again.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, SD1, SDXL, byte_distance, cpu, draw, golden_path, is_same_picture, open, single_file};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value as Json, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tintype::Result;
use tintype::cancel::CancelToken;
use tintype::checkpoint::expected::hex;
use tintype::checkpoint::{Assets, ExpectedFile, Progress, ProgressSink, Source, VaeSource};
use tintype::engine::{Engine, GenerateOptions, Recipe};
use tintype::executor::Executor;
use tintype::image::Rgba;
use tintype::library::{Library, LoadOptions, Resident, Room};
use tintype::pipeline::{InitImage, Request};

const KL: &str = "diffusion_pytorch_model.safetensors";

fn read(path: &str) -> Vec<u8> {
    std::fs::read(golden_path(path)).unwrap()
}

fn memory(files: &[(&str, Vec<u8>)]) -> Source {
    Source::memory(files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())))
}

fn vae(source: Source, file: Option<&str>) -> VaeSource {
    VaeSource {
        source,
        file: file.map(str::to_owned),
        name: None,
        files: BTreeMap::new(),
    }
}

fn folder(path: &str) -> VaeSource {
    vae(Source::Dir(golden_path(path)), None)
}

fn file(path: &str) -> VaeSource {
    let (folder, file) = path.rsplit_once('/').unwrap();
    vae(Source::Dir(golden_path(folder)), Some(file))
}

fn with(vae: VaeSource) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.open.vae = Some(vae);
    options
}

fn base(name: &str) -> Source {
    Source::Dir(golden_path(&format!("pipelines/{name}")))
}

/// A load, and what was reported of it.
fn load(library: &Library, source: Source, options: &LoadOptions) -> (Result<Rc<Resident>>, Vec<Progress>) {
    let reports = RefCell::new(Vec::new());
    let progress = ProgressSink::new(|report| reports.borrow_mut().push(report));
    let cancel = CancelToken::default();
    let loaded = pollster::block_on(library.load(source, options, Room::Any, &progress, &cancel));
    drop(progress);
    (loaded, reports.into_inner())
}

fn loaded(library: &Library, source: Source, options: &LoadOptions) -> Rc<Resident> {
    let (loaded, _) = load(library, source, options);
    loaded.unwrap_or_else(|e| panic!("{:?}: {e}", options.open.vae))
}

fn request(base: &str, [height, width]: [usize; 2]) -> Request {
    let case = open(&format!("pipelines/{base}/case.json"));
    Request {
        prompt: case["prompt"].as_str().unwrap().into(),
        negative_prompt: case["negative_prompt"].as_str().unwrap().into(),
        width,
        height,
        steps: case["steps"].as_u64().unwrap() as usize,
        guidance_scale: case["guidance_scale"].as_f64().unwrap() as f32,
        sampler: None,
        seed: case["seed"].as_u64().unwrap(),
        preview: false,
        image: None,
    }
}

/// Each form, and which of the goldens it is.
fn forms() -> Vec<(&'static str, VaeSource)> {
    let (config, weights) = (read("vae/kl/config.json"), read(&format!("vae/kl/{KL}")));
    let pair = ["taesd_decoder.safetensors", "taesd_encoder.safetensors"];
    let files = pair.map(|file| (file, read(&format!("vae/{file}"))));
    // Both halves in one file, as ComfyUI puts them together and as their author's module would be saved.
    let joined = |prefixes: [&str; 2]| -> Vec<u8> {
        let halves = pair.map(|file| Golden::read(&format!("vae/{file}")).tensors);
        let tensors = prefixes.iter().zip(&halves).flat_map(|(prefix, half)| {
            half.iter().map(move |(name, t)| {
                let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
                (format!("{prefix}{name}"), view)
            })
        });
        safetensors::serialize(tensors, None).unwrap()
    };
    vec![
        ("kl", folder("vae/kl")),
        // Of a whole checkpoint's folder its own folder is taken.
        (
            "kl",
            vae(
                memory(&[
                    ("model_index.json", b"{}".to_vec()),
                    ("vae/config.json", config.clone()),
                    (&format!("vae/{KL}"), weights.clone()),
                ]),
                None,
            ),
        ),
        // A host may answer with a page where it has nothing.
        (
            "kl",
            vae(
                memory(&[
                    ("config.json", b"<!doctype html>".to_vec()),
                    ("vae/config.json", config),
                    (&format!("vae/{KL}"), weights),
                ]),
                None,
            ),
        ),
        ("kl-file", file(&format!("vae/kl/{KL}"))),
        ("kl-file", file("vae/kl-ldm.safetensors")),
        ("kl-file", file("vae/kl-old.safetensors")),
        ("taesd", folder("vae/taesd")),
        ("taesd", file(&format!("vae/taesd/{KL}"))),
        ("taesd", file("vae/taesd_decoder.safetensors")),
        ("taesd", vae(memory(&files), None)),
        ("taesd", vae(memory(&files[..1]), None)),
        ("taesd", folder("vae")),
        (
            "taesd",
            vae(
                memory(&[("x.safetensors", joined(["taesd_decoder.", "taesd_encoder."]))]),
                Some("x.safetensors"),
            ),
        ),
        (
            "taesd",
            vae(
                memory(&[("x.safetensors", joined(["decoder.", "encoder."]))]),
                Some("x.safetensors"),
            ),
        ),
    ]
}

/// In each form, over a checkpoint of SD 1.x and one of SDXL. What has the same tensors is held once.
fn draws_what_diffusers_draws(executor: Executor) {
    let library = Library::new(executor, None);
    let expected = Golden::read("vae/expected.safetensors");
    let mut wrong = Vec::new();
    for base_name in ["sd1-ddim", "sdxl"] {
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        for (golden, from) in forms() {
            let said = format!("{base_name}, {golden}: {from:?}");
            let resident = loaded(&library, base(base_name), &with(from));
            assert_eq!(resident.warnings, [""; 0], "{said}");
            let picture = expected.get(&format!("{base_name}/{golden}"));
            let [height, width, 3] = picture.shape[..] else {
                panic!("{:?}", picture.shape)
            };
            let far = byte_distance(
                &draw(&library, &resident, &request(base_name, [height, width])),
                &picture.bytes,
            );
            if !is_same_picture(far) {
                wrong.push(format!("{said}: {far:?}"));
            }
            let id = &resident.components.last().unwrap().id;
            let kind = golden.trim_end_matches("-file").to_owned();
            assert_eq!(ids.entry(kind).or_insert(id.clone()), id, "{said}");
        }
        assert_eq!(ids.len(), 2);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

on_each_executor!(draws_what_diffusers_draws, draws_over_images_as_diffusers_does);

/// Over an image: the encoder is that of the autoencoder from elsewhere, whatever file it is in. A decoder alone has none.
fn draws_over_images_as_diffusers_does(executor: Executor) {
    let library = Library::new(executor, None);
    let expected = Golden::read("vae/expected.safetensors");
    let asked: Json = serde_json::from_str(&expected.metadata["over"]).unwrap();
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let (mut wrong, mut alone) = (Vec::new(), 0);
    for base_name in ["sd1-ddim", "sdxl"] {
        for (golden, from) in forms() {
            let said = format!("{base_name}, {golden}: {from:?}");
            let options = with(from);
            let resident = loaded(&library, base(base_name), &options);
            let reading = library.read_encoder(&resident.id, base(base_name), &options, Room::Any, &progress, &cancel);
            let resident = match pollster::block_on(reading) {
                Err(error) => {
                    assert_eq!(error.code(), "unsupported", "{said}: {error}");
                    assert!(
                        error
                            .message()
                            .contains("taesd_decoder.safetensors: expected an encoder beside"),
                        "{error}"
                    );
                    alone += 1;
                    continue;
                }
                Ok(resident) => resident,
            };
            let image = expected.get(&format!("image/{}", golden.trim_end_matches("-file")));
            let [height, width, 3] = image.shape[..] else {
                panic!("{:?}", image.shape)
            };
            let data = image
                .bytes
                .chunks_exact(3)
                .flat_map(|p| [p[0], p[1], p[2], 255])
                .collect();
            let mut request = request(base_name, [height, width]);
            request.prompt = asked["prompt"].as_str().unwrap().into();
            request.negative_prompt = String::new();
            request.steps = asked["steps"].as_u64().unwrap() as usize;
            request.guidance_scale = asked["guidance_scale"].as_f64().unwrap() as f32;
            request.seed = asked["seed"].as_u64().unwrap();
            request.image = Some(InitImage {
                pixels: Rc::new(Rgba { width, height, data }),
                mask: None,
                strength: asked["strength"].as_f64().unwrap(),
            });
            let picture = &expected.get(&format!("{base_name}/{golden}/over")).bytes;
            let far = byte_distance(&draw(&library, &resident, &request), picture);
            if !is_same_picture(far) {
                wrong.push(format!("{said}: {far:?}"));
            }
        }
    }
    assert_eq!(alone, 2 * 3);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The file with CLIP's vocabulary, as far as the golden has it.
fn single(bytes: Vec<u8>) -> (Source, LoadOptions) {
    let merges = std::fs::File::open("www/tintype/assets/clip-merges.txt.gz").unwrap();
    let merges = std::io::read_to_string(flate2::read::GzDecoder::new(merges)).unwrap();
    let merges = merges
        .lines()
        .take(200)
        .fold(String::new(), |text, line| text + line + "\n");
    let mut options = LoadOptions::default();
    options.open.file = Some("x.safetensors".into());
    options.open.assets = Assets::memory(merges.into_bytes());
    (memory(&[("x.safetensors", bytes)]), options)
}

/// A file without what begins so.
fn without(bytes: &[u8], prefix: &str) -> Vec<u8> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    safetensors::serialize(file.iter().filter(|(name, _)| !name.starts_with(prefix)), None).unwrap()
}

#[test]
fn the_same_component_is_held_once_whatever_file_it_is_in() {
    let library = Library::new(cpu(), None);
    let in_folder = loaded(&library, base("sd1-ddim"), &LoadOptions::default());
    let held = library.memory().weights;
    let ids = |r: &Resident| -> Vec<String> { r.components.iter().map(|c| c.id.clone()).collect() };
    let bytes = single_file("sd1-ddim", SD1, |_, tensor| tensor);
    let (source, options) = single(bytes.clone());
    let in_file = loaded(&library, source, &options);
    assert_eq!(ids(&in_file), ids(&in_folder));
    assert_eq!(library.memory().weights, held);

    // Another file, in another order, of which one component is another.
    let change = |name: &str, mut tensor: common::Tensor| {
        if name.ends_with("input_blocks.0.0.bias") {
            tensor.bytes[0] ^= 1;
        }
        tensor
    };
    let (source, options) = single(single_file("sd1-ddim", SD1, change));
    let other = loaded(&library, source, &options);
    assert_eq!(
        (&ids(&other)[0], &ids(&other)[2]),
        (&ids(&in_file)[0], &ids(&in_file)[2])
    );
    assert_ne!(ids(&other)[1], ids(&in_file)[1]);
    assert!(library.memory().weights < held + other.bytes);

    // Of two text encoders, one of OpenCLIP whose tensors are joined in a file and lie the other way round.
    let folder = loaded(&library, base("sdxl"), &LoadOptions::default());
    let (source, options) = single(single_file("sdxl", SDXL, |_, tensor| tensor));
    let file = loaded(&library, source, &options);
    assert_eq!(ids(&file), ids(&folder));

    // The autoencoder of a whole file is the one that is here.
    let mut from = with(vae(memory(&[("y.safetensors", bytes)]), Some("y.safetensors")));
    from.open.name = Some("with".into());
    let borrowed = loaded(&library, base("sdxl"), &from);
    assert_eq!(ids(&borrowed)[3], ids(&in_file)[2]);
    assert_eq!(borrowed.vae.as_deref(), Some("y.safetensors"));
    assert_eq!(borrowed.components[3].bytes, in_file.components[2].bytes);
}

#[test]
fn one_whose_file_is_known_is_not_read_again() {
    use sha2::Digest;
    let library = Library::new(cpu(), None);
    let known = |mut from: VaeSource, path: &str, bytes: &[u8]| {
        let sha256 = Some(hex(&sha2::Sha256::digest(bytes)));
        from.files.insert(path.into(), ExpectedFile { size: None, sha256 });
        from
    };
    let bytes = read("vae/kl-ldm.safetensors");
    let from = || {
        let from = vae(memory(&[("y.safetensors", bytes.clone())]), Some("y.safetensors"));
        with(known(from, "y.safetensors", &bytes))
    };
    let own = loaded(&library, base("sd1-ddim"), &LoadOptions::default());
    let total = |reports: &[Progress]| reports.last().map(|r| (r.loaded_bytes, r.total_bytes)).unwrap();
    let rest: u64 = own.components[..2].iter().map(|c| c.bytes).sum();
    let (first, reports) = load(&library, base("sd1-ddim"), &from());
    let all = rest + bytes.len() as u64;
    assert_eq!(total(&reports), (all, all));
    // The checkpoint's own is not read at all.
    assert!(reports.iter().all(|r| !r.file.starts_with("vae/")));
    let uploaded = library.counts().uploaded;
    let (second, reports) = load(&library, base("sdxl"), &from());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.components[2].id, second.components[3].id);
    let rest: u64 = second.components[..3].iter().map(|c| c.bytes).sum();
    assert_eq!(total(&reports), (rest, rest));
    assert_eq!(library.counts().uploaded - uploaded, second.bytes - own_bytes(&second));

    // A hash that it has not.
    let mut other = from();
    for file in other.open.vae.as_mut().unwrap().files.values_mut() {
        file.sha256 = Some("0".repeat(64));
    }
    assert_eq!(
        load(&library, base("sd1-ddim"), &other).0.err().map(|e| e.code()),
        Some("corrupt")
    );
}

/// Bytes in memory of the tiny autoencoder of one level, in f32.
fn own_bytes(resident: &Resident) -> u64 {
    let alone = Library::new(cpu(), None);
    let own = loaded(&alone, base("sd1-ddim"), &LoadOptions::default());
    let with = loaded(&alone, base("sd1-ddim"), &with(file("vae/kl-ldm.safetensors")));
    assert_eq!(with.components[2].id, resident.components.last().unwrap().id);
    alone.memory().weights - own.bytes
}

#[test]
fn a_variant_is_taken_where_there_is_one() {
    let library = Library::new(cpu(), None);
    let mut options = with(folder("vae/kl"));
    options.open.variant = Some("fp16".into());
    let resident = loaded(&library, base("sd1-ddim"), &options);
    assert_eq!(resident.components[2].dtypes, ["f16"]);
    let plain = |name: &str| format!("{name}: no weights of variant \"fp16\", the plain ones are used");
    assert_eq!(resident.warnings, ["text_encoder", "unet"].map(plain));
    let mut options = with(folder("vae/taesd"));
    options.open.variant = Some("fp16".into());
    let resident = loaded(&library, base("sd1-ddim"), &options);
    assert_eq!(resident.warnings, ["text_encoder", "unet", "vae"].map(plain));
    let mut options = with(file("vae/kl-ldm.safetensors"));
    options.open.variant = Some("fp16".into());
    let resident = loaded(&library, base("sd1-ddim"), &options);
    assert_eq!(
        resident.warnings,
        ["text_encoder", "unet"].map(plain),
        "a file has no variants"
    );
}

#[test]
fn a_single_file_without_one_draws_with_another() {
    let library = Library::new(cpu(), None);
    let whole = single_file("sd1-ddim", SD1, |_, tensor| tensor);
    let pruned = without(&whole, "first_stage_model.");
    let (source, mut options) = single(pruned);
    let (refused, _) = load(&library, source.clone(), &options);
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), "unsupported");
    assert!(refused.message().contains("without an autoencoder"), "{refused}");
    options.open.vae = Some(folder("pipelines/sd1-ddim"));
    let with_other = loaded(&library, source, &options);
    let (source, options) = single(whole);
    let own = loaded(&library, source, &options);
    let request = request("sd1-ddim", [32, 32]);
    assert_eq!(draw(&library, &with_other, &request), draw(&library, &own, &request));
    assert_eq!(with_other.vae.as_deref(), Some("sd1-ddim"));
}

#[test]
fn it_comes_back_with_its_checkpoint_and_pictures_name_it() {
    let engine = Engine::new(Library::new(cpu(), None));
    let recipe = || Recipe {
        source: base("sd1-ddim"),
        options: LoadOptions {
            id: Some("a".into()),
            ..with(file("vae/taesd_decoder.safetensors"))
        },
    };
    let progress = ProgressSink::none();
    let loaded = pollster::block_on(engine.load(0, &recipe(), &progress)).unwrap();
    assert_eq!(
        (loaded.factor, loaded.defaults.width),
        (8, 128),
        "sizes follow the autoencoder"
    );
    drop(loaded);
    let options = GenerateOptions {
        checkpoint: "a".into(),
        prompt: "fox".into(),
        steps: Some(1),
        ..GenerateOptions::default()
    };
    let draw = || {
        let recipe = || Ok(Some(recipe()));
        pollster::block_on(engine.generate(1, &options, recipe, &progress, |_| ())).unwrap()
    };
    let before = draw();
    let parameters = &before.pictures[0].parameters;
    assert_eq!(parameters.other("VAE"), Some("taesd_decoder.safetensors"));
    assert!(
        parameters
            .to_string()
            .contains("VAE: taesd_decoder.safetensors, Version"),
        "{parameters}"
    );
    engine.library.unload("a").unwrap();
    assert_eq!(draw().pictures[0].pixels.data, before.pictures[0].pixels.data);
}

#[test]
fn it_is_inspected_with_its_checkpoint() {
    let library = Library::new(cpu(), None);
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    let inspect =
        |options: &LoadOptions| pollster::block_on(library.inspect(base("sd1-ddim"), options, &progress, &cancel));
    let options = with(file("vae/taesd_decoder.safetensors"));
    let said = inspect(&options).unwrap();
    let loaded = loaded(&library, base("sd1-ddim"), &options);
    let held = library.memory();
    let memory = said.memory.unwrap();
    assert_eq!((memory.weights, memory.working), (held.weights, held.working));
    assert_eq!(said.defaults, Some((loaded.defaults.clone(), 8)));
    assert_eq!(said.components[2].class, "AutoencoderTiny");
    let rest: u64 = said.components[..2].iter().map(|c| c.bytes).sum();
    assert_eq!(said.bytes, rest + read("vae/taesd_decoder.safetensors").len() as u64);
    let none = inspect(&with(file("vae/taesd_encoder.safetensors"))).unwrap();
    assert!(
        none.unsupported[0].contains("an encoder alone"),
        "{:?}",
        none.unsupported
    );
}

#[test]
fn it_is_inspected_by_itself_as_it_would_be_loaded() {
    let library = Library::new(cpu(), None);
    let cancel = CancelToken::default();
    let inspect = |vae: VaeSource| {
        let mut options = LoadOptions::default();
        (options.open.file, options.open.files) = (vae.file, vae.files);
        pollster::block_on(library.inspect(vae.source, &options, &ProgressSink::none(), &cancel))
    };
    let (config, weights) = (read("vae/kl/config.json"), read(&format!("vae/kl/{KL}")));
    let prefixed = |name: &str, prefix: &str| {
        let tensors = Golden::read(name).tensors;
        let tensors = tensors.iter().map(|(name, t)| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
            (format!("{prefix}{name}"), view)
        });
        let bytes = safetensors::serialize(tensors, None).unwrap();
        vae(memory(&[("x.safetensors", bytes)]), Some("x.safetensors"))
    };
    let kl = format!("vae/kl/{KL}");
    for from in [
        folder("vae/kl"),
        file(&kl),
        file("vae/taesd_decoder.safetensors"),
        // As parts of a checkpoint's file.
        prefixed("vae/kl-ldm.safetensors", "first_stage_model."),
        prefixed("vae/kl-ldm.safetensors", "vae."),
        prefixed(&kl, "vae."),
        // Weights beside those that are read, and files of something else below.
        vae(
            memory(&[
                ("config.json", config.clone()),
                (KL, weights.clone()),
                ("diffusion_pytorch_model.fp16.safetensors", weights.clone()),
            ]),
            None,
        ),
        vae(
            memory(&[
                ("TAESD_decoder.SFT", read("vae/taesd_decoder.safetensors")),
                ("a/b.safetensors", weights.clone()),
                ("a/c.safetensors", weights.clone()),
            ]),
            None,
        ),
    ] {
        let said = inspect(from.clone()).unwrap();
        assert_eq!(
            (said.kind, said.unsupported.len()),
            (Some("vae"), 0),
            "{from:?}: {said:?}"
        );
        loaded(&library, base("sd1-ddim"), &with(from));
    }
    let changed = |from: &str, to: &str| {
        let config = String::from_utf8(config.clone()).unwrap();
        assert!(config.contains(from));
        let config = config.replace(from, to).into_bytes();
        inspect(vae(memory(&[("config.json", config), (KL, weights.clone())]), None))
    };
    // A folder of something else is no autoencoder's, whatever is below it.
    for other in [
        "{}",
        "{\"_class_name\": \"UNet2DConditionModel\"}",
        "{\"model_type\": \"clip\"}",
        "{",
    ] {
        let folder = memory(&[("config.json", other.into()), ("a.safetensors", weights.clone())]);
        let refused = inspect(vae(folder, None)).unwrap_err();
        assert_eq!(refused.code(), "not-found", "{refused}");
    }
    let torso = [
        ("vae/config.json", config.clone()),
        ("vae/diffusion_pytorch_model.safetensors", weights.clone()),
    ];
    assert_eq!(inspect(vae(memory(&torso), None)).unwrap_err().code(), "not-found");
    let pickled = memory(&[
        ("config.json", config.clone()),
        ("diffusion_pytorch_model.bin", b"x".to_vec()),
    ]);
    let said = inspect(vae(pickled, None)).unwrap();
    assert!(
        said.kind == Some("vae") && said.unsupported[0].contains("found only diffusion_pytorch_model.bin"),
        "{said:?}"
    );
    let said = changed("\"silu\"", "\"mish\"").unwrap();
    assert_eq!(said.kind, Some("vae"));
    assert!(said.unsupported[0].contains("mish"), "{said:?}");
    let refused = changed("\"layers_per_block\": 1", "\"layers_per_block\": 7").unwrap_err();
    assert_eq!(refused.code(), "corrupt", "{refused}");
}

/// A file whose tensors have these shapes, and none of their bytes.
fn header(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut end = 0;
    let entry = |(name, shape): &(&str, &[usize])| {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        (
            (*name).to_owned(),
            json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
        )
    };
    let entries: Map<String, Json> = tensors.iter().map(entry).collect();
    let json = Json::Object(entries).to_string();
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

#[test]
fn what_does_not_fit_is_refused_by_name_before_anything_is_fetched() {
    let library = Library::new(cpu(), None);
    let kept = loaded(&library, base("sd1-ddim"), &LoadOptions::default());
    let x = "x.safetensors";
    let lone = |bytes: Vec<u8>| {
        // Its length is not known beforehand, and of the weights nothing is there.
        let files = Rc::new(BTreeMap::from([(x.to_owned(), bytes)]));
        let source = Source::Memory {
            files,
            chunk: 1 << 16,
            sized: false,
        };
        vae(source, Some(x))
    };
    let config = |class: &str, more: &str| {
        let config = format!("{{\"_class_name\": \"{class}\"{more}}}");
        vae(
            memory(&[
                ("config.json", config.into_bytes()),
                (KL, read(&format!("vae/kl/{KL}"))),
            ]),
            None,
        )
    };
    let whole = single_file("sd1-ddim", SD1, |_, tensor| tensor);
    let deep: [(&str, &[usize]); 5] = [
        ("decoder.conv_in.weight", &[8, 16, 3, 3]),
        ("decoder.conv_out.weight", &[3, 4, 3, 3]),
        ("decoder.mid.block_1.norm1.weight", &[8]),
        ("decoder.up.0.block.0.conv1.weight", &[4, 4, 3, 3]),
        ("encoder.conv_in.weight", &[4, 3, 3, 3]),
    ];
    let one: &[usize] = &[1];
    for (from, code, message) in [
        (
            lone(header(&deep)),
            "unsupported",
            "latents of 4 channels, as this checkpoint's UNet has them, found one for 16",
        ),
        (
            config(
                "AutoencoderKL",
                ", \"latent_channels\": 16, \"block_out_channels\": [4, 8], \"up_block_types\": [\"UpDecoderBlock2D\"]",
            ),
            "unsupported",
            "found one for 16",
        ),
        (
            file("vae/taesd_encoder.safetensors"),
            "unsupported",
            "found an encoder alone",
        ),
        (
            lone(without(&read("vae/kl-ldm.safetensors"), "decoder.")),
            "unsupported",
            "found an encoder alone",
        ),
        (
            folder("pipelines/sd1-ddim/unet"),
            "unsupported",
            "expected AutoencoderKL or AutoencoderTiny, found \"UNet2DConditionModel\"",
        ),
        (
            config("AutoencoderKLWan", ""),
            "unsupported",
            "found \"AutoencoderKLWan\"",
        ),
        (
            file(&format!("pipelines/sd1-ddim/unet/{KL}")),
            "unsupported",
            "expected an autoencoder (AutoencoderKL or TAESD), found a UNet alone, in diffusers' names",
        ),
        (
            lone(without(&whole, "first_stage_model.")),
            "unsupported",
            "found a checkpoint without one",
        ),
        (
            lone(header(&[("lora_unet_x.lora_down.weight", one)])),
            "unsupported",
            "found a LoRA",
        ),
        (
            lone(header(&[
                ("quantize.embedding.weight", one),
                ("decoder.conv_in.weight", one),
            ])),
            "unsupported",
            "VQModel",
        ),
        (
            lone(header(&[
                ("decoder.conv_in.conv.weight", one),
                ("decoder.mid_block.x", one),
            ])),
            "unsupported",
            "found one of another kind",
        ),
        (
            lone(header(&[("hello", one)])),
            "unsupported",
            "found a file of unknown tensors",
        ),
        (lone(b"PK\x03\x04\0\0\x08\x08more".to_vec()), "unsupported", "pickle"),
        (lone(b"<!doctype html>".to_vec()), "corrupt", "found HTML"),
        (
            lone(header(&deep[1..])),
            "corrupt",
            "tensor \"decoder.conv_in.weight\" is missing",
        ),
        (
            lone(header(&[deep[0], deep[2]])),
            "corrupt",
            "tensor \"decoder.conv_out.weight\" is missing",
        ),
        (
            lone(header(&[
                ("1.weight", &[8, 4, 3, 3]),
                ("3.conv.0.weight", &[8, 8, 3, 3]),
            ])),
            "corrupt",
            "decoder: expected a convolution after its blocks",
        ),
        (
            vae(memory(&[("a", vec![])]), None),
            "not-found",
            "expected an autoencoder's config.json or safetensors file, found neither",
        ),
        (
            vae(
                memory(&[
                    ("a.safetensors", vec![]),
                    ("b.safetensors", vec![]),
                    ("c.safetensors", vec![]),
                ]),
                None,
            ),
            "not-found",
            "found 3 such files",
        ),
        (vae(memory(&[]), Some(x)), "not-found", x),
        (
            vae(memory(&[("config.json", b"[]".to_vec())]), None),
            "corrupt",
            "expected a JSON object",
        ),
    ] {
        let said = format!("{from:?}");
        let (refused, reports) = load(&library, base("sd1-ddim"), &with(from));
        let refused = refused.err().unwrap_or_else(|| panic!("{said}"));
        assert_eq!(refused.code(), code, "{refused}: {said}");
        assert!(refused.message().contains(message), "{refused}: expected {message}");
        assert!(reports.iter().all(|r| r.phase == "open"), "{said}");
    }
    assert_eq!(library.memory().weights, kept.bytes);

    // Two that do not belong together.
    let pair = memory(&[
        ("a.safetensors", read("vae/kl-ldm.safetensors")),
        ("b.safetensors", read("vae/taesd_decoder.safetensors")),
    ]);
    let (refused, _) = load(&library, base("sd1-ddim"), &with(vae(pair, None)));
    assert!(refused.err().unwrap().message().contains("parts of two"));
    let twice = read("vae/taesd_decoder.safetensors");
    let twice = memory(&[("a.safetensors", twice.clone()), ("b.safetensors", twice)]);
    let (refused, _) = load(&library, base("sd1-ddim"), &with(vae(twice, None)));
    assert!(
        refused
            .err()
            .unwrap()
            .message()
            .contains("expected each tensor in one file")
    );
}

/// Headers that are nearly right: whatever comes of them, it is no panic.
#[test]
fn headers_that_were_tampered_with_are_judged() {
    let library = Library::new(cpu(), None);
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for file in ["kl-ldm", "kl-old", "taesd_decoder", "taesd/diffusion_pytorch_model"] {
        let golden = Golden::read(&format!("vae/{file}.safetensors")).tensors;
        let shapes: Vec<(String, Vec<usize>)> = golden.into_iter().map(|(name, t)| (name, t.shape)).collect();
        for _ in 0..150 {
            let mut changed = shapes.clone();
            for _ in 0..=random(3) {
                let at = random(changed.len());
                let (name, shape) = &mut changed[at];
                match random(5) {
                    0 => drop(changed.remove(at)),
                    1 => *name = name.replace(['1', '0'], ["7", "2", "99999999999999999999"][random(3)]),
                    2 if !shape.is_empty() => {
                        let dim = random(shape.len());
                        shape[dim] = [0, 1, 3, 1000, 1 << 30][random(5)];
                    }
                    3 => shape.truncate(random(3)),
                    _ => shape.push([0, 1, 2][random(3)]),
                }
            }
            changed.sort();
            changed.dedup_by(|a, b| a.0 == b.0);
            let tensors: Vec<(&str, &[usize])> = changed.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
            let files = Rc::new(BTreeMap::from([("x".to_owned(), header_of(&tensors))]));
            let source = Source::Memory {
                files,
                chunk: 1 << 16,
                sized: false,
            };
            let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
            let options = with(vae(source, Some("x")));
            let said = pollster::block_on(library.inspect(base("sd1-ddim"), &options, &progress, &cancel));
            let outcome = match said {
                Ok(said) if said.unsupported.is_empty() => "fine",
                Ok(_) => "unsupported",
                Err(error) => error.code(),
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    println!("{outcomes:?}");
    assert!(
        outcomes
            .keys()
            .all(|code| ["fine", "unsupported", "corrupt"].contains(code)),
        "{outcomes:?}"
    );
    assert!(outcomes["corrupt"] > 100 && outcomes.contains_key("fine"));
}

/// The same as `header`, for shapes whose product is no number of bytes.
fn header_of(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut end = 0usize;
    let mut entries = Map::new();
    for (name, shape) in tensors {
        let start = end;
        end = end.saturating_add(shape.iter().fold(2, |n: usize, &d| n.saturating_mul(d)));
        let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        entries.insert((*name).to_owned(), entry);
    }
    let json = Json::Object(entries).to_string();
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

#[test]
fn goldens_are_what_they_are_said_to_be() {
    assert!(
        Golden::read("vae/kl-ldm.safetensors")
            .tensors
            .contains_key("decoder.mid.attn_1.proj_out.weight")
    );
    assert!(
        Golden::read("vae/kl-old.safetensors")
            .tensors
            .contains_key("decoder.mid_block.attentions.0.proj_attn.weight")
    );
    let tiny = Golden::read("vae/taesd_decoder.safetensors").tensors;
    assert!(tiny.contains_key("1.weight") && tiny.contains_key("3.conv.0.weight"));
    assert!(tiny.values().all(|t| t.dtype == Dtype::F32));
}
