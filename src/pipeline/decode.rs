//! Latents to pixels.

use super::plans::{Key, PlanCache, Prepared};
use super::{Models, preview};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Executor, View};
use crate::graph::Rate;
use crate::image::Rgba;
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::vae::VaeConfig;

/// The autoencoder's decoder, ready to run.
pub(super) struct Decoder<'a> {
    executor: &'a Executor,
    models: &'a Models,
    pub(super) decoder: Prepared,
    size: [usize; 2],
    /// Where latents are written.
    pub(super) input: View,
}

impl<'a> Decoder<'a> {
    /// Prepares the decoder for latents of `[height, width]`.
    pub(super) async fn new(
        executor: &'a Executor,
        models: &'a Models,
        plans: &PlanCache,
        size: [usize; 2],
    ) -> Result<Self> {
        let decoder = plans.get(executor, Key::decoder(&models.vae.config, size)).await?;
        let input = executor.view(&decoder.instance, decoder.plan.input("latents")?, 0)?;
        Ok(Self {
            executor,
            models,
            decoder,
            size,
            input,
        })
    }

    /// Writes finished latents.
    pub(super) async fn write(&self, latents: &View) -> Result<()> {
        let VaeConfig::Kl(AutoencoderKlConfig {
            latents_mean_std: Some((mean, std)),
            scaling_factor,
            ..
        }) = &self.models.vae.config
        else {
            return self.executor.combine(&self.input, &[(latents.clone(), 1.0)], None);
        };
        // The graph divides by the scaling factor. They are few, and finished: no need of an operation for it.
        let mut floats = self.executor.read(latents).await?;
        for latent in floats.chunks_exact_mut(mean.len()) {
            for ((x, mean), std) in latent.iter_mut().zip(mean).zip(std) {
                *x = *x * std + mean * scaling_factor;
            }
        }
        self.executor.fill(&self.input, &floats)
    }

    /// Decodes what was written. Also counts the values that are no finite numbers.
    pub(super) async fn picture(&self, cancel: &CancelToken) -> Result<(Rgba, usize)> {
        let Self {
            executor,
            models,
            decoder,
            size,
            ..
        } = self;
        executor
            .run(&decoder.instance, &models.vae.weights, Rate::Step, 0, 0, cancel)
            .await?;
        let output = executor.view(&decoder.instance, decoder.plan.output("sample")?, 0)?;
        let floats = executor.read(&output).await?;
        let factor = models.vae.config.factor();
        Ok(Rgba::from_floats(&floats, size[1] * factor, size[0] * factor))
    }

    /// A quick look at what was written: by the tiny autoencoder where the checkpoint has one (it is fast), else by a linear map.
    pub(super) async fn preview(&self, cancel: &CancelToken) -> Result<Option<Rgba>> {
        Ok(match &self.models.vae.config {
            VaeConfig::Tiny(_) => Some(self.picture(cancel).await?.0),
            VaeConfig::Kl(config) if config.latent_channels == 4 => Some(preview::approximate(
                &self.executor.read(&self.input).await?,
                self.size[1],
                self.size[0],
                self.models.unet.config.text_time.is_some(),
            )),
            VaeConfig::Kl(_) => None,
        })
    }
}
