//! Tintype runs image-generation checkpoints inside a web page. This file is the map of the crate, nothing else.

pub mod error;
pub mod sampler;

pub use error::{Error, Result};
