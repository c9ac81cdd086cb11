//! What goes element by element, or only moves them.

use crate::case::{ACTS, Case, act};
use tintype::executor::WeightDtype;
use tintype::graph::{Activation, Element, Op, Pack, Rate, Unary};

#[test]
fn each_element_by_itself() {
    let x: Vec<f32> = (-500..=500)
        .map(|i| i as f32 * 0.02)
        .chain([100.0, -100.0, 0.0, -0.0])
        .collect();
    let map = |op: Unary, f: &dyn Fn(f64) -> f64| {
        let mut case = Case::new(0);
        let x = case.given(&[1, x.len()], x.clone());
        let y: Vec<f64> = x.iter().map(|&v| f(f64::from(v))).collect();
        case.check(Op::Unary(op), &y);
    };
    for kind in ACTS.into_iter().flatten() {
        map(Unary::Act(kind), &|x| act(Some(kind), x));
    }
    map(Unary::Affine { mul: -2.5, add: 0.75 }, &|x| x * -2.5 + 0.75);
    map(Unary::Clamp { min: -1.0, max: 0.5 }, &|x| x.clamp(-1.0, 0.5));
}

#[test]
fn activations_near_zero() {
    // Relative to the largest of these, not to 100.
    let x: Vec<f32> = (-300..=300).map(|i| i as f32 * 0.01).collect();
    for kind in ACTS.into_iter().flatten() {
        let mut case = Case::new(0);
        let x = case.given(&[1, x.len()], x.clone());
        let y: Vec<f64> = x.iter().map(|&v| act(Some(kind), f64::from(v))).collect();
        case.check(Op::Unary(Unary::Act(kind)), &y);
    }
}

#[test]
fn gated_halves() {
    for n in [4, 3] {
        let mut case = Case::new(n as u32);
        let x = case.input(&[2, 5, 2 * n]);
        let gated = |row: &[f32]| -> Vec<f64> {
            (0..n)
                .map(|i| f64::from(row[i]) * act(Some(Activation::Gelu), f64::from(row[n + i])))
                .collect()
        };
        let y: Vec<f64> = x.chunks(2 * n).flat_map(gated).collect();
        case.check(Op::Geglu, &y);
    }
}

#[test]
fn sums() {
    for c in [3, 8] {
        let mut case = Case::new(c as u32);
        let (a, b) = (case.input(&[2, 3, c]), case.input(&[2, 3, c]));
        let y: Vec<f64> = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
        case.check(Op::Add, &y);
        for (rows, step) in [(1, 4), (5, 4)] {
            let mut case = Case::new(c as u32);
            case.step = step;
            let (x, r) = (case.input(&[2, 3, c]), case.input(&[rows, c]));
            let first = if rows == 1 { 0 } else { step * c };
            let y: Vec<f64> = x
                .iter()
                .enumerate()
                .map(|(i, &x)| f64::from(x) + f64::from(r[first + i % c]))
                .collect();
            case.check(Op::AddRow, &y);
        }
    }
}

#[test]
fn joined_channels() {
    for (a, b) in [(4, 8), (3, 4), (5, 2)] {
        let mut case = Case::new(7);
        let (x, z) = (case.input(&[2, 2, 3, a]), case.input(&[2, 2, 3, b]));
        let rows = x.chunks(a).zip(z.chunks(b));
        let y: Vec<f64> = rows
            .flat_map(|(x, z)| x.iter().chain(z))
            .map(|&v| f64::from(v))
            .collect();
        case.check(Op::Concat, &y);
    }
}

#[test]
fn nearest_neighbours() {
    for (size, c) in [([10, 6], 4), ([7, 8], 3), ([2, 2], 4)] {
        let mut case = Case::new(c as u32);
        let (h, w) = (5, 3);
        let x = case.input(&[2, h, w, c]);
        let mut y = Vec::new();
        for (b, i) in (0..2).flat_map(|b| (0..size[0]).map(move |i| (b, i))) {
            for j in 0..size[1] {
                let from = ((b * h + i * h / size[0]) * w + j * w / size[1]) * c;
                y.extend(x[from..from + c].iter().map(|&v| f64::from(v)));
            }
        }
        case.check(Op::Upsample { size }, &y);
    }
}

#[test]
fn embeddings() {
    for (c, dtype) in [
        (8, WeightDtype::F32),
        (6, WeightDtype::F16),
        (5, WeightDtype::Bf16),
        (7, WeightDtype::E4m3),
        (4, WeightDtype::E5m2),
    ] {
        let mut case = Case::new(c as u32);
        let (vocabulary, tokens) = (50, 7);
        let ids: Vec<u32> = (0..2 * tokens).map(|i| (i * 17 % vocabulary) as u32).collect();
        let value = case.graph.input("ids", [2, tokens], Element::U32, Rate::Step);
        case.inputs.push((value, "ids".into(), Vec::new()));
        case.ids.insert("ids".into(), ids.clone());
        let table = case.param(Pack::Table, &[vocabulary, c], dtype);
        let positions = case.param(Pack::Table, &[tokens + 2, c], WeightDtype::F32);
        let mut y = Vec::new();
        for (i, &id) in ids.iter().enumerate() {
            let at = |n: usize| f64::from(table[id as usize * c + n]) + f64::from(positions[i % tokens * c + n]);
            y.extend((0..c).map(at));
        }
        case.check(Op::Embedding, &y);
    }
}

#[test]
fn timestep_embeddings() {
    let times = || vec![0.0, 1.0, 19.0, 499.5, 981.0, 999.0, 1000.0];
    // Sizes of pictures, as SDXL is told them: several a row, which lie side by side.
    let sizes = || vec![1024.0, 1024.0, 0.0, 8192.0, 7001.0, 512.0, 768.0, 2047.0];
    for (dim, flip, shift, shape, steps) in [
        (320, true, 0.0, &[7][..], times()),
        (64, false, 1.0, &[7], times()),
        (6, true, 0.5, &[7], times()),
        (256, true, 0.0, &[2, 4], sizes()),
        (6, false, 0.0, &[1, 8], sizes()),
    ] {
        let mut case = Case::new(0);
        let steps = case.given(shape, steps);
        let half = dim / 2;
        let mut y = Vec::new();
        for t in steps {
            // The product is rounded to f32, as torch does.
            let angle = |i: usize| {
                let exponent = -(10000f64.ln() as f32) * i as f32 / (half as f32 - shift);
                f64::from(t * f64::from(exponent).exp() as f32)
            };
            let sines = (0..half).map(|i| angle(i).sin());
            let cosines = (0..half).map(|i| angle(i).cos());
            if flip {
                y.extend(cosines.chain(sines));
            } else {
                y.extend(sines.chain(cosines));
            }
        }
        case.check(
            Op::TimestepEmbedding {
                dim,
                flip_sin_to_cos: flip,
                freq_shift: shift,
            },
            &y,
        );
    }
}
