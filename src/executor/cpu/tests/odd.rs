//! Sizes that divide by nothing, and what is no finite number, where kernels work in blocks.

use super::naive::{self, After, Attention, Conv};
use super::*;
use crate::graph::{Activation, Epilogue, Prologue};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn conv(x: [usize; 4], co: usize, padding: [usize; 4], upsample: Option<[usize; 2]>) -> (Case, Conv) {
    let op = Op::Conv2d {
        kernel: [3, 3],
        stride: 1,
        padding,
        upsample,
        prologue: Prologue::default(),
        epilogue: Epilogue::default(),
    };
    let weight = param(Pack::Conv, &[&[co, x[3], 3, 3]], 5);
    let bias = param(Pack::Vector, &[&[co]], 6);
    let c = Conv {
        x,
        co,
        kernel: [3, 3],
        stride: 1,
        padding,
        upsample,
    };
    (Case::new(op, &[&x], vec![weight, bias]), c)
}

fn expected(case: &Case, c: &Conv) -> Vec<f64> {
    let after = After {
        epilogue: Epilogue::default(),
        bias: Some(&case.params[1].parts[0].1),
        row: None,
        residual: None,
    };
    naive::conv(c, &case.inputs[0].1, &case.params[0].parts[0].1, &after)
}

#[test]
fn convolutions_in_squares_of_any_size() {
    for (i, [h, w]) in [[3, 3], [1, 5], [4, 4], [5, 7], [9, 8], [17, 13]]
        .into_iter()
        .enumerate()
    {
        for (j, (ci, co)) in [(16, 16), (20, 19), (132, 33), (260, 17)].into_iter().enumerate() {
            let padding = [[1; 4], [0, 1, 2, 3]][(i + j) % 2];
            let upsample = [None, Some([2 * h, 2 * w]), Some([h + 3, w])][(i + 2 * j) % 3];
            let (case, c) = conv([1 + i % 2, h, w, ci], co, padding, upsample);
            case.check(&expected(&case, &c));
        }
    }
}

#[test]
fn convolutions_to_few_channels_of_any_size() {
    let sizes = [[1, 1], [3, 2], [1, 5], [4, 4], [9, 7], [33, 13]];
    for (i, [h, w]) in sizes.into_iter().enumerate() {
        for (j, (ci, co)) in [(16, 1), (17, 3), (64, 4), (20, 15), (19, 8)].into_iter().enumerate() {
            let padding = [[1; 4], [0, 1, 2, 1], [2, 2, 1, 0]][(i + j) % 3];
            let (mut case, c) = conv([1 + i % 2, h, w, ci], co, padding, None);
            case.check(&expected(&case, &c));
            // A picture that is scaled and shifted while it is read, and what comes after the sum.
            let Op::Conv2d { prologue, epilogue, .. } = &mut case.op else {
                panic!()
            };
            (prologue.norm, epilogue.act) = (true, Some(Activation::Silu));
            let statistics = numbers(c.x[0] * 3 * ci, 8);
            for (image, s) in case.inputs[0]
                .1
                .chunks_exact_mut(h * w * ci)
                .zip(statistics.chunks_exact(3 * ci))
            {
                for pixel in image.chunks_exact_mut(ci) {
                    let pairs = pixel.iter_mut().zip(&s[..ci]).zip(&s[ci..2 * ci]).zip(&s[2 * ci..]);
                    pairs.for_each(|(((x, mean), scale), shift)| *x = (*x - mean) * scale + shift);
                }
            }
            let after = After {
                epilogue: *case.op.epilogue().unwrap(),
                bias: Some(&case.params[1].parts[0].1),
                row: None,
                residual: None,
            };
            let want = naive::conv(&c, &case.inputs[0].1, &case.params[0].parts[0].1, &after);
            case.inputs[0].1 = numbers(case.inputs[0].1.len(), 100);
            case.inputs.push((vec![c.x[0], 3 * ci], statistics));
            case.check(&want);
        }
    }
}

