//! Bytes to named tensors.
//!
//! [`source`]: where bytes come from. [`json`]: JSON as Python writes it. [`safetensors`]: the header of a weights' file; [`reader`]: its
//! tensors, as they arrive. [`component`]: a model of a pipeline. [`open`]: all of a checkpoint, in either layout. [`diffusers`]: that of
//! a folder. [`single`]: that of a single file, with [`recognise`]: what it is, [`ldm`]: its names, and `shapes`: the configurations that
//! it lacks. [`vae`]: an autoencoder from elsewhere. [`distilled`]: what names tell of LoRAs and merged checkpoints. [`names`]: what a
//! weight was called in older files. [`lora`]: files of LoRA. [`assets`]: what is fetched besides. [`expected`]: sizes and hashes known
//! beforehand. [`progress`]: how far a load is.
//!
//! No arithmetic on tensors, and no device, in here.

pub mod assets;
pub mod component;
pub mod diffusers;
pub mod distilled;
pub mod expected;
pub mod json;
pub mod ldm;
pub mod lora;
pub mod names;
pub mod open;
pub mod progress;
pub mod reader;
pub mod recognise;
pub mod safetensors;
mod shapes;
pub mod single;
pub mod source;
mod stream;
pub mod vae;
#[cfg(target_arch = "wasm32")]
mod web;

pub use assets::Assets;
pub use component::{Component, SharedFile, WeightsFile};
pub use expected::ExpectedFile;
pub use lora::{Lora, LoraSource};
pub use open::{Checkpoint, OpenOptions, TokenizerFiles};
pub use progress::{Progress, ProgressSink};
pub use reader::OpenFile;
pub use safetensors::{DType, Header, TensorInfo};
pub use source::Source;
pub use stream::ByteStream;
pub use vae::VaeSource;
