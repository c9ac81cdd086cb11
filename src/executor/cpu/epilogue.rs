//! What linear layers and convolutions do to their sums on the way into the slot.

use super::kernels::{COLUMNS, Panels, Tall, activate, geglu, multiply, strips};
use super::memory::{grow, read, write};
use super::operands::Operands;
use super::pool::Pool;
use super::unary;
use crate::error::{Error, Result};
use crate::graph::{Activation, Prologue, Unary};
use candle_core::Tensor;
use std::cell::RefCell;
use std::ops::Range;

/// Columns of a row that are worth going through by themselves.
const WIDE: usize = 64;
/// Elements that a thread takes at least of rows that are gone through as wholes.
const LONG: usize = 2048;

/// `post(act(sum + bias + row_bias) + residual)`, written to the node's slot.
pub(super) struct Finish {
    dst: Tensor,
    channels: usize,
    addend: Option<Vec<f32>>,
    act: Option<Activation>,
    residual: Option<Tensor>,
    post: Option<Unary>,
    gate: bool,
    /// Sums of values and of gates, before the ones are multiplied with the others; for each part of the work its own.
    gated: RefCell<Vec<[Vec<f32>; 2]>>,
    pool: Pool,
}

/// What is left to do to sums.
#[derive(Default)]
pub(super) struct Rest<'a> {
    act: Option<Activation>,
    residual: Option<&'a [f32]>,
    post: Option<Unary>,
    channels: usize,
}

impl Rest<'_> {
    /// Does it to sums, the first of which is that of a column of a row. Rows lie one after the other.
    pub(super) fn finish(&self, row: usize, column: usize, sums: &mut [f32]) {
        if let Some(act) = self.act {
            activate(act, sums);
        }
        if let Some(residual) = self.residual {
            let residual = &residual[row * self.channels + column..][..sums.len()];
            sums.iter_mut().zip(residual).for_each(|(d, r)| *d += r);
        }
        if let Some(post) = self.post {
            unary::apply(post, sums);
        }
    }
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
            pool: o.pool,
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
        let each = self.pool.cut(columns, COLUMNS);
        let all = std::iter::once(rows.clone());
        self.fill_parts(rows.clone(), &each, all, |addend, rest, strips| {
            self.pool.each(strips, |i, strip| {
                multiply(stacked, panels, each[i].clone(), addend, strip);
                let sums = rows.clone().zip(strip);
                sums.for_each(|(row, sums)| rest.finish(row, each[i].start, sums));
            });
        })
    }

    /// The same for some columns of values and their gates: writes `value · gelu(gate)`.
    fn multiply_gated(
        &self,
        stacked: &[Tall],
        panels: &Panels<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<()> {
        let (half, each) = (self.channels, self.pool.cut(columns, COLUMNS));
        // Panels begin at multiples of their width; what is made again beside the gates is the same.
        let gates = |columns: &Range<usize>| (half + columns.start) / COLUMNS * COLUMNS..half + columns.end;
        let mut sums = self.gated.borrow_mut();
        let most = each.len().max(sums.len());
        sums.resize_with(most, Default::default);
        for (columns, sums) in each.iter().zip(sums.iter_mut()) {
            for (sums, len) in sums.iter_mut().zip([columns.len(), gates(columns).len()]) {
                grow(sums, rows.len() * len, 0.0, "values and their gates")?;
            }
        }
        self.fill_parts(rows.clone(), &each, std::iter::empty(), |addend, _, strips| {
            let mut parts: Vec<_> = strips.iter_mut().zip(sums.iter_mut()).collect();
            self.pool.each(&mut parts, |i, (strip, sums)| {
                let columns = each[i].clone();
                let whole = gates(&columns);
                let beside = half + columns.start - whole.start;
                for (sums, part) in sums.iter_mut().zip([columns.clone(), whole.clone()]) {
                    let sums = &mut sums[..rows.len() * part.len()];
                    let mut sums: Vec<_> = sums.chunks_exact_mut(part.len()).collect();
                    multiply(stacked, panels, part, addend, &mut sums);
                }
                let values = sums[0].chunks_exact(columns.len());
                let gates = sums[1].chunks_exact(whole.len());
                for ((to, values), gates) in strip.iter_mut().zip(values).zip(gates) {
                    geglu(to, values, &gates[beside..]);
                }
            });
        })
    }

    /// `f` gets for each range of columns its part of each row of the slot; else as [`fill`](Self::fill). It makes sums of those
    /// rows that `made` gives, which rise.
    pub(super) fn fill_parts(
        &self,
        rows: Range<usize>,
        columns: &[Range<usize>],
        made: impl Iterator<Item = Range<usize>>,
        f: impl FnOnce(Option<&[f32]>, &Rest<'_>, &mut [Vec<&mut [f32]>]),
    ) -> Result<()> {
        let (first, channels) = (rows.start, self.channels);
        self.fill(rows, |addend, rest, dst| {
            let mut strips = strips(dst, channels, columns.iter().cloned());
            let is_whole =
                columns.first().map(|c| c.start) == Some(0) && columns.last().map(|c| c.end) == Some(channels);
            if !is_whole || columns.len() > 1 && columns.iter().all(|some| some.len() >= WIDE) {
                return f(addend, rest, &mut strips);
            }
            // Rows lie one after the other: a few of their channels are too short to be gone through by themselves.
            f(addend, &Rest::default(), &mut strips);
            let (mut left, mut next, mut all) = (dst, first, Vec::new());
            let least = LONG.div_ceil(channels);
            for made in made.flat_map(|made| self.pool.cut(made, least)) {
                let (_, after) = left.split_at_mut((made.start - next) * channels);
                let (sums, after) = after.split_at_mut(made.len() * channels);
                (left, next) = (after, made.end);
                all.push((made.start, sums));
            }
            self.pool.each(&mut all, |_, (row, sums)| rest.finish(*row, 0, sums));
        })
    }

    /// `f` gets what is added to each row's sums, if there is something, what is left to do to them then, and these rows of the slot.
    /// It writes to all that it makes sums for.
    pub(super) fn fill(&self, rows: Range<usize>, f: impl FnOnce(Option<&[f32]>, &Rest<'_>, &mut [f32])) -> Result<()> {
        let residual = self.residual.as_ref().map(read::<f32>).transpose()?;
        let rest = Rest {
            act: self.act,
            residual: residual.as_deref(),
            post: self.post,
            channels: self.channels,
        };
        write(&self.dst, |dst: &mut [f32]| {
            let dst = &mut dst[rows.start * self.channels..rows.end * self.channels];
            f(self.addend.as_deref(), &rest, dst);
        })
    }
}
