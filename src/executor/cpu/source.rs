//! What linear layers and convolutions read: a value, or two side by side, scaled, shifted and activated while it is loaded. What
//! is loaded so goes into a scratch of a few rows: a normalised image is never whole in memory.

use super::kernels::activate;
use super::memory::read;
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::{Activation, Shape};
use candle_core::Tensor;
use std::ops::Range;

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
}

impl Lines {
    pub(super) fn new(source: Source, width: usize) -> Self {
        Self {
            source,
            width,
            lines: Vec::new(),
            loaded: 0,
            held: 0,
        }
    }

    /// Gives `f` these lines, each at its number modulo the number of lines that it gets. Later lines are seen later.
    pub(super) fn see<T>(&mut self, seen: Range<usize>, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
        if let Some(x) = self.source.plain() {
            return Ok(f(&read::<f32>(x)?));
        }
        let line = self.width * self.source.shape.channels();
        if seen.len() > self.held {
            // Each has another place now.
            self.held = seen.len();
            self.lines.resize(self.held * line, 0.0);
            self.loaded = 0;
        }
        for i in seen.start.max(self.loaded)..seen.end {
            let to = &mut self.lines[i % self.held * line..][..line];
            self.source.load(i * self.width..(i + 1) * self.width, to)?;
        }
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

    /// The value, where it is read as it is.
    pub(super) fn plain(&self) -> Option<&Tensor> {
        match (self.parts.as_slice(), &self.statistics, self.act) {
            ([(tensor, _)], None, None) => Some(tensor),
            _ => None,
        }
    }

    /// Writes rows as the layer reads them.
    pub(super) fn load(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        let (channels, tokens) = (self.shape.channels(), self.shape.tokens());
        if to.len() != rows.len() * channels {
            return Err(Error::Internal(format!("{} elements for {rows:?}", to.len())));
        }
        let mut first = 0;
        for (tensor, own) in &self.parts {
            let x = &read::<f32>(tensor)?[rows.start * own..rows.end * own];
            for (to, x) in to.chunks_exact_mut(channels).zip(x.chunks_exact(*own)) {
                to[first..first + own].copy_from_slice(x);
            }
            first += own;
        }
        if let Some(statistics) = &self.statistics {
            let statistics = read::<f32>(statistics)?;
            for (row, to) in rows.zip(to.chunks_exact_mut(channels)) {
                let of_picture = &statistics[row / tokens * 3 * channels..][..3 * channels];
                let (mean, rest) = of_picture.split_at(channels);
                let (scale, shift) = rest.split_at(channels);
                for (((x, mean), scale), shift) in to.iter_mut().zip(mean).zip(scale).zip(shift) {
                    *x = (*x - mean) * scale + shift;
                }
            }
        }
        if let Some(act) = self.act {
            activate(act, to);
        }
        Ok(())
    }
}
