//! What linear layers and convolutions do to their sums on the way into the slot.

use super::kernels::{COLUMNS, Panels, Tall, activate, geglu, multiply};
use super::memory::{read, write};
use super::operands::Operands;
use super::unary;
use crate::error::{Error, Result};
use crate::graph::{Activation, Prologue, Unary};
use candle_core::Tensor;
use std::cell::RefCell;
use std::ops::Range;

/// `post(act(sum + bias + row_bias) + residual)`, written to the node's slot.
pub(super) struct Finish {
    dst: Tensor,
    channels: usize,
    addend: Option<Vec<f32>>,
    act: Option<Activation>,
    residual: Option<Tensor>,
    post: Option<Unary>,
    gate: bool,
    /// Sums of values and gates, before the ones are multiplied with the others.
    gated: RefCell<Vec<f32>>,
}

impl Finish {
    pub(super) fn new(o: &Operands<'_>) -> Result<Self> {
        let epilogue = o.node.op.epilogue().copied().unwrap_or_default();
        let mut addend = o.params.get(1).map(|bias| bias.vector());
        if let Some(first) = epilogue.row_bias {
            let place = o.node.op.prologue().map_or(1, Prologue::inputs);
            let row = o.row(o.input(place)?)?;
            let row = &read::<f32>(&row)?[first..first + o.node.shape.channels()];
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
            gate: epilogue.gate,
            gated: RefCell::default(),
        })
    }

    /// Whether there are gates: then the weight has twice the columns, those of the values first.
    pub(super) fn is_gated(&self) -> bool {
        self.gate
    }

    /// Multiplies `stacked` rows with some columns of the weight, and writes what comes of it to where it belongs.
    pub(super) fn multiply(
        &self,
        stacked: &[Tall],
        panels: &Panels<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<()> {
        if self.gate {
            return self.multiply_gated(stacked, panels, rows, columns);
        }
        let at = rows.start * self.channels..rows.end * self.channels;
        self.fill(|dst, stride, addend| multiply(stacked, panels, columns.clone(), addend, &mut dst[at], stride))?;
        self.finish(std::iter::once(rows), columns)
    }

    /// The same for some columns of values and their gates: writes `value · gelu(gate)`.
    fn multiply_gated(
        &self,
        stacked: &[Tall],
        panels: &Panels<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<()> {
        let (half, stride) = (self.channels, 2 * self.channels);
        let mut sums = self.gated.borrow_mut();
        sums.resize(rows.len() * stride, 0.0);
        let gates = half + columns.start..half + columns.end;
        // Panels begin at multiples of their width; what is made again beside the gates is the same.
        let whole = gates.start / COLUMNS * COLUMNS..gates.end;
        for part in [columns.clone(), whole] {
            multiply(stacked, panels, part, self.addend.as_deref(), &mut sums, stride);
        }
        write(&self.dst, |dst: &mut [f32]| {
            for (row, sums) in rows.zip(sums.chunks_exact(stride)) {
                let at = row * half + columns.start..row * half + columns.end;
                geglu(&mut dst[at], &sums[columns.clone()], &sums[gates.clone()]);
            }
        })
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
            let mut each = |at: Range<usize>| {
                let sums = &mut dst[at.clone()];
                if let Some(act) = self.act {
                    activate(act, sums);
                }
                if let Some(residual) = &residual {
                    sums.iter_mut().zip(&residual[at]).for_each(|(d, r)| *d += r);
                }
                if let Some(post) = self.post {
                    unary::apply(post, sums);
                }
            };
            if columns == (0..self.channels) {
                // Rows lie one after the other: few channels are too short to be gone through by themselves.
                return rows.for_each(|rows| each(rows.start * self.channels..rows.end * self.channels));
            }
            for row in rows.flatten() {
                each(row * self.channels + columns.start..row * self.channels + columns.end);
            }
        })
    }
}
