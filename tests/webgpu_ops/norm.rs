//! Norms.

use crate::case::{ACTS, Case, act};
use tintype::executor::WeightDtype;
use tintype::graph::{Activation, Op, Pack};

fn group_norm(batch: usize, h: usize, w: usize, c: usize, groups: usize, kind: Option<Activation>, mean: f32) {
    let mut case = Case::new((h * w * c) as u32);
    let x: Vec<f32> = case.noise.take(batch * h * w * c).iter().map(|v| v + mean).collect();
    let x = case.given(&[batch, h, w, c], x);
    let affine = case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
    let width = c / groups;
    let mut y = vec![0.0; x.len()];
    for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
        let at = |p: usize, j: usize| (b * h * w + p) * c + g * width + j;
        let all = || (0..h * w).flat_map(|p| (0..width).map(move |j| (p, j)));
        let n = (h * w * width) as f64;
        let mean = all().map(|(p, j)| f64::from(x[at(p, j)])).sum::<f64>() / n;
        let variance = all().map(|(p, j)| (f64::from(x[at(p, j)]) - mean).powi(2)).sum::<f64>() / n;
        for (p, j) in all() {
            let v = (f64::from(x[at(p, j)]) - mean) / (variance + 1e-5).sqrt();
            let channel = g * width + j;
            y[at(p, j)] = act(kind, v * f64::from(affine[channel]) + f64::from(affine[c + channel]));
        }
    }
    case.check(
        Op::GroupNorm {
            groups,
            eps: 1e-5,
            act: kind,
        },
        &y,
    );
}

#[test]
fn group_norms() {
    group_norm(2, 3, 5, 6, 3, None, 0.0);
    group_norm(1, 8, 8, 32, 8, ACTS[1], 3.0);
    group_norm(1, 1, 1, 130, 1, None, 0.0);
    group_norm(2, 65, 64, 8, 2, ACTS[1], 0.0);
    // Statistics of these are put together from chunks.
    group_norm(1, 110, 100, 6, 1, None, -2.0);
}

fn group_statistics(batch: usize, pixels: usize, parts: &[usize], groups: usize, mean: f32) {
    let mut case = Case::new((pixels * groups) as u32);
    let c: usize = parts.iter().sum();
    let mut values = Vec::new();
    for &own in parts {
        let x = case.noise.take(batch * pixels * own).iter().map(|v| v + mean).collect();
        values.push((own, case.given(&[batch, pixels, own], x)));
    }
    let affine = case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
    let at = |row: usize| {
        values
            .iter()
            .flat_map(move |(own, x)| x[row * own..(row + 1) * own].iter())
    };
    let mut y = Vec::new();
    for b in 0..batch {
        let rows: Vec<Vec<f64>> = (0..pixels)
            .map(|p| at(b * pixels + p).map(|&v| f64::from(v)).collect())
            .collect();
        let width = c / groups;
        let of_group = |g: usize| rows.iter().flat_map(move |row| row[g * width..(g + 1) * width].iter());
        let n = (pixels * width) as f64;
        let each: Vec<(f64, f64)> = (0..groups)
            .map(|g| {
                let mean = of_group(g).sum::<f64>() / n;
                let variance = of_group(g).map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                (mean, 1.0 / (variance + 1e-5).sqrt())
            })
            .collect();
        y.extend((0..c).map(|i| each[i / width].0));
        y.extend((0..c).map(|i| each[i / width].1 * f64::from(affine[i])));
        y.extend((0..c).map(|i| f64::from(affine[c + i])));
    }
    case.check(Op::GroupStatistics { groups, eps: 1e-5 }, &y);
}

#[test]
fn statistics_of_groups() {
    group_statistics(2, 15, &[6], 3, 0.0);
    group_statistics(1, 64, &[32], 8, 3.0);
    group_statistics(3, 77, &[4, 8], 2, 0.0);
    // A group may lie in both values.
    group_statistics(2, 5, &[5, 7], 3, -1.0);
    group_statistics(1, 1023, &[3, 1], 1, 0.0);
    // Of these they are put together from chunks.
    group_statistics(2, 9000, &[16], 2, 0.0);
    group_statistics(1, 8200, &[7, 9], 2, -2.0);
}

#[test]
fn layer_norms() {
    for c in [4, 5, 63, 64, 320] {
        let mut case = Case::new(c as u32);
        let x = case.input(&[1, 7, c]);
        let affine = case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
        let mut y = Vec::new();
        for row in x.chunks(c) {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / c as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / c as f64;
            y.extend(row.iter().enumerate().map(|(i, &v)| {
                (f64::from(v) - mean) / (variance + 1e-5).sqrt() * f64::from(affine[i]) + f64::from(affine[c + i])
            }));
        }
        case.check(Op::LayerNorm { eps: 1e-5 }, &y);
    }
}
