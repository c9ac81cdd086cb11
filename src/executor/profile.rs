//! How long the nodes of a plan take, and what a device can do at most.

use super::{Executor, Instance, Weights, cpu, foreign, webgpu};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::graph::{Op, Plan, Rate};
use std::rc::Rc;

/// What measuring the nodes of a rate gave.
#[derive(Clone, Debug)]
pub struct NodeTimes {
    /// Milliseconds of each node of the rate, in order; 0 of an input.
    pub ms: Vec<f64>,
    /// How often each was played.
    pub rounds: usize,
}

impl Executor {
    /// How nodes are timed: `"timestamps"`, which a GPU writes itself, where it can, or `"clock"`, by which each is played alone.
    pub fn timed_by(&self) -> &'static str {
        match self {
            Self::Webgpu(e) if e.has_timestamps() => "timestamps",
            _ => "clock",
        }
    }

    /// Whether models that stand it are multiplied in 16-bit floats.
    pub fn multiplies_halves(&self) -> bool {
        match self {
            Self::Cpu(_) => false,
            Self::Webgpu(e) => e.multiplies_halves(),
        }
    }

    /// Plays the nodes of a rate over and over, at least once, for about `enough` milliseconds, and says how long each takes
    /// on average. The operands are those of [`Executor::run`], and so is what it leaves behind.
    ///
    /// # Errors
    /// Those of [`Executor::run`].
    pub async fn time_nodes(
        &self,
        instance: &Instance,
        weights: &Weights,
        rate: Rate,
        [context, step]: [usize; 2],
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<NodeTimes> {
        match (self, instance, weights) {
            (Self::Cpu(e), Instance::Cpu(i), Weights::Cpu(w)) => {
                e.time_nodes(i, w, rate, [context, step], enough, cancel).await
            }
            (Self::Webgpu(e), Instance::Webgpu(i), Weights::Webgpu(w)) => {
                e.time_nodes(i, w, rate, [context, step], enough, cancel).await
            }
            _ => Err(foreign()),
        }
    }

    /// Plays the last node of a plan by itself over and over, for about `enough` milliseconds, and says how long it takes: its operands
    /// are there, and what converts them, or what it makes, for who looks from outside, is not counted.
    ///
    /// # Errors
    /// Those of [`Executor::run`].
    pub async fn time_last(
        &self,
        instance: &Instance,
        weights: &Weights,
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<f64> {
        match (self, instance, weights) {
            (Self::Cpu(e), Instance::Cpu(i), Weights::Cpu(w)) => {
                let times = e.time_nodes(i, w, Rate::Step, [0, 0], enough, cancel).await?;
                Ok(times.ms.last().copied().unwrap_or(0.0))
            }
            (Self::Webgpu(e), Instance::Webgpu(i), Weights::Webgpu(w)) => e.time_last(i, w, enough, cancel).await,
            _ => Err(foreign()),
        }
    }

    /// Finds out on the adapter itself how the heaviest products of a plan are run best with these weights, for plans that are
    /// prepared from now on; of a plan that was looked at before, what there was no time for. What takes more than `room` bytes is left
    /// out. Says whether there is more to find out.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::error::Error::Cancelled)(crate::Error::Cancelled), [`Error::DeviceLost`](crate::error::Error::DeviceLost)(crate::Error::DeviceLost).
    pub async fn tune(&self, plan: &Rc<Plan>, weights: &Weights, room: u64, cancel: &CancelToken) -> Result<bool> {
        match (self, weights) {
            (Self::Webgpu(e), Weights::Webgpu(w)) => e.tune(plan, w, room, cancel).await,
            _ => Ok(false),
        }
    }

    /// Whether an instance would be prepared otherwise by what was found out since.
    pub fn is_outdated(&self, instance: &Instance) -> bool {
        match (self, instance) {
            (Self::Webgpu(e), Instance::Webgpu(i)) => e.is_outdated(i),
            _ => false,
        }
    }

    /// Races that came to nothing by no fault of a way to run a product, since this was last asked, and why.
    pub fn take_broken_off(&self) -> Vec<String> {
        match self {
            Self::Cpu(_) => Vec::new(),
            Self::Webgpu(e) => e.take_broken_off(),
        }
    }

    /// What was found out so; nothing on the CPU.
    pub fn tuning(&self) -> Option<webgpu::Tuning> {
        match self {
            Self::Cpu(_) => None,
            Self::Webgpu(e) => Some(e.tuning()),
        }
    }

    /// Bytes a second, read and written both counted, at which this device copies a buffer of `bytes`, or of less where it
    /// takes no such buffer.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::error::Error::Cancelled), [`Error::DeviceLost`](crate::error::Error::DeviceLost),
    /// [`Error::OutOfMemory`](crate::error::Error::OutOfMemory).
    pub async fn copy_rate(&self, bytes: usize, cancel: &CancelToken) -> Result<f64> {
        match self {
            Self::Cpu(e) => e.copy_rate(bytes, cancel),
            Self::Webgpu(e) => e.copy_rate(bytes, cancel).await,
        }
    }

    /// What a rate of an instance dispatches to a GPU; the CPU dispatches nothing.
    pub fn dispatches(&self, instance: &Instance, rate: Rate) -> usize {
        match instance {
            Instance::Cpu(_) => 0,
            Instance::Webgpu(i) => i.phase(rate).len(),
        }
    }

    /// Command buffers submitted to a GPU so far.
    pub fn submits(&self) -> u64 {
        match self {
            Self::Cpu(_) => 0,
            Self::Webgpu(e) => e.submits(),
        }
    }

    /// The least bytes that a node moves: its operands and its weights as they are kept, and what it writes, each once. Of a
    /// table of embeddings the rows that are read.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::error::Error::Internal) for weights that are not there.
    pub fn node_bytes(&self, plan: &Plan, weights: &Weights, node: usize) -> Result<u64> {
        let n = &plan.nodes[node];
        let out = n.element.bytes(n.shape.len());
        let mut bytes = plan.moved(node);
        for &p in &n.params {
            let spec = &plan.params[p];
            let held = match weights {
                Weights::Cpu(w) => cpu::Weights::bytes(spec, w.dtype(spec)?),
                Weights::Webgpu(w) => webgpu::Weights::bytes(spec, w.dtype(spec)?),
            };
            bytes = bytes.saturating_add(if n.op == Op::Embedding { held.min(out) } else { held });
        }
        Ok(bytes)
    }
}
