//! `UniPCMultistepScheduler`: a predictor, and a corrector that takes the step before once more with what the model says
//! at its end (arXiv 2302.04867). The correction costs no call of the model.

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr};
use super::keys::Keys;
use super::linear::Linear;
use super::multistep::{alpha_and_noise, history, read_order, timesteps_and_sigmas};
use super::schedule::{Slot, Step, noisy};
use super::sigmas::{FinalSigma, Karras};
use crate::{Error, Result};

/// The keys of `UniPCMultistepScheduler`.
pub(super) struct UniPcMultistep {
    diffusion: Diffusion,
    order: usize,
    /// The steps are over the predicted x0, and not over the predicted noise.
    predict_x0: bool,
    solver: Solver,
    lower_order_final: bool,
    /// Steps that are not corrected.
    uncorrected: Vec<f64>,
    karras: Option<Karras>,
    final_sigma: FinalSigma,
}

/// The function B(h) of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Solver {
    /// h
    Bh1,
    /// exp(h) - 1
    Bh2,
}

impl UniPcMultistep {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        // diffusers reads the names of related solvers as its default.
        let solvers = [
            ("bh1", Solver::Bh1),
            ("bh2", Solver::Bh2),
            ("midpoint", Solver::Bh2),
            ("heun", Solver::Bh2),
            ("logrho", Solver::Bh2),
        ];
        keys.off("use_dynamic_shifting")?;
        keys.absent("solver_p")?;
        keys.absent("shift_terminal")?;
        let this = Self {
            diffusion: Diffusion::read(keys, Spacing::Linspace, ZeroSnr::AlmostZero)?,
            order: read_order(keys)?,
            predict_x0: keys.flag("predict_x0", true)?,
            solver: keys.choice("solver_type", Solver::Bh2, &solvers)?,
            lower_order_final: keys.flag("lower_order_final", true)?,
            uncorrected: keys.numbers("disable_corrector")?.unwrap_or_default(),
            karras: Karras::read(keys)?,
            final_sigma: FinalSigma::read(keys)?,
        };
        // There diffusers multiplies infinity by 0, and what it draws is no number.
        let endless = match (this.final_sigma, this.predict_x0, this.solver) {
            (FinalSigma::Zero, false, _) => Some("\"predict_x0\": false"),
            (FinalSigma::Zero, true, Solver::Bh1) => Some("\"solver_type\": \"bh1\""),
            _ => None,
        };
        match endless {
            Some(key) => Err(Error::Unsupported(format!(
                "scheduler key {key} has no finite last step where \"final_sigmas_type\" is \"zero\"; expected \"sigma_min\""
            ))),
            None => Ok(this),
        }
    }

    /// σ at the start of each step, and the last.
    fn sigmas(&self, mut sigmas: Vec<f64>) -> Vec<f64> {
        let last = match (self.final_sigma, self.karras) {
            (FinalSigma::Lowest, Some(_)) => sigmas.last().copied().unwrap_or(0.0),
            (last, _) => f64::from(last.sigma(&self.diffusion.sigmas())),
        };
        sigmas.push(last);
        sigmas.iter().map(|sigma| f64::from(*sigma as f32)).collect()
    }

    /// The order of step number `i` of `count`, of which the first `begin` are left out.
    fn step_order(&self, i: usize, count: usize, begin: usize) -> usize {
        let order = if self.lower_order_final {
            self.order.min(count - i)
        } else {
            self.order
        };
        order.min(i - begin + 1)
    }

    /// `sample` at σ number `i`, moved to the next with the predictions of this step and of `order - 1` before it. A
    /// corrector weighs the prediction at the end too: its weight is given apart.
    fn moved(&self, sample: Slot, i: usize, order: usize, sigmas: &[f64], corrects: bool) -> (Linear, f64) {
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);
        let ((alpha, noise), (next_alpha, next_noise)) = (alpha_and_noise(sigma), alpha_and_noise(next));
        // λ = -log σ.
        let h = (sigma / next).ln();
        let (hh, keep, scale) = if self.predict_x0 {
            (-h, next_noise / noise, next_alpha)
        } else {
            (h, next_alpha / alpha, next_noise)
        };
        let grown = hh.exp_m1();
        let b = match self.solver {
            Solver::Bh1 => hh,
            Solver::Bh2 => grown,
        };
        let mut nodes: Vec<f64> = (1..order).map(|k| (sigma / sigmas[i - k]).ln() / h).collect();
        nodes.extend(corrects.then_some(1.0));
        let weights = match (nodes.len(), corrects) {
            // The lowest orders are simplified.
            (1, _) => vec![0.5],
            _ => weights(&nodes, &moments(hh, grown, b, nodes.len())),
        };
        let prediction = |back: usize| Linear::from(history(i - back, self.order));
        let mut result = Linear::from(sample) * keep - prediction(0) * (scale * grown);
        for (back, (weight, node)) in (1..order).zip(weights.iter().zip(&nodes)) {
            result = result - (prediction(back) - prediction(0)) * (scale * b * weight / node);
        }
        let mut end = 0.0;
        if let (true, Some(weight)) = (corrects, weights.last()) {
            end = -scale * b * weight;
            result = result - prediction(0) * end;
        }
        (result, end)
    }
}

