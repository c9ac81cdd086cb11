//! Single files in the naming of LDM: what they are recognised as, and that every tensor of published ones has its place
//! (tools/golden/single_files.py).
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use common::{Golden, SD1, SD2, SDXL, Tensor, byte_distance, draw, eighths, golden_path, nearest, open, single_file};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value as Json, json};
use sha2::Digest;
use tintype::cancel::CancelToken;
use tintype::checkpoint::recognise;
use tintype::checkpoint::single::{Layout, Part};
use tintype::checkpoint::{Assets, ExpectedFile, Header, LoraSource, OpenOptions, ProgressSink, Source};
use tintype::executor::Executor;
use tintype::graph::Graph;
use tintype::image::Rgba;
use tintype::library::{Family, Library, LoadOptions, Resident, Room};
use tintype::models::clip::ClipTextConfig;
use tintype::models::unet::UnetConfig;
use tintype::models::vae::VaeConfig;
use tintype::pipeline::{InitImage, Request};
use tintype::{Error, Result};

type Shapes = BTreeMap<String, Vec<usize>>;

fn files() -> BTreeMap<String, Shapes> {
    let file = std::fs::File::open(golden_path("single-files.json.gz")).unwrap();
    serde_json::from_reader(flate2::read::GzDecoder::new(file)).unwrap()
}

/// A header of tensors of these shapes.
fn header(tensors: &Shapes, remarks: &[(&str, &str)]) -> Header {
    let mut end = 0;
    let mut entries: Map<String, Json> = tensors
        .iter()
        .map(|(name, shape)| {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
            (name.clone(), entry)
        })
        .collect();
    let remarks: Map<String, Json> = remarks.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    entries.insert("__metadata__".into(), Json::Object(remarks));
    Header::parse("x.safetensors", Json::Object(entries).to_string().as_bytes()).unwrap()
}

fn layout(tensors: &Shapes) -> Result<Layout> {
    Layout::of(&header(tensors, &[]))
}

fn part<'a>(layout: &'a Layout, name: &str) -> &'a Part {
    layout.parts.iter().find(|part| part.name == name).unwrap()
}

/// Each parameter has its tensor, and each tensor is a parameter, but for those that drawing never needs.
fn is_used_up(part: &Part, graphs: &[Graph], left: impl Fn(&str) -> bool, place: &str) {
    let trimmed = |shape: &[usize]| -> Vec<usize> { shape.strip_suffix(&[1, 1]).unwrap_or(shape).to_vec() };
    let parts = graphs.iter().flat_map(Graph::params).flat_map(|spec| &spec.parts);
    let needed: BTreeSet<_> = parts.map(|p| (p.name.clone(), trimmed(&p.shape))).collect();
    let found: BTreeSet<_> = part
        .tensors
        .iter()
        .filter(|t| !left(&t.name))
        .map(|t| (t.name.clone(), trimmed(&t.shape)))
        .collect();
    let missing: Vec<_> = needed.difference(&found).take(5).collect();
    let unused: Vec<_> = found.difference(&needed).take(5).collect();
    assert!(
        missing.is_empty() && unused.is_empty(),
        "{place}: missing {missing:?}, unused {unused:?}"
    );
}

