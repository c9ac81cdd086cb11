//! `PNDMScheduler` with `skip_prk_steps`, "PLMS": a linear multistep method of fourth order (arXiv 2202.09778). Its second
//! step takes the first once more with a better slope, so that n steps call the model n + 1 times.

use super::config::Scheduler;
use super::diffusion::{Diffusion, Spacing, ZeroSnr, alpha_sigma};
use super::keys::Keys;
use super::linear::{Linear, Prediction};
use super::schedule::{Slot, Step, noisy};
use crate::{Error, Result};

/// The keys of `PNDMScheduler`.
pub(super) struct Pndm {
    diffusion: Diffusion,
    alpha_to_one: bool,
}

impl Pndm {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        if !keys.flag("skip_prk_steps", false)? {
            return Err(Error::Unsupported(
                "scheduler key \"skip_prk_steps\": false (Runge-Kutta steps) is not implemented; expected true".into(),
            ));
        }
        Ok(Self {
            diffusion: Diffusion::read(keys, Spacing::Leading, ZeroSnr::Ignored)?.without_sample_prediction()?,
            alpha_to_one: keys.flag("set_alpha_to_one", false)?,
        })
    }

    /// Formula (9) of the paper: `sample` at `timestep` moved to `next`, with the model's (combined) output.
    fn transfer(&self, sample: Slot, output: Linear, timestep: f64, next: f64) -> Result<Linear> {
        let bar = self.diffusion.alpha_cumprod(timestep)?;
        let next_bar = match next {
            next if next >= 0.0 => self.diffusion.alpha_cumprod(next)?,
            _ if self.alpha_to_one => 1.0,
            _ => self.diffusion.alpha_cumprod(0.0)?,
        };
        let ((alpha, sigma), (next_alpha, next_sigma)) = (alpha_sigma(bar), alpha_sigma(next_bar));
        let sample = Linear::from(sample);
        let epsilon = match self.diffusion.prediction {
            Prediction::Velocity => output * alpha + sample.clone() * sigma,
            Prediction::Epsilon | Prediction::Sample => output,
        };
        let denominator = alpha * (alpha * next_sigma + sigma * next_alpha);
        Ok(sample * (next_alpha / alpha) - epsilon * (f64::from(next_bar - bar) / denominator))
    }
}

/// The three outputs before the current one live in a ring.
fn history(output: usize) -> Slot {
    Slot::Scratch((output % 3) as u8)
}

/// Where the first sample waits for the second step.
const FIRST_SAMPLE: Slot = Slot::Scratch(1);

impl Scheduler for Pndm {
    fn train_steps(&self) -> usize {
        self.diffusion.train_steps
    }

    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)> {
        let stride = (self.diffusion.train_steps / steps) as f64;
        let mut timesteps = self.diffusion.timesteps(steps);
        if let Some(second) = timesteps.get(1).copied() {
            timesteps.insert(1, second);
        }
        // What is left begins as if nothing had been before, whichever timestep comes second.
        timesteps.drain(..begin.min(timesteps.len()));
        let mut all = Vec::with_capacity(timesteps.len());
        for (i, &timestep) in timesteps.iter().enumerate() {
            let current = Linear::from(Slot::ModelOutput);
            // How many outputs are kept before this one; that of the second step is never kept.
            let kept = i.saturating_sub(usize::from(i > 1));
            let past = |back: usize| Linear::from(history(kept - back));
            let mut update = Vec::new();
            let next_sample = match i {
                0 => {
                    update.push(Linear::from(Slot::Sample).write_to(FIRST_SAMPLE));
                    self.transfer(Slot::Sample, current, timestep, timestep - stride)?
                }
                1 => self.transfer(FIRST_SAMPLE, (current + past(1)) * 0.5, timestep + stride, timestep)?,
                _ => {
                    let output = match kept {
                        1 => (current * 3.0 - past(1)) * (1.0 / 2.0),
                        2 => (current * 23.0 - past(1) * 16.0 + past(2) * 5.0) * (1.0 / 12.0),
                        _ => {
                            // With the sample these would be five terms; the oldest output makes room for the sum.
                            let sum = current * 55.0 - past(1) * 59.0 + past(2) * 37.0 - past(3) * 9.0;
                            update.push((sum * (1.0 / 24.0)).write_to(history(kept)));
                            history(kept).into()
                        }
                    };
                    self.transfer(Slot::Sample, output, timestep, timestep - stride)?
                }
            };
            update.push(next_sample.write_to(Slot::Sample));
            if i != 1 && i + 1 < timesteps.len() {
                update.push(Linear::from(Slot::ModelOutput).write_to(history(kept)));
            }
            let sample = Linear::from(Slot::Sample);
            let (alpha, sigma) = alpha_sigma(self.diffusion.alpha_cumprod(timestep)?);
            let original = self.diffusion.prediction.original(&sample, alpha, sigma);
            all.push(Step {
                timestep: timestep as f32,
                noisy: noisy(alpha, sigma),
                model_input: sample.write_to(Slot::ModelInput),
                denoised: original.write_to(Slot::ModelInput),
                update,
                draws_noise: false,
            });
        }
        Ok((1.0, all))
    }
}
