//! The shipped checkpoints, and old names of weights: what is opened, and what is handed over.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Entry, PIPELINES, catalogue, tokens_of};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use pollster::block_on;
use safetensors::SafeTensors;
use tintype::cancel::CancelToken;
use tintype::checkpoint::{Checkpoint, DType, ExpectedFile, OpenFile, OpenOptions, Progress, ProgressSink, Source};
use tintype::executor::Executor;
use tintype::executor::cpu::Cpu;
use tintype::library::{Library, LoadOptions, Resident, Room};
use tintype::text::Tokenizer;
use tintype::{Error, Result};

fn open(entry: &Entry, progress: &ProgressSink<'_>) -> Checkpoint {
    let source = Source::Dir(entry.folder());
    let options = OpenOptions {
        files: entry.files.clone(),
        ..OpenOptions::default()
    };
    block_on(Checkpoint::open(source, &options, &CancelToken::default(), progress)).unwrap()
}

#[test]
fn the_shipped_checkpoints_open() {
    let entries = catalogue();
    assert_eq!(
        entries.len(),
        15,
        "five checkpoints, each in many steps, in four and in one"
    );
    for entry in &entries {
        let checkpoint = open(entry, &ProgressSink::none());
        assert_eq!(checkpoint.pipeline_class, "StableDiffusionPipeline");
        let classes = checkpoint.components.iter().map(|component| component.class.as_str());
        assert!(classes.eq(["CLIPTextModel", "UNet2DConditionModel", "AutoencoderTiny"]));
        assert_eq!(checkpoint.scheduler["lambda_min_clipped"], "-Infinity");
        let weights = entry.files.iter().filter(|(path, _)| path.ends_with(".safetensors"));
        assert_eq!(
            checkpoint.total_bytes(),
            weights.map(|(_, file)| file.size.unwrap()).sum::<u64>()
        );
        let conv_in = checkpoint.component("unet").unwrap().tensor("conv_in.weight").unwrap();
        assert_eq!(
            (conv_in.dtype, conv_in.shape.as_slice()),
            (DType::F16, &[64, 4, 3, 3][..])
        );

        let config = &checkpoint.component("text_encoder").unwrap().config;
        let size = |name: &str| config[name].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::new(
            &checkpoint.tokenizers[0],
            size("max_position_embeddings"),
            size("vocab_size"),
        );
        let expected = tokens_of("fox");
        assert_eq!(tokenizer.unwrap().encode("fox").ids[..expected.len()], expected);
    }
}

#[test]
fn tensors_arrive_as_the_safetensors_crate_reads_them() {
    let entry = &catalogue()[0];
    let reports: RefCell<Vec<Progress>> = RefCell::default();
    let progress = ProgressSink::new(|report| reports.borrow_mut().push(report));
    let mut checkpoint = open(entry, &progress);
    let cancel = CancelToken::default();
    let total = checkpoint.total_bytes();
    for component in &mut checkpoint.components {
        let path = &component.weights[0].path;
        let whole = fs::read(entry.folder().join(path)).unwrap();
        let sha256 = entry.files[path].sha256.clone().unwrap();
        let whole = SafeTensors::deserialize(&whole).unwrap();
        let mut count = 0;
        let read = component.for_each_piece(
            &cancel,
            &progress,
            |_| true,
            |tensor, start, piece| {
                let expected = whole.tensor(&tensor.name).unwrap();
                assert_eq!(
                    (tensor.dtype, tensor.shape.as_slice()),
                    (expected.dtype(), expected.shape())
                );
                let at = usize::try_from(start).unwrap();
                assert!(piece == &expected.data()[at..][..piece.len()], "{}", tensor.name);
                count += usize::from(at + piece.len() == expected.data().len());
                Ok(())
            },
        );
        let hashes = block_on(read).unwrap();
        assert_eq!(
            hashes[0].map(|hash| tintype::checkpoint::expected::hex(&hash)),
            Some(sha256)
        );
        assert_eq!(count, whole.len());
    }
    drop((checkpoint, progress));
    let reports = reports.into_inner();
    assert!(
        reports
            .windows(2)
            .all(|pair| pair[0].loaded_bytes <= pair[1].loaded_bytes)
    );
    assert_eq!(
        reports.first().map(|r| (r.phase, r.file.as_str(), r.fraction)),
        Some(("open", "model_index.json", 0.0))
    );
    let last = reports.last().unwrap();
    assert_eq!(
        (last.phase, last.loaded_bytes, last.total_bytes, last.fraction),
        ("weights", total, total, 1.0)
    );
}