#[test]
fn published_files_are_understood_to_the_last_tensor() {
    let published = open("published.json");
    let files = files();
    assert_eq!(files.len(), 16);
    for (name, tensors) in &files {
        let expected = published
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["name"] == **name)
            .unwrap();
        let layout = layout(tensors).unwrap_or_else(|e| panic!("{name}: {e}"));
        let about_v: Vec<&String> = layout
            .warnings
            .iter()
            .filter(|w| !w.contains("v_prediction is taken"))
            .collect();
        assert_eq!(about_v, [""; 0], "{name}");

        let encoders = layout.parts.iter().filter(|p| p.name.starts_with("text_encoder"));
        let mut texts = Vec::new();
        for (encoder, expected) in encoders.zip(expected["texts"].as_array().unwrap()) {
            let config = ClipTextConfig::from_json(&encoder.config).unwrap();
            assert_eq!(config, ClipTextConfig::from_json(expected).unwrap(), "{name}");
            assert_eq!(expected["architectures"][0], *encoder.class, "{name}");
            let left = |tensor: &str| tensor.ends_with("position_ids");
            is_used_up(
                encoder,
                &[config.graph(1, 77).unwrap()],
                left,
                &format!("{name}: {}", encoder.name),
            );
            texts.push(config);
        }
        let unet = part(&layout, "unet");
        let mut config = UnetConfig::from_json(&unet.config).unwrap();
        let mut known = UnetConfig::from_json(&expected["unet"]).unwrap();
        let same_family = Family::of(&config, &layout.scheduler).name;
        assert_eq!(same_family, expected["family"], "{name}");
        config.texts = texts.iter().map(|text| text.hidden_size).collect();
        (known.texts, known.sample_size) = (config.texts.clone(), config.sample_size);
        // A level without transformers has a depth all the same, which nobody reads.
        for (level, known) in config.levels.iter_mut().zip(&mut known.levels) {
            if !level.down_attention {
                level.transformer_layers.clear();
                known.transformer_layers.clear();
            }
        }
        assert_eq!(config, known, "{name}");
        is_used_up(
            unet,
            &[config.graph([1, 16, 16], 77, 1).unwrap()],
            |_| false,
            &format!("{name}: unet"),
        );

        let vae = part(&layout, "vae");
        let config = VaeConfig::from_json(&vae.class, &vae.config).unwrap();
        if expected["vae"]["_class_name"] == "AutoencoderKL" {
            assert_eq!(
                config,
                VaeConfig::from_json("AutoencoderKL", &expected["vae"]).unwrap(),
                "{name}"
            );
        }
        let halves = [config.decoder([1, 8, 8]).unwrap(), config.encoder([1, 8, 8]).unwrap()];
        is_used_up(vae, &halves, |_| false, &format!("{name}: vae"));

        // What lies where in the file: no byte is in two places.
        let mut ranges: Vec<_> = layout
            .parts
            .iter()
            .flat_map(|p| &p.tensors)
            .map(|t| (t.start, t.end))
            .collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{name}");
    }
}

const FILE: &str = "x.safetensors";

