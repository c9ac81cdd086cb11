//! From a prompt, and an image or none, to pixels: prompt → embeddings → steps → picture. Nothing here knows a device, a file or
//! JavaScript.
//!
//! [`Models`] is what a checkpoint brings; [`PlanCache`] keeps the plans in use; [`encode_image`] and [`draw`] run them;
//! [`profile`] times what they run, and [`sweep`] the operations of a model that is not there.

mod decode;
mod draw;
mod encode;
mod guidance;
mod latents;
mod plans;
mod preview;
mod profile;
mod request;
mod start;
mod sweep;

pub use draw::{StepReport, Timings, draw};
pub use plans::PlanCache;
pub(crate) use plans::{Drawing, Key};
pub use profile::{NodeProfile, Peaks, PlanProfile, Profile, ProfileRequest, Tensors, profile};
pub(crate) use request::keys;
pub use request::{InitImage, Request, check, tune};
pub use start::{EncodedImage, encode_image};
pub use sweep::{Sweep, SweepRequest, Swept, sweep};

use crate::error::{Error, Result};
use crate::executor::Weights;
use crate::models::clip::ClipTextConfig;
use crate::models::unet::UnetConfig;
use crate::models::vae::VaeConfig;
use crate::sampler::SchedulerConfig;
use crate::text::Tokenizer;
use std::rc::Rc;

/// A model with its weights on a device.
#[derive(Clone)]
pub struct Model<C> {
    /// Its config.
    pub config: C,
    /// Its packed weights.
    pub weights: Weights,
}

/// A text encoder with its tokenizer.
#[derive(Clone)]
pub struct TextEncoder {
    /// Words to ids.
    pub tokenizer: Rc<Tokenizer>,
    /// Ids to hidden states.
    pub model: Model<ClipTextConfig>,
}

/// What a pipeline runs.
#[derive(Clone)]
pub struct Models {
    /// Prompts to hidden states; those of several lie side by side. All take prompts of one length.
    pub text_encoders: Vec<TextEncoder>,
    /// Noise predictor.
    pub unet: Model<UnetConfig>,
    /// Latents to pictures.
    pub vae: Model<VaeConfig>,
    /// Pictures to latents: the weights of the autoencoder's other half, if they were read.
    pub encoder: Option<Weights>,
    /// The checkpoint's own scheduler.
    pub scheduler: SchedulerConfig,
    /// A negative prompt that is empty is no text but zeros (SDXL's `force_zeros_for_empty_prompt`).
    pub zeros_for_empty_prompt: bool,
}

impl Models {
    /// Whether what is asked for has what the UNet reads.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it hasn't, saying what is to be given.
    pub fn draws(&self, request: &Request) -> Result<()> {
        let without = match &request.image {
            _ if !self.unet.config.inpaints() => return Ok(()),
            Some(InitImage { mask: Some(_), .. }) => return Ok(()),
            Some(_) => "an image without a mask: give the option mask too",
            None => "a text alone: give the options image and mask",
        };
        let (read, latents) = (self.unet.config.in_channels, self.vae.config.latent_channels());
        Err(Error::Unsupported(format!(
            "this checkpoint paints into a picture: its UNet reads {read} channels, {latents} of latents and others of a picture \
             and its mask; it cannot draw from {without}"
        )))
    }

    /// Puts other weights in place of the models' own, in the order of a checkpoint's components.
    pub(crate) fn set_weights(&mut self, weights: impl IntoIterator<Item = Weights>) {
        let texts = self.text_encoders.iter_mut().map(|text| &mut text.model.weights);
        let own = texts.chain([&mut self.unet.weights, &mut self.vae.weights]);
        own.zip(weights).for_each(|(own, new)| *own = new);
    }

    /// Tokens of a prompt.
    pub(crate) fn tokens(&self) -> usize {
        self.text_encoders.first().map_or(0, |text| text.tokenizer.length())
    }
}
