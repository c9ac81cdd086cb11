//! Either of the autoencoders.

use super::autoencoder_kl::AutoencoderKlConfig;
use super::autoencoder_tiny::AutoencoderTinyConfig;
use crate::error::{Error, Result};
use crate::graph::Graph;
use serde_json::Value;

/// The config of the autoencoder in use.
#[derive(Clone, Debug, PartialEq)]
pub enum VaeConfig {
    /// `AutoencoderKL`.
    Kl(AutoencoderKlConfig),
    /// `AutoencoderTiny`.
    Tiny(AutoencoderTinyConfig),
}

impl VaeConfig {
    /// Reads the `config.json` of an autoencoder of this class.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another class, and what the class's own config gives.
    pub fn from_json(class: &str, json: &Value) -> Result<Self> {
        match class {
            "AutoencoderKL" => AutoencoderKlConfig::from_json(json).map(Self::Kl),
            "AutoencoderTiny" => AutoencoderTinyConfig::from_json(json).map(Self::Tiny),
            _ => Err(Error::Unsupported(format!(
                "autoencoder {class:?}; there are AutoencoderKL and AutoencoderTiny"
            ))),
        }
    }

    /// Pixels of a latent's side.
    pub fn factor(&self) -> usize {
        match self {
            Self::Kl(c) => c.factor(),
            Self::Tiny(c) => c.factor(),
        }
    }

    /// Channels of latents.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(c) => c.latent_channels,
            Self::Tiny(c) => c.latent_channels,
        }
    }

    /// The encoder's graph for pictures that latents of `[batch, height, width]` stand for: `sample` → [`Self::encoded`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together; [`Error::Unsupported`] for encoders that are not implemented.
    pub fn encoder(&self, [batch, height, width]: [usize; 3]) -> Result<Graph> {
        let [height, width] = [height, width].map(|n| n.saturating_mul(self.factor()));
        match self {
            Self::Kl(c) => c.encoder([batch, height, width]),
            Self::Tiny(c) => c.encoder([batch, height, width]),
        }
    }

    /// The encoder's output: latents, or the moments of a distribution that they are drawn from.
    pub fn encoded(&self) -> &'static str {
        match self {
            Self::Kl(_) => "moments",
            Self::Tiny(_) => "latents",
        }
    }

    /// The decoder's graph for latents of `[batch, height, width]`: `latents` → `sample`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together.
    pub fn decoder(&self, size: [usize; 3]) -> Result<Graph> {
        match self {
            Self::Kl(c) => c.decoder(size),
            Self::Tiny(c) => c.decoder(size),
        }
    }
}