#[test]
fn only_what_is_wanted_is_handed_over_and_a_second_time_reads_again() {
    let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
    let mut checkpoint = open(&catalogue()[0], &ProgressSink::none());
    let unet = checkpoint.component_mut("unet").unwrap();
    for _ in 0..2 {
        let mut names = Vec::new();
        let wanted = |name: &str| name.starts_with("conv_in.");
        let read = unet.for_each_piece(&cancel, &progress, wanted, |tensor, _, _| {
            names.push(tensor.name.clone());
            Ok(())
        });
        block_on(read).unwrap();
        names.sort();
        assert_eq!(names, ["conv_in.bias", "conv_in.weight"]);
    }
}

#[test]
fn cancelling_ends_a_load() {
    let mut checkpoint = open(&catalogue()[0], &ProgressSink::none());
    let unet = checkpoint.component_mut("unet").unwrap();
    let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
    let mut count = 0;
    let read = unet.for_each_piece(
        &cancel,
        &progress,
        |_| true,
        |_, _, _| {
            count += 1;
            if count == 3 {
                cancel.cancel();
            }
            Ok(())
        },
    );
    assert_eq!(block_on(read).unwrap_err().code(), "cancelled");
    assert_eq!(count, 3);
    let options = OpenOptions::default();
    let opened = Checkpoint::open(Source::memory([]), &options, &cancel, &progress);
    assert_eq!(block_on(opened).unwrap_err().code(), "cancelled");
}

#[test]
fn old_names_are_handed_over_as_new_ones() {
    let data = [0u8; 8];
    let view = || safetensors::tensor::TensorView::new(DType::F32, vec![2], &data).unwrap();
    for (class, old, new) in [
        (
            "CLIPTextModel",
            "text_model.final_layer_norm.bias",
            "final_layer_norm.bias",
        ),
        (
            "AutoencoderKL",
            "decoder.mid_block.attentions.0.query.bias",
            "decoder.mid_block.attentions.0.to_q.bias",
        ),
        ("UNet2DConditionModel", "conv_in.bias", "conv_in.bias"),
    ] {
        let bytes = safetensors::serialize([(old, view())], None).unwrap();
        let source = Source::memory([("x.safetensors".to_owned(), bytes)]);
        let cancel = CancelToken::default();
        let open = block_on(OpenFile::open(
            &source,
            "x.safetensors",
            class,
            ExpectedFile::default(),
            &cancel,
        ))
        .unwrap();
        assert_eq!(open.header().get(new).unwrap().bytes(), 8);
        let mut names = Vec::new();
        block_on(open.for_each_piece(
            &cancel,
            |name| name == new,
            |_| (),
            |tensor, _, _| {
                names.push(tensor.name.clone());
                Ok(())
            },
        ))
        .unwrap();
        assert_eq!(names, [new]);
    }
}

