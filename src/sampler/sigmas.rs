//! Schedules in σ (arXiv 2206.00364), as Euler and DPM-Solver++ run over them.

use super::keys::Keys;
use super::numeric;
use crate::{Error, Result};

/// What the last σ is (`final_sigmas_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinalSigma {
    /// Nothing is left of the noise.
    Zero,
    /// The lowest σ of training.
    Lowest,
}

impl FinalSigma {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        keys.choice(
            "final_sigmas_type",
            Self::Zero,
            &[("zero", Self::Zero), ("sigma_min", Self::Lowest)],
        )
    }

    /// Its value, for the σ of each training step.
    pub(super) fn sigma(self, training: &[f32]) -> f32 {
        match self {
            Self::Zero => 0.0,
            Self::Lowest => training.first().copied().unwrap_or(0.0),
        }
    }
}

/// Karras' spreading of σ with ρ = 7 (`use_karras_sigmas`); its ends can be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Karras {
    lowest: Option<f64>,
    highest: Option<f64>,
}

impl Karras {
    /// `None` where it is off. The other spreadings of diffusers are refused.
    pub(super) fn read(keys: &Keys<'_>) -> Result<Option<Self>> {
        for other in [
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "use_flow_sigmas",
        ] {
            keys.off(other)?;
        }
        if !keys.flag("use_karras_sigmas", false)? {
            return Ok(None);
        }
        let karras = Self {
            lowest: keys.optional_number("sigma_min")?,
            highest: keys.optional_number("sigma_max")?,
        };
        for (key, sigma) in [("sigma_min", karras.lowest), ("sigma_max", karras.highest)] {
            if let Some(sigma) = sigma.filter(|sigma| !(sigma.is_finite() && *sigma > 0.0)) {
                return Err(Error::Corrupt(format!(
                    "scheduler key {key:?}: expected a positive number, found {sigma}"
                )));
            }
        }
        Ok(Some(karras))
    }

    /// The [`sigmas`](Self::sigmas), behind the timesteps that they lie at among those of `training`.
    pub(super) fn timesteps_and_sigmas(
        self,
        highest: f64,
        lowest: f64,
        steps: usize,
        training: &[f32],
    ) -> (Vec<f64>, Vec<f64>) {
        let sigmas = self.sigmas(highest, lowest, steps);
        let timesteps = sigmas.iter().map(|sigma| sigma_to_timestep(*sigma, training));
        (timesteps.collect(), sigmas)
    }

    /// `steps` values from `highest` down to `lowest`, or between the ends that are set.
    fn sigmas(self, highest: f64, lowest: f64, steps: usize) -> Vec<f64> {
        const RHO: f64 = 7.0;
        let root = |sigma: f64| libm::pow(sigma, 1.0 / RHO);
        let (low, high) = (
            root(self.lowest.unwrap_or(lowest)),
            root(self.highest.unwrap_or(highest)),
        );
        let ramp = numeric::linspace(0.0, 1.0, steps);
        ramp.into_iter()
            .map(|r| libm::pow(high + r * (low - high), RHO))
            .collect()
    }
}

/// The fractional timestep whose σ, interpolated in its logarithm, is `sigma`; `training` rises.
fn sigma_to_timestep(sigma: f64, training: &[f32]) -> f64 {
    let log = |sigma: f32| libm::logf(sigma);
    let log_sigma = libm::log(sigma.max(1e-10));
    let below = training.iter().filter(|s| f64::from(log(**s)) <= log_sigma).count();
    let index = below.saturating_sub(1).min(training.len().saturating_sub(2));
    let (Some(&low), Some(&high)) = (training.get(index), training.get(index + 1)) else {
        return 0.0;
    };
    let (low, high) = (log(low), log(high));
    let weight = ((f64::from(low) - log_sigma) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * index as f64 + weight * (index + 1) as f64
}
