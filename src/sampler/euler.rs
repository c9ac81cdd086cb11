//! `EulerDiscreteScheduler`: Euler's method over σ (algorithm 2 of arXiv 2206.00364 without churn). The sample is
//! x0 + σ·ε, so the model is given it divided by √(σ² + 1).

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr};
use super::keys::Keys;
use super::linear::{Linear, Prediction};
use super::numeric;
use super::schedule::{Slot, Step, noisy};
use super::sigmas::{FinalSigma, Karras};
use crate::Result;

/// The keys of `EulerDiscreteScheduler`.
pub(super) struct Euler {
    diffusion: Diffusion,
    log_linear: bool,
    karras: Option<Karras>,
    final_sigma: FinalSigma,
    /// Whether the model is told log(σ)/4 in place of a timestep.
    continuous: bool,
}

impl Euler {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        let diffusion = Diffusion::read(keys, Spacing::Linspace, ZeroSnr::AlmostZero)?;
        let continuous = keys.choice("timestep_type", false, &[("discrete", false), ("continuous", true)])?;
        Ok(Self {
            log_linear: keys.choice("interpolation_type", false, &[("linear", false), ("log_linear", true)])?,
            karras: Karras::read(keys)?,
            final_sigma: FinalSigma::read(keys)?,
            // diffusers looks at the key only with this prediction.
            continuous: continuous && diffusion.prediction == Prediction::Velocity,
            diffusion,
        })
    }

    /// Timesteps, and the σ that each starts from, with the last σ behind them.
    fn timesteps_and_sigmas(&self, steps: usize) -> (Vec<f64>, Vec<f32>) {
        let training = self.diffusion.sigmas();
        let mut timesteps = self.diffusion.fractional_timesteps(steps);
        let mut sigmas: Vec<f64> = if self.log_linear {
            let log = |sigma: Option<&f32>| sigma.map_or(0.0, |sigma| libm::logf(*sigma));
            let line = numeric::torch_linspace(log(training.last()), log(training.first()), steps + 1);
            line.into_iter().map(|log| f64::from(libm::expf(log))).collect()
        } else {
            timesteps.iter().map(|t| numeric::interpolate(*t, &training)).collect()
        };
        if let (Some(karras), Some(highest), Some(lowest)) = (self.karras, sigmas.first(), sigmas.last()) {
            (timesteps, sigmas) = karras.timesteps_and_sigmas(*highest, *lowest, steps, &training);
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        sigmas.push(self.final_sigma.sigma(&training));
        if self.continuous {
            timesteps = sigmas
                .iter()
                .map(|sigma| 0.25 * f64::from(libm::logf(*sigma)))
                .collect();
        }
        (timesteps, sigmas)
    }
}

impl Scheduler for Euler {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let (timesteps, sigmas) = self.timesteps_and_sigmas(steps);
        let step = |(timestep, sigma): (&f64, &[f32])| {
            let (sigma, next) = (f64::from(sigma[0]), f64::from(sigma[1]));
            let sample = Linear::from(Slot::Sample);
            let (input, original) = scaled(&sample, self.diffusion.prediction, sigma);
            let derivative = (sample.clone() - original.clone()) * sigma.recip();
            Step {
                timestep: *timestep as f32,
                noisy: noisy(1.0, sigma),
                model_input: input.write_to(Slot::ModelInput),
                denoised: original.write_to(Slot::ModelInput),
                update: vec![(sample + derivative * (next - sigma)).write_to(Slot::Sample)],
                draws_noise: false,
            }
        };
        let steps = timesteps.iter().zip(sigmas.windows(2)).skip(begin).map(step).collect();
        Ok((init_noise_sigma(&sigmas, self.diffusion.spacing), steps))
    }
}

/// What the model is given, and the clean sample that it predicts, for a `sample` = x0 + σ·ε.
pub(super) fn scaled(sample: &Linear, prediction: Prediction, sigma: f64) -> (Linear, Linear) {
    let alpha = (sigma * sigma + 1.0).sqrt().recip();
    let input = sample.clone() * alpha;
    let original = prediction.original(&input, alpha, sigma * alpha);
    (input, original)
}

/// The standard deviation of the first sample, for these σ.
pub(super) fn init_noise_sigma(sigmas: &[f32], spacing: Spacing) -> f64 {
    let highest = f64::from(sigmas.iter().copied().fold(0.0, f32::max));
    match spacing {
        Spacing::Linspace | Spacing::Trailing => highest,
        Spacing::Leading => (highest * highest + 1.0).sqrt(),
    }
}
