//! Operations as their definitions read: f64, one loop for each dimension, nothing clever.

use crate::graph::{Activation, Epilogue, Unary};

pub(super) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

pub(super) fn act(a: Activation, x: f64) -> f64 {
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    match a {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

pub(super) fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Act(a) => act(a, x),
        Unary::Affine { mul, add } => x * f64::from(mul) + f64::from(add),
        Unary::Clamp { min, max } => x.clamp(f64::from(min), f64::from(max)),
    }
}

/// With the error function's Taylor series, and beyond what that can do the limit, which is 6e-9 off.
pub(super) fn gelu(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.max(0.0);
    }
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 * x * (1.0 + sum * std::f64::consts::FRAC_2_SQRT_PI)
}

/// What comes after a sum, for the element of channel `c` at index `i`.
pub(super) struct After<'a> {
    pub(super) epilogue: Epilogue,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) row: Option<&'a [f32]>,
    pub(super) residual: Option<&'a [f32]>,
}

impl After<'_> {
    fn finish(&self, sum: f64, c: usize, i: usize) -> f64 {
        let at = |x: Option<&[f32]>, i: usize| x.map_or(0.0, |x| f64::from(x[i]));
        let y = sum + at(self.bias, c) + at(self.row, c);
        let y = self.epilogue.act.map_or(y, |a| act(a, y)) + at(self.residual, i);
        self.epilogue.post.map_or(y, |post| unary(post, y))
    }
}

/// `weight` is `[n, k]`.
pub(super) fn linear(x: &[f32], weight: &[f32], k: usize, after: &After<'_>) -> Vec<f64> {
    let n = weight.len() / k;
    let mut out = Vec::new();
    for row in x.chunks(k) {
        for (c, w) in weight.chunks(k).enumerate() {
            let sum = row.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            out.push(after.finish(sum, c, out.len()));
        }
    }
    assert_eq!(out.len(), x.len() / k * n);
    out
}

pub(super) struct Conv {
    /// `[b, h, w, ci]`.
    pub(super) x: [usize; 4],
    pub(super) co: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    pub(super) padding: [usize; 4],
    pub(super) upsample: Option<[usize; 2]>,
}

/// `weight` is `[co, ci, kh, kw]`.
pub(super) fn conv(conv: &Conv, x: &[f32], weight: &[f32], after: &After<'_>) -> Vec<f64> {
    let ([b, h, w, ci], [kh, kw], [top, left, bottom, right]) = (conv.x, conv.kernel, conv.padding);
    let [hs, ws] = conv.upsample.unwrap_or([h, w]);
    let (ho, wo) = (
        (hs + top + bottom - kh) / conv.stride + 1,
        (ws + left + right - kw) / conv.stride + 1,
    );
    let mut out = Vec::new();
    for n in 0..b {
        for oy in 0..ho {
            for ox in 0..wo {
                for o in 0..conv.co {
                    let mut sum = 0.0;
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let y = (oy * conv.stride + ky) as isize - top as isize;
                            let x0 = (ox * conv.stride + kx) as isize - left as isize;
                            if y < 0 || x0 < 0 || y >= hs as isize || x0 >= ws as isize {
                                continue;
                            }
                            let (y, x0) = (y as usize * h / hs, x0 as usize * w / ws);
                            for i in 0..ci {
                                let pixel = x[((n * h + y) * w + x0) * ci + i];
                                sum += f64::from(pixel) * f64::from(weight[((o * ci + i) * kh + ky) * kw + kx]);
                            }
                        }
                    }
                    out.push(after.finish(sum, o, out.len()));
                }
            }
        }
    }
    out
}

pub(super) struct Attention {
    pub(super) batch: usize,
    pub(super) tokens: usize,
    pub(super) keys: usize,
    pub(super) key_batch: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) causal: bool,
    pub(super) offsets: [usize; 3],
}

/// Each operand with its number of channels.
pub(super) fn attention(a: &Attention, [q, k, v]: [(&[f32], usize); 3]) -> Vec<f64> {
    let width = a.heads * a.head_dim;
    let mut out = vec![0.0; a.batch * a.tokens * width];
    for b in 0..a.batch {
        let kb = if a.key_batch == 1 { 0 } else { b };
        for head in 0..a.heads {
            for t in 0..a.tokens {
                let at = |(x, c): (&[f32], usize), row: usize, which: usize, d: usize| {
                    f64::from(x[row * c + a.offsets[which] + head * a.head_dim + d])
                };
                let scores: Vec<f64> = (0..a.keys)
                    .map(|s| {
                        let dot = |d| at(q, b * a.tokens + t, 0, d) * at(k, kb * a.keys + s, 1, d);
                        (0..a.head_dim).map(dot).sum::<f64>() / (a.head_dim as f64).sqrt()
                    })
                    .map(f64::exp)
                    .enumerate()
                    .map(|(s, e)| if a.causal && s > t { 0.0 } else { e })
                    .collect();
                let total: f64 = scores.iter().sum();
                for d in 0..a.head_dim {
                    let mixed: f64 = (0..a.keys).map(|s| scores[s] * at(v, kb * a.keys + s, 2, d)).sum();
                    out[(b * a.tokens + t) * width + head * a.head_dim + d] = mixed / total;
                }
            }
        }
    }
    out
}

/// Statistics over `size` channels of `rows` rows at a time; `affine` is gamma, then beta.
pub(super) fn norm(x: &[f32], channels: usize, rows: usize, size: usize, eps: f64, affine: &[f32]) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    for first in (0..x.len()).step_by(rows * channels) {
        for group in (0..channels).step_by(size) {
            let places: Vec<usize> = (0..rows)
                .flat_map(|r| (group..group + size).map(move |c| first + r * channels + c))
                .collect();
            let count = places.len() as f64;
            let mean = places.iter().map(|&i| f64::from(x[i])).sum::<f64>() / count;
            let variance = places.iter().map(|&i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / count;
            for i in places {
                let (gamma, beta) = (
                    f64::from(affine[i % channels]),
                    f64::from(affine[channels + i % channels]),
                );
                out[i] = (f64::from(x[i]) - mean) / (variance + eps).sqrt() * gamma + beta;
            }
        }
    }
    out
}
