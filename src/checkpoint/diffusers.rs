//! The layout of a diffusers folder: `model_index.json`, and a folder for each component.

use std::collections::BTreeSet;

use futures_util::future::{try_join_all, try_join3};
use serde_json::Value;

use crate::cancel::CancelToken;
use crate::checkpoint::component::{Component, Place, WeightsFile};
use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::json;
use crate::checkpoint::open::{Checkpoint, OpenOptions, TokenizerFiles, Vocabulary};
use crate::checkpoint::progress::ProgressSink;
use crate::checkpoint::reader::{OpenFile, PICKLE};
use crate::checkpoint::source::Source;
use crate::{Error, Result};

/// Pipelines, each with its text encoders. All have a tokenizer for each of these, a UNet, an autoencoder and a scheduler.
const PIPELINES: [(&str, &[Kind]); 5] = [
    ("StableDiffusionPipeline", &[TEXT_ENCODER]),
    (
        "StableDiffusionXLPipeline",
        &[
            Kind {
                optional: true,
                ..TEXT_ENCODER
            },
            TEXT_ENCODER_2,
        ],
    ),
    ("LatentConsistencyModelPipeline", &[TEXT_ENCODER]),
    ("StableDiffusionInpaintPipeline", &[TEXT_ENCODER]),
    (
        "StableDiffusionXLInpaintPipeline",
        &[
            Kind {
                optional: true,
                ..TEXT_ENCODER
            },
            TEXT_ENCODER_2,
        ],
    ),
];
pub(super) const INDEX: &str = "model_index.json";
const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];
const TOKENIZER_CLASSES: [&str; 2] = ["CLIPTokenizer", "CLIPTokenizerFast"];

/// What is known of a component that has weights.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// `model_index.json` may say that there is none.
    optional: bool,
    pub(super) classes: &'static [&'static str],
    /// The weights' file name before `.safetensors`, as the library that writes them has it.
    stem: &'static str,
    /// What older versions of it wrote, which is not read.
    pickle: &'static str,
}

const TEXT_ENCODER: Kind = Kind {
    name: "text_encoder",
    optional: false,
    classes: &["CLIPTextModel"],
    stem: "model",
    pickle: "pytorch_model.bin",
};
const TEXT_ENCODER_2: Kind = Kind {
    name: "text_encoder_2",
    optional: false,
    classes: &["CLIPTextModelWithProjection"],
    stem: "model",
    pickle: "pytorch_model.bin",
};
const UNET: Kind = Kind {
    name: "unet",
    optional: false,
    classes: &["UNet2DConditionModel"],
    stem: "diffusion_pytorch_model",
    pickle: "diffusion_pytorch_model.bin",
};
pub(super) const VAE: Kind = Kind {
    name: "vae",
    optional: false,
    classes: &["AutoencoderKL", "AutoencoderTiny"],
    stem: "diffusion_pytorch_model",
    pickle: "diffusion_pytorch_model.bin",
};

/// The variant of half precision, which is taken where there is nothing else.
const HALF: &str = "fp16";

/// The most bytes of a configuration, and of a vocabulary or the like.
const MAX_CONFIG: u64 = 4 << 20;
const MAX_VOCABULARY: u64 = 64 << 20;

/// What opening a checkpoint goes by.
pub(super) struct Folder<'a, 'p> {
    pub(super) source: Source,
    pub(super) options: &'a OpenOptions,
    pub(super) cancel: &'a CancelToken,
    pub(super) progress: &'a ProgressSink<'p>,
}

