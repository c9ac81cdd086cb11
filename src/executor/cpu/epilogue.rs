//! What linear layers and convolutions do to their sums on the way into the slot.

use super::kernels::{activate, geglu};
use super::memory::{read, write};
use super::operands::Operands;
use super::unary;
use crate::error::{Error, Result};
use crate::graph::{Activation, Prologue, Unary};
use candle_core::Tensor;
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
}

impl Finish {
    pub(super) fn new(o: &Operands<'_>) -> Result<Self> {
        let epilogue = o.node.op.epilogue().copied().unwrap_or_default();
        let mut addend = match o.params.get(1) {
            Some(bias) => Some(read::<f32>(&bias.flatten_all()?)?.to_vec()),
            None => None,
        };
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
        })
    }

    /// Whether values are multiplied with gates: [`Finish::write_gated`] is for those.
    pub(super) fn is_gated(&self) -> bool {
        self.gate
    }

    /// Writes `value · gelu(gate)` to where they belong.
    pub(super) fn write_gated(
        &self,
        values: &Tensor,
        gates: &Tensor,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<()> {
        let (values, gates) = (read::<f32>(values)?, read::<f32>(gates)?);
        let (mut value, mut gate) = (vec![0.0; columns.len()], vec![0.0; columns.len()]);
        write(&self.dst, |dst: &mut [f32]| {
            let sums = values
                .chunks_exact(columns.len())
                .zip(gates.chunks_exact(columns.len()));
            for (row, (values, gates)) in rows.zip(sums) {
                let dst = &mut dst[row * self.channels + columns.start..row * self.channels + columns.end];
                match &self.addend {
                    Some(addend) => {
                        let (of_values, of_gates) = addend.split_at(self.channels);
                        add(&mut value, values, &of_values[columns.clone()]);
                        add(&mut gate, gates, &of_gates[columns.clone()]);
                        geglu(dst, &value, &gate);
                    }
                    None => geglu(dst, values, gates),
                }
            }
        })
    }

    /// Writes sums `[rows, columns]` to where they belong.
    pub(super) fn write(&self, sums: &Tensor, rows: Range<usize>, columns: Range<usize>) -> Result<()> {
        let sums = read::<f32>(sums)?;
        let residual = self.residual.as_ref().map(read::<f32>).transpose()?;
        write(&self.dst, |dst: &mut [f32]| {
            for (row, sums) in rows.zip(sums.chunks_exact(columns.len())) {
                let at = row * self.channels + columns.start..row * self.channels + columns.end;
                let dst = &mut dst[at.clone()];
                match &self.addend {
                    Some(addend) => add(dst, sums, &addend[columns.clone()]),
                    None => dst.copy_from_slice(sums),
                }
                if let Some(act) = self.act {
                    activate(act, dst);
                }
                if let Some(residual) = &residual {
                    dst.iter_mut().zip(&residual[at]).for_each(|(d, r)| *d += r);
                }
                if let Some(post) = self.post {
                    unary::apply(post, dst);
                }
            }
        })
    }
}

fn add(dst: &mut [f32], a: &[f32], b: &[f32]) {
    for ((d, a), b) in dst.iter_mut().zip(a).zip(b) {
        *d = a + b;
    }
}