#[test]
fn the_goldens_open() {
    let folders = fs::read_dir("tests/golden/pipelines")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut count = 0;
    for folder in folders.filter(|folder| folder.join("model_index.json").exists()) {
        let (options, cancel, progress) = (OpenOptions::default(), CancelToken::default(), ProgressSink::none());
        let checkpoint = Checkpoint::open(Source::Dir(folder.clone()), &options, &cancel, &progress);
        let checkpoint = block_on(checkpoint).unwrap();
        assert_eq!(checkpoint.text_encoders().count(), checkpoint.tokenizers.len());
        for (encoder, files) in checkpoint.text_encoders().zip(&checkpoint.tokenizers) {
            let size = |name: &str| encoder.config[name].as_u64().unwrap() as usize;
            let tokenizer = Tokenizer::new(files, size("max_position_embeddings"), size("vocab_size"));
            assert!(tokenizer.unwrap().length() >= 2, "{}", folder.display());
        }
        count += 1;
    }
    assert!(count >= 11);
}

/// A tiny checkpoint's files, to be changed.
fn tiny() -> BTreeMap<String, Vec<u8>> {
    let root = Path::new("tests/golden/pipelines/sd1-ddim");
    let mut files = BTreeMap::new();
    for folder in ["", "scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

fn load(source: Source, options: &LoadOptions) -> Result<Rc<Resident>> {
    let library = Library::new(Executor::Cpu(Cpu::new()), None);
    block_on(library.load(
        source,
        options,
        Room::Any,
        &ProgressSink::none(),
        &CancelToken::default(),
    ))
}

fn load_tiny(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>), options: &LoadOptions) -> Result<Rc<Resident>> {
    let mut files = tiny();
    change(&mut files);
    load(Source::memory(files), options)
}

/// Adds tensors of these names to a file.
fn add_tensors(file: &mut Vec<u8>, names: &[&str]) {
    let data = [0u8; 8];
    let more = names.iter().map(|name| {
        (
            *name,
            safetensors::tensor::TensorView::new(DType::I64, vec![1], &data).unwrap(),
        )
    });
    let whole = SafeTensors::deserialize(file).unwrap();
    let tensors: Vec<_> = whole.iter().chain(more).collect();
    *file = safetensors::serialize(tensors, None).unwrap();
}

fn set(files: &mut BTreeMap<String, Vec<u8>>, path: &str, key: &str, value: serde_json::Value) {
    let mut json: serde_json::Value = serde_json::from_slice(&files[path]).unwrap();
    json[key] = value;
    files.insert(path.into(), json.to_string().into_bytes());
}

#[test]
fn checkpoints_as_published_give_no_warnings() {
    let shipped = catalogue();
    let folders = shipped.iter().map(Entry::folder);
    let goldens = PIPELINES.map(|name| Path::new("tests/golden/pipelines").join(name));
    for folder in folders.chain(goldens) {
        let resident = load(Source::Dir(folder.clone()), &LoadOptions::default()).unwrap();
        assert_eq!(resident.warnings, [""; 0], "{}", folder.display());
    }
    // Among them is what older versions saved besides, and what only img2img needs.
    let files = tiny();
    for (path, name) in [
        ("text_encoder/model.safetensors", "text_model.embeddings.position_ids"),
        ("vae/diffusion_pytorch_model.safetensors", "encoder.conv_in.weight"),
        ("vae/diffusion_pytorch_model.safetensors", "quant_conv.weight"),
    ] {
        assert!(SafeTensors::deserialize(&files[path]).unwrap().tensor(name).is_ok());
    }
}

#[test]
fn tensors_of_no_use_are_told() {
    let more = |files: &mut BTreeMap<String, Vec<u8>>| {
        let unet = files.get_mut("unet/diffusion_pytorch_model.safetensors").unwrap();
        add_tensors(unet, &["lora.1", "lora.2", "encoder.3", "position_ids"]);
        let vae = files.get_mut("vae/diffusion_pytorch_model.safetensors").unwrap();
        add_tensors(vae, &["decoder.more"]);
    };
    let mut warnings = load_tiny(more, &LoadOptions::default()).unwrap().warnings.clone();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings.remove(1), "vae: tensors of no use: 1 (decoder.more)");
    let unet = &warnings[0];
    assert!(
        unet.starts_with("unet: tensors of no use: 4 (") && unet.ends_with(", …)"),
        "{unet}"
    );
    assert_eq!(unet.matches(", ").count(), 3, "{unet}");
}

