//! Pictures drawn over images, all of them or where a mask says, against those that diffusers draws (tools/golden/images.py), on
//! each executor.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, byte_distance, draw, golden_path, is_same_picture, load, load_encoder};
use serde::Deserialize;
use std::collections::HashMap;
use std::rc::Rc;
use tintype::executor::Executor;
use tintype::image::Rgba;
use tintype::library::Library;
use tintype::pipeline::{InitImage, Request};
use tintype::sampler::SamplerKind;

#[derive(Deserialize)]
struct Case {
    checkpoint: String,
    prompt: String,
    negative_prompt: String,
    width: usize,
    height: usize,
    steps: usize,
    guidance_scale: f32,
    strength: f64,
    sampler: Option<String>,
    seed: u64,
}

fn opaque(rgb: impl Iterator<Item = [u8; 3]>, width: usize, height: usize) -> Rc<Rgba> {
    let data = rgb.flat_map(|[r, g, b]| [r, g, b, 255]).collect();
    Rc::new(Rgba { width, height, data })
}

/// The name, what was asked, and the picture that diffusers draws.
fn cases() -> Vec<(String, Case, Request, Vec<u8>)> {
    let files = std::fs::read_dir(golden_path("images")).unwrap();
    let mut names: Vec<String> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let read = |name: String| {
        let golden = Golden::read(&format!("images/{name}"));
        let case: Case = serde_json::from_str(&golden.metadata["case"]).unwrap();
        let (width, height) = (case.width, case.height);
        let image = golden.get("image");
        assert_eq!(image.shape, [height, width, 3]);
        let mask = golden.tensors.get("mask");
        let request = Request {
            prompt: case.prompt.clone(),
            negative_prompt: case.negative_prompt.clone(),
            width,
            height,
            steps: case.steps,
            guidance_scale: case.guidance_scale,
            sampler: case
                .sampler
                .as_deref()
                .map(|name| SamplerKind::from_name(name).unwrap()),
            seed: case.seed,
            preview: false,
            image: Some(InitImage {
                pixels: opaque(
                    image.bytes.chunks_exact(3).map(|p| p.try_into().unwrap()),
                    width,
                    height,
                ),
                mask: mask.map(|mask| opaque(mask.bytes.iter().map(|grey| [*grey; 3]), width, height)),
                strength: case.strength,
            }),
        };
        (name, case, request, golden.get("picture").bytes.clone())
    };
    names.into_iter().map(read).collect()
}

fn draws_what_diffusers_draws(executor: Executor) {
    let library = Library::new(executor, None);
    let mut residents = HashMap::new();
    let mut wrong = Vec::new();
    let mut first = None;
    let cases = cases();
    assert!(cases.len() >= 18);
    for (name, case, request, picture) in &cases {
        let folder = golden_path(&format!("pipelines/{}", case.checkpoint));
        let resident = residents
            .entry(case.checkpoint.clone())
            .or_insert_with(|| load_encoder(&library, &load(&library, &folder), &folder));
        let ours = draw(&library, resident, request);
        let far = byte_distance(&ours, picture);
        let said = format!("{name}: off by at most {}, by {:.4} in the mean", far.0, far.1);
        println!("{said}");
        if !is_same_picture(far) {
            wrong.push(said);
        }
        first.get_or_insert((ours, resident.clone(), request));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing is left behind in what they share.
    let (ours, resident, request) = first.unwrap();
    assert_eq!(
        byte_distance(&draw(&library, &resident, request), &ours).0,
        0,
        "drawn again"
    );
}

on_each_executor!(draws_what_diffusers_draws);
