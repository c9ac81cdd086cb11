//! The shipped checkpoints against the pictures that diffusers draws with them (tools/golden/reference.py).
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{byte_distance, draw, golden_path, is_same_picture, load};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use tintype::executor::Executor;
use tintype::library::Library;
use tintype::pipeline::Request;

const STYLES: [&str; 4] = ["soft", "flat", "3d", "ink"];
const PROMPTS: [&str; 3] = ["fox", "rocket", "birthday cake"];

fn reference(style: &str, prompt: usize) -> Vec<u8> {
    let name = format!(
        "reference/{style}-{}-seed{prompt}.png",
        PROMPTS[prompt].replace(' ', "-")
    );
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

/// All styles are in memory at once, and each draws some of the prompts.
fn draws(executor: Executor, prompts: impl Fn(usize) -> Vec<usize>) {
    let library = Library::new(executor, None);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/checkpoints");
    let residents = STYLES.map(|style| load(&library, &folder.join(style)));
    let mut wrong = Vec::new();
    for (i, (style, resident)) in STYLES.iter().zip(&residents).enumerate() {
        for prompt in prompts(i) {
            let request = Request {
                prompt: PROMPTS[prompt].into(),
                negative_prompt: String::new(),
                width: 128,
                height: 128,
                steps: 20,
                guidance_scale: 3.0,
                sampler: None,
                seed: prompt as u64,
                preview: false,
                image: None,
            };
            let far = byte_distance(&draw(&library, resident, &request), &reference(style, prompt));
            let said = format!(
                "{style}, {}: off by at most {}, by {:.4} in the mean",
                PROMPTS[prompt], far.0, far.1
            );
            println!("{said}");
            if !is_same_picture(far) {
                wrong.push(said);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn on_cpu() {
    draws(common::cpu(), |_| vec![0, 1, 2]);
}

/// A software adapter is slow: one picture a style, each prompt at least once.
#[test]
fn on_webgpu() {
    if let Some(executor) = common::webgpu() {
        draws(executor, |style| vec![style % PROMPTS.len()]);
    }
}
