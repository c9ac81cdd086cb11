//! What linear layers and convolutions do to their sums on the way into the slot.

use super::kernels::{Panels, Tall, activate, multiply};
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::Activation;
use candle_core::Tensor;
use std::ops::Range;

/// `post(act(sum + bias + row_bias) + residual)`, written to the node's slot.
pub(super) struct Finish {
    dst: Tensor,
    channels: usize,
    addend: Option<Vec<f32>>,
    act: Option<Activation>,
    residual: Option<Tensor>,
    post: Option<Activation>,
}

impl Finish {
    pub(super) fn new(o: &Operands<'_>) -> Result<Self> {
        let epilogue = o.node.op.epilogue().copied().unwrap_or_default();
        let mut addend = o.params.get(1).map(|bias| bias.vector());
        if epilogue.row_bias {
            let row = o.row(o.input(1)?)?;
            let row = read::<f32>(&row)?;
            let sum = addend.get_or_insert_with(|| vec![0.0; row.len()]);
            sum.iter_mut().zip(row.iter()).for_each(|(a, r)| *a += r);
        }
        let residual = if epilogue.residual {
            let last = o.inputs.last().map(|r| r.tensor.clone());
            Some(last.ok_or_else(|| Error::Internal("the residual is missing".into()))?)
        } else {
            None
        };
        let (dst, channels) = (o.dst.clone(), o.node.shape.channels());
        Ok(Self {
            dst,
            channels,
            addend,
            act: epilogue.act,
            residual,
            post: epilogue.post,
        })
    }

    /// Multiplies `stacked` rows with some columns of the weight, and writes what comes of it to where it belongs.
    pub(super) fn multiply(
        &self,
        stacked: &[Tall],
        panels: &Panels<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<()> {
        let at = rows.start * self.channels..rows.end * self.channels;
        self.fill(|dst, stride, addend| multiply(stacked, panels, columns.clone(), addend, &mut dst[at], stride))?;
        self.finish(std::iter::once(rows), columns)
    }

    /// `f` writes sums to rows of so many elements each, with the addend, if there is one; [`finish`](Self::finish) comes after it.
    pub(super) fn fill(&self, f: impl FnOnce(&mut [f32], usize, Option<&[f32]>)) -> Result<()> {
        write(&self.dst, |dst: &mut [f32]| {
            f(dst, self.channels, self.addend.as_deref())
        })
    }

    /// Does what is left to do to the sums in some columns of `rows`.
    pub(super) fn finish(&self, rows: impl Iterator<Item = Range<usize>>, columns: Range<usize>) -> Result<()> {
        if self.act.is_none() && self.residual.is_none() && self.post.is_none() {
            return Ok(());
        }
        let residual = self.residual.as_ref().map(read::<f32>).transpose()?;
        write(&self.dst, |dst: &mut [f32]| {
            for row in rows.flatten() {
                let at = row * self.channels + columns.start..row * self.channels + columns.end;
                let sums = &mut dst[at.clone()];
                if let Some(act) = self.act {
                    activate(act, sums);
                }
                if let Some(residual) = &residual {
                    sums.iter_mut().zip(&residual[at]).for_each(|(d, r)| *d += r);
                }
                if let Some(post) = self.post {
                    activate(post, sums);
                }
            }
        })
    }
}