#[test]
fn a_variant_that_is_not_there_is_told() {
    let options = LoadOptions {
        open: OpenOptions {
            variant: Some("fp16".into()),
            ..OpenOptions::default()
        },
        ..LoadOptions::default()
    };
    let unet = "unet/diffusion_pytorch_model";
    let told = |resident: Rc<Resident>| -> Vec<String> {
        let name = |w: &String| w.split(": no weights of variant \"fp16\"").next().unwrap().to_owned();
        resident.warnings.iter().map(name).collect()
    };
    let one = |files: &mut BTreeMap<String, Vec<u8>>| {
        let weights = files[&format!("{unet}.safetensors")].clone();
        files.insert(format!("{unet}.fp16.safetensors"), weights);
    };
    assert_eq!(told(load_tiny(one, &options).unwrap()), ["text_encoder", "vae"]);
    // Shards of the variant go before a whole file that is not of it.
    let sharded = |files: &mut BTreeMap<String, Vec<u8>>| {
        let weights = files[&format!("{unet}.safetensors")].clone();
        files.insert(format!("{unet}.fp16-00001-of-00001.safetensors"), weights);
        let index = r#"{"weight_map": {"conv_in.bias": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}}"#;
        files.insert(format!("{unet}.safetensors.index.fp16.json"), index.into());
        files.insert(format!("{unet}.safetensors"), Vec::new());
    };
    assert_eq!(told(load_tiny(sharded, &options).unwrap()), ["text_encoder", "vae"]);
}

#[test]
fn half_precision_is_taken_where_there_is_nothing_else() {
    let rename = |files: &mut BTreeMap<String, Vec<u8>>, from: &str, to: &str| {
        let bytes = files.remove(from).unwrap();
        files.insert(to.into(), bytes);
    };
    let (unet, text) = ("unet/diffusion_pytorch_model", "text_encoder/model");
    let halves = |files: &mut BTreeMap<String, Vec<u8>>| {
        rename(
            files,
            &format!("{text}.safetensors"),
            &format!("{text}.fp16.safetensors"),
        );
        let shard = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
        rename(files, &format!("{unet}.safetensors"), &format!("unet/{shard}"));
        let index = format!(r#"{{"weight_map": {{"conv_in.bias": "{shard}"}}}}"#);
        files.insert(format!("{unet}.safetensors.index.fp16.json"), index.into());
    };
    let warnings = |variant: Option<&str>| {
        let open = OpenOptions {
            variant: variant.map(str::to_owned),
            ..OpenOptions::default()
        };
        let options = LoadOptions {
            open,
            ..LoadOptions::default()
        };
        load_tiny(halves, &options).unwrap().warnings.clone()
    };
    let told =
        |none: &str| ["text_encoder", "unet"].map(|name| format!("{name}: {none}, those of variant \"fp16\" are used"));
    assert_eq!(warnings(None), told("no plain weights"));
    let [text, unet] = told("no weights of variant \"bf16\"");
    let plain = "vae: no weights of variant \"bf16\", the plain ones are used";
    assert_eq!(warnings(Some("bf16")), [text, unet, plain.into()]);
}

#[test]
fn what_is_there_in_place_of_weights_is_told() {
    const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
    let told = |instead: Option<&str>, listed: bool| {
        let mut files = tiny();
        let bytes = files.remove(WEIGHTS).unwrap();
        if let Some(path) = instead {
            files.insert(path.into(), bytes);
        }
        let listed = files.keys().filter(|_| listed);
        let open = OpenOptions {
            files: listed.map(|path| (path.clone(), ExpectedFile::default())).collect(),
            ..OpenOptions::default()
        };
        let options = LoadOptions {
            open,
            ..LoadOptions::default()
        };
        load(Source::memory(files), &options).err().unwrap()
    };
    for listed in [false, true] {
        let error = told(Some("unet/diffusion_pytorch_model.bin"), listed);
        let message = "unet: expected safetensors, found only diffusion_pytorch_model.bin: a pickle";
        assert!(
            matches!(&error, Error::Unsupported(m) if m.starts_with(message)),
            "{error:?}"
        );
        let error = told(Some("unet/diffusion_pytorch_model.ema.safetensors"), listed);
        let there = "in unet there are diffusion_pytorch_model.ema.safetensors: the option variant chooses";
        assert!(
            matches!(&error, Error::NotFound(m) if m.starts_with(WEIGHTS) && m.contains(there)),
            "{error:?}"
        );
        let error = told(None, listed);
        assert!(
            matches!(&error, Error::NotFound(m) if m.starts_with(WEIGHTS) && m.contains("no weights of the unet")),
            "{error:?}"
        );
    }
    // A folder that is not listed is asked for the usual name.
    let folder = std::env::temp_dir().join(format!("tintype-pickled-{}", std::process::id()));
    for (path, bytes) in tiny() {
        let path = folder.join(
            path.replace("/model.s", "/pytorch_model.s")
                .replace(".safetensors", ".bin"),
        );
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            if bytes.first() == Some(&b'{') {
                bytes
            } else {
                b"PK\x03\x04 and a pickle".into()
            },
        )
        .unwrap();
    }
    let error = load(Source::Dir(folder.clone()), &LoadOptions::default())
        .err()
        .unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert!(
        matches!(&error, Error::Unsupported(m) if m.contains(".bin: expected safetensors, found a pickle")),
        "{error:?}"
    );
}

