//! Attention, one head and a chunk of its queries at a time: beside that head's keys and values, scores of a few queries are all
//! that is ever held.

use super::chunks::{Work, part, queries};
use super::kernels::{COLUMNS, Memory, ROWS};
use super::memory::{filled, read, write};
use super::operands::{Operand, Operands};
use crate::error::{Error, Result};
use crate::graph::Op;

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
    let step = queries(keys, head_dim).next_multiple_of(COLUMNS);
    let chunks = tokens.div_ceil(step);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let [k_room, v_room] = Memory::room(keys, head_dim);
    let room = |len| filled(len, [0.0; ROWS], "keys and values of a head");
    let mut memory = Memory::new(keys, head_dim, room(k_room)?, room(v_room)?);
    // Where the channels of a head begin in a picture's row.
    let place = move |x: &Operand, picture: usize, offset: usize, head: usize| {
        let (channels, first) = (x.shape.channels(), offset + head * head_dim);
        let picture = if x.shape.batch() == 1 { 0 } else { picture };
        let start = picture * x.shape.tokens();
        move |row: usize| (start + row) * channels + first
    };
    Ok(Work::new(batch * heads * chunks, move |i| {
        let (picture, h) = (i / (chunks * heads), i / chunks % heads);
        if i % chunks == 0 {
            let (ks, vs) = (read::<f32>(&k.tensor)?, read::<f32>(&v.tensor)?);
            let (at_k, at_v) = (place(&k, picture, offsets[1], h), place(&v, picture, offsets[2], h));
            memory.fill(|i| &ks[at_k(i)..][..head_dim], |i| &vs[at_v(i)..][..head_dim]);
        }
        let rows = part(i % chunks, step, tokens);
        let qs = read::<f32>(&q.tensor)?;
        let at_q = place(&q, picture, offsets[0], h);
        let sees = |i: usize| if causal { keys.min(rows.start + i + 1) } else { keys };
        write(&dst, |dst: &mut [f32]| {
            let query = |i: usize| &qs[at_q(rows.start + i)..][..head_dim];
            memory.attend(rows.len(), scale, query, sees, |i, mixed| {
                let at = (picture * tokens + rows.start + i) * width + h * head_dim;
                dst[at..at + head_dim].copy_from_slice(mixed);
            });
        })
    }))
}
