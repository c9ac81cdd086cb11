//! Attention of one head, keys and channels in rows and queries in columns: a maximum or a sum over keys is then one of whole vectors,
//! and what comes out of the first product is laid out for the second one as it is.

use super::super::memory::filled;
use super::exp::exp2_of_negative;
use super::four::Four;
use super::tile::{COLUMNS, ROWS, Sums, Tall, Wide, interleave, tile, transpose};
use crate::error::Result;

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
#[derive(Clone, Copy)]
struct Seen {
    /// The largest score.
    top: Wide,
    /// The sum of `2^(score - top)`.
    sum: Wide,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            top: [f32::NEG_INFINITY; COLUMNS],
            sum: [0.0; COLUMNS],
        }
    }
}

/// What attending needs beside keys and values.
pub(in super::super) struct Attending {
    queries: Vec<Wide>,
    mixed: Vec<Wide>,
    seen: Vec<Seen>,
    rows: Vec<f32>,
}

impl Attending {
    /// For so many queries.
    pub(in super::super) fn new(count: usize, dim: usize) -> Result<Self> {
        let (panels, tall_dim, what) = (count.div_ceil(COLUMNS), dim.next_multiple_of(ROWS), "queries of a head");
        Ok(Self {
            queries: filled(panels * dim, [0.0; COLUMNS], what)?,
            mixed: filled(panels * tall_dim, [0.0; COLUMNS], what)?,
            seen: filled(panels, Seen::default(), what)?,
            rows: filled(COLUMNS * tall_dim, 0.0, what)?,
        })
    }
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

    /// Attends from `count` queries on, no more than `room` is for; `query(i)` is the row of one, `last(i)` the number of keys that it sees, at least one and not
    /// falling. `write(i, channels)` takes what comes out.
    pub(in super::super) fn attend<'a>(
        &self,
        count: usize,
        scale: f32,
        room: &mut Attending,
        query: impl Fn(usize) -> &'a [f32],
        sees: impl Fn(usize) -> usize,
        mut write: impl FnMut(usize, &[f32]),
    ) {
        let (dim, panels) = (self.dim, count.div_ceil(COLUMNS));
        // Powers of two instead of e: scores are made for it.
        let scale = scale * std::f32::consts::LOG2_E;
        let tall_dim = dim.next_multiple_of(ROWS);
        let Attending {
            queries,
            mixed,
            seen,
            rows,
        } = room;
        let (queries, mixed) = (&mut queries[..panels * dim], &mut mixed[..panels * tall_dim]);
        let seen = &mut seen[..panels];
        mixed.fill([0.0; COLUMNS]);
        seen.fill(Seen::default());
        for (panel, to) in queries.chunks_exact_mut(dim).enumerate() {
            // What is beyond the last query is looked at by nobody.
            let row = |column: usize| query((panel * COLUMNS + column).min(count - 1));
            into_columns(row, scale, to);
        }
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
        for (panel, mixed) in mixed.chunks_exact_mut(tall_dim).enumerate() {
            into_rows(mixed, &seen[panel].sum, rows);
            for (i, row) in (panel * COLUMNS..count).zip(rows.chunks_exact(tall_dim)) {
                write(i, &row[..dim]);
            }
        }
    }
}

/// Puts rows as long as `to` side by side, and multiplies them with `scale`.
fn into_columns<'a>(row: impl Fn(usize) -> &'a [f32], scale: f32, to: &mut [Wide]) {
    let len = to.len();
    let (fours, rest) = to.as_chunks_mut::<4>();
    for lane in 0..COLUMNS / 4 {
        let rows: [&[f32]; 4] = std::array::from_fn(|r| &row(lane * 4 + r)[..len]);
        let split = rows.map(<[f32]>::as_chunks::<4>);
        for (i, to) in fours.iter_mut().enumerate() {
            for (to, four) in to.iter_mut().zip(transpose(split.map(|(fours, _)| fours[i]))) {
                to.as_chunks_mut().0[lane] = (Four::new(four) * scale).get();
            }
        }
        for (i, to) in rest.iter_mut().enumerate() {
            to.as_chunks_mut().0[lane] = (Four::new(split.map(|(_, rest)| rest[i])) * scale).get();
        }
    }
}

/// The inverse, for a number of steps that four divides: each column divided by its number in `by`, and written to a row.
fn into_rows(from: &[Wide], by: &Wide, to: &mut [f32]) {
    for lane in 0..COLUMNS / 4 {
        let by = Four::new(by.as_chunks().0[lane]);
        for (i, four) in from.as_chunks::<4>().0.iter().enumerate() {
            let divided = four
                .each_ref()
                .map(|wide| (Four::new(wide.as_chunks().0[lane]) / by).get());
            for (r, row) in transpose(divided).iter().enumerate() {
                to[(lane * 4 + r) * from.len() + i * 4..][..4].copy_from_slice(row);
            }
        }
    }
}

/// Columns of a vector, four at a time.
type Fours = [Four; COLUMNS / 4];

#[inline(always)]
fn fours(wide: &Wide) -> Fours {
    let (fours, _) = wide.as_chunks();
    std::array::from_fn(|i| Four::new(fours[i]))
}

impl Seen {
    /// Turns more scores into `2^(score - top)`. Gives what all that was made with the last `top` has to be multiplied with.
    fn look(&mut self, scores: &mut [Wide]) -> Wide {
        let mut top = self.top;
        // Of NaN either may come: the sum of its column is none in any case.
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let (groups, rest) = scores.as_chunks::<4>();
        for [a, b, c, d] in groups {
            // Two by two: one after the other would wait for each.
            for (i, top) in top.iter_mut().enumerate() {
                *top = larger(*top, larger(larger(a[i], b[i]), larger(c[i], d[i])));
            }
        }
        for scores in rest {
            top.iter_mut().zip(scores).for_each(|(top, s)| *top = larger(*top, *s));
        }
        // Where nothing but -infinity was seen, 0 stands in: a difference of infinities is no number.
        let from = fours(&top.map(|t| if t == f32::NEG_INFINITY { 0.0 } else { t }));
        let mut factor = self.top;
        let mut sums = fours(&self.sum);
        for (i, factor) in factor.as_chunks_mut().0.iter_mut().enumerate() {
            let by = exp2_of_negative(Four::new(*factor) - from[i]);
            sums[i] = sums[i] * by;
            *factor = by.get();
        }
        for scores in scores {
            for (i, score) in scores.as_chunks_mut().0.iter_mut().enumerate() {
                let power = exp2_of_negative(Four::new(*score) - from[i]);
                sums[i] = sums[i] + power;
                *score = power.get();
            }
        }
        for (to, sum) in self.sum.as_chunks_mut().0.iter_mut().zip(sums) {
            *to = sum.get();
        }
        self.top = top;
        factor
    }
}