impl Folder<'_, '_> {
    pub(super) async fn open(&self) -> Result<Checkpoint> {
        let index = self.config(INDEX).await?;
        let place = self.source.locate(INDEX);
        let pipeline_class = class_name(&index, &place)?;
        let classes = PIPELINES.map(|(class, _)| class);
        known(&place, &pipeline_class, &classes)?;
        let texts = PIPELINES.iter().find(|(class, _)| *class == pipeline_class);
        let texts = texts.map_or(&[][..], |(_, kinds)| kinds).iter();
        let texts: Vec<&Kind> = texts
            .filter(|kind| !kind.optional || is_listed(&index, kind.name))
            .collect();
        // A pipeline of one text encoder takes the first tokenizer that there is.
        let tokenizers = match texts.len() {
            1 => vec![
                TOKENIZERS
                    .into_iter()
                    .find(|name| is_listed(&index, name))
                    .unwrap_or(TOKENIZERS[0]),
            ],
            _ => TOKENIZERS.to_vec(),
        };
        let vae = self.options.vae.is_none().then_some(&VAE);
        let components = texts.iter().copied().chain([&UNET]).chain(vae);
        let (opened, tokenizers, scheduler) = try_join3(
            try_join_all(components.map(|kind| self.component(kind, &index))),
            try_join_all(tokenizers.iter().map(|name| self.tokenizer(name, &index))),
            self.scheduler(&index),
        )
        .await?;
        let (components, warnings): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let name = self.options.name.clone().unwrap_or_else(|| self.source.label());
        let source = self.source.clone();
        Ok(Checkpoint {
            source,
            file: None,
            name,
            pipeline_class,
            index,
            components,
            tokenizers,
            scheduler,
            distilled: None,
            vae: None,
            warnings: warnings.into_iter().flatten().collect(),
        })
    }

    /// The autoencoder alone.
    pub(super) async fn vae(&self) -> Result<Component> {
        let index = self.config(INDEX).await?;
        let (vae, _) = self.component(&VAE, &index).await?;
        Ok(vae)
    }

    /// A component, and what is to be said of it.
    async fn component(&self, kind: &Kind, index: &Value) -> Result<(Component, Option<String>)> {
        self.listed(kind.name, index, kind.classes)?;
        let folder = format!("{}/", kind.name);
        let config = self.config(&format!("{folder}config.json")).await?;
        self.configured(kind, &folder, config).await
    }

    /// The component whose files are in `folder`, by its configuration there.
    pub(super) async fn configured(
        &self,
        kind: &Kind,
        folder: &str,
        config: Value,
    ) -> Result<(Component, Option<String>)> {
        let place = Place::folder(&self.source, folder);
        // transformers names the class in a list, diffusers in an entry of its own.
        let class = match config["architectures"][0].as_str() {
            Some(class) => class.to_owned(),
            None => class_name(&config, &place.config)?,
        };
        known(&place.config, &class, kind.classes)?;
        let (weights, variant) = self.weights(kind, folder, &class).await?;
        let warning = other_variant(kind.name, self.options.variant.as_deref(), variant.as_deref());
        let component = Component::new((kind.name, class, config), weights, self.source.clone(), place)?;
        Ok((component, warning))
    }

    /// Finds the weights by trying the names that they may have, one after the other, and says which variant they are: those of the
    /// variant that is wished, the plain ones, those of half precision, each as one file and then in shards.
    async fn weights(&self, kind: &Kind, folder: &str, class: &str) -> Result<(Vec<WeightsFile>, Option<String>)> {
        let stem = format!("{folder}{}", kind.stem);
        let infix = |variant: Option<&str>| variant.map(|variant| format!(".{variant}")).unwrap_or_default();
        let wished = self.options.variant.as_deref();
        let half = (wished != Some(HALF)).then_some(Some(HALF));
        let mut missing = None;
        for variant in wished.map(Some).into_iter().chain([None]).chain(half) {
            let infix = infix(variant);
            match self.weights_file(format!("{stem}{infix}.safetensors"), class).await {
                Err(Error::NotFound(why)) => drop(missing.get_or_insert(why)),
                found => return Ok((vec![found?], variant.map(str::to_owned))),
            }
            let index = format!("{stem}.safetensors.index{infix}.json");
            match self.shards(folder, class, &index).await {
                Err(Error::NotFound(_)) => {}
                found => return Ok((found?, variant.map(str::to_owned))),
            }
        }
        Err(self
            .instead_of_weights(kind, folder, &missing.unwrap_or_default())
            .await)
    }

