//! Configs of published checkpoints (tools/golden/published.py): each is read, its graphs name the tensors that diffusers and
//! transformers make, and its family is known with what it draws well with.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use std::collections::BTreeSet;

use common::open;
use serde::Deserialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tintype::checkpoint::expected::hex;
use tintype::graph::Graph;
use tintype::library::Family;
use tintype::models::clip::{ClipTextConfig, Hidden};
use tintype::models::unet::UnetConfig;
use tintype::models::vae::VaeConfig;

#[derive(Deserialize)]
struct Published {
    name: String,
    texts: Vec<Json>,
    unet: Json,
    vae: Json,
    scheduler: Json,
    family: String,
    steps: usize,
    guidance_scale: f32,
    side: usize,
    tensors: Tensors,
}

#[derive(Deserialize)]
struct Tensors {
    texts: Vec<Known>,
    unet: Known,
    decoder: Known,
    encoder: Known,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Known {
    sha256: String,
    parameters: usize,
}

fn tensors(graph: &Graph) -> BTreeSet<(&str, &[usize])> {
    let parts = graph.params().iter().flat_map(|p| &p.parts);
    parts.map(|p| (p.name.as_str(), p.shape.as_slice())).collect()
}

fn known(graph: &Graph) -> Known {
    let tensors = tensors(graph);
    let lines: Vec<String> = tensors
        .iter()
        .map(|(name, shape)| format!("{name} {shape:?}"))
        .collect();
    Known {
        sha256: hex(&Sha256::digest(lines.join("\n"))),
        parameters: tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum(),
    }
}

fn published() -> Vec<Published> {
    serde_json::from_value(open("published.json")).unwrap()
}

#[test]
fn their_graphs_name_the_tensors_of_diffusers() {
    for p in published() {
        let texts: Vec<_> = p
            .texts
            .iter()
            .map(|json| ClipTextConfig::from_json(json).unwrap())
            .collect();
        for (config, expected) in texts.iter().zip(&p.tensors.texts) {
            assert_eq!(known(&config.graph(1, 77).unwrap()), *expected, "{}: text", p.name);
        }
        let mut unet = UnetConfig::from_json(&p.unet).unwrap();
        unet.texts = texts.iter().map(|text| text.hidden_size).collect();
        assert_eq!(unet.texts.iter().sum::<usize>(), unet.cross_attention_dim, "{}", p.name);
        if let Some(text_time) = unet.text_time {
            assert_eq!(Some(text_time.text_embeds), texts[1].projection_dim, "{}", p.name);
        }
        assert_eq!(
            known(&unet.graph([1, 16, 24], 77, 4).unwrap()),
            p.tensors.unet,
            "{}: unet",
            p.name
        );
        let vae = VaeConfig::from_json(p.vae["_class_name"].as_str().unwrap(), &p.vae).unwrap();
        let halves = [
            (vae.decoder([1, 16, 24]), p.tensors.decoder),
            (vae.encoder([1, 16, 24]), p.tensors.encoder),
        ];
        for (graph, expected) in halves {
            assert_eq!(known(&graph.unwrap()), expected, "{}: vae", p.name);
        }
    }
}

#[test]
fn their_families_are_known_and_draw_with_what_suits_them() {
    for p in published() {
        let unet = UnetConfig::from_json(&p.unet).unwrap();
        let family = Family::of(&unet, &p.scheduler);
        assert_eq!(
            (family.name, family.steps, family.guidance_scale),
            (p.family.as_str(), p.steps, p.guidance_scale),
            "{}",
            p.name
        );
        let vae = VaeConfig::from_json(p.vae["_class_name"].as_str().unwrap(), &p.vae).unwrap();
        assert_eq!(
            unet.sample_size.map(|size| size.map(|n| n * vae.factor())),
            Some([p.side; 2]),
            "{}",
            p.name
        );
    }
}

#[test]
fn sdxl_leaves_the_last_layer_of_its_first_text_encoder_alone() {
    let all = published();
    let sdxl = all.iter().find(|p| p.family == "SDXL").unwrap();
    for (json, (least, left)) in sdxl.texts.iter().zip([(11, 16 + 2), (32, 0)]) {
        let whole = ClipTextConfig::from_json(json).unwrap();
        let mut used = whole.clone();
        used.hidden = Hidden::Penultimate;
        let (whole, used) = (whole.graph(1, 77).unwrap(), used.graph(1, 77).unwrap());
        let layers: BTreeSet<&str> = (tensors(&used).iter())
            .filter_map(|(name, _)| name.strip_prefix("encoder.layers.")?.split('.').next())
            .collect();
        assert_eq!(layers.len(), least);
        assert_eq!(tensors(&whole).difference(&tensors(&used)).count(), left);
    }
}
