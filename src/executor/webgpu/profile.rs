//! How long nodes take: by timestamps that the GPU writes around each, where it can, or else by the clock, each node alone.

use super::Webgpu;
use super::buffers::Buffer;
use super::instance::{Bound, Instance};
use super::policy;
use super::run::{record, submits};
use super::stopwatch::{Timestamps, between};
use super::weights::Weights;
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{NodeTimes, WeightDtype};
use crate::graph::{ParamSpec, Rate};
use crate::platform::now_ms;
use std::ops::Range;

/// Bytes between places at which timestamps are resolved, which WebGPU wants.
const RESOLVED: usize = 256;
/// Nodes of a submit that is timed at most, for it has no more dispatches: two timestamps of eight bytes each.
const NODES: usize = policy::DISPATCHES_PER_SUBMIT;
const _: () = assert!(16 * NODES <= RESOLVED);
/// Rounds after which a mean is known well: browsers round timestamps to 100 µs, at a phase that differs from round to round.
const ROUNDS: usize = 200;
/// Milliseconds after which a repeated node is seen well enough.
const NODE_MS: f64 = 3.0;
/// The same for copies.
const COPYING: f64 = 40.0;

/// What nodes are played on.
pub(super) struct Played<'a> {
    pub instance: &'a Instance,
    pub bound: &'a Bound,
    pub context: usize,
    /// The dispatches of each node.
    pub nodes: Vec<Range<usize>>,
}

impl Played<'_> {
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>, dispatches: Range<usize>) {
        record(pass, self.instance, self.bound, dispatches, self.context);
    }

    /// Dispatches in submits of bounded size: of each, the nodes with what they dispatch in it.
    fn cut(&self, most: u64) -> Vec<Vec<(usize, Range<usize>)>> {
        let (Some(first), Some(last)) = (self.nodes.first(), self.nodes.last()) else {
            return Vec::new();
        };
        let costs = self.instance.dispatches[first.start..last.end].iter().map(|d| d.cost);
        let part = |node: usize, of: &Range<usize>| {
            let own = &self.nodes[node];
            own.start.max(of.start)..own.end.min(of.end)
        };
        let cut = submits(costs, first.start, most).into_iter().map(|(range, _)| {
            let parts = (0..self.nodes.len()).map(|node| (node, part(node, &range)));
            parts.filter(|(_, part)| !part.is_empty()).collect()
        });
        cut.collect()
    }
}

impl Webgpu {
    pub(in crate::executor) fn has_timestamps(&self) -> bool {
        self.device.has_timestamps
    }

    pub(in crate::executor) fn multiplies_halves(&self) -> bool {
        self.half
    }

    pub(in crate::executor) fn submits(&self) -> u64 {
        self.device.submits.get()
    }

