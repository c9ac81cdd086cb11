//! A race: a node is run in each way that is likely, the policy's own first and last.

use super::Heavy;
use super::judge::Judge;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::webgpu::buffers::Buffer;
use crate::executor::webgpu::instance::Bound;
use crate::executor::webgpu::kernels::Target;
use crate::executor::webgpu::profile::Played;
use crate::executor::webgpu::select::Choice;
use crate::executor::webgpu::stopwatch::Stopwatch;
use crate::executor::webgpu::weights::Weights;
use crate::executor::webgpu::{Instance, Webgpu, policy};
use crate::graph::{Plan, Rate};
use crate::platform::now_ms;
use std::ops::Range;
use std::rc::Rc;

/// How long races go on, and how much memory they take.
pub(super) struct Time {
    until: f64,
    /// Something was found out meanwhile, so that the next time goes on where this one ends.
    used: bool,
    /// Bytes.
    room: u64,
}

impl Time {
    pub(super) fn until(until: f64, room: u64) -> Self {
        let used = false;
        Self { until, used, room }
    }

    pub(super) fn is_up(&self) -> bool {
        self.used && now_ms() >= self.until
    }
}

/// What became of a race.
pub(super) enum End {
    Won(Choice),
    /// To be gone on with.
    TimeIsUp,
    /// The weights that are there do not tell a wrong result from a right one.
    SaysNothing,
    /// It takes more memory than there is.
    NoRoom,
}

/// A way to run a node, ready.
struct Runner {
    instance: Instance,
    bound: Rc<Bound>,
    output: Buffer,
    len: usize,
}

impl Runner {
    /// What the node dispatches, the last of its plan: its result is converted for the comparison alone.
    pub(super) fn dispatches(&self) -> Range<usize> {
        let last = self.instance.plan.nodes.len().saturating_sub(1);
        self.instance.own(last)
    }

    fn played(&self) -> Played<'_> {
        Played {
            instance: &self.instance,
            bound: &self.bound,
            context: 0,
            nodes: vec![self.dispatches()],
        }
    }
}

/// What all ways of a race have in common.
struct Track<'a> {
    gpu: &'a Webgpu,
    plan: Rc<Plan>,
    weights: &'a Weights,
    watch: Option<Stopwatch>,
    /// How often a way is repeated at first: about as often as the one before.
    times: usize,
    cancel: &'a CancelToken,
}

impl Track<'_> {
    /// A way, which has run once.
    async fn run(&self, choice: Choice) -> Result<Runner> {
        let gpu = self.gpu;
        let target = Target {
            chooser: Some(Rc::new(move |_, _| Some(choice))),
            ..gpu.target(&self.plan)
        };
        let made = gpu.device.guarded(|| gpu.make(self.plan.clone(), 1, &target));
        let instance = made.await?;
        gpu.make_up(&instance).await?;
        let bound = gpu.bind(&instance, self.weights).await?;
        let value = self.plan.output("y")?.0;
        let (output, len) = (instance.value(value, 0)?, self.plan.values[value].shape.len());
        // As a picture runs it: in submits of bounded size.
        let run = gpu.run(&instance, self.weights, Rate::Step, 0, 0, self.cancel);
        run.await?;
        Ok(Runner {
            instance,
            bound,
            output,
            len,
        })
    }

    /// Milliseconds of a way.
    async fn time(&mut self, runner: &Runner) -> Result<f64> {
        let (played, all) = (runner.played(), runner.dispatches());
        let watch = self.watch.as_ref();
        let timing = (self.gpu).repeated(watch, &played, all, policy::RACE_SPAN_MS, self.times, self.cancel);
        let (ms, times) = timing.await?;
        self.times = times;
        Ok(ms)
    }
}

impl Webgpu {
    /// Runs a node in each way that is likely and was not heard yet.
    ///
    /// # Errors
    /// What stops it: nothing is known then, unless this is a device that was lost, a memory that is full, or a cancelled picture. What a
    /// way does not compile or run with is that way's fault, and no error.
    pub(super) async fn race(
        &self,
        plan: &Plan,
        weights: &Weights,
        heavy: &Heavy,
        judge: &mut Judge,
        time: &mut Time,
        cancel: &CancelToken,
    ) -> Result<End> {
        let ways = policy::raced(&heavy.product, &heavy.choices);
        let Some((&own, others)) = ways.split_first() else {
            return Err(Error::Internal(format!("there is no way to run {:?}", heavy.product)));
        };
        let on = |choice: Choice| {
            move |error: Error| {
                if matches!(error, Error::DeviceLost(_)) {
                    let lost = format!("{choice:?} of {}", heavy.name);
                    self.tuner.known.borrow_mut().lost = Some(lost);
                }
                error
            }
        };
        let alone = Rc::new(Plan::in_halves(plan.alone(heavy.node)?));
        // Two ways are there at once.
        if alone.peak_bytes(1).saturating_mul(2) > time.room {
            return Ok(End::NoRoom);
        }
        let mut track = Track {
            gpu: self,
            plan: alone,
            weights,
            watch: self.stopwatch().await?,
            times: 1,
            cancel,
        };
        let first = track.run(own).await.map_err(on(own))?;
        let same = self
            .compare(&first.output, &first.output, first.len)
            .await
            .map_err(on(own))?;
        if !same.tells() {
            return Ok(End::SaysNothing);
        }
        judge.hear(own, track.time(&first).await.map_err(on(own))?);
        for &choice in others {
            if judge.has_heard(choice) || self.tuner.is_left_out(choice, &heavy.name) {
                continue;
            }
            if time.is_up() {
                return Ok(End::TimeIsUp);
            }
            time.used = true;
            let runner = match track.run(choice).await.map_err(on(choice)) {
                Ok(runner) => runner,
                // These say nothing of the way.
                Err(error @ (Error::Cancelled(_) | Error::DeviceLost(_) | Error::OutOfMemory(_))) => return Err(error),
                Err(error) => {
                    self.tuner.leave_out(choice, &heavy.name, error.message().to_owned());
                    continue;
                }
            };
            let difference = self.compare(&first.output, &runner.output, first.len).await;
            match judge.fault(&difference.map_err(on(choice))?) {
                Some(fault) => self.tuner.leave_out(choice, &heavy.name, fault),
                None => judge.hear(choice, track.time(&runner).await.map_err(on(choice))?),
            }
        }
        let Some(challenger) = judge.challenger() else {
            return Ok(End::Won(own));
        };
        // Clocks of GPUs rise and fall: what decides is taken side by side, in an order in which a drift takes from both the same.
        let second = track.run(challenger).await.map_err(on(challenger))?;
        let mut sums = [0.0; 2];
        for which in [0, 1, 1, 0] {
            let (choice, runner) = [(own, &first), (challenger, &second)][which];
            sums[which] += track.time(runner).await.map_err(on(choice))?;
        }
        time.used = true;
        Ok(End::Won(if Judge::wins(sums[1], sums[0]) { challenger } else { own }))
    }
}
