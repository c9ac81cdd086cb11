//! Single files in the naming of LDM: what they are recognised as, and that every tensor of published ones has its place
//! (tools/golden/single_files.py).
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{golden_path, open};
use serde_json::{Map, Value as Json, json};
use tintype::Result;
use tintype::checkpoint::Header;
use tintype::checkpoint::single::{Layout, Part};
use tintype::graph::Graph;
use tintype::library::Family;
use tintype::models::clip::ClipTextConfig;
use tintype::models::unet::UnetConfig;
use tintype::models::vae::VaeConfig;

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
fn is_used_up(part: &Part, graph: &Graph, left: impl Fn(&str) -> bool, place: &str) {
    let trimmed = |shape: &[usize]| -> Vec<usize> { shape.strip_suffix(&[1, 1]).unwrap_or(shape).to_vec() };
    let parts = graph.params().iter().flat_map(|spec| &spec.parts);
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
                &config.graph(1, 77).unwrap(),
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
            &config.graph([1, 16, 16], 77, 1).unwrap(),
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
        let left = |tensor: &str| tensor.starts_with("encoder.") || tensor.starts_with("quant_conv.");
        is_used_up(vae, &config.decoder([1, 8, 8]).unwrap(), left, &format!("{name}: vae"));

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
