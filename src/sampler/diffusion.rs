//! What all the schedulers share: the betas of the forward process, and how timesteps are spread over it.

use super::keys::Keys;
use super::linear::Prediction;
use super::numeric;
use crate::{Error, Result};

/// More training steps than any model has had; a bound on what a hostile file makes us allocate.
const MAX_TRAIN_STEPS: usize = 100_000;

/// How timesteps are spread (`timestep_spacing`, table 2 of arXiv 2305.08891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

impl Spacing {
    /// `points` timesteps of the first `last` ones, highest first, not rounded for `Linspace`. `stride` is what
    /// `Trailing` goes down by; it gives as many points as fit.
    pub(super) fn descending(self, last: usize, points: usize, stride: f64, offset: usize) -> Vec<f64> {
        match self {
            Self::Linspace => {
                let mut points = numeric::linspace(0.0, last as f64 - 1.0, points);
                points.reverse();
                points
            }
            Self::Leading => (0..points)
                .rev()
                .map(|i| (i * (last / points.max(1)) + offset) as f64)
                .collect(),
            Self::Trailing => {
                let points = numeric::arange_down(last as f64, stride)
                    .into_iter()
                    .map(|t| t.round_ties_even() - 1.0);
                // By rounding, arange may give one point too many, near 0; it is no timestep.
                points.filter(|t| *t >= 0.0).collect()
            }
        }
    }
}

/// What `rescale_betas_zero_snr` does to the last ᾱ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroSnr {
    /// It becomes 0.
    Zero,
    /// It becomes 2⁻²⁴, so that the highest σ stays finite.
    AlmostZero,
    /// The scheduler doesn't know the key.
    Ignored,
}

/// The betas of a configuration that says nothing of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct DefaultBetas {
    schedule: BetaSchedule,
    start: f64,
    end: f64,
}

impl DefaultBetas {
    /// Those of most schedulers.
    const PIXELS: Self = Self {
        schedule: BetaSchedule::Linear,
        start: 1e-4,
        end: 0.02,
    };
    /// Stable Diffusion's ends with a straight line between them.
    pub(super) const LINEAR_LATENTS: Self = Self {
        schedule: BetaSchedule::Linear,
        start: 0.00085,
        end: 0.012,
    };
    /// Stable Diffusion's own.
    pub(super) const LATENTS: Self = Self {
        schedule: BetaSchedule::ScaledLinear,
        ..Self::LINEAR_LATENTS
    };
}

/// The forward process and what the model predicts of it.
#[derive(Clone, Debug)]
pub(super) struct Diffusion {
    pub(super) train_steps: usize,
    /// ᾱ, the product of 1 - β up to each training step, rounded to f32 where torch rounds.
    alphas_cumprod: Vec<f32>,
    pub(super) cosine: bool,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
}

impl Diffusion {
    pub(super) fn read(keys: &Keys<'_>, spacing: Spacing, zero_snr: ZeroSnr) -> Result<Self> {
        Self::read_or(keys, spacing, zero_snr, DefaultBetas::PIXELS)
    }

    /// [`Self::read`] for a scheduler with other default betas.
    pub(super) fn read_or(
        keys: &Keys<'_>,
        spacing: Spacing,
        zero_snr: ZeroSnr,
        default_betas: DefaultBetas,
    ) -> Result<Self> {
        let train_steps = keys.count("num_train_timesteps", 1000)?;
        if train_steps == 0 || train_steps > MAX_TRAIN_STEPS {
            return Err(Error::Corrupt(format!(
                "scheduler key \"num_train_timesteps\": expected 1 to {MAX_TRAIN_STEPS}, found {train_steps}"
            )));
        }
        let schedule = keys.choice(
            "beta_schedule",
            default_betas.schedule,
            &[
                ("linear", BetaSchedule::Linear),
                ("scaled_linear", BetaSchedule::ScaledLinear),
                ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
            ],
        )?;
        let mut betas = match keys.numbers("trained_betas")? {
            Some(betas) if betas.len() == train_steps => betas.iter().map(|beta| *beta as f32).collect(),
            Some(betas) => {
                return Err(Error::Corrupt(format!(
                    "scheduler key \"trained_betas\": expected num_train_timesteps ({train_steps}) numbers, found {}",
                    betas.len()
                )));
            }
            None => schedule.betas(
                keys.number("beta_start", default_betas.start)?,
                keys.number("beta_end", default_betas.end)?,
                train_steps,
            ),
        };
        if let Some(beta) = betas.iter().find(|beta| !(0.0..=1.0).contains(*beta)) {
            return Err(Error::Corrupt(format!(
                "scheduler betas: expected numbers from 0 to 1, found {beta}"
            )));
        }
        let steps_offset = keys.count("steps_offset", 0)?;
        if steps_offset > train_steps {
            return Err(Error::Corrupt(format!(
                "scheduler key \"steps_offset\": expected at most num_train_timesteps ({train_steps}), found {steps_offset}"
            )));
        }
        let rescale = zero_snr != ZeroSnr::Ignored && keys.flag("rescale_betas_zero_snr", false)?;
        if rescale {
            betas = rescale_zero_terminal_snr(&betas);
        }
        let mut alphas_cumprod = cumulative_alphas(&betas);
        if let (true, ZeroSnr::AlmostZero, Some(last)) = (rescale, zero_snr, alphas_cumprod.last_mut()) {
            *last = 1.0 / 16_777_216.0;
        }
        Ok(Self {
            train_steps,
            alphas_cumprod,
            cosine: schedule == BetaSchedule::SquaredCosine,
            prediction: keys.choice(
                "prediction_type",
                Prediction::Epsilon,
                &[
                    ("epsilon", Prediction::Epsilon),
                    ("v_prediction", Prediction::Velocity),
                    ("sample", Prediction::Sample),
                ],
            )?,
            spacing: keys.choice(
                "timestep_spacing",
                spacing,
                &[
                    ("linspace", Spacing::Linspace),
                    ("leading", Spacing::Leading),
                    ("trailing", Spacing::Trailing),
                ],
            )?,
            steps_offset,
        })
    }

