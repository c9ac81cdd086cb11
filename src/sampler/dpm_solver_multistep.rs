//! `DPMSolverMultistepScheduler`: DPM-Solver++ of first and second order (arXiv 2211.01095), "DPM++ 2M".

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr};
use super::keys::Keys;
use super::linear::Linear;
use super::multistep::{alpha_and_noise, timesteps_and_sigmas};
use super::schedule::{Slot, Step};
use super::sigmas::{FinalSigma, Karras};
use crate::{Error, Result};

/// The keys of `DPMSolverMultistepScheduler`.
pub(super) struct DpmSolverMultistep {
    diffusion: Diffusion,
    second_order: bool,
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    karras: Option<Karras>,
    final_sigma: FinalSigma,
    lambda_min: f64,
}

impl DpmSolverMultistep {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        // diffusers reads the names of related solvers as these, so that configurations can be handed on.
        keys.choice("algorithm_type", (), &[("dpmsolver++", ()), ("deis", ())])?;
        let solvers = [
            ("midpoint", false),
            ("heun", true),
            ("logrho", false),
            ("bh1", false),
            ("bh2", false),
        ];
        keys.off("use_dynamic_shifting")?;
        let order = keys.count("solver_order", 2)?;
        if !(1..=2).contains(&order) {
            return Err(Error::Unsupported(format!(
                "scheduler key \"solver_order\": {order} is not implemented; expected 1 or 2"
            )));
        }
        Ok(Self {
            diffusion: Diffusion::read(keys, Spacing::Linspace, ZeroSnr::AlmostZero)?,
            second_order: order == 2,
            heun: keys.choice("solver_type", false, &solvers)?,
            lower_order_final: keys.flag("lower_order_final", true)?,
            euler_at_final: keys.flag("euler_at_final", false)?,
            karras: Karras::read(keys)?,
            final_sigma: FinalSigma::read(keys)?,
            lambda_min: keys.number("lambda_min_clipped", f64::NEG_INFINITY)?,
        })
    }

    /// Timesteps, and the σ that each starts from, with the last σ behind them.
    fn timesteps_and_sigmas(&self, steps: usize) -> Result<(Vec<f64>, Vec<f32>)> {
        let last = self.last_timestep()?;
        let (mut timesteps, sigmas) = timesteps_and_sigmas(&self.diffusion, self.karras, last, steps);
        if !self.diffusion.cosine {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        sigmas.push(self.final_sigma.sigma(&self.diffusion.sigmas()));
        Ok((timesteps.into_iter().map(f64::trunc).collect(), sigmas))
    }

    /// How many training steps have a λ = log(α/σ) of at least `lambda_min_clipped`.
    fn last_timestep(&self) -> Result<usize> {
        let bars = self.diffusion.alphas_cumprod();
        let lambda = |bar: &f32| f64::from(libm::logf(bar.sqrt()) - libm::logf((1.0 - bar).sqrt()));
        match bars.iter().filter(|bar| lambda(bar) >= self.lambda_min).count() {
            0 => Err(Error::Corrupt(format!(
                "scheduler key \"lambda_min_clipped\": {} is above the λ of every training step",
                self.lambda_min
            ))),
            last => Ok(last),
        }
    }

    /// Whether step number `i` of `count` is taken with first order.
    fn first_order(&self, i: usize, count: usize) -> bool {
        let short = self.lower_order_final && count < 15;
        let lower_last = self.euler_at_final || short || self.final_sigma == FinalSigma::Zero;
        !self.second_order || i == 0 || (i + 1 == count && lower_last)
    }
}

impl Scheduler for DpmSolverMultistep {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize) -> Result<(f64, Vec<Step>)> {
        let (timesteps, sigmas) = self.timesteps_and_sigmas(steps)?;
        let count = timesteps.len();
        let sigmas: Vec<f64> = sigmas.into_iter().map(f64::from).collect();
        let history = |i: usize| Slot::Scratch((i % 2) as u8);
        let step = |(i, timestep): (usize, &f64)| {
            let (sigma, next) = (sigmas[i], sigmas[i + 1]);
            let (alpha, noise) = alpha_and_noise(sigma);
            let (next_alpha, next_noise) = alpha_and_noise(next);
            let sample = Linear::from(Slot::Sample);
            let mut update = Vec::new();
            let mut original = self.diffusion.prediction.original(&sample, alpha, noise);
            let denoised = original.clone().write_to(Slot::ModelInput);
            if i + 1 < count && !self.first_order(i + 1, count) {
                update.push(original.write_to(history(i)));
                original = history(i).into();
            }
            // λ = -log σ, so exp(-h) is a quotient of two σ.
            let shrink = next / sigma;
            let gain = next_alpha * (1.0 - shrink);
            let mut next_sample = sample.clone() * (next_noise / noise) + original.clone() * gain;
            if !self.first_order(i, count) {
                let (h, last_h) = (-shrink.ln(), (sigmas[i - 1] / sigma).ln());
                let slope = (original - history(i - 1).into()) * (h / last_h);
                let weight = if self.heun {
                    next_alpha * ((shrink - 1.0) / h + 1.0)
                } else {
                    0.5 * gain
                };
                next_sample = next_sample + slope * weight;
            }
            update.push(next_sample.write_to(Slot::Sample));
            let model_input = sample.write_to(Slot::ModelInput);
            Step {
                timestep: *timestep as f32,
                model_input,
                denoised,
                update,
                draws_noise: false,
            }
        };
        Ok((1.0, timesteps.iter().enumerate().map(step).collect()))
    }
}
