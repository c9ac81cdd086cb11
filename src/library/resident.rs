//! A checkpoint in memory, and what is said of it.

use super::defaults::{Defaults, DefaultsHint, Own};
use super::lora::Overlays;
use super::pool::Shared;
use crate::checkpoint::{Component, LoraSource, OpenOptions};
use crate::pipeline::{Key, Models};
use std::cell::Cell;
use std::rc::Rc;

/// A part of a resident checkpoint, as a person sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentInfo {
    /// Such as `unet`.
    pub name: &'static str,
    /// Such as `UNet2DConditionModel`.
    pub class: String,
    /// The types of its tensors.
    pub dtypes: Vec<String>,
    /// Bytes of its weights' files.
    pub bytes: u64,
    /// A hash over its tensors, whatever files they are in: checkpoints whose components have one id hold them once.
    pub id: String,
}

/// The LoRAs over a checkpoint, as a person sees them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraInfo {
    /// The name of each and how much of it there is.
    pub scales: Vec<(String, f32)>,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
}

/// A checkpoint in memory.
#[derive(Clone)]
pub struct Resident {
    /// What it is asked for by.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// Such as `SD 1.x`.
    pub family: &'static str,
    /// What its autoencoder is called, if that is from elsewhere.
    pub vae: Option<String>,
    /// Its parts.
    pub components: Vec<ComponentInfo>,
    /// What it draws with when nothing is said; LoRAs over it may bring others than its own.
    pub defaults: Defaults,
    pub(super) own: Own,
    /// Pixels of a latent's side: sizes are multiples of it.
    pub factor: usize,
    /// Bytes of its weights in memory, those that it shares with others included, without LoRAs and without an encoder that was read
    /// later.
    pub bytes: u64,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
    /// What the pipeline runs.
    pub models: Models,
    /// Its weights, which others may have too.
    pub(super) shared: Vec<Rc<Shared>>,
    /// The weights of its autoencoder's encoder, if they were read: only drawing over an image needs them.
    pub(super) encoder: Option<Rc<Shared>>,
    /// The plans of a picture of the default size.
    pub(super) keys: Vec<Key>,
    /// What LoRAs lay over them.
    pub(super) overlays: Overlays,
    /// The LoRAs that lie over it.
    pub loras: LoraInfo,
    /// When it was last asked for, in the library's own count.
    pub(super) used: Cell<u64>,
}

impl Resident {
    /// What a person should know of it, and of what lies over it.
    pub fn all_warnings(&self) -> Vec<&str> {
        let all = self.warnings.iter().chain(&self.loras.warnings);
        all.map(String::as_str).collect()
    }

    /// Bytes that LoRAs take over it.
    pub fn lora_bytes(&self) -> u64 {
        self.overlays.bytes()
    }

    /// Everything of it that is in the pool.
    pub(super) fn all_weights(&self) -> impl Iterator<Item = &Rc<Shared>> {
        self.shared.iter().chain(&self.encoder).chain(self.overlays.all())
    }
}

/// What a caller says of a checkpoint that it loads.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How its files are found and checked.
    pub open: OpenOptions,
    /// The id that is wished for; another is found if it is taken.
    pub id: Option<String>,
    /// Ids that belong to checkpoints which may come back.
    pub taken: Vec<String>,
    /// It was here before, and has its id back.
    pub again: bool,
    /// Its autoencoder's encoder is read too, as for one that paints into images.
    pub encodes: bool,
    /// What the model predicts (`epsilon`, `v_prediction`), in place of what its scheduler's config says.
    pub prediction_type: Option<String>,
    /// What the catalogue says of its defaults.
    pub defaults: DefaultsHint,
    /// LoRAs to lie over it.
    pub loras: Vec<LoraSource>,
}

/// What is said of a component; its id is known once it was read.
pub(super) fn describe(component: &Component) -> ComponentInfo {
    let mut dtypes: Vec<String> = component
        .tensors()
        .map(|t| format!("{:?}", t.dtype).to_lowercase())
        .collect();
    dtypes.sort();
    dtypes.dedup();
    ComponentInfo {
        name: component.name,
        class: component.class.clone(),
        dtypes,
        bytes: component.bytes(),
        id: String::new(),
    }
}