    pub(in crate::executor) async fn time_nodes(
        &self,
        instance: &Instance,
        weights: &Weights,
        rate: Rate,
        [context, step]: [usize; 2],
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<NodeTimes> {
        cancel.check()?;
        let bound = self.bind(instance, weights).await?;
        let step = [step as u32];
        instance.globals.write(&self.device, 0, bytemuck::cast_slice(&step))?;
        let dispatches = |node: usize| instance.first[node]..instance.first[node + 1];
        let played = Played {
            instance,
            bound: &bound,
            context,
            nodes: instance.plan.phase(rate).map(dispatches).collect(),
        };
        self.time(&played, enough, cancel).await
    }

    /// Milliseconds of the last node, whose operands are computed and converted before, and its result after.
    pub(in crate::executor) async fn time_last(
        &self,
        instance: &Instance,
        weights: &Weights,
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<f64> {
        self.run(instance, weights, Rate::Step, 0, 0, cancel).await?;
        let bound = self.bind(instance, weights).await?;
        let last = instance.plan.nodes.len().checked_sub(1);
        let played = Played {
            instance,
            bound: &bound,
            context: 0,
            nodes: last.map(|node| instance.own(node)).into_iter().collect(),
        };
        Ok(self.time(&played, enough, cancel).await?.ms.iter().sum())
    }

    async fn time(&self, played: &Played<'_>, enough: f64, cancel: &CancelToken) -> Result<NodeTimes> {
        if self.has_timestamps() {
            let times = self.by_timestamps(played, enough, cancel).await?;
            // Some drivers offer timestamps and write none.
            if times.ms.iter().any(|&ms| ms > 0.0) || played.nodes.iter().all(Range::is_empty) {
                return Ok(times);
            }
        }
        self.each_by_clock(played, cancel).await
    }

    async fn each_by_clock(&self, played: &Played<'_>, cancel: &CancelToken) -> Result<NodeTimes> {
        let mut ms = vec![0.0; played.nodes.len()];
        for (node, dispatches) in played.cut(self.most_of_a_submit()).into_iter().flatten() {
            ms[node] += self.played_by_clock(played, dispatches, NODE_MS, cancel).await?;
        }
        Ok(NodeTimes { ms, rounds: 1 })
    }

    /// Operations.
    fn most_of_a_submit(&self) -> u64 {
        (self.speed.get() * policy::SUBMIT_MS) as u64
    }

    pub(in crate::executor) async fn copy_rate(&self, bytes: usize, cancel: &CancelToken) -> Result<f64> {
        let limits = &self.device.limits;
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let bytes = (bytes as u64).min(most / 16 * 16);
        let [from, to] = [
            self.buffer(bytes as usize / 4).await?,
            self.buffer(bytes as usize / 4).await?,
        ];
        let copy = |encoder: &mut wgpu::CommandEncoder, times: usize| {
            (0..times).for_each(|_| encoder.copy_buffer_to_buffer(from.raw(), 0, to.raw(), 0, bytes));
        };
        let ms = self.by_clock(copy, COPYING, cancel).await?;
        Ok(2.0 * bytes as f64 / ms.max(1e-6) * 1e3)
    }

    async fn by_timestamps(&self, played: &Played<'_>, enough: f64, cancel: &CancelToken) -> Result<NodeTimes> {
        let device = &self.device;
        let cut = played.cut(self.most_of_a_submit());
        let make = || {
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = Buffer::with_usage(device, "timestamps", cut.len() * RESOLVED / 4, usage)?;
            Ok((Timestamps::new(device, 2 * NODES as u32), resolved))
        };
        let (set, resolved) = device.guarded(make).await?;
        let tick = f64::from(device.queue.get_timestamp_period()) / 1e6;
        let (mut ms, mut rounds, began) = (vec![0.0; played.nodes.len()], 0, now_ms());
        while rounds == 0 || (rounds < ROUNDS && now_ms() - began < enough) {
            let mut before = None;
            for (i, parts) in cut.iter().enumerate() {
                cancel.check()?;
                let mut encoder = device.device.create_command_encoder(&Default::default());
                for (at, (_, dispatches)) in (0..).step_by(2).zip(parts) {
                    let timestamp_writes = wgpu::ComputePassTimestampWrites {
                        query_set: &set.0,
                        beginning_of_pass_write_index: Some(at),
                        end_of_pass_write_index: Some(at + 1),
                    };
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes: Some(timestamp_writes),
                    });
                    played.record(&mut pass, dispatches.clone());
                }
                let queries = 0..2 * parts.len() as u32;
                encoder.resolve_query_set(&set.0, queries, resolved.raw(), (i * RESOLVED) as u64);
                // One behind the other, so that the GPU does not fall asleep between them.
                let last = before.replace(device.submit(encoder.finish()));
                if let Some(fence) = last {
                    device.wait(fence).await?;
                }
            }
            let words = self.read_words(&resolved, 0, resolved.len()).await?;
            for (parts, words) in cut.iter().zip(words.chunks_exact(RESOLVED / 4)) {
                for ((node, _), words) in parts.iter().zip(words.chunks_exact(4)) {
                    ms[*node] += between(words) * tick;
                }
            }
            rounds += 1;
        }
        ms.iter_mut().for_each(|ms| *ms /= rounds as f64);
        Ok(NodeTimes { ms, rounds })
    }
}

