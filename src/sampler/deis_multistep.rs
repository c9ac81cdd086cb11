//! `DEISMultistepScheduler`: the diffusion exponential integrator, its polynomials over log ρ (arXiv 2204.13902).

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr};
use super::keys::Keys;
use super::linear::Linear;
use super::multistep::{alpha_and_noise, history, read_order, timesteps_and_sigmas};
use super::schedule::{Slot, Step, noisy};
use super::sigmas::{FinalSigma, Karras};
use crate::Result;

/// The keys of `DEISMultistepScheduler`. It always ends at the lowest σ, and knows no `rescale_betas_zero_snr`.
pub(super) struct DeisMultistep {
    diffusion: Diffusion,
    order: usize,
    lower_order_final: bool,
    karras: Option<Karras>,
}

impl DeisMultistep {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        // diffusers reads the names of related solvers as these, so that configurations can be handed on.
        let algorithms = ["deis", "dpmsolver", "dpmsolver++"].map(|name| (name, ()));
        keys.choice("algorithm_type", (), &algorithms)?;
        let solvers = ["logrho", "midpoint", "heun", "bh1", "bh2"].map(|name| (name, ()));
        keys.choice("solver_type", (), &solvers)?;
        keys.off("use_dynamic_shifting")?;
        Ok(Self {
            diffusion: Diffusion::read(keys, Spacing::Linspace, ZeroSnr::Ignored)?,
            order: read_order(keys)?,
            lower_order_final: keys.flag("lower_order_final", true)?,
            karras: Karras::read(keys)?,
        })
    }

    /// The order of step number `i` of `count`, of which the first `begin` are left out.
    fn step_order(&self, i: usize, count: usize, begin: usize) -> usize {
        let order = if self.lower_order_final && count < 15 {
            self.order.min(count - i)
        } else {
            self.order
        };
        order.min(i - begin + 1)
    }
}

/// ∫ of the Lagrange polynomial over log t that is 1 at `node` and 0 at the `others` (at most two), up to `t`.
fn integral(t: f64, node: f64, others: &[f64]) -> f64 {
    let log = t.ln();
    let (numerator, factors): (f64, f64) = match others {
        [] => (1.0, 1.0),
        [c] => (log - c.ln() - 1.0, node.ln() - c.ln()),
        [c, d, ..] => {
            let (c, d) = (c.ln(), d.ln());
            (
                c * (d - log + 1.0) - d * log + d + log * log - 2.0 * log + 2.0,
                (node.ln() - c) * (node.ln() - d),
            )
        }
    };
    t * numerator / factors
}

impl Scheduler for DeisMultistep {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let (timesteps, mut rhos) = timesteps_and_sigmas(&self.diffusion, self.karras, self.train_steps(), steps);
        let last = match (self.karras, rhos.last()) {
            (Some(_), Some(last)) => *last,
            _ => f64::from(FinalSigma::Lowest.sigma(&self.diffusion.sigmas())),
        };
        rhos.push(last);
        rhos.iter_mut().for_each(|rho| *rho = f64::from(*rho as f32));
        let count = timesteps.len();
        let step = |(i, timestep): (usize, &f64)| {
            let (rho, next) = (rhos[i], rhos[i + 1]);
            let ((alpha, noise), (next_alpha, _)) = (alpha_and_noise(rho), alpha_and_noise(next));
            let sample = Linear::from(Slot::Sample);
            let denoised = self.diffusion.prediction.original(&sample, alpha, noise);
            let epsilon = self.diffusion.prediction.epsilon(&sample, alpha, noise);
            let order = self.step_order(i, count, begin);
            let mut next_sample = sample.clone() * alpha.recip();
            for back in 0..order {
                let mut others: Vec<f64> = (0..order).map(|k| rhos[i - k]).collect();
                let node = others.remove(back);
                let weight = integral(next, node, &others) - integral(rho, node, &others);
                next_sample = next_sample + Linear::from(history(i - back, self.order)) * weight;
            }
            Step {
                timestep: timestep.round_ties_even() as f32,
                noisy: noisy(alpha, noise),
                model_input: sample.write_to(Slot::ModelInput),
                denoised: denoised.write_to(Slot::ModelInput),
                update: vec![
                    epsilon.write_to(history(i, self.order)),
                    (next_sample * next_alpha).write_to(Slot::Sample),
                ],
                draws_noise: false,
            }
        };
        Ok((1.0, timesteps.iter().enumerate().skip(begin).map(step).collect()))
    }
}