#[test]
fn an_odd_pixel_reaches_no_further_than_the_kernel() {
    let odds = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -1e-40];
    for (odd, co) in odds.into_iter().flat_map(|odd| [(odd, 19), (odd, 3)]) {
        for at in [0, 16 * (5 * 11 + 6) + 3, 16 * (7 * 11 + 10)] {
            let (mut case, c) = conv([1, 9, 11, 16], co, [1; 4], None);
            case.inputs[0].1[at] = odd;
            let want = expected(&case, &c);
            for (i, (got, want)) in case.run(2, 1e9).iter().zip(&want).enumerate() {
                let (same, near) = (
                    f64::from(*got) == *want || got.is_nan() && want.is_nan(),
                    (f64::from(*got) - want).abs() <= 2e-5 + 1e-6 * want.abs(),
                );
                assert!(same || near, "{odd} at {at}: {got}, not {want}, at {i}");
            }
        }
    }
}

fn attention(tokens: usize, keys: usize, head_dim: usize, causal: bool) -> (Case, Attention) {
    let a = Attention {
        batch: 1,
        tokens,
        keys,
        key_batch: 1,
        heads: 1,
        head_dim,
        causal,
        offsets: [0; 3],
    };
    let op = Op::Attention {
        heads: 1,
        head_dim,
        causal,
        offsets: [0; 3],
    };
    let shapes: [&[usize]; 3] = [&[1, tokens, head_dim], &[1, keys, head_dim], &[1, keys, head_dim]];
    (Case::new(op, &shapes, vec![]), a)
}

fn attended(case: &Case, a: &Attention) -> Vec<f64> {
    naive::attention(a, [0, 1, 2].map(|i| (&case.inputs[i].1[..], a.head_dim)))
}

#[test]
fn attention_over_any_number_of_keys() {
    let sizes = [1, 3, 5, 8, 9, 77, 255, 256, 257, 515];
    for (i, &keys) in sizes.iter().enumerate() {
        for &tokens in &sizes[i % 3..7] {
            let (case, a) = attention(tokens, keys, [1, 3, 8, 13, 40][(i + tokens) % 5], false);
            case.check(&attended(&case, &a));
        }
        let (case, a) = attention(keys, keys, 9, true);
        case.check(&attended(&case, &a));
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let (mut case, a) = attention(9, 600, 4, false);
    case.inputs[0].1.iter_mut().for_each(|x| *x *= 12.0);
    case.inputs[1].1.iter_mut().for_each(|x| *x *= 12.0);
    case.check(&attended(&case, &a));
    // Beyond what e to the power of it can be held in f64, too.
    case.inputs[0].1.iter_mut().for_each(|x| *x *= 1e8);
    assert!(case.run(2, 1e9).iter().all(|x| x.is_finite()));
}

#[test]
fn an_odd_query_spoils_its_row_and_an_odd_key_all() {
    let (dim, keys, tokens) = (5, 300, 20);
    for odd in [f32::NAN, f32::INFINITY] {
        let (mut case, _) = attention(tokens, keys, dim, false);
        case.inputs[0].1[7 * dim] = odd;
        for (row, got) in case.run(2, 1e9).chunks(dim).enumerate() {
            assert!(got.iter().all(|x| x.is_nan() == (row == 7)), "{odd}: {got:?} in {row}");
        }
    }
    let (mut case, _) = attention(tokens, keys, dim, false);
    case.inputs[1].1[290 * dim + 1] = f32::NAN;
    assert!(case.run(2, 1e9).iter().all(|x| x.is_nan()));
    // A token that is hidden spoils nothing.
    let (mut case, a) = attention(tokens, tokens, dim, true);
    let want = attended(&case, &a);
    case.inputs[1].1[12 * dim] = f32::NAN;
    for (i, (got, want)) in case.run(2, 1e9).iter().zip(&want).enumerate() {
        assert_eq!(got.is_nan(), i / dim >= 12);
        assert!(got.is_nan() || (f64::from(*got) - want).abs() < 1e-5);
    }
}

#[test]
fn a_key_at_minus_infinity_counts_for_nothing() {
    // The first block has no other.
    let (mut case, mut a) = attention(6, 300, 1, false);
    case.inputs[0].1.fill(1.0);
    case.inputs[1].1[..280].fill(f32::NEG_INFINITY);
    let got = case.run(2, 1e9);
    case.inputs[1].1.drain(..280);
    case.inputs[2].1.drain(..280);
    a.keys = 20;
    for (got, want) in got.iter().zip(attended(&case, &a)) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} for {want}");
    }
    // And where there is no other at all, nothing can be divided by.
    let (mut case, _) = attention(3, 300, 1, false);
    case.inputs[0].1.fill(1.0);
    case.inputs[1].1.fill(f32::NEG_INFINITY);
    assert!(case.run(2, 1e9).iter().all(|x| x.is_nan()));
}
