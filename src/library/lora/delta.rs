//! What an adapter adds to a parameter, in numbers. Tensors are as a file has them, rows of outputs.
//! Hu et al., *LoRA* (2021); Hyeon-Woo et al., *FedPara* (2021), for LoHa; Yeh et al., *LyCORIS* (2023), for LoKr; Liu et al., *DoRA*
//! (2024).

use crate::checkpoint::lora::Lora;
use crate::checkpoint::lora::adapter::{Adapter, Alpha, Delta, Dora, Low, Matrix, MatrixOf};
use crate::error::{Error, Result};
use crate::executor::product;

/// Adds to `sum` what the LoRA makes of this parameter, whose own values are `base`.
pub(super) fn add(lora: &Lora, adapter: &Adapter, base: &[f32], sum: &mut [f32]) -> Result<()> {
    let scale = scale(lora, adapter)?;
    let delta = delta(lora, adapter)?;
    if delta.len() != base.len() || sum.len() != base.len() {
        return Err(Error::Internal(format!(
            "{}: {} elements added to {}",
            adapter.parameter,
            delta.len(),
            base.len()
        )));
    }
    match &adapter.dora {
        None => sum.iter_mut().zip(&delta).for_each(|(sum, d)| *sum += scale * d),
        Some(dora) => {
            let mut merged = delta;
            merged.iter_mut().zip(base).for_each(|(d, w)| *d = w + scale * *d);
            resize(lora, dora, adapter.shape, &mut merged)?;
            let pairs = merged.iter().zip(base);
            sum.iter_mut().zip(pairs).for_each(|(sum, (v, w))| *sum += v - w);
        }
    }
    Ok(())
}

fn scale(lora: &Lora, adapter: &Adapter) -> Result<f32> {
    let alpha = match &adapter.scale.alpha {
        Alpha::Known(alpha) => *alpha,
        Alpha::Tensor(name) => lora.elements(name)?.first().copied().unwrap_or(f32::NAN),
    };
    let scale = lora.scale * alpha / adapter.scale.by;
    if scale.is_finite() {
        return Ok(scale);
    }
    Err(Error::Corrupt(format!(
        "{}: {}: alpha {alpha} is no factor",
        lora.place, adapter.parameter
    )))
}

/// What is added, `[out, in · taps]`, before it is scaled.
fn delta(lora: &Lora, adapter: &Adapter) -> Result<Vec<f32>> {
    let [out, inner, taps] = adapter.shape;
    match &adapter.delta {
        Delta::Plain(name) => lora.elements(name),
        Delta::Low(of) => low(lora, of, out, inner, taps),
        Delta::Hadamard(one, two) => {
            let mut one = low(lora, one, out, inner, taps)?;
            let two = low(lora, two, out, inner, taps)?;
            one.iter_mut().zip(&two).for_each(|(a, b)| *a *= b);
            Ok(one)
        }
        Delta::Kronecker([one, two]) => {
            let (a, b) = (matrix(lora, one)?, matrix(lora, two)?);
            let [_, inner1, _] = one.shape;
            let [out2, inner2, _] = two.shape;
            let mut all = zeros(lora, out * inner * taps)?;
            for (o, row) in all.chunks_exact_mut((inner * taps).max(1)).enumerate() {
                let from = &b[(o % out2) * inner2 * taps..][..inner2 * taps];
                let factors = &a[(o / out2) * inner1..][..inner1];
                for (to, factor) in row.chunks_exact_mut((inner2 * taps).max(1)).zip(factors) {
                    to.iter_mut().zip(from).for_each(|(to, b)| *to = factor * b);
                }
            }
            Ok(all)
        }
    }
}

fn matrix(lora: &Lora, matrix: &Matrix) -> Result<Vec<f32>> {
    let [out, inner, taps] = matrix.shape;
    match &matrix.of {
        MatrixOf::Whole(name) => lora.elements(name),
        MatrixOf::Product(of) => low(lora, of, out, inner, taps),
    }
}

fn low(lora: &Lora, of: &Low, out: usize, inner: usize, taps: usize) -> Result<Vec<f32>> {
    let (a, b) = (lora.elements(&of.a)?, lora.elements(&of.b)?);
    let [rank, rank_b] = of.ranks;
    let a = if of.a_transposed { transposed(&a, out) } else { a };
    let Some(mid) = &of.mid else {
        return product(&a, &b, [out, rank, inner * taps]);
    };
    // [rank, rank_b, taps] · [rank_b, in], tap by tap.
    let mid = lora.elements(mid)?;
    let mid: Vec<f32> = mid
        .chunks_exact((rank_b * taps).max(1))
        .flat_map(|m| transposed(m, taps))
        .collect();
    let right = product(&mid, &b, [rank * taps, rank_b, inner])?;
    let right: Vec<f32> = right
        .chunks_exact((taps * inner).max(1))
        .flat_map(|m| transposed(m, inner))
        .collect();
    product(&a, &right, [out, rank, inner * taps])
}

/// A matrix of so many columns, as one of so many rows.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let column = |c: usize| matrix.iter().skip(c).step_by(columns.max(1)).copied();
    (0..columns).flat_map(column).collect()
}

/// Brings rows, or columns, to the lengths that DoRA learned.
fn resize(lora: &Lora, dora: &Dora, [out, inner, taps]: [usize; 3], merged: &mut [f32]) -> Result<()> {
    let wanted = lora.elements(&dora.lengths)?;
    let of = |at: usize| {
        if dora.by_input {
            at / taps % inner
        } else {
            at / (inner * taps)
        }
    };
    let mut squares = vec![0f64; if dora.by_input { inner } else { out }];
    for (at, x) in merged.iter().enumerate() {
        squares[of(at)] += f64::from(*x).powi(2);
    }
    let factors: Vec<f32> = wanted.iter().zip(&squares).map(|(w, s)| w / s.sqrt() as f32).collect();
    for (at, x) in merged.iter_mut().enumerate() {
        *x *= factors[of(at)];
    }
    Ok(())
}

fn zeros(lora: &Lora, len: usize) -> Result<Vec<f32>> {
    let mut zeros = Vec::new();
    let room = zeros.try_reserve_exact(len);
    room.map_err(|_| Error::OutOfMemory(format!("{}: {len} elements to merge", lora.place)))?;
    zeros.resize(len, 0.0);
    Ok(zeros)
}
