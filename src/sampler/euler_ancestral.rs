//! `EulerAncestralDiscreteScheduler`, "Euler a": each step goes below the next σ and comes back up with fresh noise
//! (k-diffusion's `sample_euler_ancestral`).

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr};
use super::euler::{init_noise_sigma, scaled};
use super::keys::Keys;
use super::linear::Linear;
use super::numeric;
use super::schedule::{Slot, Step, noisy};
use crate::Result;

/// The keys of `EulerAncestralDiscreteScheduler`.
pub(super) struct EulerAncestral {
    diffusion: Diffusion,
}

impl EulerAncestral {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        let diffusion = Diffusion::read(keys, Spacing::Linspace, ZeroSnr::AlmostZero)?;
        Ok(Self {
            diffusion: diffusion.without_sample_prediction()?,
        })
    }
}

impl Scheduler for EulerAncestral {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let timesteps = self.diffusion.fractional_timesteps(steps);
        let training = self.diffusion.sigmas();
        let sigmas = timesteps.iter().map(|t| numeric::interpolate(*t, &training) as f32);
        let sigmas: Vec<f32> = sigmas.chain([0.0]).collect();
        let step = |(timestep, sigma): (&f64, &[f32])| {
            let (sigma, next) = (f64::from(sigma[0]), f64::from(sigma[1]));
            let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt();
            let down = (next * next - up * up).sqrt();
            let sample = Linear::from(Slot::Sample);
            let (input, original) = scaled(&sample, self.diffusion.prediction, sigma);
            let derivative = (sample.clone() - original.clone()) * sigma.recip();
            let next_sample = sample + derivative * (down - sigma) + Linear::from(Slot::Noise) * up;
            Step {
                timestep: *timestep as f32,
                noisy: noisy(1.0, sigma),
                model_input: input.write_to(Slot::ModelInput),
                denoised: original.write_to(Slot::ModelInput),
                update: vec![next_sample.write_to(Slot::Sample)],
                draws_noise: up != 0.0,
            }
        };
        let steps = timesteps.iter().zip(sigmas.windows(2)).skip(begin).map(step).collect();
        Ok((init_noise_sigma(&sigmas, self.diffusion.spacing), steps))
    }
}