#[test]
fn a_picture_is_as_large_as_the_unet_was_trained_for() {
    let of = |sample_size: serde_json::Value| {
        let change = |files: &mut BTreeMap<String, Vec<u8>>| set(files, "unet/config.json", "sample_size", sample_size);
        load_tiny(change, &LoadOptions::default()).map(|resident| {
            let (defaults, factor) = (&resident.defaults, resident.factor);
            [defaults.width / factor, defaults.height / factor]
        })
    };
    assert_eq!(of(12.into()), Ok([12, 12]));
    assert_eq!(of(serde_json::json!([8, 20])), Ok([20, 8]));
}

#[test]
fn what_is_not_implemented_is_refused_by_file_and_key() {
    for (path, key, value) in [
        ("text_encoder/config.json", "use_attention_mask", true.into()),
        ("unet/config.json", "norm_num_groups", serde_json::Value::Null),
        ("unet/config.json", "conv_in_kernel", 4.into()),
        ("unet/config.json", "conv_out_kernel", 2.into()),
    ] {
        let error = load_tiny(|files| set(files, path, key, value), &LoadOptions::default()).err();
        assert!(
            matches!(&error, Some(Error::Unsupported(m)) if m.starts_with(&format!("{path}: {key}"))),
            "{error:?}"
        );
    }
}

/// The golden of SDXL, with a change to one of its JSON files.
fn load_xl(path: &str, key: &str, value: serde_json::Value) -> Result<Rc<Resident>> {
    let root = Path::new("tests/golden/pipelines/sdxl");
    let mut files = BTreeMap::new();
    let folders = [
        "",
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "unet",
        "vae",
    ];
    for entry in folders
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
    {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(path).unwrap());
        }
    }
    set(&mut files, path, key, value);
    load(Source::memory(files), &LoadOptions::default())
}

