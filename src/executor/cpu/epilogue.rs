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
        let residual = self.residual.as_ref().map(read::<f32>).transpose()?;
        let at = rows.start * self.channels..rows.end * self.channels;
        write(&self.dst, |dst: &mut [f32]| {
            let dst = &mut dst[at.clone()];
            let addend = self.addend.as_deref();
            multiply(stacked, panels, columns.clone(), addend, dst, self.channels);
            if self.act.is_none() && residual.is_none() && self.post.is_none() {
                return;
            }
            for (i, row) in dst.chunks_exact_mut(self.channels).enumerate() {
                let row = &mut row[columns.clone()];
                if let Some(act) = self.act {
                    activate(act, row);
                }
                if let Some(residual) = &residual {
                    let residual = &residual[at.start + i * self.channels..][columns.clone()];
                    row.iter_mut().zip(residual).for_each(|(d, r)| *d += r);
                }
                if let Some(post) = self.post {
                    activate(post, row);
                }
            }
        })
    }
}
