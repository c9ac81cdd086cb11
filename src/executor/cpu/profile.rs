//! Nodes by the clock, and how fast memory is.

use super::{Cpu, Instance, Weights};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::NodeTimes;
use crate::graph::Rate;
use crate::platform::now_ms;
use std::hint::black_box;

/// Milliseconds for which memory is copied.
const COPYING: f64 = 50.0;

impl Cpu {
    pub(in super::super) async fn time_nodes(
        &self,
        instance: &Instance,
        weights: &Weights,
        rate: Rate,
        [context, step]: [usize; 2],
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<NodeTimes> {
        let nodes = instance.plan.phase(rate);
        let (mut ms, mut rounds, began) = (vec![0.0; nodes.len()], 0, now_ms());
        while rounds == 0 || now_ms() - began < enough {
            for part in instance.steps(rate) {
                ms[part.node - nodes.start] += self.play(instance, weights, part, context, step, cancel).await?;
            }
            rounds += 1;
        }
        ms.iter_mut().for_each(|ms| *ms /= rounds as f64);
        Ok(NodeTimes { ms, rounds })
    }

    pub(in super::super) fn copy_rate(&self, bytes: usize, cancel: &CancelToken) -> Result<f64> {
        cancel.check()?;
        let zeros = || -> Result<Vec<u8>> {
            let mut zeros = Vec::<u8>::new();
            let room = zeros.try_reserve_exact(bytes);
            room.map_err(|_| Error::OutOfMemory(format!("{bytes} bytes to copy")))?;
            zeros.resize(bytes, 0);
            Ok(zeros)
        };
        let (from, mut to) = (zeros()?, zeros()?);
        // The first one touches the pages.
        to.copy_from_slice(black_box(&from));
        let (mut copies, began) = (0.0, now_ms());
        loop {
            black_box(&mut to).copy_from_slice(black_box(&from));
            copies += 1.0;
            let took = now_ms() - began;
            if took >= COPYING {
                return Ok(2.0 * bytes as f64 * copies / took * 1e3);
            }
        }
    }
}
