//! `LCMScheduler`: multistep sampling of a latent consistency model (arXiv 2310.04378). Each step goes to the clean sample
//! and, but for the last, back up to the next timestep with fresh noise. `timestep_spacing`, `steps_offset` and
//! `set_alpha_to_one` have no effect, as in diffusers: timesteps come from those of the distillation.

use super::config::Scheduler;
use super::ddim::{clipped, read_clip};
use super::diffusion::{DefaultBetas, Diffusion, Spacing, ZeroSnr, alpha_sigma};
use super::keys::Keys;
use super::linear::Linear;
use super::schedule::{Slot, Step, noisy, steps_between};
use crate::{Error, Result};

/// The keys of `LCMScheduler`.
pub(super) struct Lcm {
    diffusion: Diffusion,
    original_steps: usize,
    clip: Option<f32>,
    timestep_scaling: f64,
}

impl Lcm {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        let diffusion = Diffusion::read_or(keys, Spacing::Leading, ZeroSnr::Zero, DefaultBetas::LATENTS)?;
        Ok(Self {
            original_steps: read_original_steps(keys, &diffusion)?,
            clip: read_clip(keys, false)?,
            timestep_scaling: keys.number("timestep_scaling", 10.0)?,
            diffusion,
        })
    }

    /// One step from `timestep` to `next`, or to the clean sample where there is no next.
    fn step(&self, timestep: f64, next: Option<f64>) -> Result<Step> {
        let (alpha, sigma) = alpha_sigma(self.diffusion.alpha_cumprod(timestep)?);
        let sample = Linear::from(Slot::Sample);
        let mut update = Vec::new();
        let original = self.diffusion.prediction.original(&sample, alpha, sigma);
        let denoised = original.clone().write_to(Slot::ModelInput);
        let original = clipped(original, self.clip, &mut update);
        let (skip, out) = self.boundary(timestep);
        let mut next_sample = original * out + sample.clone() * skip;
        if let Some(next) = next {
            let (next_alpha, next_sigma) = alpha_sigma(self.diffusion.alpha_cumprod(next)?);
            next_sample = next_sample * next_alpha + Linear::from(Slot::Noise) * next_sigma;
        }
        update.push(next_sample.write_to(Slot::Sample));
        Ok(Step {
            timestep: timestep as f32,
            noisy: noisy(alpha, sigma),
            model_input: sample.write_to(Slot::ModelInput),
            denoised,
            update,
            draws_noise: next.is_some(),
        })
    }

    /// How much of the sample and of the predicted clean sample the consistency function is made of. At timestep 0 it is
    /// the sample itself.
    fn boundary(&self, timestep: f64) -> (f64, f64) {
        const VARIANCE: f64 = 0.25;
        let scaled = timestep * self.timestep_scaling;
        let sum = scaled * scaled + VARIANCE;
        (VARIANCE / sum, scaled / sum.sqrt())
    }
}

impl Scheduler for Lcm {
    fn train_steps(&self) -> usize {
        self.original_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let timesteps = distilled_timesteps(&self.diffusion, self.original_steps, steps);
        Ok((1.0, steps_between(&timesteps, begin, |t, next| self.step(t, next))?))
    }
}

/// `original_inference_steps`: how many timesteps the model was distilled on.
pub(super) fn read_original_steps(keys: &Keys<'_>, diffusion: &Diffusion) -> Result<usize> {
    let steps = keys.count("original_inference_steps", 50)?;
    let most = diffusion.train_steps;
    if steps == 0 || steps > most {
        return Err(Error::Corrupt(format!(
            "scheduler key \"original_inference_steps\": expected 1 to num_train_timesteps ({most}), found {steps}"
        )));
    }
    Ok(steps)
}

/// `steps` of the `original` timesteps of the distillation, highest first. They are evenly spread over them by index.
pub(super) fn distilled_timesteps(diffusion: &Diffusion, original: usize, steps: usize) -> Vec<f64> {
    let stride = diffusion.train_steps / original;
    // The index is rounded as numpy's linspace rounds it.
    let skip = original as f64 / steps as f64;
    (0..steps)
        .map(|i| original - (i as f64 * skip).floor() as usize)
        .map(|number| (number * stride) as f64 - 1.0)
        .collect()
}
