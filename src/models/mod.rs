//! The models, each written once: a config, read from `config.json`, and a function that writes the graph of one resolution.
//! No device and no weights here: a graph names the tensors that it needs.

pub mod autoencoder_kl;
pub mod autoencoder_tiny;
pub mod clip;
mod config;
pub mod unet;
pub mod vae;
