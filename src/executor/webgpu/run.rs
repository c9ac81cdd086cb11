//! Playing the dispatches of a rate: submits of bounded size, and not too much of them under way, so that cancelling is heard and
//! the page can draw.

use super::Webgpu;
use super::device::Fence;
use super::instance::{Bound, Instance};
use super::policy;
use super::weights::Weights;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::WeightDtype;
use crate::graph::{ParamSpec, Plan, Rate};
use crate::platform::{now_ms, yield_now};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// A submit under way.
struct Submitted {
    fence: Fence,
    cost: u64,
}

/// Cuts dispatches into submits.
pub(super) fn submits(costs: impl Iterator<Item = u64>, first: usize, most: u64) -> Vec<(Range<usize>, u64)> {
    let mut cut: Vec<(Range<usize>, u64)> = Vec::new();
    for (i, cost) in (first..).zip(costs) {
        match cut.last_mut() {
            Some((range, sum)) if range.len() < policy::DISPATCHES_PER_SUBMIT && sum.saturating_add(cost) <= most => {
                range.end = i + 1;
                *sum += cost;
            }
            _ => cut.push((i..i + 1, cost)),
        }
    }
    cut
}

/// Records dispatches of an instance in a pass.
pub(super) fn record(
    pass: &mut wgpu::ComputePass<'_>,
    instance: &Instance,
    bound: &Bound,
    range: Range<usize>,
    context: usize,
) {
    for i in range {
        let (pipeline, weights) = &bound.0[i];
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &instance.groups[context][i], &[]);
        if let Some(weights) = weights {
            pass.set_bind_group(1, weights, &[]);
        }
        let [x, y] = instance.dispatches[i].workgroups;
        pass.dispatch_workgroups(x, y, 1);
    }
}

impl Webgpu {
    pub(in crate::executor) async fn run(
        &self,
        instance: &Instance,
        weights: &Weights,
        rate: Rate,
        context: usize,
        step: usize,
        cancel: &CancelToken,
    ) -> Result<()> {
        cancel.check()?;
        self.device.check()?;
        if context >= instance.groups.len() {
            return Err(Error::Internal(format!("there is no context {context}")));
        }
        if let Some(rows) = instance.steps(rate).filter(|&rows| step >= rows) {
            return Err(Error::Internal(format!("step {step} of a schedule of {rows}")));
        }
        let bound = self.bind(instance, weights).await?;
        instance
            .globals
            .write(&self.device, 0, bytemuck::cast_slice(&[step as u32]))?;

        let range = instance.phase(rate);
        let costs = instance.dispatches[range.clone()].iter().map(|d| d.cost);
        let most = (self.speed.get() * policy::SUBMIT_MS) as u64;
        let mut under_way: VecDeque<Submitted> = VecDeque::new();
        let mut last = now_ms();
        for (range, cost) in submits(costs, range.start, most) {
            let commands = self.encode(instance, &bound, range, context);
            self.began.set(self.began.get().or_else(|| Some(now_ms())));
            under_way.push_back(Submitted {
                fence: self.device.submit(commands),
                cost,
            });
            let allowed = (self.speed.get() * policy::IN_FLIGHT_MS) as u64;
            while under_way.len() > 1 && under_way.iter().map(|s| s.cost).sum::<u64>() > allowed {
                last = self.finish(under_way.pop_front(), last).await?;
                cancel.check()?;
            }
        }
        while !under_way.is_empty() {
            last = self.finish(under_way.pop_front(), last).await?;
        }
        cancel.check()
    }

    /// Waits for a submit and learns from how long it took since the one before was done.
    async fn finish(&self, submitted: Option<Submitted>, last: f64) -> Result<f64> {
        let Some(Submitted { fence, cost }) = submitted else {
            return Ok(last);
        };
        self.device.wait(fence).await?;
        let now = now_ms();
        // Browsers round their clocks.
        if now - last > 1.0 {
            let speed = self.speed.get();
            self.speed
                .set(speed + policy::SPEED_WEIGHT * (cost as f64 / (now - last) - speed));
        }
        Ok(now)
    }

    fn encode(&self, instance: &Instance, bound: &Bound, range: Range<usize>, context: usize) -> wgpu::CommandBuffer {
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        record(&mut pass, instance, bound, range, context);
        drop(pass);
        encoder.finish()
    }

    pub(in crate::executor) async fn warm(&self, plan: &Plan, dtypes: &[(ParamSpec, WeightDtype)]) -> Result<()> {
        let by_key: HashMap<String, WeightDtype> = dtypes.iter().map(|(s, d)| (s.key(), *d)).collect();
        let dtype = |p: usize| {
            let key = plan.params[p].key();
            by_key
                .get(&key)
                .copied()
                .ok_or_else(|| Error::Internal(format!("{key} has no dtype")))
        };
        for (variant, layout) in self.wanted(plan, dtype)? {
            // A browser compiles elsewhere; natively this takes its time.
            self.compiling(|| self.pipelines.get(&self.device, &variant, &layout))
                .await?;
            yield_now().await;
        }
        Ok(())
    }
}
