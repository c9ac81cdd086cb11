//! The shipped checkpoints against the pictures that diffusers draws with them (tools/golden/reference.py).
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Defaults, byte_distance, catalogue, draw, golden_path, is_same_picture, load};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use tintype::cancel::CancelToken;
use tintype::checkpoint::ProgressSink;
use tintype::executor::Executor;
use tintype::library::{Library, Room};
use tintype::pipeline::Request;

const PROMPTS: [&str; 3] = ["fox", "rocket", "birthday cake"];

fn reference(id: &str, prompt: usize) -> Vec<u8> {
    let name = format!("reference/{id}-{}-seed{prompt}.png", PROMPTS[prompt].replace(' ', "-"));
    let file = BufReader::new(File::open(golden_path(&name)).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    assert_eq!(
        (info.width, info.height, info.color_type),
        (128, 128, png::ColorType::Rgb),
        "{name}"
    );
    bytes
}

fn request(prompt: usize, defaults: &Defaults) -> Request {
    Request {
        prompt: PROMPTS[prompt].into(),
        negative_prompt: String::new(),
        width: 128,
        height: 128,
        steps: defaults.steps,
        guidance_scale: defaults.guidance_scale,
        sampler: None,
        seed: prompt as u64,
        preview: false,
        image: None,
    }
}

/// How far a picture is from the reference's, if it is another.
fn wrong(id: &str, prompt: usize, picture: &[u8]) -> Option<String> {
    let far = byte_distance(picture, &reference(id, prompt));
    let said = format!(
        "{id}, {}: off by at most {}, by {:.4} in the mean",
        PROMPTS[prompt], far.0, far.1
    );
    println!("{said}");
    (!is_same_picture(far)).then_some(said)
}

/// All checkpoints are in memory at once, and each draws some of the prompts; those with LoRAs the first alone.
fn draws(executor: Executor, prompts: impl Fn(usize) -> Vec<usize>) {
    let library = Library::new(executor, None);
    let entries = catalogue();
    let mut residents = HashMap::new();
    for entry in &entries {
        let resident = residents.entry(&entry.url);
        resident.or_insert_with(|| load(&library, &entry.folder()));
    }
    let mut found = Vec::new();
    let mut plain = 0;
    for entry in &entries {
        let resident = &residents[&entry.url];
        let loras = entry.loras();
        let (progress, cancel) = (ProgressSink::none(), CancelToken::default());
        let laid = library.set_loras(&resident.id, &loras, Room::Any, &progress, &cancel);
        let resident = pollster::block_on(laid).unwrap();
        let drawn = if loras.is_empty() {
            plain += 1;
            prompts(plain - 1)
        } else {
            vec![0]
        };
        for prompt in drawn {
            let request = request(prompt, &entry.defaults);
            found.extend(wrong(&entry.id, prompt, &draw(&library, &resident, &request)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn on_cpu() {
    draws(common::cpu(), |_| vec![0, 1, 2]);
}

/// A software adapter is slow: one picture of each checkpoint, each prompt at least once.
#[test]
fn on_webgpu() {
    if let Some(executor) = common::webgpu() {
        draws(executor, |i| vec![i % PROMPTS.len()]);
    }
}
