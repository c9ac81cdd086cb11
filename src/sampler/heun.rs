//! `HeunDiscreteScheduler`: Heun's method over σ (algorithm 1 of arXiv 2206.00364 without churn). A step to the next σ is
//! taken once by Euler's method and then again with the mean of the slopes at both of its ends; the last one, which ends
//! at 0, only once. As in diffusers, n steps call the model 2n - 1 times, and each call is a [`Step`] of the schedule.

use super::config::Scheduler;
use super::ddim::{clipped, read_clip};
use super::diffusion::{DefaultBetas, Diffusion, Spacing, ZeroSnr};
use super::euler::{init_noise_sigma, scaled};
use super::keys::Keys;
use super::linear::Linear;
use super::numeric;
use super::schedule::{Slot, Step, noisy};
use super::sigmas::Karras;
use crate::Result;

/// The keys of `HeunDiscreteScheduler`.
pub(super) struct Heun {
    diffusion: Diffusion,
    clip: Option<f32>,
    karras: Option<Karras>,
}

impl Heun {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        Ok(Self {
            diffusion: Diffusion::read_or(keys, Spacing::Linspace, ZeroSnr::Ignored, DefaultBetas::LINEAR_LATENTS)?,
            clip: read_clip(keys, false)?,
            karras: Karras::read(keys)?,
        })
    }

    /// Timesteps, and the σ that each starts from, with a last σ of 0 behind them.
    fn timesteps_and_sigmas(&self, steps: usize) -> (Vec<f64>, Vec<f32>) {
        let training = self.diffusion.sigmas();
        let mut timesteps = self.diffusion.fractional_timesteps(steps);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| numeric::interpolate(*t, &training)).collect();
        if let (Some(karras), Some(highest), Some(lowest)) = (self.karras, sigmas.first(), sigmas.last()) {
            (timesteps, sigmas) = karras.timesteps_and_sigmas(*highest, *lowest, steps, &training);
        }
        (
            timesteps,
            sigmas.into_iter().chain([0.0]).map(|sigma| sigma as f32).collect(),
        )
    }
}

impl Scheduler for Heun {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn order(&self) -> usize {
        2
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let (timesteps, sigmas) = self.timesteps_and_sigmas(steps);
        // The sample before the step, moved by half of the first slope. Slot 0 is for clamping.
        let halfway = Slot::Scratch(u8::from(self.clip.is_some()));
        let sample = Linear::from(Slot::Sample);
        // A call of the model at σ, and what is made of the slope it gives there.
        let call = |timestep: f64, sigma: f64, moves: &[(Slot, Slot, f64)]| {
            let (input, original) = scaled(&sample, self.diffusion.prediction, sigma);
            let denoised = original.clone().write_to(Slot::ModelInput);
            let mut update = Vec::new();
            let slope = (sample.clone() - clipped(original, self.clip, &mut update)) * sigma.recip();
            update.extend(
                moves
                    .iter()
                    .map(|(from, to, by)| (Linear::from(*from) + slope.clone() * *by).write_to(*to)),
            );
            Step {
                timestep: timestep as f32,
                noisy: noisy(1.0, sigma),
                model_input: input.write_to(Slot::ModelInput),
                denoised,
                update,
                draws_noise: false,
            }
        };
        let mut all = Vec::with_capacity(2 * timesteps.len());
        for (i, (&timestep, sigma)) in timesteps.iter().zip(sigmas.windows(2)).enumerate() {
            let (sigma, next) = (f64::from(sigma[0]), f64::from(sigma[1]));
            let by = next - sigma;
            let euler = (Slot::Sample, Slot::Sample, by);
            if let Some(&next_timestep) = timesteps.get(i + 1) {
                all.push(call(timestep, sigma, &[(Slot::Sample, halfway, by / 2.0), euler]));
                all.push(call(next_timestep, next, &[(halfway, Slot::Sample, by / 2.0)]));
            } else {
                all.push(call(timestep, sigma, &[euler]));
            }
        }
        all.drain(..begin.min(all.len()));
        Ok((init_noise_sigma(&sigmas, self.diffusion.spacing), all))
    }
}
