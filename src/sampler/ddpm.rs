//! `DDPMScheduler`: Denoising Diffusion Probabilistic Models (arXiv 2006.11239). Draws noise at every step but the last.

use super::config::Scheduler;
use super::ddim::{clipped, read_clip};
use super::diffusion::{Diffusion, Spacing, ZeroSnr, alpha_sigma};
use super::keys::Keys;
use super::linear::Linear;
use super::schedule::{Slot, Step, noisy, steps_between};
use crate::Result;

/// The keys of `DDPMScheduler`.
pub(super) struct Ddpm {
    diffusion: Diffusion,
    clip: Option<f32>,
    variance: Variance,
}

/// Which bound of the posterior's variance is taken (`variance_type`). The learned ones need a model with more outputs;
/// of "fixed_large_log" diffusers takes the root of a logarithm, which is no number.
#[derive(Clone, Copy)]
enum Variance {
    Small,
    Large,
}

impl Ddpm {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        let names = [
            ("fixed_small", Variance::Small),
            // The root is taken by halving the logarithm, which comes to the same.
            ("fixed_small_log", Variance::Small),
            ("fixed_large", Variance::Large),
        ];
        Ok(Self {
            diffusion: Diffusion::read(keys, Spacing::Leading, ZeroSnr::Zero)?,
            clip: read_clip(keys, true)?,
            // Null, which other classes' configurations have, is none of diffusers' names, and leaves the small one as it is.
            variance: match keys.is_null("variance_type") {
                true => Variance::Small,
                false => keys.choice("variance_type", Variance::Small, &names)?,
            },
        })
    }

    /// One step from `timestep` to `next`, or to the clean sample where there is no next.
    fn step(&self, timestep: f64, next: Option<f64>) -> Result<Step> {
        let bar = self.diffusion.alpha_cumprod(timestep)?;
        let next_bar = next.map_or(Ok(1.0), |next| self.diffusion.alpha_cumprod(next))?;
        let (alpha, sigma) = alpha_sigma(bar);
        // Formula (7) of the paper, over the steps taken in place of the steps of training; rounded as diffusers rounds,
        // since the differences from 1 are small.
        let step_alpha = bar / next_bar;
        let step_beta = f64::from(1.0 - step_alpha);
        let (beta, next_beta) = (f64::from(1.0 - bar), f64::from(1.0 - next_bar));
        let sample = Linear::from(Slot::Sample);
        let mut update = Vec::new();
        let original = self.diffusion.prediction.original(&sample, alpha, sigma);
        let denoised = original.clone().write_to(Slot::ModelInput);
        let original = clipped(original, self.clip, &mut update);
        let mean = original * (f64::from(next_bar).sqrt() * step_beta / beta)
            + sample.clone() * (f64::from(step_alpha).sqrt() * next_beta / beta);
        let draws_noise = timestep > 0.0;
        let next_sample = if draws_noise {
            let variance = match self.variance {
                Variance::Small => (next_beta / beta * step_beta).max(1e-20),
                Variance::Large => step_beta,
            };
            mean + Linear::from(Slot::Noise) * variance.sqrt()
        } else {
            mean
        };
        update.push(next_sample.write_to(Slot::Sample));
        Ok(Step {
            timestep: timestep as f32,
            noisy: noisy(alpha, sigma),
            model_input: sample.write_to(Slot::ModelInput),
            denoised,
            update,
            draws_noise,
        })
    }
}

impl Scheduler for Ddpm {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let timesteps = self.diffusion.timesteps(steps);
        Ok((1.0, steps_between(&timesteps, begin, |t, next| self.step(t, next))?))
    }
}
