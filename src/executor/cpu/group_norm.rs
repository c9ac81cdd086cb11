//! Group norm in two passes over the slot: statistics of each channel, then scale and shift. Statistics are made of small blocks'
//! means and squared deviations, merged in f64 (Chan, Golub and LeVeque 1979): a mean far from zero costs no digits.

use super::chunks::{Work, part, rows_of};
use super::kernels::{activate, deviations};
use super::memory::{read, write};
use super::operands::Operands;
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::graph::Op;
use std::ops::Range;

/// Rows of a block: few enough for f32 sums, and for staying in the cache between mean and deviation.
const BLOCK: usize = 32;
/// Channels that are not parted: a line of the cache.
const LEAST: usize = 16;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let Op::GroupNorm { groups, eps, act } = o.node.op else {
        return Err(Error::Internal("no group norm".into()));
    };
    let x = o.input(0)?;
    let (batch, channels) = (x.shape.batch(), x.shape.channels());
    let rows = x.shape.rows() / batch.max(1);
    let (x, dst, pool) = (x.tensor.clone(), o.dst.clone(), o.pool);
    let affine = o.param(0)?.vector();
    let step = rows_of(channels);
    let parts = rows.div_ceil(step);
    let mut statistics = Vec::new();
    let mut scales = Vec::new();
    Ok(Work::new(batch * parts * 2, move |i| {
        let (picture, i) = (i / (parts * 2), i % (parts * 2));
        let range = part(i % parts, step, rows);
        let at = (picture * rows + range.start) * channels..(picture * rows + range.end) * channels;
        let x = &read::<f32>(&x)?[at.clone()];
        if i < parts {
            if i == 0 {
                statistics = Statistics::of(&[channels], pool);
            }
            pool.each(&mut statistics, |_, some| some.add(x, channels));
            return Ok(());
        }
        if i == parts {
            scales = Statistics::side_by_side(&statistics).scales(groups, eps, &affine);
        }
        let (mean, rest) = scales.split_at(channels);
        let (scale, shift) = rest.split_at(channels);
        write(&dst, |dst: &mut [f32]| {
            pool.rows(&mut dst[at], channels, |rows, dst| {
                let x = x[rows.start * channels..].chunks_exact(channels);
                for (d, x) in dst.chunks_exact_mut(channels).zip(x) {
                    for ((((d, x), mean), scale), shift) in d.iter_mut().zip(x).zip(mean).zip(scale).zip(shift) {
                        *d = (x - mean) * scale + shift;
                    }
                    if let Some(act) = act {
                        activate(act, d);
                    }
                }
            });
        })
    }))
}

/// Mean, scale and shift for each channel of each picture. Of two values side by side each has its own channels.
pub(super) fn statistics_work(o: &Operands<'_>) -> Result<Work> {
    let Op::GroupStatistics { groups, eps } = o.node.op else {
        return Err(Error::Internal("no statistics".into()));
    };
    let inputs: Vec<_> = o.inputs.iter().map(|x| x.tensor.clone()).collect();
    let owns: Vec<_> = o.inputs.iter().map(|x| x.shape.channels()).collect();
    let (dst, pool) = (o.dst.clone(), o.pool);
    let channels: usize = owns.iter().sum();
    let (batch, rows) = (o.input(0)?.shape.batch(), o.input(0)?.shape.tokens());
    let affine = o.param(0)?.vector();
    let step = rows_of(channels);
    let count = rows.div_ceil(step);
    let mut statistics = Vec::new();
    Ok(Work::new(batch * count, move |i| {
        let (picture, i) = (i / count, i % count);
        if i == 0 {
            statistics = Statistics::of(&owns, pool);
        }
        let range = part(i, step, rows);
        let held = inputs.iter().map(read::<f32>).collect::<Result<Vec<_>>>()?;
        let some = held.iter().zip(&owns);
        let some = some.map(|(x, own)| &x[(picture * rows + range.start) * own..(picture * rows + range.end) * own]);
        let some: Vec<_> = some.collect();
        pool.each(&mut statistics, |_, each| {
            each.add(some[each.input], owns[each.input]);
        });
        if range.end < rows {
            return Ok(());
        }
        let scales = Statistics::side_by_side(&statistics).scales(groups, eps, &affine);
        write(&dst, |dst: &mut [f32]| {
            dst[picture * 3 * channels..][..3 * channels].copy_from_slice(&scales);
        })
    }))
}