impl Weights {
    /// How a parameter is kept.
    ///
    /// # Errors
    /// [`Error::Internal`] if it was not uploaded.
    pub(in crate::executor) fn dtype(&self, spec: &ParamSpec) -> Result<WeightDtype> {
        self.get(spec).map(|param| param.dtype)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::executor::Data;
    use crate::executor::webgpu::Options;
    use crate::graph::{Element, Graph, Path, Plan};
    use crate::nn;
    use pollster::block_on;
    use std::rc::Rc;

    /// Two layers, the second of which has 16 times as much to do.
    fn plan() -> Result<Plan> {
        let mut g = Graph::new();
        let x = g.input("x", [256, 64], Element::F32, Rate::Step);
        let small = nn::linear_without_bias(&mut g, &Path::root().pp("small"), x, 512)?;
        let large = nn::linear_without_bias(&mut g, &Path::root().pp("large"), small, 128 * 8)?;
        g.output("y", large);
        Ok(Plan::new(g))
    }

    #[test]
    fn what_has_more_to_do_takes_longer_by_either_way() {
        if crate::executor::webgpu::tests::has_no_gpu() {
            return;
        }
        let gpu = block_on(Webgpu::new(Options::default())).unwrap();
        let plan = Rc::new(plan().unwrap());
        let instance = block_on(gpu.prepare(plan.clone(), 1)).unwrap();
        let wanted: Vec<_> = plan
            .params
            .iter()
            .map(|spec| (spec.clone(), WeightDtype::F32))
            .collect();
        let weights = block_on(gpu.allocate(&wanted)).unwrap();
        for (spec, _) in &wanted {
            let [rows, columns] = spec.packed();
            let zeros = vec![0; rows * columns * 4];
            gpu.upload(&weights, spec, 0, WeightDtype::F32, 0, &zeros).unwrap();
        }
        gpu.write(&instance, "x", 0, Data::F32(&[0.0; 256 * 64])).unwrap();
        let cancel = CancelToken::default();
        let bound = block_on(gpu.bind(&instance, &weights)).unwrap();
        let played = Played {
            instance: &instance,
            bound: &bound,
            context: 0,
            nodes: (0..plan.nodes.len())
                .map(|n| instance.first[n]..instance.first[n + 1])
                .collect(),
        };
        let clock = block_on(gpu.each_by_clock(&played, &cancel)).unwrap();
        let rate = gpu.time_nodes(&instance, &weights, Rate::Step, [0, 0], 30.0, &cancel);
        let times = block_on(rate).unwrap();
        for (how, NodeTimes { ms, .. }) in [("clock", &clock), ("the adapter's own way", &times)] {
            assert_eq!(ms.len(), 3, "{how}");
            assert_eq!(ms[0], 0.0, "{how}: an input runs nothing");
            assert!(ms[1] > 0.0 && ms[2] > 2.0 * ms[1], "{how}: {ms:?}");
        }
        // By itself it takes about as long.
        let last = block_on(gpu.time_last(&instance, &weights, 30.0, &cancel)).unwrap();
        assert!(
            last > times.ms[2] / 4.0 && last < times.ms[2] * 4.0,
            "{last}, {times:?}"
        );
        let cancelled = CancelToken::default();
        cancelled.cancel();
        let stopped = block_on(gpu.time_nodes(&instance, &weights, Rate::Step, [0, 0], 30.0, &cancelled));
        assert_eq!(stopped.unwrap_err().code(), "cancelled");
    }

    #[test]
    fn memory_has_a_speed() {
        if crate::executor::webgpu::tests::has_no_gpu() {
            return;
        }
        let gpu = block_on(Webgpu::new(Options::default())).unwrap();
        let rate = block_on(gpu.copy_rate(4 << 20, &CancelToken::default())).unwrap();
        assert!(rate > 1e7 && rate < 1e14, "{rate}");
    }
}
