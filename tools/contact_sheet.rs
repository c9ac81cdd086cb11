//! Draws a sheet of prompts by checkpoints: a row a prompt, a column a checkpoint.
//!
//! `cargo run --release --example contact_sheet -- [--out sheet.png] [--seed 0] [--steps 20] [--guidance 3] [PROMPT...]`
//!
//! The checkpoints are those of `www/checkpoints/checkpoints.json` (`--checkpoints FOLDER` for others); `--webgpu` draws
//! on the GPU.

use std::path::PathBuf;
use std::process::ExitCode;
use tintype::checkpoint::{ExpectedFile, LoraSource, ProgressSink, Source};
use tintype::engine::{Engine, GenerateOptions, Recipe};
use tintype::executor::Executor;
use tintype::executor::cpu::Cpu;
use tintype::executor::webgpu::Webgpu;
use tintype::image::{Rgba, png};
use tintype::library::{Library, LoadOptions};
use tintype::{Error, Result};

const PROMPTS: [&str; 8] = [
    "fox",
    "red apple",
    "rocket",
    "birthday cake",
    "grinning face",
    "octopus on yellow",
    "evergreen tree",
    "crown on blue",
];

struct Arguments {
    checkpoints: PathBuf,
    out: PathBuf,
    webgpu: bool,
    options: GenerateOptions,
    prompts: Vec<String>,
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments {
        checkpoints: concat!(env!("CARGO_MANIFEST_DIR"), "/www/checkpoints").into(),
        out: "contact-sheet.png".into(),
        webgpu: false,
        options: GenerateOptions::default(),
        prompts: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| wrong(format!("{argument} needs a value")))
        };
        match argument.as_str() {
            "--checkpoints" => parsed.checkpoints = value()?.into(),
            "--out" => parsed.out = value()?.into(),
            "--webgpu" => parsed.webgpu = true,
            "--seed" => parsed.options.seed = Some(value()?),
            "--steps" => parsed.options.steps = Some(number(&value()?)?),
            "--guidance" => parsed.options.guidance_scale = Some(number(&value()?)?),
            option if option.starts_with("--") => return Err(wrong(format!("unknown option {option}"))),
            prompt => parsed.prompts.push(prompt.into()),
        }
    }
    if parsed.prompts.is_empty() {
        parsed.prompts = PROMPTS.map(Into::into).into();
    }
    Ok(parsed)
}

fn wrong(message: String) -> Error {
    Error::InvalidArgument(message)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| wrong(format!("expected a number, found {text}")))
}

fn io(place: &std::path::Path) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::NotFound(format!("{}: {e}", place.display()))
}

async fn draw(arguments: &Arguments) -> Result<()> {
    let executor = if arguments.webgpu {
        Executor::Webgpu(Webgpu::new(Default::default()).await?)
    } else {
        Executor::Cpu(Cpu::new())
    };
    let engine = Engine::new(Library::new(executor, None));
    let catalogue = arguments.checkpoints.join("checkpoints.json");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&catalogue).map_err(io(&catalogue))?)
        .map_err(|e| Error::Corrupt(format!("{}: {e}", catalogue.display())))?;
    let mut columns: Vec<Vec<Rgba>> = Vec::new();
    for entry in json["checkpoints"].as_array().into_iter().flatten() {
        let folder = entry["url"].as_str().unwrap_or_default();
        let lora = |said: &serde_json::Value| LoraSource {
            source: Source::Dir(arguments.checkpoints.clone()),
            path: said["source"].as_str().unwrap_or_default().into(),
            expected: ExpectedFile::default(),
            scale: said["scale"].as_f64().unwrap_or(1.0) as f32,
        };
        let options = LoadOptions {
            loras: entry["loras"].as_array().into_iter().flatten().map(lora).collect(),
            defaults: serde_json::from_value(entry["defaults"].clone()).unwrap_or_default(),
            ..LoadOptions::default()
        };
        let source = Source::Dir(arguments.checkpoints.join(folder));
        let checkpoint = engine
            .load(0, &Recipe { source, options }, &ProgressSink::none())
            .await?;
        let mut column = Vec::new();
        for prompt in &arguments.prompts {
            let options = GenerateOptions {
                checkpoint: checkpoint.id.clone(),
                prompt: prompt.clone(),
                ..arguments.options.clone()
            };
            let mut generated = engine
                .generate(0, &options, || Ok(None), &ProgressSink::none(), |_| ())
                .await?;
            let total: f64 = generated
                .timings
                .iter()
                .map(|t| t.prompt + t.decode + t.steps.iter().sum::<f64>())
                .sum();
            println!("{} {prompt}: {total:.0} ms", entry["id"].as_str().unwrap_or(folder));
            column.extend(generated.pictures.pop().map(|p| p.pixels));
        }
        engine.library.unload(&checkpoint.id)?;
        columns.push(column);
    }
    let sheet = sheet(&columns).ok_or_else(|| wrong("no checkpoints, or pictures of several sizes".into()))?;
    let (width, height) = (sheet.width as u32, sheet.height as u32);
    std::fs::write(&arguments.out, png::encode(&sheet.data, width, height, "")?).map_err(io(&arguments.out))?;
    println!("{}", arguments.out.display());
    Ok(())
}

/// Puts pictures of one size side by side.
fn sheet(columns: &[Vec<Rgba>]) -> Option<Rgba> {
    let first = columns.first()?.first()?;
    let (w, h, rows) = (first.width, first.height, columns[0].len());
    if columns.iter().flatten().any(|p| (p.width, p.height) != (w, h)) {
        return None;
    }
    let mut data = Vec::with_capacity(columns.len() * rows * w * h * 4);
    for row in 0..rows {
        for y in 0..h {
            columns
                .iter()
                .for_each(|column| data.extend_from_slice(&column[row].data[y * w * 4..(y + 1) * w * 4]));
        }
    }
    Some(Rgba {
        width: w * columns.len(),
        height: h * rows,
        data,
    })
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| pollster::block_on(draw(&arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
