//! From a prompt to pixels: prompt → embeddings → steps → picture. Nothing here knows a device, a file or JavaScript.
//!
//! [`Models`] is what a checkpoint brings; [`PlanCache`] keeps the plans in use; [`text_to_image`] runs them.

mod decode;
mod encode;
mod guidance;
mod plans;
mod preview;
mod text_to_image;

pub(crate) use plans::Key;
pub use plans::PlanCache;
pub use text_to_image::{Request, StepReport, Timings, check, text_to_image};

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

/// What a pipeline runs.
#[derive(Clone)]
pub struct Models {
    /// Words to ids.
    pub tokenizer: Rc<Tokenizer>,
    /// Ids to hidden states.
    pub text_encoder: Model<ClipTextConfig>,
    /// Noise predictor.
    pub unet: Model<UnetConfig>,
    /// Latents to pictures.
    pub vae: Model<VaeConfig>,
    /// The checkpoint's own scheduler.
    pub scheduler: SchedulerConfig,
}

impl Models {
    /// Puts other weights in place of the models' own, in the order of a checkpoint's components.
    pub(crate) fn set_weights(&mut self, weights: impl IntoIterator<Item = Weights>) {
        let own = [
            &mut self.text_encoder.weights,
            &mut self.unet.weights,
            &mut self.vae.weights,
        ];
        own.into_iter().zip(weights).for_each(|(own, new)| *own = new);
    }
}