#[test]
fn a_checkpoint_may_have_two_text_encoders() {
    let resident = load_xl("vae/config.json", "_diffusers_version", "0.0".into()).unwrap();
    let names: Vec<&str> = resident.components.iter().map(|component| component.name).collect();
    assert_eq!(names, ["text_encoder", "text_encoder_2", "unet", "vae"]);
    assert_eq!(
        (
            resident.family,
            resident.defaults.steps,
            resident.defaults.guidance_scale
        ),
        ("SDXL", 25, 5.0)
    );
    for (path, key, value, place) in [
        (
            "unet/config.json",
            "cross_attention_dim",
            12.into(),
            "unet/config.json: cross_attention_dim",
        ),
        (
            "unet/config.json",
            "projection_class_embeddings_input_dim",
            51.into(),
            "unet/config.json: addition_embed_type",
        ),
        (
            "text_encoder_2/config.json",
            "architectures",
            serde_json::json!(["CLIPTextModel"]),
            "text_encoder_2/config.json",
        ),
        (
            "tokenizer_2/tokenizer_config.json",
            "model_max_length",
            12.into(),
            "tokenizer_2",
        ),
        (
            "model_index.json",
            "text_encoder_2",
            serde_json::json!([null, null]),
            "model_index.json",
        ),
    ] {
        let error = load_xl(path, key, value).err().unwrap();
        assert!(error.message().starts_with(place), "{error}");
    }
}

#[test]
fn a_checkpoint_that_inpaints_loads_and_says_what_it_needs() {
    let change = |files: &mut BTreeMap<String, Vec<u8>>| {
        set(
            files,
            "model_index.json",
            "_class_name",
            "StableDiffusionInpaintPipeline".into(),
        );
        set(files, "unet/config.json", "in_channels", 9.into());
        let path = "unet/diffusion_pytorch_model.safetensors";
        let whole = SafeTensors::deserialize(&files[path]).unwrap();
        let wide = vec![0u8; 4 * 9 * 9 * 4];
        let tensors: Vec<_> = (whole.iter())
            .map(|(name, tensor)| match name {
                "conv_in.weight" => {
                    assert_eq!((tensor.dtype(), tensor.shape()), (DType::F32, &[4, 4, 3, 3][..]));
                    let view = safetensors::tensor::TensorView::new(DType::F32, vec![4, 9, 3, 3], &wide);
                    (name, view.unwrap())
                }
                _ => (name, tensor),
            })
            .collect();
        let bytes = safetensors::serialize(tensors, None).unwrap();
        files.insert(path.into(), bytes);
    };
    let resident = load_tiny(change, &LoadOptions::default()).unwrap();
    assert_eq!(resident.family, "SD 1.x inpainting");
    let mut request = tintype::pipeline::Request {
        prompt: String::new(),
        negative_prompt: String::new(),
        width: 8,
        height: 8,
        steps: 1,
        guidance_scale: 1.0,
        sampler: None,
        seed: 0,
        preview: false,
        image: None,
    };
    let refused = resident.models.draws(&request).unwrap_err();
    assert_eq!(refused.code(), "unsupported");
    assert!(refused.message().contains("its UNet reads 9 channels"), "{refused}");
    assert!(
        refused.message().contains("give the options image and mask"),
        "{refused}"
    );
    let pixels = Rc::new(tintype::image::Rgba {
        width: 8,
        height: 8,
        data: vec![255; 256],
    });
    let mut image = tintype::pipeline::InitImage {
        pixels: pixels.clone(),
        mask: None,
        strength: 1.0,
    };
    request.image = Some(image.clone());
    let refused = resident.models.draws(&request).unwrap_err();
    assert!(refused.message().contains("give the option mask too"), "{refused}");
    image.mask = Some(pixels);
    request.image = Some(image);
    resident.models.draws(&request).unwrap();
    // Its encoder was read with it.
    assert!(resident.models.encoder.is_some());
    // Any other number is no model that is known.
    let change = |files: &mut BTreeMap<String, Vec<u8>>| set(files, "unet/config.json", "in_channels", 8.into());
    let refused = load_tiny(change, &LoadOptions::default()).err().unwrap();
    assert!(refused.message().contains("8 channels in and 4 out"), "{refused}");
}