    /// Refuses the prediction of the clean sample, for a scheduler of diffusers that doesn't know it.
    pub(super) fn without_sample_prediction(self) -> Result<Self> {
        if self.prediction == Prediction::Sample {
            return Err(Error::Unsupported(
                "scheduler key \"prediction_type\": \"sample\" is not implemented by this scheduler; expected one of \
                 epsilon, v_prediction"
                    .into(),
            ));
        }
        Ok(self)
    }

    /// The timesteps of DDIM, DDPM and their kin: `steps` whole numbers, highest first.
    pub(super) fn timesteps(&self, steps: usize) -> Vec<f64> {
        self.spread(steps).into_iter().map(f64::round_ties_even).collect()
    }

    /// The timesteps of Euler's methods: `steps` numbers, highest first, rounded to f32 only.
    pub(super) fn fractional_timesteps(&self, steps: usize) -> Vec<f64> {
        self.spread(steps).into_iter().map(|t| f64::from(t as f32)).collect()
    }

    fn spread(&self, steps: usize) -> Vec<f64> {
        let stride = self.train_steps as f64 / steps as f64;
        self.spacing
            .descending(self.train_steps, steps, stride, self.steps_offset)
    }

    /// ᾱ at a whole timestep.
    pub(super) fn alpha_cumprod(&self, timestep: f64) -> Result<f32> {
        // Only a steps_offset leads past the end; a cast of a negative number saturates and is never asked for.
        self.alphas_cumprod.get(timestep as usize).copied().ok_or_else(|| {
            Error::InvalidArgument(format!(
                "steps: timestep {timestep} (steps_offset {}) lies past the {} training steps; take fewer steps",
                self.steps_offset, self.train_steps
            ))
        })
    }

    /// All ᾱ, by training step.
    pub(super) fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// σ = √((1 - ᾱ)/ᾱ) by training step, in f32 as diffusers has it.
    pub(super) fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }
}

/// α = √ᾱ and σ = √(1 - ᾱ), of an ᾱ rounded to f32.
pub(super) fn alpha_sigma(alpha_cumprod: f32) -> (f64, f64) {
    (f64::from(alpha_cumprod).sqrt(), f64::from(1.0 - alpha_cumprod).sqrt())
}

/// How β runs over the training steps (`beta_schedule`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCosine,
}

impl BetaSchedule {
    fn betas(self, start: f64, end: f64, steps: usize) -> Vec<f32> {
        match self {
            Self::Linear => numeric::torch_linspace(start as f32, end as f32, steps),
            Self::ScaledLinear => {
                let roots = numeric::torch_linspace(start.sqrt() as f32, end.sqrt() as f32, steps);
                roots.into_iter().map(|root| root * root).collect()
            }
            Self::SquaredCosine => {
                let alpha_bar = |t: f64| libm::cos((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).powi(2);
                let at = |i: usize| alpha_bar(i as f64 / steps as f64);
                (0..steps)
                    .map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32)
                    .collect()
            }
        }
    }
}

/// The running product of 1 - β: torch accumulates in f64 and rounds each result to f32.
fn cumulative_alphas(betas: &[f32]) -> Vec<f32> {
    let products = betas.iter().scan(1.0_f64, |product, beta| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    });
    products.collect()
}

/// Algorithm 1 of arXiv 2305.08891: betas whose last step has no signal left.
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_alphas(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let bars: Vec<f32> = roots
        .iter()
        .map(|root| (root - last) * scale)
        .map(|root| root * root)
        .collect();
    let alphas = bars
        .iter()
        .enumerate()
        .map(|(i, bar)| if i == 0 { *bar } else { bar / bars[i - 1] });
    alphas.map(|alpha| 1.0 - alpha).collect()
}
