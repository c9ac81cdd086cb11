//! `DPMSolverMultistepScheduler`: DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095) of first to third
//! order, without noise and with. "DPM++ 2M" is DPM-Solver++ of second order.

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr};
use super::keys::Keys;
use super::linear::Linear;
use super::multistep::{alpha_and_noise, history, read_order, timesteps_and_sigmas};
use super::schedule::{Slot, Step, noisy};
use super::sigmas::{FinalSigma, Karras};
use crate::{Error, Result};

/// The keys of `DPMSolverMultistepScheduler`.
pub(super) struct DpmSolverMultistep {
    diffusion: Diffusion,
    algorithm: Algorithm,
    order: usize,
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
        let algorithms = [
            ("dpmsolver++", Algorithm::PLUS_PLUS),
            ("deis", Algorithm::PLUS_PLUS),
            ("sde-dpmsolver++", Algorithm { x0: true, sde: true }),
            ("dpmsolver", Algorithm { x0: false, sde: false }),
            ("sde-dpmsolver", Algorithm { x0: false, sde: true }),
        ];
        let algorithm = keys.choice("algorithm_type", Algorithm::PLUS_PLUS, &algorithms)?;
        let solvers = [
            ("midpoint", false),
            ("heun", true),
            ("logrho", false),
            ("bh1", false),
            ("bh2", false),
        ];
        keys.off("use_dynamic_shifting")?;
        let order = read_order(keys)?;
        let final_sigma = FinalSigma::read(keys)?;
        // diffusers refuses the first and has no formula for the second.
        if !algorithm.x0 && final_sigma == FinalSigma::Zero {
            return Err(Error::Unsupported(
                "scheduler key \"algorithm_type\": one that is not a DPM-Solver++ has no finite last step where \
                 \"final_sigmas_type\" is \"zero\"; expected \"sigma_min\""
                    .into(),
            ));
        }
        if algorithm == (Algorithm { x0: false, sde: true }) && order == 3 {
            return Err(Error::Unsupported(
                "scheduler key \"solver_order\": 3 is not implemented for \"sde-dpmsolver\"; expected 1 or 2".into(),
            ));
        }
        Ok(Self {
            diffusion: Diffusion::read(keys, Spacing::Linspace, ZeroSnr::AlmostZero)?,
            algorithm,
            order,
            heun: keys.choice("solver_type", false, &solvers)?,
            lower_order_final: keys.flag("lower_order_final", true)?,
            euler_at_final: keys.flag("euler_at_final", false)?,
            karras: Karras::read(keys)?,
            final_sigma,
            lambda_min: keys.number("lambda_min_clipped", f64::NEG_INFINITY)?,
        })
    }

    /// Timesteps, and the σ that each starts from, with the last σ behind them.
    fn timesteps_and_sigmas(&self, steps: usize) -> Result<(Vec<f64>, Vec<f32>)> {
        let last = match self.karras {
            Some(_) => self.diffusion.train_steps,
            None => self.last_timestep()?,
        };
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

    /// The order of step number `i` of `count`, of which the first `begin` are left out.
    fn step_order(&self, i: usize, count: usize, begin: usize) -> usize {
        let short = self.lower_order_final && count < 15;
        let lower_last = self.euler_at_final || short || self.final_sigma == FinalSigma::Zero;
        let most = match count - i {
            1 if lower_last => 1,
            2 if short => 2,
            _ => self.order,
        };
        self.order.min(i - begin + 1).min(most)
    }
}

/// `algorithm_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Algorithm {
    /// DPM-Solver++: the steps are over the predicted x0, and not over the predicted noise.
    x0: bool,
    /// Noise is added at each step.
    sde: bool,
}

impl Algorithm {
    const PLUS_PLUS: Self = Self { x0: true, sde: false };

