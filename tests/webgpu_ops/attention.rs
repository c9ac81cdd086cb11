//! Attention.

use crate::case::Case;
use tintype::graph::Op;

/// What an attention reads: one joined value, or three.
#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    d: usize,
    queries: usize,
    keys: usize,
    causal: bool,
    joined: bool,
    shared_keys: bool,
}

fn attention(seed: u32, a: Heads) {
    let Heads {
        heads,
        d,
        queries,
        keys,
        causal,
        joined,
        shared_keys,
    } = a;
    let (batch, width) = (2, heads * d);
    let mut case = Case::new(seed);
    let key_batch = if shared_keys { 1 } else { batch };
    let (offsets, c) = if joined {
        ([0, width, 2 * width], 3 * width)
    } else {
        ([0; 3], width)
    };
    let q = case.input(&[batch, queries, c]);
    let (k, v) = if joined {
        let value = case.inputs[0].clone();
        case.inputs.extend([value.clone(), value]);
        (q.clone(), q.clone())
    } else {
        (case.input(&[key_batch, keys, c]), case.input(&[key_batch, keys, c]))
    };
    let mut y = vec![0.0; batch * queries * width];
    for b in 0..batch {
        let kb = if shared_keys { 0 } else { b };
        for h in 0..heads {
            for i in 0..queries {
                let end = if causal { i + 1 } else { keys };
                let dot = |j: usize| -> f64 {
                    let q = &q[(b * queries + i) * c + offsets[0] + h * d..][..d];
                    let k = &k[(kb * keys + j) * c + offsets[1] + h * d..][..d];
                    q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * 4.0
                        / (d as f64).sqrt()
                        / 4.0
                };
                let scores: Vec<f64> = (0..end).map(dot).collect();
                let top = scores.iter().fold(f64::MIN, |m, &s| m.max(s));
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for (j, s) in scores.iter().enumerate() {
                    for n in 0..d {
                        let v = f64::from(v[(kb * keys + j) * c + offsets[2] + h * d + n]);
                        y[(b * queries + i) * width + h * d + n] += (s - top).exp() / total * v;
                    }
                }
            }
        }
    }
    case.check(
        Op::Attention {
            heads,
            head_dim: d,
            causal,
            offsets,
        },
        &y,
    );
}

#[test]
fn attention_of_all_widths() {
    let plain = Heads {
        heads: 2,
        d: 8,
        queries: 9,
        keys: 9,
        causal: false,
        joined: false,
        shared_keys: false,
    };
    for (i, d) in [4, 5, 6, 8, 16, 20, 32, 40, 48, 64, 80, 96, 128, 160, 512]
        .into_iter()
        .enumerate()
    {
        let heads = if d > 160 { 1 } else { 2 };
        attention(
            i as u32,
            Heads {
                heads,
                d,
                queries: 7,
                keys: 37,
                ..plain
            },
        );
        attention(
            i as u32,
            Heads {
                heads,
                d,
                queries: 35,
                keys: 35,
                causal: true,
                joined: true,
                ..plain
            },
        );
    }
    attention(
        1,
        Heads {
            queries: 70,
            keys: 77,
            shared_keys: true,
            ..plain
        },
    );
    attention(
        2,
        Heads {
            queries: 130,
            keys: 130,
            joined: true,
            ..plain
        },
    );
    attention(
        3,
        Heads {
            queries: 1,
            keys: 1,
            ..plain
        },
    );
    attention(
        4,
        Heads {
            heads: 1,
            d: 3,
            queries: 5,
            keys: 6,
            ..plain
        },
    );
}

#[test]
fn attention_of_many_heads() {
    // So much work that a thread takes two queries.
    for (i, d) in [3, 4, 8, 16, 32, 40].into_iter().enumerate() {
        attention(
            i as u32,
            Heads {
                heads: 40,
                d,
                queries: 131,
                keys: 77,
                causal: false,
                joined: false,
                shared_keys: i % 2 == 0,
            },
        );
    }
}