    /// Why there are no weights, of which the first was `missing`: what there is instead, if that is known or has its usual name.
    async fn instead_of_weights(&self, kind: &Kind, folder: &str, missing: &str) -> Error {
        let Kind { name, pickle, .. } = kind;
        let place = self.source.locate(folder.trim_end_matches('/'));
        let pickled =
            |found: &str| Error::Unsupported(format!("{place}: expected safetensors, found only {found}: {PICKLE}"));
        let none = || {
            Error::NotFound(format!(
                "{missing}; there are no weights of the {name} (only safetensors are read)"
            ))
        };
        let Some(paths) = self.paths() else {
            return match self.weights_file(format!("{folder}{pickle}"), "").await {
                Ok(_) => pickled(pickle),
                Err(error @ (Error::Unsupported(_) | Error::Cancelled(_))) => error,
                Err(_) => none(),
            };
        };
        let there = |ends: &[&str]| -> String {
            let names = paths.iter().filter_map(|path| path.strip_prefix(folder));
            let names: Vec<&str> = names
                .filter(|name| ends.iter().any(|end| name.ends_with(end)))
                .collect();
            names.join(", ")
        };
        let (others, pickles) = (there(&[".safetensors"]), there(&[".bin", ".ckpt", ".pt", ".pth"]));
        match (others.as_str(), pickles.as_str()) {
            ("", "") => none(),
            ("", pickles) => pickled(pickles),
            (others, _) => Error::NotFound(format!(
                "{missing}; in {place} there are {others}: the option variant chooses"
            )),
        }
    }

    /// The paths of all files, where they are known.
    pub(super) fn paths(&self) -> Option<Vec<&str>> {
        let listed = &self.options.files;
        match listed.is_empty() {
            false => Some(listed.keys().map(String::as_str).collect()),
            true => self.source.paths(),
        }
    }

    /// Opens the shards that an index lists.
    async fn shards(&self, folder: &str, class: &str, path: &str) -> Result<Vec<WeightsFile>> {
        let index = self.json(path, MAX_CONFIG).await?;
        let map = index["weight_map"].as_object().ok_or_else(|| {
            Error::Corrupt(format!(
                "{}: expected an object weight_map, found none",
                self.source.locate(path)
            ))
        })?;
        let files: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
        let files = files.filter(|files| !files.is_empty()).ok_or_else(|| {
            Error::Corrupt(format!(
                "{}: expected file names in weight_map",
                self.source.locate(path)
            ))
        })?;
        let alone = files.len() == 1;
        let open = files.iter().map(|file| async move {
            match self.weights_file(format!("{folder}{file}"), class).await {
                Ok(file) if alone => Ok(file),
                Ok(file) => Ok(file.close()),
                // Not to be taken for the index itself, which may be missing.
                Err(Error::NotFound(message)) => Err(Error::Corrupt(format!("{message}, but {path} lists it"))),
                Err(error) => Err(error),
            }
        });
        try_join_all(open).await
    }

    async fn weights_file(&self, path: String, class: &str) -> Result<WeightsFile> {
        let file = self.open_file(&path, class).await?;
        Ok(WeightsFile::new(path, file))
    }

    pub(super) async fn open_file(&self, path: &str, class: &str) -> Result<OpenFile> {
        let expected = self.expected(path)?;
        self.progress.opening(path);
        OpenFile::open(&self.source, path, class, expected, self.cancel).await
    }

    async fn tokenizer(&self, name: &str, index: &Value) -> Result<TokenizerFiles> {
        self.listed(name, index, &TOKENIZER_CLASSES)?;
        let path = |file: &str| format!("{name}/{file}");
        let vocabulary = match optional(self.read(&path("tokenizer.json"), MAX_VOCABULARY).await)? {
            Some(json) => Vocabulary::Json(json),
            None => Vocabulary::Pair {
                vocab: self.read(&path("vocab.json"), MAX_VOCABULARY).await?,
                merges: self.read(&path("merges.txt"), MAX_VOCABULARY).await?,
            },
        };
        let empty = || Value::Object(Default::default());
        let config = optional(self.config(&path("tokenizer_config.json")).await)?.unwrap_or_else(empty);
        // The map is void where the configuration lists the tokens.
        let special_tokens_map = match config.get("added_tokens_decoder") {
            Some(_) => empty(),
            None => optional(self.config(&path("special_tokens_map.json")).await)?.unwrap_or_else(empty),
        };
        Ok(TokenizerFiles {
            place: self.source.locate(name),
            vocabulary,
            config,
            special_tokens_map,
        })
    }

