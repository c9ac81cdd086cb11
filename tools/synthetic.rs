//! Writes checkpoints of real shapes with random weights, to measure with. They draw noise.
//!
//! `cargo run --example synthetic -- FOLDER [--bytes 1000000000] [--seed 1]`: a UNet of SD 1.x's shape of at least so many bytes, beside the small
//! text encoder and autoencoder that come with the page.
//!
//! `cargo run --example synthetic -- FOLDER --as bk-sdm-tiny [--vae-of sdxs-512-0.9] [--seed 1]`: all parts of a checkpoint that
//! `tests/golden/published.json` names, the autoencoder perhaps of another of them. Its prompts are as long as CLIP's, and its
//! vocabulary is that of the page's.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tintype::graph::{Graph, Plan};
use tintype::models::clip::ClipTextConfig;
use tintype::models::unet::UnetConfig;
use tintype::models::vae::VaeConfig;

/// What the small parts are taken from.
const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/checkpoints/soft");
/// The configurations of published checkpoints.
const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/published.json");

type Failure = Box<dyn std::error::Error>;

/// The configuration of a UNet whose finest level has this many channels.
fn config(channels: usize, text: &Value) -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "attention_head_dim": 8,
        "block_out_channels": [channels, 2 * channels, 4 * channels, 4 * channels],
        "cross_attention_dim": text["hidden_size"],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "in_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 8,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    })
}

/// Tensors by name, with their shapes.
type Tensors = BTreeMap<String, Vec<usize>>;

/// The tensors that a model reads.
fn tensors(graph: Graph) -> Tensors {
    let parts = Plan::new(graph).params.into_iter().flat_map(|spec| spec.parts);
    parts.map(|part| (part.name, part.shape)).collect()
}

fn unet_tensors(config: &Value) -> tintype::Result<Tensors> {
    Ok(tensors(UnetConfig::from_json(config)?.graph([1, 8, 8], 16, 1)?))
}

fn bytes(tensors: &Tensors) -> usize {
    tensors.values().map(|shape| 2 * shape.iter().product::<usize>()).sum()
}

/// Halves of either sign, about as large as keeps what goes through a layer as large as it was.
struct Random(u64);

impl Random {
    /// Fills with those of a tensor of this shape.
    fn fill(&mut self, to: &mut [u8], shape: &[usize]) {
        let inputs = shape.iter().skip(1).product::<usize>().max(1);
        // From 2^-k to 2^(1-k), where 2^k is about twice the root of the number of inputs: layers add to what they are given.
        let k = u64::from(inputs.ilog2().div_ceil(2) + 1).min(14);
        let exponents = ((15 - k) << 10) * 0x0001_0001_0001_0001;
        for eight in to.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let halves = self.0 & 0x83ff_83ff_83ff_83ff | exponents;
            eight.copy_from_slice(&halves.to_le_bytes()[..eight.len()]);
        }
    }
}

/// A safetensors file of these tensors.
fn write(path: &Path, tensors: &Tensors, seed: u64) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": [at, end]});
        header.insert(name.clone(), entry);
        at = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut tensor = Vec::new();
    for shape in tensors.values() {
        tensor.resize(2 * shape.iter().product::<usize>(), 0);
        random.fill(&mut tensor, shape);
        file.write_all(&tensor)?;
    }
    file.flush()
}