    /// What a step from σ/α to the next weighs its parts with.
    fn weights(self, sigma: f64, next_sigma: f64) -> Weights {
        let ((alpha, noise), (next_alpha, next_noise)) = (alpha_and_noise(sigma), alpha_and_noise(next_sigma));
        // λ = -log σ, so exp(-h) is a quotient of two σ.
        let shrink = next_sigma / sigma;
        let h = -shrink.ln();
        let ratio = if self.x0 {
            next_noise / noise
        } else {
            next_alpha / alpha
        };
        match self {
            Self { x0: true, sde: false } => Weights {
                sample: ratio,
                value: next_alpha * (1.0 - shrink),
                slope: next_alpha * ((shrink - 1.0) / h + 1.0),
                bend: -next_alpha * ((shrink - 1.0 + h) / (h * h) - 0.5),
                noise: 0.0,
            },
            Self { x0: true, sde: true } => {
                let gone = 1.0 - shrink * shrink;
                Weights {
                    sample: ratio * shrink,
                    value: next_alpha * gone,
                    slope: next_alpha * (1.0 - gone / (2.0 * h)),
                    bend: next_alpha * ((gone - 2.0 * h) / (4.0 * h * h) - 0.5),
                    noise: next_noise * gone.sqrt(),
                }
            }
            Self { x0: false, sde } => {
                let (grown, times) = (shrink.recip() - 1.0, if sde { 2.0 } else { 1.0 });
                Weights {
                    sample: ratio,
                    value: -times * next_noise * grown,
                    slope: -times * next_noise * (grown / h - 1.0),
                    bend: -times * next_noise * ((grown - h) / (h * h) - 0.5),
                    noise: if sde {
                        next_noise * (shrink.powi(-2) - 1.0).sqrt()
                    } else {
                        0.0
                    },
                }
            }
        }
    }
}

/// What the next sample has of the sample, of the prediction with its first and second differences, and of fresh noise.
struct Weights {
    sample: f64,
    value: f64,
    slope: f64,
    bend: f64,
    noise: f64,
}

impl Scheduler for DpmSolverMultistep {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let (timesteps, sigmas) = self.timesteps_and_sigmas(steps)?;
        let count = timesteps.len();
        let sigmas: Vec<f64> = sigmas.into_iter().map(f64::from).collect();
        let step = |(i, timestep): (usize, &f64)| {
            let (alpha, noise) = alpha_and_noise(sigmas[i]);
            let sample = Linear::from(Slot::Sample);
            let mut update = Vec::new();
            let original = self.diffusion.prediction.original(&sample, alpha, noise);
            let denoised = original.clone().write_to(Slot::ModelInput);
            let mut prediction = if self.algorithm.x0 {
                original
            } else {
                self.diffusion.prediction.epsilon(&sample, alpha, noise)
            };
            if i + 1 < count && self.step_order(i + 1, count, begin) > 1 {
                update.push(prediction.write_to(history(i, self.order)));
                prediction = history(i, self.order).into();
            }
            let order = self.step_order(i, count, begin);
            let weights = self.algorithm.weights(sigmas[i], sigmas[i + 1]);
            let mut next_sample = sample.clone() * weights.sample + prediction.clone() * weights.value;
            let past = |back: usize| Linear::from(history(i - back, self.order));
            // How far back in λ a step's start lies from the next one's, in lengths of this step.
            let h = (sigmas[i] / sigmas[i + 1]).ln();
            let length = |back: usize| (sigmas[i - back] / sigmas[i + 1 - back]).ln() / h;
            if order == 2 {
                let weight = if self.heun { weights.slope } else { 0.5 * weights.value };
                next_sample = next_sample + (prediction - past(1)) * (weight / length(1));
            } else if order == 3 {
                let (r0, r1) = (length(1), length(2));
                let slope = (prediction - past(1)) * r0.recip();
                let bend = (slope.clone() - (past(1) - past(2)) * r1.recip()) * (r0 + r1).recip();
                next_sample = next_sample + (slope + bend.clone() * r0) * weights.slope + bend * weights.bend;
            }
            update.push(next_sample.write_to(Slot::Sample));
            if weights.noise != 0.0 {
                // By itself, for the sample of third order is of four terms.
                let with_noise = sample.clone() + Linear::from(Slot::Noise) * weights.noise;
                update.push(with_noise.write_to(Slot::Sample));
            }
            let model_input = sample.write_to(Slot::ModelInput);
            Step {
                timestep: *timestep as f32,
                noisy: noisy(alpha, noise),
                model_input,
                denoised,
                update,
                draws_noise: self.algorithm.sde,
            }
        };
        Ok((1.0, timesteps.iter().enumerate().skip(begin).map(step).collect()))
    }
}
