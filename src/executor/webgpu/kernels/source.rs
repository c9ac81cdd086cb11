//! What linear layers and convolutions read, and writing that out where their loaders can't make it.

use super::{At, Dispatch, Operand, act, word, words};
use crate::error::Result;
use crate::executor::webgpu::select;
use crate::graph::{Activation, Prologue, Shape};

/// One value, or two side by side, which may be scaled and shifted by a group norm's statistics and activated.
#[derive(Clone)]
pub(super) struct Source {
    /// Each value with its channels.
    parts: Vec<(Operand, usize)>,
    /// The shape of both together.
    pub shape: Shape,
    pub statistics: Option<Operand>,
    pub act: Option<Activation>,
}

impl Source {
    /// What a node reads.
    pub(super) fn of(at: At<'_>) -> Self {
        let prologue = at.node.op.prologue().copied().unwrap_or_default();
        let part = |i: usize| (at.read(i), at.input(i).channels());
        let parts: Vec<_> = (0..at.node.sources().len().max(1)).map(part).collect();
        Self {
            shape: at.input(0).with_channels(parts.iter().map(|p| p.1).sum()),
            parts,
            statistics: prologue.norm.then(|| at.read(Prologue::inputs(&prologue) - 1)),
            act: prologue.act,
        }
    }

    /// A value as it is.
    pub(super) fn plain(operand: Operand, shape: Shape) -> Self {
        Self {
            parts: vec![(operand, shape.channels())],
            shape,
            statistics: None,
            act: None,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.parts.len() > 1
    }

    /// Channels of the first value, and of the last.
    pub(super) fn channels(&self) -> [usize; 2] {
        let all = self.shape.channels();
        [self.parts.first(), self.parts.last()].map(|p| p.map_or(all, |p| p.1))
    }

    /// Bindings of what is read.
    pub(super) fn reads(&self) -> Vec<(u32, Operand)> {
        let parts = [3, 6].into_iter().zip(self.parts.iter().map(|p| p.0.clone()));
        parts.chain(self.statistics.clone().map(|s| (7, s))).collect()
    }

    /// Channels, and those of the first value, where so many are loaded at once; and pixels of a picture.
    pub(super) fn sizes(&self, lane: usize) -> [usize; 3] {
        [
            self.shape.channels() / lane,
            self.channels()[0] / lane,
            self.shape.tokens(),
        ]
    }

    /// Writes it out to `dst`.
    pub(super) fn apply(&self, at: At<'_>, dst: Operand) -> Result<Dispatch> {
        let scalar = !self.channels().iter().all(|c| c.is_multiple_of(4));
        let lane = if scalar { 1 } else { 4 };
        let len = self.shape.len() / lane;
        let mut args = vec![word(len)];
        args.extend(words(self.sizes(lane)));
        args.push(act(self.act));
        let variant = select::apply(scalar, self.is_joined(), self.statistics.is_some());
        let dispatch = at.dispatch(variant, args, len.div_ceil(64))?;
        Ok(Dispatch {
            dst,
            reads: self.reads(),
            cost: super::policy::DISPATCH_COST + 8 * self.shape.len() as u64,
            ..dispatch
        })
    }
}

pub(super) fn concat(at: At<'_>) -> Result<Vec<Dispatch>> {
    let part = |i: usize| (at.read(i), at.input(i).channels());
    let source = Source {
        parts: vec![part(0), part(1)],
        shape: at.out().clone(),
        statistics: None,
        act: None,
    };
    Ok(vec![source.apply(at, Operand::Value(at.index))?])
}
