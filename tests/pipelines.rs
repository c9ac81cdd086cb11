//! Whole pipelines over tiny checkpoints, against the pictures that diffusers draws with them (tools/golden/pipelines.py), on each
//! executor.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, PIPELINES, byte_distance, draw, golden_path, is_same_picture, load, open, webgpu_in_halves};
use serde::Deserialize;
use tintype::executor::Executor;
use tintype::library::Library;
use tintype::pipeline::Request;

/// Checkpoints that nobody trained and whose pictures hang on the last digits, as is seen where their weights are rounded to 16 bits
/// (`tests/halves.rs`): how far one drawn in 16-bit floats may be from diffusers' in f32, a byte at most and their mean.
const ILL_CONDITIONED: [(&str, u8, f64); 3] = [("sdxl-turbo", 16, 2.0), ("sd2-base", 40, 3.0), ("ssd-1b", 100, 10.0)];

#[derive(Deserialize)]
struct Case {
    prompt: String,
    negative_prompt: String,
    width: usize,
    height: usize,
    steps: usize,
    guidance_scale: f32,
    seed: u64,
}

impl Case {
    fn read(name: &str) -> Self {
        serde_json::from_value(open(&format!("pipelines/{name}/case.json"))).unwrap()
    }

    fn request(&self) -> Request {
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            sampler: None,
            seed: self.seed,
            preview: false,
            image: None,
        }
    }
}

/// All are held in one library, so that each runs among the others' plans.
fn draws_what_diffusers_draws(executor: Executor) {
    let library = Library::new(executor, None);
    let load = |name: &&str| load(&library, &golden_path(&format!("pipelines/{name}")));
    let residents: Vec<_> = PIPELINES.iter().map(load).collect();
    let mut wrong = Vec::new();
    let mut pictures = Vec::new();
    for (name, resident) in PIPELINES.iter().zip(&residents) {
        let request = Case::read(name).request();
        let expected = Golden::read(&format!("pipelines/{name}/expected.safetensors"));
        let picture = expected.get("picture");
        assert_eq!(picture.shape, [request.height, request.width, 3]);
        let ours = draw(&library, resident, &request);
        let far = byte_distance(&ours, &picture.bytes);
        println!("{name}: off by at most {}, by {:.4} in the mean", far.0, far.1);
        if !is_same_picture(far) {
            wrong.push(format!("{name}: off by at most {}, by {:.4} in the mean", far.0, far.1));
        }
        pictures.push(ours);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The same again after others have run, to the bit: nothing is left behind in what they share.
    for ((name, resident), picture) in PIPELINES.iter().zip(&residents).zip(&pictures).rev() {
        let again = draw(&library, resident, &Case::read(name).request());
        assert_eq!(byte_distance(&again, picture).0, 0, "{name} drawn again");
    }
}

on_each_executor!(draws_what_diffusers_draws);

/// With values in 16-bit floats, where a model stands them, pictures are nearly those of f32.
#[test]
fn in_halves_pictures_are_nearly_the_same() {
    let Some(executor) = webgpu_in_halves() else { return };
    let library = Library::new(executor, None);
    let mut wrong = Vec::new();
    for name in PIPELINES {
        let resident = load(&library, &golden_path(&format!("pipelines/{name}")));
        let expected = Golden::read(&format!("pipelines/{name}/expected.safetensors"));
        let ours = draw(&library, &resident, &Case::read(name).request());
        let (largest, mean) = byte_distance(&ours, &expected.get("picture").bytes);
        println!("{name}: off by at most {largest}, by {mean:.4} in the mean");
        let ill = ILL_CONDITIONED.iter().find(|ill| ill.0 == name);
        let is_near = match ill {
            Some(&(_, most, most_mean)) => largest <= most && mean <= most_mean,
            None => largest <= 4 && mean < 0.25,
        };
        if !is_near {
            wrong.push(format!("{name}: off by at most {largest}, by {mean:.4} in the mean"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
