//! What linear layers and convolutions read: a value, or two side by side, scaled, shifted and activated while it is loaded. What
//! is loaded so goes into a scratch of a few rows: a normalised image is never whole in memory.

use super::kernels::activate;
use super::memory::{grow, read};
use super::operands::Operands;
use super::pool::Pool;
use crate::error::Result;
use crate::graph::{Activation, Shape};
use candle_core::Tensor;
use std::ops::{Deref, Range};

/// Where lines are kept of which only some are held, each at its number modulo how many: those from `new` that find room, with their
/// numbers.
pub(super) fn places(held: &mut [f32], line: usize, new: Range<usize>) -> Vec<(usize, &mut [f32])> {
    let count = held.len() / line.max(1);
    let places = held.chunks_exact_mut(line.max(1)).enumerate();
    // Each place's line, the first one from the start on that belongs there.
    let places = places.map(|(place, to)| (new.start + (place + count - new.start % count) % count, to));
    places.filter(|(number, _)| *number < new.end).collect()
}

/// Lines of images, one below the other, as a convolution reads them: those of the slot, or those that are loaded, of which there are
/// only as many as are seen at once.
pub(super) struct Lines {
    source: Source,
    /// Pixels of a line.
    width: usize,
    lines: Vec<f32>,
    /// How many lines were loaded or passed by.
    loaded: usize,
    /// The most lines that were seen at once.
    held: usize,
    pool: Pool,
}

impl Lines {
    pub(super) fn new(source: Source, width: usize, pool: Pool) -> Self {
        Self {
            source,
            width,
            lines: Vec::new(),
            loaded: 0,
            held: 0,
            pool,
        }
    }

    /// Gives `f` these lines, each at its number modulo the number of lines that it gets. Later lines are seen later.
    pub(super) fn see<T>(&mut self, seen: Range<usize>, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let source = self.source.hold()?;
        if let Some(x) = source.plain() {
            return Ok(f(x));
        }
        let line = self.width * self.source.shape.channels();
        if seen.len() > self.held {
            // Each has another place now.
            grow(&mut self.lines, seen.len() * line, 0.0, "lines of a convolution")?;
            self.held = seen.len();
            self.loaded = 0;
        }
        let mut missing = places(&mut self.lines, line, seen.start.max(self.loaded)..seen.end);
        self.pool.rows(&mut missing, 1, |_, lines| {
            for (i, to) in lines {
                source.load(*i * self.width..(*i + 1) * self.width, to);
            }
        });
        self.loaded = self.loaded.max(seen.end);
        Ok(f(&self.lines))
    }
}

pub(super) struct Source {
    /// Each value with its channels.
    parts: Vec<(Tensor, usize)>,
    /// The shape of both together.
    pub(super) shape: Shape,
    statistics: Option<Tensor>,
    act: Option<Activation>,
}

/// The elements of a source for as long as this is held.
pub(super) struct Held<'a, E> {
    source: &'a Source,
    parts: Vec<E>,
    statistics: Option<E>,
}

impl Source {
    pub(super) fn new(o: &Operands<'_>) -> Result<Self> {
        let prologue = o.node.op.prologue().copied().unwrap_or_default();
        let count = 1 + usize::from(prologue.joined);
        let parts = (0..count).map(|i| o.input(i).map(|x| (x.tensor.clone(), x.shape.channels())));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let channels = parts.iter().map(|p| p.1).sum();
        let statistics = if prologue.norm {
            Some(o.input(prologue.inputs() - 1)?.tensor.clone())
        } else {
            None
        };
        Ok(Self {
            parts,
            shape: o.input(0)?.shape.with_channels(channels),
            statistics,
            act: prologue.act,
        })
    }

    pub(super) fn hold(&self) -> Result<Held<'_, impl Deref<Target = [f32]> + Sync>> {
        let parts = self.parts.iter().map(|(tensor, _)| read::<f32>(tensor));
        Ok(Held {
            source: self,
            parts: parts.collect::<Result<_>>()?,
            statistics: self.statistics.as_ref().map(read::<f32>).transpose()?,
        })
    }
}

impl<E: Deref<Target = [f32]>> Held<'_, E> {
    /// The value, where it is read as it is.
    pub(super) fn plain(&self) -> Option<&[f32]> {
        match (self.parts.as_slice(), &self.statistics, self.source.act) {
            ([x], None, None) => Some(x),
            _ => None,
        }
    }

    /// Writes rows as the layer reads them.
    pub(super) fn load(&self, rows: Range<usize>, to: &mut [f32]) {
        let (channels, tokens) = (self.source.shape.channels(), self.source.shape.tokens());
        let mut first = 0;
        for (x, (_, own)) in self.parts.iter().zip(&self.source.parts) {
            let x = &x[rows.start * own..rows.end * own];
            for (to, x) in to.chunks_exact_mut(channels).zip(x.chunks_exact(*own)) {
                to[first..first + own].copy_from_slice(x);
            }
            first += own;
        }
        if let Some(statistics) = &self.statistics {
            for (row, to) in rows.zip(to.chunks_exact_mut(channels)) {
                let of_picture = &statistics[row / tokens * 3 * channels..][..3 * channels];
                let (mean, rest) = of_picture.split_at(channels);
                let (scale, shift) = rest.split_at(channels);
                for (((x, mean), scale), shift) in to.iter_mut().zip(mean).zip(scale).zip(shift) {
                    *x = (*x - mean) * scale + shift;
                }
            }
        }
        if let Some(act) = self.source.act {
            activate(act, to);
        }
    }
}
