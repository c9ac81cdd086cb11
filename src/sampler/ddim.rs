//! `DDIMScheduler`: Denoising Diffusion Implicit Models (arXiv 2010.02502), with η = 0.

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr, alpha_sigma};
use super::keys::Keys;
use super::linear::Linear;
use super::schedule::{Combine, Slot, Step, noisy};
use crate::{Error, Result};

/// The keys of `DDIMScheduler`.
pub(super) struct Ddim {
    diffusion: Diffusion,
    clip: Option<f32>,
    alpha_to_one: bool,
}

impl Ddim {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        Ok(Self {
            diffusion: Diffusion::read(keys, Spacing::Leading, ZeroSnr::Zero)?,
            clip: read_clip(keys, true)?,
            alpha_to_one: keys.flag("set_alpha_to_one", true)?,
        })
    }
}

impl Scheduler for Ddim {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let stride = (self.diffusion.train_steps / steps) as f64;
        let step = |timestep: f64| {
            let (alpha, sigma) = alpha_sigma(self.diffusion.alpha_cumprod(timestep)?);
            let (next_alpha, next_sigma) = alpha_sigma(match timestep - stride {
                next if next >= 0.0 => self.diffusion.alpha_cumprod(next)?,
                _ if self.alpha_to_one => 1.0,
                _ => self.diffusion.alpha_cumprod(0.0)?,
            });
            let sample = Linear::from(Slot::Sample);
            let original = self.diffusion.prediction.original(&sample, alpha, sigma);
            let epsilon = self.diffusion.prediction.epsilon(&sample, alpha, sigma);
            let mut update = Vec::new();
            let denoised = original.clone().write_to(Slot::ModelInput);
            let original = clipped(original, self.clip, &mut update);
            update.push((original * next_alpha + epsilon * next_sigma).write_to(Slot::Sample));
            Ok(Step {
                timestep: timestep as f32,
                noisy: noisy(alpha, sigma),
                model_input: sample.write_to(Slot::ModelInput),
                denoised,
                update,
                draws_noise: false,
            })
        };
        let steps: Result<Vec<Step>> = self
            .diffusion
            .timesteps(steps)
            .into_iter()
            .skip(begin)
            .map(step)
            .collect();
        Ok((1.0, steps?))
    }
}

/// `clip_sample`, which is `default` where it is absent, with its `clip_sample_range`.
pub(super) fn read_clip(keys: &Keys<'_>, default: bool) -> Result<Option<f32>> {
    if !keys.flag("clip_sample", default)? {
        return Ok(None);
    }
    let range = keys.number("clip_sample_range", 1.0)? as f32;
    if range.is_finite() && range > 0.0 {
        Ok(Some(range))
    } else {
        Err(Error::Corrupt(format!(
            "scheduler key \"clip_sample_range\": expected a positive number, found {range}"
        )))
    }
}

/// The predicted clean sample, by way of a scratch slot where it is to be clamped.
pub(super) fn clipped(original: Linear, clip: Option<f32>, update: &mut Vec<Combine>) -> Linear {
    if clip.is_none() {
        return original;
    }
    update.push(Combine {
        clamp: clip,
        ..original.write_to(Slot::Scratch(0))
    });
    Slot::Scratch(0).into()
}
