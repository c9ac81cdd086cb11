//! Tintype runs image-generation checkpoints inside a web page. This file is the map of the crate, nothing else.

pub mod cancel;
pub mod checkpoint;
pub mod error;
pub mod executor;
pub mod graph;
pub mod image;
pub mod models;
pub mod nn;
pub mod platform;
pub mod sampler;
pub mod text;

pub use error::{Error, Result};
