//! Linear expressions over slots, in f64, so that the schedulers below can be written as their papers write them.

use std::ops::{Add, Mul, Sub};

use super::schedule::{Combine, Slot};

/// Σ coefficient · slot, no slot twice.
#[derive(Clone, Debug)]
pub(super) struct Linear(Vec<(Slot, f64)>);

impl From<Slot> for Linear {
    fn from(slot: Slot) -> Self {
        Self(vec![(slot, 1.0)])
    }
}

impl Add for Linear {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        for (slot, k) in other.0 {
            match self.0.iter_mut().find(|(s, _)| *s == slot) {
                Some((_, sum)) => *sum += k,
                None => self.0.push((slot, k)),
            }
        }
        self
    }
}

impl Mul<f64> for Linear {
    type Output = Self;

    fn mul(mut self, factor: f64) -> Self {
        self.0.iter_mut().for_each(|(_, k)| *k *= factor);
        self
    }
}

impl Sub for Linear {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + other * -1.0
    }
}

impl Linear {
    /// The combination that writes this into `dst`. Terms that contribute nothing are left out.
    pub(super) fn write_to(self, dst: Slot) -> Combine {
        let mut terms: Vec<(Slot, f32)> = self.0.iter().map(|(slot, k)| (*slot, *k as f32)).collect();
        terms.retain(|(_, k)| *k != 0.0);
        if terms.is_empty() {
            terms.extend(self.0.first().map(|(slot, _)| (*slot, 0.0)));
        }
        Combine {
            dst,
            terms,
            clamp: None,
        }
    }
}

/// What the model's output is an estimate of (`prediction_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity α·ε - σ·x0 (arXiv 2202.00512).
    Velocity,
    /// The clean sample.
    Sample,
}

impl Prediction {
    /// The clean sample x0, where `sample` = α·x0 + σ·ε.
    pub(super) fn original(self, sample: &Linear, alpha: f64, sigma: f64) -> Linear {
        let output = Linear::from(Slot::ModelOutput);
        match self {
            Self::Epsilon => (sample.clone() - output * sigma) * alpha.recip(),
            Self::Velocity => sample.clone() * alpha - output * sigma,
            Self::Sample => output,
        }
    }

    /// The noise ε, where `sample` = α·x0 + σ·ε.
    pub(super) fn epsilon(self, sample: &Linear, alpha: f64, sigma: f64) -> Linear {
        let output = Linear::from(Slot::ModelOutput);
        match self {
            Self::Epsilon => output,
            Self::Velocity => output * alpha + sample.clone() * sigma,
            Self::Sample => (sample.clone() - output * alpha) * sigma.recip(),
        }
    }
}
