//! Attention, some heads or some of a head's queries at a time: beside those heads' keys and values, scores of a few queries are all
//! that is ever held.

use super::chunks::{Work, part, some_heads};
use super::kernels::{Attending, Memory, ROWS, strips};
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
    let (dst, width, pool) = (o.dst.clone(), heads * head_dim, o.pool);
    let [head_step, query_step, at_once] = some_heads(heads, tokens, keys, head_dim);
    let (groups, chunks) = (heads.div_ceil(head_step), tokens.div_ceil(query_step));
    let scale = 1.0 / (head_dim as f32).sqrt();
    let memory = |_| {
        let room = |len| filled(len, [0.0; ROWS], "keys and values of a head");
        let [k_room, v_room] = Memory::room(keys, head_dim);
        Ok(Memory::new(keys, head_dim, room(k_room)?, room(v_room)?))
    };
    let mut memories = (0..head_step).map(memory).collect::<Result<Vec<_>>>()?;
    let mut rooms = pool.own(|| Attending::new(at_once, head_dim))?;
    // Where the channels of a head begin in a picture's row.
    let place = move |x: &Operand, picture: usize, offset: usize, head: usize| {
        let (channels, first) = (x.shape.channels(), offset + head * head_dim);
        let picture = if x.shape.batch() == 1 { 0 } else { picture };
        let start = picture * x.shape.tokens();
        move |row: usize| (start + row) * channels + first
    };
    Ok(Work::new(batch * groups * chunks, move |i| {
        let picture = i / (chunks * groups);
        let these = part(i / chunks % groups, head_step, heads);
        let memories = &mut memories[..these.len()];
        if i % chunks == 0 {
            let (ks, vs) = (read::<f32>(&k.tensor)?, read::<f32>(&v.tensor)?);
            pool.each(memories, |h, memory| {
                let head = these.start + h;
                let (at_k, at_v) = (
                    place(&k, picture, offsets[1], head),
                    place(&v, picture, offsets[2], head),
                );
                memory.fill(|i| &ks[at_k(i)..][..head_dim], |i| &vs[at_v(i)..][..head_dim]);
            });
        }
        let rows = part(i % chunks, query_step, tokens);
        let qs = &read::<f32>(&q.tensor)?[..];
        write(&dst, |dst: &mut [f32]| {
            let dst = &mut dst[(picture * tokens + rows.start) * width..(picture * tokens + rows.end) * width];
            let mut strips = strips(dst, width, these.clone().map(|h| h * head_dim..(h + 1) * head_dim));
            let some = strips.iter_mut().enumerate().flat_map(|(h, strip)| {
                let first = (rows.start..).step_by(at_once);
                strip
                    .chunks_mut(at_once)
                    .zip(first)
                    .map(move |(to, first)| (h, first, to))
            });
            let mut some: Vec<_> = some.collect();
            pool.each_with(&mut some, &mut rooms, |_, (h, first, to), room| {
                let at_q = place(&q, picture, offsets[0], these.start + *h);
                let query = |i: usize| &qs[at_q(*first + i)..][..head_dim];
                let sees = |i: usize| if causal { keys.min(*first + i + 1) } else { keys };
                memories[*h].attend(to.len(), scale, room, query, sees, |i, mixed| {
                    to[i].copy_from_slice(mixed)
                });
            });
        })
    }))
}
