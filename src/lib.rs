//! Tintype runs image-generation checkpoints inside a web page. This file is the map of the crate, nothing else.

pub mod cancel;
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod executor;
pub mod graph;
pub mod image;
pub mod library;
pub mod models;
pub mod nn;
pub mod pipeline;
pub mod platform;
pub mod queue;
pub mod sampler;
pub mod text;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use error::{Error, Result};
