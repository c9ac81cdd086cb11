//! Attention of one head, keys and channels in rows and queries in columns: a maximum or a sum over keys is then one of whole vectors,
//! and what comes out of the first product is laid out for the second one as it is.

use super::exp::exp_of_negative;
use super::four::Four;
use super::tile::{COLUMNS, ROWS, Sums, Tall, Wide, interleave, tile};

/// Keys that are looked at before the next queries' turn: their scores stay in the nearest cache.
const KEYS: usize = 256;

/// The keys and values of one head, where products want them.
pub(in super::super) struct Memory {
    dim: usize,
    keys: usize,
    /// Tiles of keys, each with all channels.
    k: Vec<Tall>,
    /// Tiles of channels, each with all keys.
    v: Vec<Tall>,
    padding: Vec<f32>,
}

/// Queries of one head in columns, and what they have seen.
struct Seen {
    /// The largest score.
    top: Wide,
    /// The sum of `e^(score - top)`.
    sum: Wide,
}

impl Memory {
    /// How many [`Tall`] are needed for this many keys.
    pub(in super::super) fn room(keys: usize, dim: usize) -> [usize; 2] {
        [keys.div_ceil(ROWS) * dim, dim.div_ceil(ROWS) * keys]
    }

    /// `k` and `v` are as long as [`room`](Self::room) says.
    pub(in super::super) fn new(keys: usize, dim: usize, k: Vec<Tall>, v: Vec<Tall>) -> Self {
        let padding = vec![0.0; dim];
        Self {
            dim,
            keys,
            k,
            v,
            padding,
        }
    }

    /// Takes the keys and values of a head; `key(i)` and `value(i)` are their rows.
    pub(in super::super) fn fill<'a>(&mut self, key: impl Fn(usize) -> &'a [f32], value: impl Fn(usize) -> &'a [f32]) {
        let (dim, keys) = (self.dim, self.keys);
        for (t, to) in self.k.chunks_exact_mut(dim).enumerate() {
            let row = |r: usize| if r < keys { key(r) } else { &self.padding };
            interleave(std::array::from_fn(|r| row(t * ROWS + r)), to);
        }
        for i in 0..keys {
            let (fours, rest) = value(i).as_chunks::<ROWS>();
            for (t, four) in fours.iter().enumerate() {
                self.v[t * keys + i] = *four;
            }
            if !rest.is_empty() {
                let last = &mut self.v[fours.len() * keys + i];
                *last = [0.0; ROWS];
                last[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// Attends from `count` queries on; `query(i)` is the row of one, `last(i)` the number of keys that it sees, at least one and not
    /// falling. `write(i, channels)` takes what comes out.
    pub(in super::super) fn attend<'a>(
        &self,
        count: usize,
        scale: f32,
        query: impl Fn(usize) -> &'a [f32],
        sees: impl Fn(usize) -> usize,
        mut write: impl FnMut(usize, &[f32]),
    ) {
        let (dim, panels) = (self.dim, count.div_ceil(COLUMNS));
        let tall_dim = dim.next_multiple_of(ROWS);
        let mut queries: Vec<Wide> = vec![[0.0; COLUMNS]; panels * dim];
        for i in 0..count {
            let to = &mut queries[i / COLUMNS * dim..][..dim];
            to.iter_mut()
                .zip(query(i))
                .for_each(|(to, q)| to[i % COLUMNS] = q * scale);
        }
        let mut mixed: Vec<Wide> = vec![[0.0; COLUMNS]; panels * tall_dim];
        let start = || Seen {
            top: [f32::NEG_INFINITY; COLUMNS],
            sum: [0.0; COLUMNS],
        };
        let mut seen: Vec<Seen> = std::iter::repeat_with(start).take(panels).collect();
        let mut scores = [[0.0; COLUMNS]; KEYS];
        for first in (0..self.keys).step_by(KEYS) {
            for (panel, seen) in seen.iter_mut().enumerate() {
                let visible: [usize; COLUMNS] =
                    std::array::from_fn(|c| sees((panel * COLUMNS + c).min(count - 1)).saturating_sub(first));
                let len = KEYS.min(self.keys - first).min(visible[COLUMNS - 1]);
                if len == 0 {
                    continue;
                }
                let queries = &queries[panel * dim..][..dim];
                let k = &self.k[first / ROWS * dim..];
                for (k, scores) in k
                    .chunks_exact(dim)
                    .zip(scores[..len.next_multiple_of(ROWS)].as_chunks_mut().0)
                {
                    *scores = [[0.0; COLUMNS]; ROWS];
                    tile(k, queries, scores);
                }
                let scores = &mut scores[..len];
                if visible[0] < len {
                    for (i, scores) in scores.iter_mut().enumerate() {
                        for (score, visible) in scores.iter_mut().zip(visible) {
                            *score = if i < visible { *score } else { f32::NEG_INFINITY };
                        }
                    }
                }
                let factor = seen.look(scores);
                let mixed = mixed[panel * tall_dim..][..tall_dim].as_chunks_mut::<ROWS>().0;
                for (v, mixed) in self.v.chunks_exact(self.keys).zip(mixed) {
                    if first > 0 {
                        mixed.as_flattened_mut().chunks_exact_mut(COLUMNS).for_each(|row| {
                            row.iter_mut().zip(&factor).for_each(|(m, f)| *m *= f);
                        });
                    }
                    let sums: &mut Sums = mixed;
                    tile(&v[first..first + len], scores, sums);
                }
            }
        }
        let mut row = vec![0.0; dim];
        for i in 0..count {
            let (panel, c) = (i / COLUMNS, i % COLUMNS);
            let sum = seen[panel].sum[c];
            let mixed = &mixed[panel * tall_dim..][..dim];
            row.iter_mut().zip(mixed).for_each(|(to, m)| *to = m[c] / sum);
            write(i, &row);
        }
    }
}

impl Seen {
    /// Turns more scores into `e^(score - top)`. Gives what all that was made with the last `top` has to be multiplied with.
    fn look(&mut self, scores: &mut [Wide]) -> Wide {
        let mut top = self.top;
        for scores in &*scores {
            // NaN is passed over here and stays in its score.
            top.iter_mut()
                .zip(scores)
                .for_each(|(t, &s)| *t = if s > *t { s } else { *t });
        }
        // Where nothing but -infinity was seen, 0 stands in: a difference of infinities is no number.
        let from = top.map(|t| if t == f32::NEG_INFINITY { 0.0 } else { t });
        let mut factor = self.top;
        grow(&mut factor, &from);
        self.sum.iter_mut().zip(&factor).for_each(|(s, f)| *s *= f);
        for scores in scores {
            grow(scores, &from);
            self.sum.iter_mut().zip(&*scores).for_each(|(sum, s)| *sum += s);
        }
        self.top = top;
        factor
    }
}

/// `e^(x - from)`, of none that is above zero.
#[inline(always)]
fn grow(x: &mut Wide, from: &Wide) {
    for (x, from) in x.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
        *x = exp_of_negative(Four::new(*x) - Four::new(*from)).get();
    }
}