    async fn scheduler(&self, index: &Value) -> Result<Value> {
        let class = self.listed("scheduler", index, &[])?;
        let mut config = self.config("scheduler/scheduler_config.json").await?;
        if let Some(config) = config.as_object_mut() {
            config.entry("_class_name").or_insert(class.into());
        }
        Ok(config)
    }

    /// The class that `model_index.json` gives a component, which must be one of `classes` if they are given.
    fn listed(&self, name: &str, index: &Value, classes: &[&str]) -> Result<String> {
        let place = self.source.locate("model_index.json");
        let class = index[name][1].as_str();
        let class = class.ok_or_else(|| Error::Corrupt(format!("{place}: expected a class for {name}, found none")))?;
        if !classes.is_empty() {
            known(&format!("{place}: {name}"), class, classes)?;
        }
        Ok(class.into())
    }

    /// A file that holds a JSON object; nothing, if there is none, or if the host has a page in its place.
    pub(super) async fn config_if_any(&self, path: &str) -> Result<Option<Value>> {
        match optional(self.read(path, MAX_CONFIG).await)? {
            Some(bytes) if !json::looks_like_html(&bytes) => Ok(Some(self.object(path, &bytes)?)),
            _ => Ok(None),
        }
    }

    /// A file that holds a JSON object.
    async fn config(&self, path: &str) -> Result<Value> {
        let bytes = self.read(path, MAX_CONFIG).await?;
        self.object(path, &bytes)
    }

    fn object(&self, path: &str, bytes: &[u8]) -> Result<Value> {
        let place = self.source.locate(path);
        let value = json::parse(&place, bytes)?;
        match value.is_object() {
            true => Ok(value),
            false => Err(Error::Corrupt(format!("{place}: expected a JSON object"))),
        }
    }

    async fn json(&self, path: &str, limit: u64) -> Result<Value> {
        json::parse(&self.source.locate(path), &self.read(path, limit).await?)
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let expected = self.expected(path)?;
        self.progress.opening(path);
        self.source.read(path, limit, &expected).await
    }

    fn expected(&self, path: &str) -> Result<ExpectedFile> {
        let files = &self.options.files;
        match files.get(path) {
            Some(expected) => Ok(expected.clone()),
            None if files.is_empty() => Ok(ExpectedFile::default()),
            None => {
                let place = self.source.locate(path);
                Err(Error::NotFound(format!("{place}: not among the files that are listed")))
            }
        }
    }
}

/// Whether `model_index.json` gives a component a class at all.
fn is_listed(index: &Value, name: &str) -> bool {
    index[name][1].is_string()
}

fn class_name(config: &Value, place: &str) -> Result<String> {
    let class = config["_class_name"].as_str().map(str::to_owned);
    class.ok_or_else(|| Error::Corrupt(format!("{place}: expected a _class_name, found none")))
}

fn known(place: &str, class: &str, classes: &[&str]) -> Result<()> {
    match classes.contains(&class) {
        true => Ok(()),
        false => Err(Error::Unsupported(format!(
            "{place}: expected {}, found {class:?}",
            classes.join(" or ")
        ))),
    }
}

fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::NotFound(_)) => Ok(None),
        result => result.map(Some),
    }
}

/// What is said where a component's weights are not of the variant that was wished.
fn other_variant(name: &str, wished: Option<&str>, found: Option<&str>) -> Option<String> {
    if found == wished {
        return None;
    }
    let none = wished.map_or("no plain weights".into(), |wished| {
        format!("no weights of variant {wished:?}")
    });
    let used = found.map_or("the plain ones are used".into(), |used| {
        format!("those of variant {used:?} are used")
    });
    Some(format!("{name}: {none}, {used}"))
}
