//! What ships: the catalogue's entries, and the tokens that transformers has for their vocabulary.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tintype::checkpoint::{ExpectedFile, LoraSource, Source};

#[derive(Deserialize)]
struct Catalogue {
    checkpoints: Vec<Entry>,
}

#[derive(Deserialize)]
pub struct Entry {
    pub id: String,
    pub url: String,
    #[serde(default)]
    loras: Vec<Lora>,
    pub defaults: Defaults,
    pub files: BTreeMap<String, ExpectedFile>,
}

#[derive(Deserialize)]
struct Lora {
    source: String,
    scale: f32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    pub steps: usize,
    pub guidance_scale: f32,
}

impl Entry {
    pub fn folder(&self) -> PathBuf {
        shipped(&self.url)
    }

    pub fn loras(&self) -> Vec<LoraSource> {
        let lora = |lora: &Lora| LoraSource {
            source: Source::Dir(shipped("")),
            path: lora.source.clone(),
            expected: ExpectedFile::default(),
            scale: lora.scale,
        };
        self.loras.iter().map(lora).collect()
    }
}

/// A place below `www/checkpoints`.
pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("www/checkpoints").join(path)
}

pub fn catalogue() -> Vec<Entry> {
    let bytes = std::fs::read(shipped("checkpoints.json")).unwrap();
    serde_json::from_slice::<Catalogue>(&bytes).unwrap().checkpoints
}

/// The ids of a prompt from its start to its end, by transformers from the shipped `tokenizer.json`. It is one of those of
/// tools/golden/tokenizer.py.
pub fn tokens_of(prompt: &str) -> Vec<u32> {
    let golden = super::open("tokenizer.json");
    let prompts = golden["prompts"].as_array().unwrap();
    let index = prompts.iter().position(|p| p == prompt).unwrap();
    let ids = &golden["cases"][0]["results"][index]["ids"];
    let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
    let end = ids.iter().position(|id| ids.last() == Some(id)).unwrap();
    ids[..=end].to_vec()
}
