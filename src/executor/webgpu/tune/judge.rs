//! Who wins a race, and who is left out of it.

use crate::error::{Error, Result};
use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::Choice;

/// Who wins. The policy's own way is the measure of what is right, and stays if nothing is clearly faster.
pub(super) struct Judge {
    own: Choice,
    /// Results are in 16-bit floats, and so may be what they are made of.
    half: bool,
    /// The winner so far.
    pub(super) best: Choice,
    least: f64,
    right: Option<Vec<f32>>,
    /// What failed or was wrong, and why.
    pub(super) left_out: Vec<(Choice, String)>,
}

impl Judge {
    pub(super) fn new(own: Choice, half: bool) -> Self {
        Self {
            own,
            half,
            best: own,
            least: f64::INFINITY,
            right: None,
            left_out: Vec::new(),
        }
    }

    /// Hears how a way ran: milliseconds and result. One that failed or is wrong is left out.
    ///
    /// # Errors
    /// That of the policy's own; being cancelled, a lost device, and no room on it, which says nothing of the way.
    pub(super) fn hear(&mut self, choice: Choice, ran: Result<(f64, Vec<f32>)>) -> Result<()> {
        let (ms, output) = match ran {
            Err(error @ (Error::Cancelled(_) | Error::DeviceLost(_) | Error::OutOfMemory(_))) => return Err(error),
            Err(error) if choice != self.own => {
                self.left_out.push((choice, error.to_string()));
                return Ok(());
            }
            ran => ran?,
        };
        let off = self.right.as_ref().map_or(0.0, |right| apart(right, &output));
        let most = if self.half {
            policy::RACE_APART_HALF
        } else {
            policy::RACE_APART
        };
        if off > most {
            self.left_out
                .push((choice, format!("its result is {off:e} of the largest value off")));
            return Ok(());
        }
        self.right.get_or_insert(output);
        let margin = if choice == self.own {
            1.0 - policy::RACE_MARGIN
        } else {
            1.0
        };
        if ms * margin < self.least {
            (self.best, self.least) = (choice, ms * margin);
        }
        Ok(())
    }
}

/// How far `found` is from `right`: the largest difference, over the largest value. What is no number is as far as can be.
pub(super) fn apart(right: &[f32], found: &[f32]) -> f32 {
    let largest = right.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
    let off = |(a, b): (&f32, &f32)| {
        if (a - b).is_finite() {
            (a - b).abs()
        } else {
            f32::INFINITY
        }
    };
    right.iter().zip(found).map(off).fold(0.0, f32::max) / largest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::webgpu::Tile;

    const OWN: Choice = Choice {
        tile: Tile::Small,
        slices: 1,
        half: false,
        apart: false,
    };

    fn with_slices(slices: usize) -> Choice {
        Choice { slices, ..OWN }
    }

    #[test]
    fn what_fails_or_is_wrong_is_left_out_and_the_fastest_of_the_others_wins() {
        let mut judge = Judge::new(OWN, false);
        judge.hear(OWN, Ok((10.0, vec![1.0, -2.0]))).unwrap();
        judge
            .hear(with_slices(2), Err(Error::Internal("it does not compile".into())))
            .unwrap();
        judge.hear(with_slices(4), Ok((1.0, vec![1.0, 2.0]))).unwrap();
        judge.hear(with_slices(8), Ok((1.0, vec![1.0, f32::NAN]))).unwrap();
        judge.hear(with_slices(16), Ok((5.0, vec![1.0, -2.000_01]))).unwrap();
        assert_eq!(judge.best, with_slices(16));
        let out: Vec<_> = judge.left_out.iter().map(|(choice, _)| choice.slices).collect();
        assert_eq!(out, [2, 4, 8]);
        let lost = judge.hear(with_slices(2), Err(Error::DeviceLost("it is gone".into())));
        assert_eq!(lost.unwrap_err().code(), "device-lost");
    }

    #[test]
    fn what_is_more_exact_than_the_policys_own_is_not_wrong() {
        let own = Choice { half: true, ..OWN };
        let mut judge = Judge::new(own, true);
        judge.hear(own, Ok((10.0, vec![1.0, -2.001]))).unwrap();
        judge.hear(OWN, Ok((5.0, vec![1.0, -2.0]))).unwrap();
        assert_eq!((judge.best, judge.left_out.len()), (OWN, 0));
    }

    #[test]
    fn the_policys_own_stays_if_nothing_is_clearly_faster() {
        let mut judge = Judge::new(OWN, false);
        judge.hear(OWN, Ok((10.0, vec![1.0]))).unwrap();
        judge.hear(with_slices(2), Ok((9.9, vec![1.0]))).unwrap();
        assert_eq!((judge.best, judge.left_out.len()), (OWN, 0));
        let failed = Judge::new(OWN, false).hear(OWN, Err(Error::Internal("no".into())));
        assert_eq!(failed.unwrap_err().code(), "internal");
    }
}
