//! Tintype runs image-generation checkpoints inside a web page. This file is the map of the crate, nothing else.
//!
//! - [`checkpoint`]: bytes → named tensors. [`text`]: prompt → token ids.
//! - [`graph`]: what a model writes, and the plan that is made of it. [`nn`]: layers. [`models`]: the models, written once.
//! - [`sampler`]: schedules, steps and torch's random numbers. [`image`]: floats → pixels → PNG.
//! - [`executor`]: plays plans on a device. [`pipeline`]: prompt, and an image or none → pixels.
//! - [`library`]: the checkpoints in memory. [`engine`]: jobs of a page, in line by [`queue`], stopped by [`cancel`].
//! - [`platform`]: clock and pauses. `web`: what JavaScript sees. [`error`]: all that can go wrong.

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
#[cfg(all(target_arch = "wasm32", not(test)))]
pub mod web;

pub use error::{Error, Result};
