//! What a sampler emits: steps as linear combinations over named, latent-sized buffers.

use super::linear::Linear;
use crate::{Error, Result};

/// A latent-sized buffer that lives on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The noisy latents x_t; after the last step the finished ones.
    Sample,
    /// What the model is given: the sample, scaled as the scheduler wants it.
    ModelInput,
    /// What the model answered (after guidance).
    ModelOutput,
    /// Fresh standard normal numbers, where the step draws them.
    Noise,
    /// The clean latents of an image that is drawn over, where there is one.
    Original,
    /// The standard normal numbers that the first sample is made with.
    FirstNoise,
    /// Room for history and predicted x0, numbered from 0 up to [`Schedule::scratch`].
    Scratch(u8),
}

/// One linear combination: `dst = clamp(Σ coefficient · source, -c, c)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Combine {
    /// Where the sum goes. It may be among its own sources.
    pub dst: Slot,
    /// Sources with their coefficients: at least one, at most [`Combine::MAX_TERMS`], no source twice, all finite.
    pub terms: Vec<(Slot, f32)>,
    /// The largest magnitude that is let through, if any.
    pub clamp: Option<f32>,
}

impl Combine {
    /// The most sources that one combination has.
    pub const MAX_TERMS: usize = 4;
}

/// One call of the model and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The timestep that the model is told, in training steps (fractional with some schedules).
    pub timestep: f32,
    /// Writes to [`Slot::Sample`] what a sample at the beginning of this step is of an image: diffusers' `add_noise`, of
    /// [`Slot::Original`] and [`Slot::FirstNoise`].
    pub noisy: Combine,
    /// Writes [`Slot::ModelInput`] from [`Slot::Sample`], before the model runs.
    pub model_input: Combine,
    /// The clean sample as the model sees it now, for a preview: to be run after the model and before `update`.
    pub denoised: Combine,
    /// What is run after the model, in this order.
    pub update: Vec<Combine>,
    /// Whether fresh normal numbers of the latents' shape must be in [`Slot::Noise`] before `update`.
    pub draws_noise: bool,
}

/// The steps from each timestep to the next one, but for the first `begin`; the last has no next.
pub(super) fn steps_between(
    timesteps: &[f64],
    begin: usize,
    mut step: impl FnMut(f64, Option<f64>) -> Result<Step>,
) -> Result<Vec<Step>> {
    let next = timesteps.iter().skip(1).map(|t| Some(*t)).chain([None]);
    let steps = timesteps.iter().zip(next).skip(begin);
    steps.map(|(t, next)| step(*t, next)).collect()
}

/// [`Step::noisy`]: so much of the original, and so much of the noise.
pub(super) fn noisy(original: f64, noise: f64) -> Combine {
    (Linear::from(Slot::Original) * original + Linear::from(Slot::FirstNoise) * noise).write_to(Slot::Sample)
}

/// A whole run of a sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The first sample is standard normal noise times this, unless it is made of an image ([`Step::noisy`]).
    pub init_noise_sigma: f32,
    /// The steps, first to last.
    pub steps: Vec<Step>,
    /// How many [`Slot::Scratch`] buffers the steps use.
    pub scratch: u8,
}

impl Schedule {
    /// Puts the steps together, and refuses numbers that are not finite (a step that divides by no signal or no noise).
    pub(super) fn new(init_noise_sigma: f64, steps: Vec<Step>) -> Result<Self> {
        let mut scratch = 0;
        for (i, step) in steps.iter().enumerate() {
            for combine in step
                .update
                .iter()
                .chain([&step.noisy, &step.model_input, &step.denoised])
            {
                if combine.terms.len() > Combine::MAX_TERMS {
                    let terms = combine.terms.len();
                    return Err(Error::Internal(format!("step {i}: a combination of {terms} terms")));
                }
                if !step.timestep.is_finite() || combine.terms.iter().any(|(_, k)| !k.is_finite()) {
                    return Err(Error::Unsupported(format!(
                        "step {} of {} (timestep {}) has a coefficient that is not finite; other steps or another \
                         timestep_spacing may do",
                        i + 1,
                        steps.len(),
                        step.timestep
                    )));
                }
                for slot in combine.terms.iter().map(|(slot, _)| *slot).chain([combine.dst]) {
                    if let Slot::Scratch(number) = slot {
                        scratch = scratch.max(number.saturating_add(1));
                    }
                }
            }
        }
        Ok(Self {
            init_noise_sigma: init_noise_sigma as f32,
            steps,
            scratch,
        })
    }

    /// What a sample after step `index` is of an image: where a mask keeps the image, inpainting writes this over what the step
    /// made.
    pub fn original_after(&self, index: usize) -> Combine {
        match self.steps.get(index + 1) {
            Some(next) => next.noisy.clone(),
            None => Linear::from(Slot::Original).write_to(Slot::Sample),
        }
    }
}
