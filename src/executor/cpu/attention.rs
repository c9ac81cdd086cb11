//! Attention, one head and a chunk of its queries at a time: the scores of that chunk are all that is ever held.

use super::chunks::{Work, part, queries};
use super::kernels::softmax_row;
use super::memory::{matrix, read, write};
use super::operands::{Operand, Operands};
use crate::error::{Error, Result};
use crate::graph::Op;
use candle_core::Tensor;
use std::ops::Range;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let Op::Attention {
        heads,
        head_dim,
        causal,
        offsets,
    } = o.node.op
    else {
        return Err(Error::Internal("no attention".into()));
    };
    let [q, k, v] = [o.input(0)?.clone(), o.input(1)?.clone(), o.input(2)?.clone()];
    let (batch, tokens, keys) = (q.shape.batch(), q.shape.tokens(), k.shape.tokens());
    let (dst, width) = (o.dst.clone(), heads * head_dim);
    let step = queries(keys, head_dim);
    let chunks = tokens.div_ceil(step);
    let scale = 1.0 / (head_dim as f32).sqrt();
    // Rows of one picture, channels of one head, in place.
    let head = move |x: &Operand, picture: usize, offset: usize, head: usize, rows: Range<usize>| -> Result<Tensor> {
        let start = if x.shape.batch() == 1 {
            0
        } else {
            picture * x.shape.tokens()
        };
        let rows = matrix(&x.tensor, start + rows.start..start + rows.end, x.shape.channels())?;
        Ok(rows.narrow(1, offset + head * head_dim, head_dim)?)
    };
    Ok(Work::new(batch * heads * chunks, move |i| {
        let (picture, h) = (i / (chunks * heads), i / chunks % heads);
        let rows = part(i % chunks, step, tokens);
        // Keys that come after all queries of the chunk are not looked at.
        let seen = if causal { keys.min(rows.end) } else { keys };
        let scores =
            head(&q, picture, offsets[0], h, rows.clone())?.matmul(&head(&k, picture, offsets[1], h, 0..seen)?.t()?)?;
        let mut sums = Vec::with_capacity(rows.len());
        write(&scores, |scores: &mut [f32]| {
            for (row, scores) in rows.clone().zip(scores.chunks_exact_mut(seen)) {
                let (before, after) = scores.split_at_mut(if causal { (row + 1).min(seen) } else { seen });
                sums.push(softmax_row(before, scale));
                after.fill(0.0);
            }
        })?;
        let mixed = scores.matmul(&head(&v, picture, offsets[2], h, 0..seen)?)?;
        let mixed = read::<f32>(&mixed)?;
        write(&dst, |dst: &mut [f32]| {
            for ((row, mixed), sum) in rows.zip(mixed.chunks_exact(head_dim)).zip(&sums) {
                let at = (picture * tokens + row) * width + h * head_dim;
                dst[at..at + head_dim]
                    .iter_mut()
                    .zip(mixed)
                    .for_each(|(d, m)| *d = m / sum);
            }
        })
    }))
}