/// The merges of the shipped vocabulary that a golden's table of tokens has room for.
fn merges() -> String {
    let file = std::fs::File::open("www/tintype/assets/clip-merges.txt.gz").unwrap();
    let all = std::io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
    all.lines()
        .take(200)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// `vocab.json` for these merges, put together as OpenAI does it.
fn vocabulary(merges: &str) -> Vec<u8> {
    let seen = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let chars = (0..256u32)
        .filter(seen)
        .chain(256..256 + (0..256).filter(|b| !seen(b)).count() as u32);
    let chars: Vec<char> = chars.map(|c| char::from_u32(c).unwrap()).collect();
    let bytes = chars
        .iter()
        .map(char::to_string)
        .chain(chars.iter().map(|c| format!("{c}</w>")));
    let tokens = bytes.chain(merges.lines().map(|pair| pair.replace(' ', "")));
    let tokens = tokens.chain(["<|startoftext|>", "<|endoftext|>"].map(String::from));
    let vocabulary: Map<String, Json> = tokens.zip(0..).map(|(token, id)| (token, Json::from(id))).collect();
    Json::Object(vocabulary).to_string().into_bytes()
}

fn options(name: &str) -> LoadOptions {
    LoadOptions {
        open: OpenOptions {
            file: Some(FILE.into()),
            name: Some(name.into()),
            assets: Assets::memory(merges().into_bytes()),
            ..OpenOptions::default()
        },
        ..LoadOptions::default()
    }
}

fn load(library: &Library, source: Source, options: &LoadOptions) -> Result<Rc<Resident>> {
    let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
    pollster::block_on(library.load(source, options, Room::Any, &progress, &cancel))
}

/// The golden's folder with the configurations that the single file is taken to have, and the same tokenizer.
fn folder(case: &str, layout: &Layout, change: impl Fn(&str, Tensor) -> Tensor) -> Source {
    let root = golden_path(&format!("pipelines/{case}"));
    let mut files = BTreeMap::new();
    let mut index: Json = serde_json::from_slice(&std::fs::read(root.join("model_index.json")).unwrap()).unwrap();
    index["_class_name"] = layout.pipeline_class.into();
    index["scheduler"] = json!(["diffusers", layout.scheduler["_class_name"]]);
    files.insert("model_index.json".to_owned(), index.to_string().into_bytes());
    files.insert(
        "scheduler/scheduler_config.json".into(),
        layout.scheduler.to_string().into_bytes(),
    );
    for part in &layout.parts {
        let name = part.name;
        files.insert(format!("{name}/config.json"), part.config.to_string().into_bytes());
        let stem = if name.starts_with("text") {
            "model"
        } else {
            "diffusion_pytorch_model"
        };
        let tensors = Golden::read(&format!("pipelines/{case}/{name}/{stem}.safetensors")).tensors;
        let tensors: Vec<_> = tensors
            .into_iter()
            .map(|(name, t)| {
                let t = change(part.name, t);
                (name, t)
            })
            .collect();
        let views = tensors
            .iter()
            .map(|(n, t)| (n, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
        let bytes = safetensors::serialize(views, None).unwrap();
        files.insert(format!("{name}/{stem}.safetensors"), bytes);
        if let Some(number) = name.strip_prefix("text_encoder") {
            let pad = if part.config["hidden_act"] == "gelu" {
                "!"
            } else {
                "<|endoftext|>"
            };
            let config = json!({"model_max_length": 77, "pad_token": pad}).to_string();
            files.insert(format!("tokenizer{number}/tokenizer_config.json"), config.into_bytes());
            files.insert(format!("tokenizer{number}/vocab.json"), vocabulary(&merges()));
            files.insert(format!("tokenizer{number}/merges.txt"), merges().into_bytes());
        }
    }
    Source::memory(files)
}

fn layout_of(bytes: &[u8]) -> Layout {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    Layout::of(&Header::parse(FILE, &bytes[8..8 + length]).unwrap()).unwrap()
}

fn request(case: &str) -> Request {
    let case = open(&format!("pipelines/{case}/case.json"));
    Request {
        prompt: case["prompt"].as_str().unwrap().into(),
        negative_prompt: "a small red house".into(),
        width: case["width"].as_u64().unwrap() as usize,
        height: case["height"].as_u64().unwrap() as usize,
        steps: 3,
        guidance_scale: 3.0,
        sampler: None,
        seed: 5,
        preview: false,
        image: None,
    }
}

/// A checkpoint draws the same, bit for bit, from one file as from a folder.
fn draws_the_same_from_one_file(executor: Executor) {
    let library = Library::new(executor, None);
    let cases = [
        ("sd1-ddim", SD1),
        ("bk-sdm-tiny", SD1),
        ("lcm", SD1),
        ("sd2-euler", SD2),
        ("sd2-base", SD2),
        ("sd-turbo", SD2),
        ("sdxl", SDXL),
        ("sdxl-lightning", SDXL),
        ("ssd-1b", SDXL),
        ("segmind-vega", SDXL),
        ("koala", SDXL),
    ];
    for (case, encoders) in cases {
        let as_is = |_: &str, tensor| tensor;
        let bytes = single_file(case, encoders, as_is);
        let layout = layout_of(&bytes);
        let source = Source::memory([(FILE.to_owned(), bytes)]);
        let one = load(&library, source, &options(case)).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(one.name, case);
        let many = load(&library, folder(case, &layout, as_is), &LoadOptions::default());
        let many = many.unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(one.family, many.family);
        let other = one.warnings.iter().filter(|w| !w.contains("v_prediction is taken"));
        assert_eq!(other.collect::<Vec<_>>(), [""; 0], "{case}");
        let request = request(case);
        let (one, many) = (draw(&library, &one, &request), draw(&library, &many, &request));
        assert!(one == many, "{case}: {:?}", byte_distance(&one, &many));
        let first = &one[..3];
        assert!(
            one.chunks_exact(3).any(|pixel| pixel != first),
            "{case}: nothing is drawn"
        );
    }
}

/// So it does over images: with the encoder from the start where the UNet paints into them, and read later where it doesn't.
fn draws_the_same_over_images_from_one_file(executor: Executor) {
    let library = Library::new(executor, None);
    for (case, encoders, golden) in [
        ("sd1-inpaint", SD1, "inpaint-pndm"),
        ("sdxl-inpaint", SDXL, "inpaint-xl"),
        ("sd1-image", SD1, "paint-ddpm"),
        ("sdxl-image", SDXL, "image-xl"),
    ] {
        let bytes = single_file(case, encoders, |_, tensor| tensor);
        let layout = layout_of(&bytes);
        let one = (Source::memory([(FILE.to_owned(), bytes)]), options(case));
        let many = (folder(case, &layout, |_, tensor| tensor), LoadOptions::default());
        // The folder's encoder is the one that the file brought.
        let mut comes = case.ends_with("image");
        let [one, many] = [one, many].map(|(source, options)| {
            let loaded = load(&library, source.clone(), &options).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(loaded.models.encoder.is_some(), case.ends_with("inpaint"), "{case}");
            let before = library.memory().weights;
            let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
            let reading = library.read_encoder(&loaded.id, source, &options, Room::Any, &progress, &cancel);
            let read = pollster::block_on(reading).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(library.memory().weights > before, std::mem::take(&mut comes), "{case}");
            read
        });
        let golden = Golden::read(&format!("images/{golden}.safetensors"));
        let (image, mask) = (golden.get("image"), golden.tensors.get("mask"));
        let (width, height) = (image.shape[1], image.shape[0]);
        let opaque = |data: Vec<u8>| Rc::new(Rgba { width, height, data });
        let pixels = image.bytes.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]);
        let mask = mask.map(|mask| opaque(mask.bytes.iter().flat_map(|g| [*g, *g, *g, 255]).collect()));
        let request = Request {
            prompt: "a small red house".into(),
            negative_prompt: "fox".into(),
            width,
            height,
            steps: 4,
            guidance_scale: 3.0,
            sampler: None,
            seed: 6,
            preview: false,
            image: Some(InitImage {
                pixels: opaque(pixels.collect()),
                mask,
                strength: 0.8,
            }),
        };
        let (one, many) = (draw(&library, &one, &request), draw(&library, &many, &request));
        assert!(one == many, "{case}: {:?}", byte_distance(&one, &many));
        let first = &one[..3];
        assert!(
            one.chunks_exact(3).any(|pixel| pixel != first),
            "{case}: nothing is drawn"
        );
    }
}

on_each_executor!(
    draws_the_same_from_one_file,
    draws_the_same_over_images_from_one_file,
    small_floats_draw_as_halves_do,
);

/// Floats of eight bits, some of the tensors of each kind, stay as they are, and draw what the halves that torch makes of them draw,
/// with a LoRA over them too.
fn small_floats_draw_as_halves_do(executor: Executor) {
    let tables = [Dtype::F8_E4M3, Dtype::F8_E5M2].map(eighths);
    let values = |t: &Tensor| -> Vec<f32> {
        match t.dtype {
            Dtype::F32 => t.f32(),
            _ => {
                let halves = t.bytes.as_chunks::<2>().0.iter();
                halves.map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
        }
    };
    let change = |name: &str, t: Tensor, to: Option<Dtype>| -> Tensor {
        if t.dtype == Dtype::I64 {
            return t;
        }
        let is_e5m2 = name.contains("attn") || t.shape.len() % 2 == 1;
        let table = &tables[usize::from(is_e5m2)];
        let small = values(&t).into_iter().map(|x| nearest(table, x));
        let wide = |b: u8| table[usize::from(b)];
        let (dtype, bytes) = match to {
            None if is_e5m2 => (Dtype::F8_E5M2, small.collect()),
            None => (Dtype::F8_E4M3, small.collect()),
            Some(Dtype::F16) => (
                Dtype::F16,
                small.flat_map(|b| half::f16::from_f32(wide(b)).to_le_bytes()).collect(),
            ),
            Some(_) => (Dtype::F32, small.flat_map(|b| wide(b).to_le_bytes()).collect()),
        };
        Tensor {
            dtype,
            shape: t.shape,
            bytes,
        }
    };
    let library = Library::new(executor, None);
    let all = [None, Some(Dtype::F16), Some(Dtype::F32)].map(|to| {
        let bytes = single_file("sd1-ddim", SD1, |name, t| change(name, t, to));
        load(&library, Source::memory([(FILE.to_owned(), bytes)]), &options("x")).unwrap()
    });
    let [dtypes, ..] = all.each_ref().map(|resident| {
        let unet = resident.components.iter().find(|c| c.name == "unet");
        unet.unwrap().dtypes.clone()
    });
    assert_eq!(dtypes, ["f8_e4m3", "f8_e5m2"]);
    // Vectors are f32 always: what the others take less than f16 is half of what f16 takes less than f32.
    let [small, halves, singles] = all.each_ref().map(|resident| resident.bytes as f64);
    let ratio = (singles - halves) / (halves - small);
    assert!((ratio - 2.0).abs() < 0.01, "{small}, {halves}, {singles} bytes");

    let [small, halves, _] = all;
    let lora = LoraSource {
        source: Source::Dir(golden_path("lora")),
        path: "locon.safetensors".into(),
        expected: ExpectedFile::default(),
        scale: 1.0,
    };
    let request = request("sd1-ddim");
    let [small, halves] = [small, halves].map(|resident| {
        let plain = draw(&library, &resident, &request);
        let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
        let loras = std::slice::from_ref(&lora);
        let setting = library.set_loras(&resident.id, loras, Room::Any, &progress, &cancel);
        let changed = draw(&library, &pollster::block_on(setting).unwrap(), &request);
        assert!(changed != plain, "the LoRA changes nothing");
        [plain, changed]
    });
    assert!(small == halves);
}

fn unsupported(header: &Header) -> String {
    match Layout::of(header) {
        Err(Error::Unsupported(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let files = files();
    let sd1 = &files["stable-diffusion-v1-5"];
    let xl = &files["stable-diffusion-xl-base-1.0"];
    let some = |names: &[&str]| -> Shapes { names.iter().map(|name| ((*name).to_owned(), vec![4, 4])).collect() };
    let below = |prefix: &str, prefixed: bool| -> Shapes {
        let names = sd1
            .iter()
            .filter_map(|(name, shape)| Some((name.strip_prefix(prefix)?, name, shape)));
        names
            .map(|(short, name, shape)| (if prefixed { name } else { short }.to_owned(), shape.clone()))
            .collect()
    };
    let with = |of: &Shapes, more: &[&str]| -> Shapes { of.clone().into_iter().chain(some(more)).collect() };
    let reading = |channels: usize| {
        let mut file = sd1.clone();
        file.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap()[1] = channels;
        file
    };
    let refiner: Shapes = xl
        .iter()
        .filter(|(name, _)| !name.starts_with("conditioner.embedders.0."))
        .map(|(name, shape)| (name.replace("embedders.1.", "embedders.0."), shape.clone()))
        .collect();
    let diffusers = [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "up_blocks.0.resnets.0.conv1.weight",
    ];
    for (file, what) in [
        (
            some(&["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"]),
            "a LoRA",
        ),
        (
            some(&["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"]),
            "a LoRA",
        ),
        (some(&["lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"]), "LoHa"),
        (
            some(&[
                "control_model.time_embed.0.weight",
                "control_model.input_blocks.0.0.weight",
            ]),
            "a ControlNet",
        ),
        (
            with(&some(&diffusers), &["controlnet_cond_embedding.conv_in.weight"]),
            "a ControlNet",
        ),
        (some(&["emb_params"]), "a textual inversion"),
        (
            some(&["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"]),
            "Stable Diffusion 3",
        ),
        (
            some(&["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale"]),
            "FLUX.1",
        ),
        (some(&["double_blocks.0.img_attn.qkv.weight"]), "FLUX.1"),
        (
            some(&[
                "distilled_guidance_layer.in_proj.bias",
                "double_blocks.0.img_attn.qkv.weight",
            ]),
            "Chroma",
        ),
        (some(&["model.diffusion_model.head.modulation"]), "Wan"),
        (refiner, "the SDXL refiner"),
        (with(xl, &["edm_mean", "edm_std"]), "Playground 2.5"),
        (reading(8), "InstructPix2Pix"),
        (reading(5), "a depth map"),
        (with(sd1, &["scaled_fp8"]), "scaled 8-bit floats"),
        (below("model.diffusion_model.", false), "a UNet alone"),
        (below("model.diffusion_model.", true), "a UNet without a text encoder"),
        (below("first_stage_model.", false), "an autoencoder alone"),
        (below("first_stage_model.", true), "without a UNet"),
        (below("cond_stage_model.transformer.", false), "a text encoder alone"),
        (some(&diffusers), "a UNet alone, in diffusers' names"),
        (
            some(&["decoder.conv_in.weight", "decoder.mid_block.resnets.0.conv1.weight"]),
            "an autoencoder alone",
        ),
        (
            some(&["decoder.layers.0.weight", "decoder.layers.2.conv.0.weight"]),
            "TAESD",
        ),
        (some(&["1.weight", "3.conv.0.weight"]), "TAESD"),
        (some(&["hello"]), "unknown tensors"),
        (Shapes::new(), "unknown tensors"),
    ] {
        let message = unsupported(&header(&file, &[]));
        assert!(
            message.starts_with("x.safetensors: expected a checkpoint of") && message.contains(what),
            "{message}: {what}"
        );
    }
    let mut none = sd1.clone();
    none.retain(|name, _| !name.starts_with("first_stage_model."));
    assert!(unsupported(&header(&none, &[])).contains("without an autoencoder"));
}

#[test]
fn what_a_unet_predicts_is_told_by_marks_and_remarks() {
    let files = files();
    let of = |name: &str, marks: &[&str], remarks: &[(&str, &str)]| {
        let mut tensors = files[name].clone();
        tensors.extend(marks.iter().map(|mark| ((*mark).to_owned(), vec![])));
        let layout = Layout::of(&header(&tensors, remarks)).unwrap();
        let s = &layout.scheduler;
        let side = part(&layout, "unet").config["sample_size"].as_u64().unwrap();
        let zero_snr = s["rescale_betas_zero_snr"] == true;
        (
            s["prediction_type"].as_str().unwrap().to_owned(),
            zero_snr,
            side,
            layout.warnings.len(),
        )
    };
    let (sd1, sd2, xl) = (
        "stable-diffusion-v1-5",
        "stable-diffusion-2-1-base",
        "stable-diffusion-xl-base-1.0",
    );
    let is = |prediction: &str, zero_snr, side, warnings| (prediction.to_owned(), zero_snr, side, warnings);
    assert_eq!(of(sd1, &[], &[]), is("epsilon", false, 64, 0));
    assert_eq!(of(sd2, &[], &[]), is("v_prediction", false, 96, 1));
    assert_eq!(
        of("stable-diffusion-2-inpainting", &[], &[]),
        is("epsilon", false, 64, 0)
    );
    let v768 = [("modelspec.architecture", "stable-diffusion-v2-768-v")];
    assert_eq!(of(sd2, &[], &v768), is("v_prediction", false, 96, 0));
    let v512 = [("modelspec.architecture", "stable-diffusion-v2-512")];
    assert_eq!(of(sd2, &[], &v512), is("epsilon", false, 64, 0));
    assert_eq!(
        of(sd2, &[], &[("modelspec.prediction_type", "epsilon")]),
        is("epsilon", false, 64, 0)
    );
    assert_eq!(of(xl, &[], &[]), is("epsilon", false, 128, 0));
    assert_eq!(of(xl, &["v_pred", "ztsnr"], &[]), is("v_prediction", true, 128, 0));
    assert_eq!(of(xl, &["v_pred"], &[]), is("v_prediction", false, 128, 0));
    assert_eq!(
        of(xl, &[], &[("modelspec.prediction_type", "v")]),
        is("v_prediction", false, 128, 0)
    );
}

#[test]
fn what_a_file_lacks_is_named_and_what_it_has_too_much_is_told() {
    let files = files();
    let sd2 = &files["stable-diffusion-2-1-base"];
    let mut more = sd2.clone();
    more.insert("model.diffusion_model.surprise.weight".into(), vec![1]);
    more.insert("cond_stage_model.model.visual.proj".into(), vec![1]);
    assert!(
        layout(&more).unwrap().warnings[0]
            .contains("tensors of no use: 2 (cond_stage_model.model.visual.proj, model.diffusion")
    );
    // As tools write it that begin from a folder: the last layer is left out already.
    let mut fewer = sd2.clone();
    fewer.retain(|name, _| !name.contains("resblocks.23."));
    let encoders = [sd2, &fewer].map(|file| {
        let layout = layout(file).unwrap();
        let encoder = part(&layout, "text_encoder");
        (encoder.config.clone(), encoder.tensors.len())
    });
    assert_eq!(encoders[0], encoders[1]);
    for (name, found) in [
        (
            "first_stage_model.decoder.conv_in.weight",
            "vae: tensor \"decoder.conv_in.weight\" is missing",
        ),
        (
            "model.diffusion_model.input_blocks.0.0.weight",
            "unet: tensor \"conv_in.weight\" is missing",
        ),
        (
            "cond_stage_model.model.token_embedding.weight",
            "text_encoder: tensor \"embeddings.token_embedding.weight\" is missing",
        ),
    ] {
        let mut file = sd2.clone();
        file.remove(name);
        let error = layout(&file).unwrap_err();
        assert_eq!(error.code(), "corrupt");
        assert!(
            error.message().starts_with("x.safetensors: ") && error.message().contains(found),
            "{error}"
        );
    }
    let mut torn = sd2.clone();
    torn.insert(
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight".into(),
        vec![100, 1024],
    );
    assert!(
        layout(&torn)
            .unwrap_err()
            .message()
            .contains("a multiple of three rows")
    );
}

#[test]
fn a_file_that_is_here_already_is_not_read_again() {
    let library = Library::new(common::cpu(), None);
    let bytes = single_file("sd1-ddim", SD1, |_, tensor| tensor);
    let hash = tintype::checkpoint::expected::hex(&sha2::Sha256::digest(&bytes));
    let size = bytes.len() as u64;
    let progressed = |options: &LoadOptions| {
        let reports = std::cell::RefCell::new(Vec::new());
        let progress = ProgressSink::new(|report| reports.borrow_mut().push(report));
        let source = Source::memory([(FILE.to_owned(), bytes.clone())]);
        let cancel = CancelToken::default();
        let loading = library.load(source, options, Room::Any, &progress, &cancel);
        let resident = pollster::block_on(loading).unwrap();
        drop(progress);
        let last = reports.into_inner().pop().unwrap();
        ((last.loaded_bytes, last.total_bytes, last.fraction), resident)
    };
    let known = |name: &str| {
        let mut known = options(name);
        let sha256 = Some(hash.clone());
        let file = ExpectedFile { size: None, sha256 };
        known.open.files.insert(FILE.into(), file);
        known
    };
    // Once for all of its components.
    let (read, first) = progressed(&known("a"));
    assert_eq!(read, (size, size, 1.0));
    let held = library.memory().weights;
    let (read, second) = progressed(&known("b"));
    assert_eq!(read, (0, 0, 1.0));
    assert_eq!(library.memory().weights, held);
    let ids = |r: &Resident| r.components.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second));
    let different: BTreeSet<String> = ids(&first).into_iter().collect();
    assert_eq!(different.len(), 3);

    let mut wrong = options("c");
    let sha256 = Some("0".repeat(64));
    wrong
        .open
        .files
        .insert(FILE.into(), ExpectedFile { size: None, sha256 });
    let source = Source::memory([(FILE.to_owned(), bytes.clone())]);
    assert_eq!(load(&library, source, &wrong).err().map(|e| e.code()), Some("corrupt"));
    for cut in [size as usize - 1, size as usize / 2] {
        let source = Source::memory([(FILE.to_owned(), bytes[..cut].to_vec())]);
        assert_eq!(
            load(&library, source, &options("d")).err().map(|e| e.code()),
            Some("corrupt")
        );
    }
}

/// What these tests take for a single file is what diffusers takes for one.
#[test]
fn names_are_those_that_diffusers_converts() {
    let expected = Golden::read("single-file.safetensors");
    let bytes = single_file("sd1-ddim", SD1, |_, tensor| tensor);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), expected.tensors.len());
    for (name, tensor) in file.iter() {
        let expected = expected.get(name);
        assert_eq!(tensor.shape(), expected.shape, "{name}");
        assert!(tensor.data() == expected.bytes, "{name}");
    }
}

/// Headers that are nearly right: whatever comes of them, it is no panic.
#[test]
fn headers_that_were_tampered_with_are_judged() {
    let library = Library::new(common::cpu(), None);
    let bytes = single_file("sd2-euler", SD2, |_, tensor| tensor);
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let whole: Map<String, Json> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = whole
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| (name.clone(), serde_json::from_value(entry["shape"].clone()).unwrap()))
        .collect();
    shapes.sort();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..600 {
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
        let mut end = 0usize;
        let mut entries = Map::new();
        for (name, shape) in &changed {
            let start = end;
            end = end.saturating_add(shape.iter().fold(2, |n: usize, &d| n.saturating_mul(d)));
            entries.insert(
                name.clone(),
                json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
            );
        }
        let json = Json::Object(entries).to_string();
        let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        // Its length is not known beforehand, and of the weights nothing is there.
        let files = Rc::new(BTreeMap::from([(FILE.to_owned(), bytes)]));
        let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
        let source = Source::Memory {
            files,
            chunk: 1 << 16,
            sized: false,
        };
        let said = pollster::block_on(library.inspect(source, &options("x"), &progress, &cancel));
        let outcome = match said {
            Ok(said) if said.unsupported.is_empty() => "fine",
            Ok(_) => "unsupported",
            Err(error) => error.code(),
        };
        *outcomes.entry(outcome).or_default() += 1;
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

#[test]
fn what_is_brought_in_place_of_a_checkpoint_is_known() {
    let key = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let lora = |width: usize| Shapes::from([(format!("lora_unet_{key}.lora_down.weight"), vec![4, width])]);
    let peft = Shapes::from([(
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight".into(),
        vec![4, 2048],
    )]);
    let named = |names: &[&str]| {
        names
            .iter()
            .map(|name| ((*name).to_owned(), vec![1]))
            .collect::<Shapes>()
    };
    let cases = [
        (lora(768), Some("lora"), Some("SD 1.x")),
        (lora(1024), Some("lora"), Some("SD 2.x")),
        (peft, Some("lora"), Some("SDXL")),
        (lora(32), Some("lora"), None),
        (
            named(&["decoder.conv_in.weight", "decoder.mid.block_1.norm1.weight"]),
            Some("vae"),
            None,
        ),
        (named(&["decoder.layers.0.weight"]), Some("vae"), None),
        (named(&["control_model.input_hint_block.0.weight"]), None, None),
        (named(&["text_model.encoder.layers.0.mlp.fc1.weight"]), None, None),
    ];
    for (tensors, kind, family) in cases {
        let header = header(&tensors, &[]);
        assert_eq!(recognise::kind(&header), kind, "{tensors:?}");
        assert_eq!(recognise::lora_family(&header), family, "{tensors:?}");
    }
    for (name, shapes) in files() {
        assert_eq!(recognise::kind(&header(&shapes, &[])), Some("checkpoint"), "{name}");
    }
}
