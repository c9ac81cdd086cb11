//! What the multistep solvers over σ share: where their steps lie, and α and σ of a process that keeps the variance.

use super::diffusion::{Diffusion, Spacing};
use super::keys::Keys;
use super::numeric;
use super::schedule::Slot;
use super::sigmas::{Karras, sigma_to_timestep};
use crate::{Error, Result};

/// `solver_order`, from 1 to 3.
pub(super) fn read_order(keys: &Keys<'_>) -> Result<usize> {
    let order = keys.count("solver_order", 2)?;
    if !(1..=3).contains(&order) {
        return Err(Error::Unsupported(format!(
            "scheduler key \"solver_order\": {order} is not implemented; expected 1, 2 or 3"
        )));
    }
    Ok(order)
}

/// The timesteps, highest first, and the σ that each starts from; the last σ is not among them. Only the first `last`
/// training steps are used where the spacing is not Karras' own.
pub(super) fn timesteps_and_sigmas(
    diffusion: &Diffusion,
    karras: Option<Karras>,
    last: usize,
    steps: usize,
) -> (Vec<f64>, Vec<f64>) {
    let Diffusion {
        train_steps,
        spacing,
        steps_offset,
        ..
    } = *diffusion;
    let training = diffusion.sigmas();
    if let Some(karras) = karras {
        let end = |sigma: Option<&f32>| sigma.map_or(0.0, |sigma| f64::from(*sigma));
        let sigmas = karras.sigmas(end(training.last()), end(training.first()), steps);
        let timesteps = sigmas.iter().map(|sigma| sigma_to_timestep(*sigma, &training));
        return (timesteps.collect(), sigmas);
    }
    let stride = train_steps as f64 / steps as f64;
    let mut timesteps = match spacing {
        Spacing::Trailing => spacing.descending(last, steps, stride, steps_offset),
        // One more than asked for: the lowest is where the last step ends.
        Spacing::Linspace | Spacing::Leading => {
            let mut points = spacing.descending(last, steps + 1, stride, steps_offset);
            points.truncate(steps);
            points
        }
    };
    timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
    let sigmas = timesteps.iter().map(|t| numeric::interpolate(*t, &training)).collect();
    (timesteps, sigmas)
}

/// α and σ of a process that keeps the variance, from σ/α.
pub(super) fn alpha_and_noise(sigma: f64) -> (f64, f64) {
    let alpha = (sigma * sigma + 1.0).sqrt().recip();
    (alpha, sigma * alpha)
}

/// Where the prediction of step `i` is kept for the `order - 1` steps that follow.
pub(super) fn history(i: usize, order: usize) -> Slot {
    Slot::Scratch((i % order) as u8)
}
