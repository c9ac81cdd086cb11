//! Opening a checkpoint in either layout: its configurations read, its weights' headers known.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cancel::CancelToken;
use crate::checkpoint::assets::Assets;
use crate::checkpoint::component::{Component, file_bytes};
use crate::checkpoint::diffusers::{Folder, VAE};
use crate::checkpoint::distilled::Taken;
use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::progress::ProgressSink;
use crate::checkpoint::single;
use crate::checkpoint::source::Source;
use crate::checkpoint::vae::{self, VaeSource};
use crate::{Error, Result};

/// What a caller may know or wish when it opens a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The name it goes by; the source's label, if none is given.
    pub name: Option<String>,
    /// Which variant of the weights is preferred (`"fp16"`: `model.fp16.safetensors`), where a component has it.
    pub variant: Option<String>,
    /// What is known of the files, by path. Unless it is empty, a file that isn't listed is taken not to be there.
    pub files: BTreeMap<String, ExpectedFile>,
    /// The path of the one file that has all of it; none if it is a folder.
    pub file: Option<String>,
    /// What a single file leaves out.
    pub assets: Assets,
    /// An autoencoder in place of the checkpoint's own, of which nothing is read then.
    pub vae: Option<VaeSource>,
}

/// A checkpoint whose configurations and headers were read and checked.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where its files are.
    pub source: Source,
    /// The path of the one file that has all of it, if it is no folder.
    pub file: Option<String>,
    /// The name it goes by.
    pub name: String,
    /// diffusers' class of the pipeline.
    pub pipeline_class: String,
    /// `model_index.json`, an object.
    pub index: Value,
    /// The components that have weights, in the order in which they are used: text encoders, `unet`, `vae`.
    pub components: Vec<Component>,
    /// Prompt to token ids, for each text encoder.
    pub tokenizers: Vec<TokenizerFiles>,
    /// `scheduler_config.json`, an object with a `_class_name`.
    pub scheduler: Value,
    /// What it was distilled to, if only its name says so.
    pub distilled: Option<Taken>,
    /// What the autoencoder is called, if it is from elsewhere.
    pub vae: Option<String>,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
}

/// The files of a tokenizer, unread.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// Where they are, for messages.
    pub place: String,
    /// The vocabulary, the merges, and tokens beside them.
    pub vocabulary: Vocabulary,
    /// `tokenizer_config.json`; an empty object if there is none.
    pub config: Value,
    /// `special_tokens_map.json`; an empty object if there is none, or if the configuration makes it void.
    pub special_tokens_map: Value,
}

/// The forms in which a byte-pair vocabulary is kept.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// `tokenizer.json`.
    Json(Vec<u8>),
    /// `vocab.json` and `merges.txt`.
    Pair {
        /// `vocab.json`: a token's id by its text.
        vocab: Vec<u8>,
        /// `merges.txt`: a pair a line, the first to be merged first.
        merges: Vec<u8>,
    },
    /// `merges.txt` alone, of a vocabulary that is made as CLIP's own is: a token for each byte, one for each byte that ends a
    /// word, one for each merge, and the two marks of a text.
    Merges(Vec<u8>),
}

impl Checkpoint {
    /// Reads all configurations, the tokenizer, and the headers of the weights. Downloads of weights that
    /// are not in shards are begun, and go on in [`Component::for_each_piece`].
    pub async fn open(
        source: Source,
        options: &OpenOptions,
        cancel: &CancelToken,
        progress: &ProgressSink<'_>,
    ) -> Result<Self> {
        let open = async {
            let mut checkpoint = match &options.file {
                Some(path) => single::open(source, path, options, cancel, progress).await?,
                None => {
                    let folder = Folder {
                        source,
                        options,
                        cancel,
                        progress,
                    };
                    folder.open().await?
                }
            };
            if let Some(from) = &options.vae {
                let opened = vae::open(from, options.variant.as_ref(), checkpoint.is_xl(), cancel, progress).await?;
                checkpoint.components.push(opened.component);
                checkpoint.warnings.extend(opened.warnings);
                checkpoint.vae = Some(opened.name);
            }
            progress.set_total(checkpoint.total_bytes());
            Ok(checkpoint)
        };
        cancel.guard(open).await
    }

    /// Whether it is of SDXL's kind.
    pub fn is_xl(&self) -> bool {
        self.pipeline_class.starts_with("StableDiffusionXL")
    }

    /// Opens its autoencoder alone, as [`Self::open`] opens all of it. `xl` is what [`Self::is_xl`] says of the checkpoint.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub async fn open_vae(
        source: Source,
        options: &OpenOptions,
        xl: bool,
        cancel: &CancelToken,
        progress: &ProgressSink<'_>,
    ) -> Result<Component> {
        let open = async {
            if let Some(from) = &options.vae {
                let opened = vae::open(from, options.variant.as_ref(), xl, cancel, progress).await?;
                return Ok(opened.component);
            }
            if let Some(path) = &options.file {
                let mut whole = single::open(source, path, options, cancel, progress).await?;
                whole.components.retain(|component| component.name == VAE.name);
                let vae = whole.components.pop();
                return vae.ok_or_else(|| Error::NotFound(format!("{}: there is no {}", whole.name, VAE.name)));
            }
            let folder = Folder {
                source,
                options,
                cancel,
                progress,
            };
            folder.vae().await
        };
        cancel.guard(open).await
    }

    /// Where a file of the folder is, for messages; in a single file, what it would be about.
    pub fn place(&self, path: &str) -> String {
        match &self.file {
            Some(file) => {
                let what = path.split('/').next().unwrap_or_default();
                format!("{}: {what}", self.source.locate(file))
            }
            None => self.source.locate(path),
        }
    }

    /// The component of this name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the checkpoint has none.
    pub fn component(&self, name: &str) -> Result<&Component> {
        let found = self.components.iter().find(|component| component.name == name);
        found.ok_or_else(|| Error::NotFound(format!("{}: there is no {name}", self.name)))
    }

    /// [`Self::component`], to read its weights.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the checkpoint has none.
    pub fn component_mut(&mut self, name: &str) -> Result<&mut Component> {
        let found = self.components.iter_mut().find(|component| component.name == name);
        found.ok_or_else(|| Error::NotFound(format!("{}: there is no {name}", self.name)))
    }

    /// The text encoders.
    pub fn text_encoders(&self) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(|component| component.name.starts_with("text_encoder"))
    }

    /// How many bytes the weights' files have.
    pub fn total_bytes(&self) -> u64 {
        file_bytes(&self.components)
    }
}
