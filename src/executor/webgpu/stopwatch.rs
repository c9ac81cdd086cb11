//! How long something takes that is repeated until it is seen: between two timestamps of the GPU, which browsers round to 100 µs, or
//! by the clock.

use super::Webgpu;
use super::buffers::Buffer;
use super::device::Device;
use super::policy;
use super::profile::Played;
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::platform::now_ms;
use std::ops::Range;

/// How often something is repeated at most.
const REPEATS: usize = 4096;

/// How often something is repeated next that took `ms` milliseconds `times` times, to take `enough`.
fn more(times: usize, ms: f64, enough: f64) -> usize {
    let factor = (1.2 * enough / ms.max(0.1)).clamp(2.0, 8.0);
    ((times as f64 * factor) as usize).min(REPEATS)
}

/// From the first to the second of two timestamps, of two words each.
pub(super) fn between(words: &[u32]) -> f64 {
    let [start, end] = [0, 2].map(|at| u64::from(words[at + 1]) << 32 | u64::from(words[at]));
    end.saturating_sub(start) as f64
}

/// Places for timestamps. In a browser wgpu does not free what is merely dropped.
pub(super) struct Timestamps(pub(super) wgpu::QuerySet);

impl Timestamps {
    pub(super) fn new(device: &Device, count: u32) -> Self {
        Self(device.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count,
        }))
    }
}

impl Drop for Timestamps {
    fn drop(&mut self) {
        self.0.destroy();
    }
}

/// Two timestamps.
pub(super) struct Stopwatch {
    set: Timestamps,
    resolved: Buffer,
    /// Milliseconds of a tick.
    tick: f64,
}

impl Webgpu {
    /// Where the adapter has timestamps.
    pub(super) async fn stopwatch(&self) -> Result<Option<Stopwatch>> {
        if !self.has_timestamps() {
            return Ok(None);
        }
        let device = &self.device;
        let make = || {
            let set = Timestamps::new(device, 2);
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = Buffer::with_usage(device, "two timestamps", 4, usage)?;
            let tick = f64::from(device.queue.get_timestamp_period()) / 1e6;
            Ok(Stopwatch { set, resolved, tick })
        };
        device.guarded(make).await.map(Some)
    }

    /// Milliseconds of `dispatches`, which are repeated within one pass until they take `enough` together, from `times` times on.
    /// Also gives how often that was, for what takes about as long.
    pub(super) async fn repeated(
        &self,
        watch: Option<&Stopwatch>,
        played: &Played<'_>,
        dispatches: Range<usize>,
        enough: f64,
        mut times: usize,
        cancel: &CancelToken,
    ) -> Result<(f64, usize)> {
        while let Some(watch) = watch {
            let began = now_ms();
            let ms = self.span(watch, played, dispatches.clone(), times, cancel).await?;
            if ms >= enough || times >= REPEATS {
                return Ok((ms / times as f64, times));
            }
            // Some drivers offer timestamps and write none.
            if ms == 0.0 && now_ms() - began > 2.0 * enough + policy::SUBMIT_MS {
                break;
            }
            times = more(times, ms, enough);
        }
        Ok((self.played_by_clock(played, dispatches, enough, cancel).await?, times))
    }

    /// Milliseconds of `dispatches` by the clock.
    pub(super) async fn played_by_clock(
        &self,
        played: &Played<'_>,
        dispatches: Range<usize>,
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<f64> {
        let all = |encoder: &mut wgpu::CommandEncoder, times: usize| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..times).for_each(|_| played.record(&mut pass, dispatches.clone()));
        };
        self.by_clock(all, enough, cancel).await
    }

    /// Milliseconds of a pass, by its timestamps.
    async fn span(
        &self,
        watch: &Stopwatch,
        played: &Played<'_>,
        dispatches: Range<usize>,
        times: usize,
        cancel: &CancelToken,
    ) -> Result<f64> {
        cancel.check()?;
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &watch.set.0,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            }),
        });
        (0..times).for_each(|_| played.record(&mut pass, dispatches.clone()));
        drop(pass);
        encoder.resolve_query_set(&watch.set.0, 0..2, watch.resolved.raw(), 0);
        self.device.submit(encoder.finish());
        let words = self.read_words(&watch.resolved, 0, 4).await?;
        Ok(between(&words) * watch.tick)
    }

    /// Milliseconds of what `encode` encodes so many times: two submits, one of which does it more often, so that what a submit
    /// costs by itself drops out. More and more often, until the difference is `enough` milliseconds.
    pub(super) async fn by_clock(
        &self,
        encode: impl Fn(&mut wgpu::CommandEncoder, usize),
        enough: f64,
        cancel: &CancelToken,
    ) -> Result<f64> {
        let submit = async |times: usize| -> Result<f64> {
            cancel.check()?;
            let mut encoder = self.device.device.create_command_encoder(&Default::default());
            encode(&mut encoder, times);
            let commands = encoder.finish();
            let began = now_ms();
            let fence = self.device.submit(commands);
            self.device.wait(fence).await?;
            Ok(now_ms() - began)
        };
        submit(1).await?;
        let once = submit(1).await?.min(submit(1).await?);
        let mut times = 1;
        loop {
            let longer = submit(1 + times).await? - once;
            if longer >= enough || times >= REPEATS {
                return Ok(longer.max(0.0) / times as f64);
            }
            times = more(times, longer, enough);
        }
    }
}
