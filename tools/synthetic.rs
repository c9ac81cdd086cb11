//! Writes a checkpoint of at least so many bytes, to measure loading with: a UNet of SD 1.x's shape with random weights, beside the small text
//! encoder, tokenizer and autoencoder that come with the page. It draws noise.
//!
//! `cargo run --example synthetic -- FOLDER [--bytes 1000000000] [--seed 1]`

use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tintype::graph::Plan;
use tintype::models::unet::UnetConfig;

/// What the small parts are taken from.
const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/checkpoints/soft");

type Failure = Box<dyn std::error::Error>;

/// The configuration of a UNet whose finest level has this many channels.
fn config(channels: usize, text: &serde_json::Value) -> serde_json::Value {
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

/// The tensors that the UNet reads, with their shapes.
fn tensors(config: &serde_json::Value) -> tintype::Result<BTreeMap<String, Vec<usize>>> {
    let plan = Plan::new(UnetConfig::from_json(config)?.graph([1, 8, 8], 16, 1)?);
    let parts = plan.params.into_iter().flat_map(|spec| spec.parts);
    Ok(parts.map(|part| (part.name, part.shape)).collect())
}

fn bytes(tensors: &BTreeMap<String, Vec<usize>>) -> usize {
    tensors.values().map(|shape| 2 * shape.iter().product::<usize>()).sum()
}

/// Finite halves of either sign, from 1/128 to 1/64.
struct Random(u64);

impl Random {
    fn fill(&mut self, to: &mut [u8]) {
        for eight in to.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let halves = self.0 & 0x83ff_83ff_83ff_83ff | 0x2000_2000_2000_2000;
            eight.copy_from_slice(&halves.to_le_bytes()[..eight.len()]);
        }
    }
}

/// A safetensors file of these tensors.
fn write(path: &Path, tensors: &BTreeMap<String, Vec<usize>>, seed: u64) -> io::Result<()> {
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
    let mut piece = vec![0; 1 << 20];
    for left in (1..=at).rev().step_by(piece.len()) {
        let piece = &mut piece[..left.min(1 << 20)];
        random.fill(piece);
        file.write_all(piece)?;
    }
    file.flush()
}

/// Copies a folder but for its UNet and its pictures.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "unet" {
                copy(&from, &to)?;
            }
        } else if from.extension().is_none_or(|e| e != "png") {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn run() -> Result<(), Failure> {
    let (mut folder, mut wanted, mut seed) = (None, 1_000_000_000, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().unwrap_or_default().parse::<u64>();
        match argument.as_str() {
            "--bytes" => wanted = usize::try_from(number().map_err(|e| format!("--bytes: {e}"))?)?,
            "--seed" => seed = number().map_err(|e| format!("--seed: {e}"))?,
            other if other.starts_with("--") => return Err(format!("unknown option {other}").into()),
            other => folder = Some(PathBuf::from(other)),
        }
    }
    let folder = folder.ok_or("a folder to write to is missing")?;
    copy(Path::new(BASE), &folder)?;
    let text = serde_json::from_slice(&fs::read(folder.join("text_encoder/config.json"))?)?;
    // Groups of 32 channels: the narrowest that is as large as wanted.
    let mut channels = 32;
    let (config, tensors) = loop {
        let config = config(channels, &text);
        let tensors = tensors(&config)?;
        if bytes(&tensors) >= wanted {
            break (config, tensors);
        }
        channels += 32;
    };
    let unet = folder.join("unet");
    fs::create_dir_all(&unet)?;
    fs::write(unet.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    write(&unet.join("diffusion_pytorch_model.safetensors"), &tensors, seed)?;
    let largest = tensors.values().map(|shape| 2 * shape.iter().product::<usize>()).max();
    let report = json!({
        "folder": folder,
        "channels": channels,
        "bytes": bytes(&tensors),
        "tensors": tensors.len(),
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