/// Of some channels of one picture.
struct Statistics {
    /// Which of the values side by side they are in, and from where on.
    input: usize,
    first: usize,
    rows: f64,
    mean: Vec<f64>,
    /// Sum of squared deviations from the mean.
    squares: Vec<f64>,
    block_mean: Vec<f32>,
    block_squares: Vec<f32>,
}

impl Statistics {
    fn new(input: usize, Range { start, end }: Range<usize>) -> Self {
        let channels = end - start;
        Self {
            input,
            first: start,
            rows: 0.0,
            mean: vec![0.0; channels],
            squares: vec![0.0; channels],
            block_mean: vec![0.0; channels],
            block_squares: vec![0.0; channels],
        }
    }

    /// Of all channels of values that have so many each, in parts.
    fn of(channels: &[usize], pool: Pool) -> Vec<Self> {
        let parts = channels.iter().enumerate();
        let parts = parts.flat_map(|(i, &own)| pool.cut(0..own, LEAST).into_iter().map(move |some| Self::new(i, some)));
        parts.collect()
    }

    /// Of the channels of all, which have as many rows.
    fn side_by_side(all: &[Self]) -> Self {
        let mut joined = Self::new(0, 0..0);
        for one in all {
            joined.rows = one.rows;
            joined.mean.extend(&one.mean);
            joined.squares.extend(&one.squares);
        }
        joined
    }

    /// Adds rows of `channels` elements, among them those that this is of.
    fn add(&mut self, x: &[f32], channels: usize) {
        x.chunks(BLOCK * channels)
            .for_each(|block| self.add_block(block, channels));
    }

    fn add_block(&mut self, block: &[f32], channels: usize) {
        let rows = (block.len() / channels) as f64;
        deviations(
            block,
            channels,
            self.first,
            &mut self.block_mean,
            &mut self.block_squares,
        );
        let total = self.rows + rows;
        let (share, weight) = (rows / total, self.rows * rows / total);
        let block = self.block_mean.iter().zip(&self.block_squares);
        for ((mean, squares), (own, deviations)) in self.mean.iter_mut().zip(&mut self.squares).zip(block) {
            let delta = f64::from(*own) - *mean;
            *mean += delta * share;
            *squares += f64::from(*deviations) + delta * delta * weight;
        }
        self.rows = total;
    }

    /// For each channel the mean of its group; then what the deviation from it is multiplied with; then what is added.
    fn scales(&self, groups: usize, eps: f32, affine: &[f32]) -> Vec<f32> {
        let channels = self.mean.len();
        let (gamma, beta) = affine.split_at(channels);
        let (size, mut means, mut scales) = (channels / groups, Vec::new(), Vec::new());
        for (mean, squares) in self.mean.chunks_exact(size).zip(self.squares.chunks_exact(size)) {
            let centre = mean.iter().sum::<f64>() / size as f64;
            let between: f64 = mean.iter().map(|m| (m - centre) * (m - centre)).sum();
            let variance = (squares.iter().sum::<f64>() + between * self.rows) / (self.rows * size as f64);
            means.extend(std::iter::repeat_n(centre as f32, size));
            scales.extend(std::iter::repeat_n(
                (1.0 / (variance + f64::from(eps)).sqrt()) as f32,
                size,
            ));
        }
        scales.iter_mut().zip(gamma).for_each(|(s, g)| *s *= g);
        [&means, &scales, beta].concat()
    }
}
