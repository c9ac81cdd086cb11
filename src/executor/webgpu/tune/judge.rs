//! Who wins a race, and who is left out of it.

use crate::executor::webgpu::policy;
use crate::executor::webgpu::select::Choice;

/// How two results differ, all of their elements looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    /// The largest value of the one that is right.
    pub(super) largest: f32,
    /// The largest difference.
    pub(super) most: f32,
    /// Values of the one that is right that are no numbers, and of the other.
    pub(super) strange: [usize; 2],
}

impl Difference {
    /// Over the largest value. What is no number is as far off as can be.
    pub(super) fn apart(&self) -> f32 {
        match self.strange {
            [0, 0] => self.most / self.largest.max(f32::MIN_POSITIVE),
            _ => f32::INFINITY,
        }
    }

    /// Whether the right result tells a wrong one from itself: numbers that are not all 0.
    pub(super) fn tells(&self) -> bool {
        self.strange[0] == 0 && self.largest > 0.0
    }
}

/// What was heard of a race. The policy's own way is the measure of what is right, and stays if nothing is clearly faster.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    own: Choice,
    /// Results are in 16-bit floats, and so may be what they are made of.
    half: bool,
    /// Milliseconds of each way that was timed.
    heard: Vec<(Choice, f64)>,
}

impl Judge {
    pub(super) fn new(own: Choice, half: bool) -> Self {
        let heard = Vec::new();
        Self { own, half, heard }
    }

    /// Says what is wrong with the result of a way, if anything is.
    pub(super) fn fault(&self, difference: &Difference) -> Option<String> {
        let most = if self.half {
            policy::RACE_APART_HALF
        } else {
            policy::RACE_APART
        };
        let off = difference.apart();
        (off > most).then(|| format!("its result is {off:e} of the largest value off"))
    }

    /// Hears how long a way took.
    pub(super) fn hear(&mut self, choice: Choice, ms: f64) {
        match self.heard.iter_mut().find(|(known, _)| *known == choice) {
            Some((_, known)) => *known = ms,
            None => self.heard.push((choice, ms)),
        }
    }

    pub(super) fn has_heard(&self, choice: Choice) -> bool {
        self.heard.iter().any(|(known, _)| *known == choice)
    }

    /// The way that was faster than the policy's own and all others.
    pub(super) fn challenger(&self) -> Option<Choice> {
        let first = self.heard.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        first.map(|(choice, _)| *choice).filter(|choice| *choice != self.own)
    }

    /// Whether the challenger won, by milliseconds that were taken side by side.
    pub(super) fn wins(challenger: f64, own: f64) -> bool {
        challenger < own * (1.0 - policy::RACE_MARGIN)
    }
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

    fn off(most: f32) -> Difference {
        Difference {
            largest: 2.0,
            most,
            strange: [0, 0],
        }
    }

    #[test]
    fn a_result_that_is_another_is_a_fault() {
        let judge = Judge::new(OWN, false);
        assert_eq!(judge.fault(&off(1e-5)), None);
        assert!(judge.fault(&off(1e-3)).is_some());
        let strange = |strange| Difference { strange, ..off(0.0) };
        assert!(judge.fault(&strange([0, 1])).is_some());
        assert!(!strange([1, 0]).tells() && strange([0, 1]).tells());
        let nothing = Difference {
            largest: 0.0,
            ..off(0.0)
        };
        assert!(!nothing.tells(), "any factor of 0 is 0");
    }

    #[test]
    fn what_is_more_exact_than_the_policys_own_is_not_wrong() {
        let judge = Judge::new(Choice { half: true, ..OWN }, true);
        assert_eq!(judge.fault(&off(1e-3)), None);
        assert!(judge.fault(&off(0.1)).is_some());
    }

    #[test]
    fn the_fastest_challenges_and_wins_if_it_is_clearly_faster() {
        let mut judge = Judge::new(OWN, false);
        judge.hear(OWN, 10.0);
        assert_eq!(judge.challenger(), None);
        for (slices, ms) in [(2, 11.0), (4, 8.0), (8, 9.0)] {
            judge.hear(with_slices(slices), ms);
        }
        assert_eq!(judge.challenger(), Some(with_slices(4)));
        // Heard again, it has not become faster by being the last.
        judge.hear(OWN, 7.0);
        assert_eq!(judge.challenger(), None);
        assert!(judge.has_heard(OWN) && !judge.has_heard(with_slices(16)));
        assert!(Judge::wins(9.0, 10.0) && !Judge::wins(9.9, 10.0) && !Judge::wins(11.0, 10.0));
    }
}