/// Copies a folder but for what is named, and its pictures.
fn copy(from: &Path, to: &Path, but: &[&str]) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if !but.iter().any(|name| entry.file_name() == *name) {
                copy(&from, &to, but)?;
            }
        } else if from.extension().is_none_or(|e| e != "png") {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// A part of a checkpoint: its folder, its weights' file, its configuration and its tensors.
struct Part(&'static str, &'static str, Value, Tensors);

const MODEL: &str = "model.safetensors";
const DIFFUSION: &str = "diffusion_pytorch_model.safetensors";

/// The narrowest UNet that is as large as wanted: groups of 32 channels.
fn sized(wanted: usize) -> Result<Vec<Part>, Failure> {
    let text = serde_json::from_slice(&fs::read(Path::new(BASE).join("text_encoder/config.json"))?)?;
    let mut channels = 32;
    loop {
        let config = config(channels, &text);
        let tensors = unet_tensors(&config)?;
        if bytes(&tensors) >= wanted {
            return Ok(vec![Part("unet", DIFFUSION, config, tensors)]);
        }
        channels += 32;
    }
}

/// The parts of a published checkpoint, with the autoencoder of one.
fn published(name: &str, vae_of: &str) -> Result<Vec<Part>, Failure> {
    let all: Vec<Value> = serde_json::from_slice(&fs::read(PUBLISHED)?)?;
    let find = |name: &str| {
        let found = all.iter().find(|checkpoint| checkpoint["name"] == name);
        found.ok_or_else(|| format!("{PUBLISHED} has no {name}"))
    };
    let (checkpoint, vae) = (find(name)?, find(vae_of)?["vae"].clone());
    let [text] = &checkpoint["texts"].as_array().map_or(&[][..], Vec::as_slice) else {
        return Err(format!("{name}: expected one text encoder").into());
    };
    let class = vae["_class_name"].as_str().unwrap_or_default();
    let text_tensors = tensors(ClipTextConfig::from_json(text)?.graph(1, 77)?);
    let vae_tensors = tensors(VaeConfig::from_json(class, &vae)?.decoder([1, 8, 8])?);
    let mut unet = checkpoint["unet"].clone();
    unet["_class_name"] = "UNet2DConditionModel".into();
    let unet_tensors = unet_tensors(&unet)?;
    Ok(vec![
        Part("text_encoder", MODEL, text.clone(), text_tensors),
        Part("unet", DIFFUSION, unet, unet_tensors),
        Part("vae", DIFFUSION, vae, vae_tensors),
    ])
}

/// Lets the tokenizer cut prompts where the text encoder does.
fn lengthen(folder: &Path, parts: &[Part]) -> Result<(), Failure> {
    let Some(Part(_, _, text, _)) = parts.iter().find(|part| part.0 == "text_encoder") else {
        return Ok(());
    };
    let path = folder.join("tokenizer/tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["model_max_length"] = text["max_position_embeddings"].clone();
    Ok(fs::write(path, serde_json::to_vec_pretty(&config)?)?)
}

fn run() -> Result<(), Failure> {
    let (mut folder, mut wanted, mut seed) = (None, 1_000_000_000, 1u64);
    let (mut like, mut vae_of) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument}: a value is missing"));
        match argument.as_str() {
            "--bytes" => wanted = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--as" => like = Some(value()?),
            "--vae-of" => vae_of = Some(value()?),
            other if other.starts_with("--") => return Err(format!("unknown option {other}").into()),
            other => folder = Some(PathBuf::from(other)),
        }
    }
    let folder = folder.ok_or("a folder to write to is missing")?;
    let parts = match like {
        Some(name) => published(&name, vae_of.as_ref().unwrap_or(&name))?,
        None => sized(wanted)?,
    };
    let names: Vec<_> = parts.iter().map(|part| part.0).collect();
    copy(Path::new(BASE), &folder, &names)?;
    lengthen(&folder, &parts)?;
    for (i, Part(name, file, config, tensors)) in (0..).zip(&parts) {
        let part = folder.join(name);
        fs::create_dir_all(&part)?;
        fs::write(part.join("config.json"), serde_json::to_vec_pretty(config)?)?;
        write(&part.join(file), tensors, seed + i)?;
    }
    let each = || parts.iter().flat_map(|part| part.3.values());
    let largest = each().map(|shape| 2 * shape.iter().product::<usize>()).max();
    let report = json!({
        "folder": folder,
        "bytes": parts.iter().map(|part| bytes(&part.3)).sum::<usize>(),
        "tensors": each().count(),
        "largest": largest,
    });
    println!("{report}");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("synthetic: {error}");
            ExitCode::FAILURE
        }
    }
}
