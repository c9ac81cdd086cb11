//! What linear layers and convolutions read: a value, or two side by side, scaled, shifted and activated while it is loaded. What
//! is loaded so goes into a scratch of a few rows: a normalised image is never whole in memory.

use super::kernels::activate;
use super::memory::read;
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::{Activation, Shape};
use candle_core::Tensor;
use std::ops::Range;

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
