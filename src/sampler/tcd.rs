//! `TCDScheduler`: strategic stochastic sampling of a trajectory consistency model (arXiv 2402.19159). Each step goes below
//! the next timestep, to (1 - η) of it, and comes back up with fresh noise; with η = 0 none is drawn. The scheduler's
//! own η, the paper's γ, is 0.3, yet diffusers' pipelines pass 0 unless they are told otherwise. `timestep_spacing`,
//! `steps_offset`, `set_alpha_to_one`, `clip_sample` and `timestep_scaling` have no effect, as in diffusers.

use super::config::Scheduler;
use super::diffusion::{DefaultBetas, Diffusion, Spacing, ZeroSnr, alpha_sigma};
use super::keys::Keys;
use super::lcm::{distilled_timesteps, read_original_steps};
use super::linear::Linear;
use super::schedule::{Slot, Step, noisy, steps_between};
use crate::Result;

/// The keys of `TCDScheduler`.
pub(super) struct Tcd {
    diffusion: Diffusion,
    original_steps: usize,
    eta: f64,
}

impl Tcd {
    pub(super) fn read(keys: &Keys<'_>, eta: Option<f64>) -> Result<Self> {
        let diffusion = Diffusion::read_or(keys, Spacing::Leading, ZeroSnr::Zero, DefaultBetas::LATENTS)?;
        Ok(Self {
            original_steps: read_original_steps(keys, &diffusion)?,
            eta: eta.unwrap_or(0.3),
            diffusion,
        })
    }

    /// One step from `timestep` to `next`, or to the first timestep of training where there is no next.
    fn step(&self, timestep: f64, next: Option<f64>) -> Result<Step> {
        let (alpha, sigma) = alpha_sigma(self.diffusion.alpha_cumprod(timestep)?);
        let next_bar = self.diffusion.alpha_cumprod(next.unwrap_or(0.0))?;
        // Rounded to f32 before it is rounded down, as in torch.
        let below = ((1.0 - self.eta) as f32 * next.unwrap_or(0.0) as f32).floor();
        let below_bar = self.diffusion.alpha_cumprod(f64::from(below))?;
        let (below_alpha, below_sigma) = alpha_sigma(below_bar);
        let sample = Linear::from(Slot::Sample);
        let original = self.diffusion.prediction.original(&sample, alpha, sigma);
        let epsilon = self.diffusion.prediction.epsilon(&sample, alpha, sigma);
        let denoised = original.clone().write_to(Slot::ModelInput);
        let mut next_sample = original * below_alpha + epsilon * below_sigma;
        let draws_noise = self.eta > 0.0 && next.is_some();
        if draws_noise {
            let (keep, fresh) = alpha_sigma(next_bar / below_bar);
            next_sample = next_sample * keep + Linear::from(Slot::Noise) * fresh;
        }
        Ok(Step {
            timestep: timestep as f32,
            noisy: noisy(alpha, sigma),
            model_input: sample.write_to(Slot::ModelInput),
            denoised,
            update: vec![next_sample.write_to(Slot::Sample)],
            draws_noise,
        })
    }
}

impl Scheduler for Tcd {
    fn train_steps(&self) -> usize {
        self.original_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let timesteps = distilled_timesteps(&self.diffusion, self.original_steps, steps);
        Ok((1.0, steps_between(&timesteps, begin, |t, next| self.step(t, next))?))
    }
}