/// The right-hand side of the order's conditions: k!·φ_{k+1}(h)·h/B(h) for k from 1 up, as diffusers has it.
fn moments(h: f64, grown: f64, b: f64, count: usize) -> Vec<f64> {
    let (mut phi, mut factorial) = (grown / h - 1.0, 1.0);
    let moment = |k: usize| {
        let moment = phi * factorial / b;
        factorial *= (k + 1) as f64;
        phi = phi / h - 1.0 / factorial;
        moment
    };
    (1..=count).map(moment).collect()
}

/// The w with Σ w·nodeᵏ = moment number k, for as many k as there are nodes: each is its node's Lagrange polynomial, with
/// the moments for the powers.
fn weights(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    let weight = |(i, node): (usize, &f64)| {
        let mut polynomial = vec![1.0];
        for (_, other) in nodes.iter().enumerate().filter(|(j, _)| *j != i) {
            let mut product = vec![0.0; polynomial.len() + 1];
            for (k, coefficient) in polynomial.iter().enumerate() {
                product[k] -= coefficient * other / (node - other);
                product[k + 1] += coefficient / (node - other);
            }
            polynomial = product;
        }
        polynomial.iter().zip(moments).map(|(a, b)| a * b).sum()
    };
    nodes.iter().enumerate().map(weight).collect()
}

impl Scheduler for UniPcMultistep {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let (timesteps, sigmas) = timesteps_and_sigmas(&self.diffusion, self.karras, self.train_steps(), steps);
        let sigmas = self.sigmas(sigmas);
        let count = timesteps.len();
        // Where the sample that a step started from waits to be corrected.
        let start = Slot::Scratch(self.order as u8);
        let step = |(i, timestep): (usize, &f64)| {
            let (alpha, noise) = alpha_and_noise(sigmas[i]);
            let sample = Linear::from(Slot::Sample);
            let original = self.diffusion.prediction.original(&sample, alpha, noise);
            let denoised = original.clone().write_to(Slot::ModelInput);
            let prediction = if self.predict_x0 {
                original
            } else {
                self.diffusion.prediction.epsilon(&sample, alpha, noise)
            };
            let kept = history(i, self.order);
            let mut update = Vec::new();
            if i > begin && !self.uncorrected.contains(&((i - 1) as f64)) {
                // In two parts: there may be five terms, and the new prediction takes the place of the oldest.
                let (corrected, end) = self.moved(start, i - 1, self.step_order(i - 1, count, begin), &sigmas, true);
                update.push(corrected.write_to(start));
                update.push(prediction.write_to(kept));
                update.push((Linear::from(start) + Linear::from(kept) * end).write_to(start));
            } else {
                update.push(prediction.write_to(kept));
                update.push(sample.clone().write_to(start));
            }
            let (next, _) = self.moved(start, i, self.step_order(i, count, begin), &sigmas, false);
            update.push(next.write_to(Slot::Sample));
            Step {
                timestep: timestep.round_ties_even() as f32,
                noisy: noisy(alpha, noise),
                model_input: sample.write_to(Slot::ModelInput),
                denoised,
                update,
                draws_noise: false,
            }
        };
        Ok((1.0, timesteps.iter().enumerate().skip(begin).map(step).collect()))
    }
}
