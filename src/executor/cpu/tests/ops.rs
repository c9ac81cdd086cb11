use super::naive::{self, After, Attention, Conv, wide};
use super::*;
use crate::graph::{Activation, Epilogue, Prologue, Unary};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn epilogues() -> Vec<Epilogue> {
    let acts = [
        None,
        Some(Activation::Silu),
        Some(Activation::Gelu),
        Some(Activation::QuickGelu),
    ];
    let mut all = Vec::new();
    for row_bias in [false, true] {
        for residual in [false, true] {
            for (act, post) in [(0, 0), (1, 0), (0, 2), (3, 1)] {
                all.push(Epilogue {
                    row_bias: row_bias.then_some(0),
                    gate: false,
                    act: acts[act],
                    residual,
                    post: acts[post].map(Unary::Act),
                });
            }
        }
    }
    all.push(Epilogue {
        act: Some(Activation::Relu),
        post: Some(Unary::Act(Activation::Tanh)),
        ..Epilogue::default()
    });
    all.push(Epilogue {
        act: Some(Activation::GeluTanh),
        ..Epilogue::default()
    });
    all
}

fn plain_linear(epilogue: Epilogue) -> Op {
    Op::Linear {
        prologue: Prologue::default(),
        epilogue,
    }
}

/// A linear layer or convolution with every operand that its epilogue wants.
fn with_epilogue(op: Op, x: &[usize], out: &[usize], weight: Param, bias: bool, step: usize) -> (Case, [usize; 3]) {
    let epilogue = *op.epilogue().unwrap();
    let channels = *out.last().unwrap();
    let mut params = vec![weight];
    if bias {
        params.push(param(Pack::Vector, &[&[channels]], 7));
    }
    let schedule = [3, channels];
    let mut shapes = vec![x];
    if epilogue.row_bias.is_some() {
        shapes.push(&schedule);
    }
    if epilogue.residual {
        shapes.push(out);
    }
    let places = [
        params.len() - 1,
        usize::from(epilogue.row_bias.is_some()),
        shapes.len() - 1,
    ];
    let mut case = Case::new(op, &shapes, params);
    case.step = step;
    (case, places)
}

fn after(case: &Case, [bias, row, residual]: [usize; 3]) -> After<'_> {
    let epilogue = *case.op.epilogue().unwrap();
    let channels = case.params[0].parts.iter().map(|p| p.0[0]).sum::<usize>();
    After {
        epilogue,
        bias: (bias > 0).then(|| &case.params[bias].parts[0].1[..]),
        row: (row > 0).then(|| &case.inputs[row].1[case.step * channels..(case.step + 1) * channels]),
        residual: epilogue.residual.then(|| &case.inputs[residual].1[..]),
    }
}

fn joined(p: &Param) -> Vec<f32> {
    p.parts.iter().flat_map(|(_, v)| v.clone()).collect()
}

#[test]
fn linear_with_every_epilogue() {
    for (i, epilogue) in epilogues().into_iter().enumerate() {
        let weight = param(Pack::Matrix, &[&[5, 19], &[12, 19], &[1, 19]], 3);
        let (case, places) = with_epilogue(
            plain_linear(epilogue),
            &[2, 11, 19],
            &[2, 11, 18],
            weight,
            i % 3 > 0,
            i % 3,
        );
        case.check(&naive::linear(
            &case.inputs[0].1,
            &joined(&case.params[0]),
            19,
            &after(&case, places),
        ));
    }
}

#[test]
fn linear_of_one_row_and_of_many_tiles() {
    for (rows, k, n) in [(1, 33, 70), (3, 1, 1), (700, 300, 2501), (40_000, 9, 40)] {
        let weight = param(Pack::Matrix, &[&[n, k]], 3);
        let epilogue = Epilogue {
            residual: true,
            ..Epilogue::default()
        };
        let (case, places) = with_epilogue(plain_linear(epilogue), &[rows, k], &[rows, n], weight, true, 0);
        case.check(&naive::linear(
            &case.inputs[0].1,
            &joined(&case.params[0]),
            k,
            &after(&case, places),
        ));
    }
}

fn conv(c: &Conv, epilogue: Epilogue, bias: bool) {
    let ([b, h, w, ci], [kh, kw], [t, l, d, r]) = (c.x, c.kernel, c.padding);
    let [hs, ws] = c.upsample.unwrap_or([h, w]);
    let out = [
        b,
        (hs + t + d - kh) / c.stride + 1,
        (ws + l + r - kw) / c.stride + 1,
        c.co,
    ];
    let op = Op::Conv2d {
        kernel: c.kernel,
        stride: c.stride,
        padding: c.padding,
        upsample: c.upsample,
        prologue: Prologue::default(),
        epilogue,
    };
    let weight = param(Pack::Conv, &[&[c.co, ci, kh, kw]], 5);
    let (case, places) = with_epilogue(op, &c.x, &out, weight, bias, 1);
    case.check(&naive::conv(
        c,
        &case.inputs[0].1,
        &case.params[0].parts[0].1,
        &after(&case, places),
    ));
}

#[test]
fn conv_with_every_padding_stride_and_scale() {
    for kernel in [[1, 1], [3, 3], [2, 3], [1, 4]] {
        for stride in [1, 2, 3] {
            for padding in [[0; 4], [1; 4], [0, 0, 1, 1], [2, 0, 3, 5]] {
                for upsample in [None, Some([14, 12]), Some([9, 11]), Some([5, 4])] {
                    let c = Conv {
                        x: [2, 7, 6, 3],
                        co: 5,
                        kernel,
                        stride,
                        padding,
                        upsample,
                    };
                    conv(&c, Epilogue::default(), true);
                }
            }
        }
    }
}

#[test]
fn conv_with_every_epilogue() {
    for (i, epilogue) in epilogues().into_iter().enumerate() {
        for kernel in [[1, 1], [3, 3]] {
            let padding = [kernel[0] / 2; 4];
            let c = Conv {
                x: [2, 5, 4, 8],
                co: 7,
                kernel,
                stride: 1,
                padding,
                upsample: None,
            };
            conv(&c, epilogue, i % 2 > 0);
        }
    }
}

#[test]
fn conv_in_many_tiles() {
    let epilogue = Epilogue {
        residual: true,
        row_bias: Some(0),
        ..Epilogue::default()
    };
    for (x, co) in [([1, 65, 61, 40], 3), ([2, 9, 11, 300], 150), ([1, 200, 190, 3], 17)] {
        let c = Conv {
            x,
            co,
            kernel: [3, 3],
            stride: 1,
            padding: [1; 4],
            upsample: None,
        };
        conv(&c, epilogue, true);
    }
}

#[test]
fn a_kernel_wholly_beside_the_image_sees_zeros() {
    let c = Conv {
        x: [1, 2, 2, 2],
        co: 3,
        kernel: [2, 2],
        stride: 2,
        padding: [5, 6, 7, 8],
        upsample: None,
    };
    conv(&c, Epilogue::default(), true);
}

#[test]
fn group_norm_alone_and_with_an_activation() {
    for (shape, groups) in [
        (&[2, 5, 7, 12][..], 3),
        (&[1, 70, 66, 64], 32),
        (&[3, 10, 6], 6),
        (&[1, 1, 1, 8], 1),
    ] {
        for act in [None, Some(Activation::Silu)] {
            let channels = *shape.last().unwrap();
            let affine = param(Pack::Vector, &[&[channels], &[channels]], 9);
            let case = Case::new(Op::GroupNorm { groups, eps: 1e-5, act }, &[shape], vec![affine]);
            let rows = shape[1..shape.len() - 1].iter().product();
            let (x, affine) = (&case.inputs[0].1, joined(&case.params[0]));
            let want = naive::norm(x, channels, rows, channels / groups, f64::from(1e-5f32), &affine);
            case.check(
                &want
                    .iter()
                    .map(|&v| act.map_or(v, |a| naive::act(a, v)))
                    .collect::<Vec<_>>(),
            );
        }
    }
}

#[test]
fn norms_of_values_far_from_zero() {
    // In f32 the mean of the squares less the square of the mean would have no digit left.
    for offset in [300.0, -4096.0] {
        let mut group = Case::new(
            Op::GroupNorm {
                groups: 4,
                eps: 1e-6,
                act: None,
            },
            &[&[1, 40, 30, 16]],
            vec![param(Pack::Vector, &[&[16], &[16]], 9)],
        );
        group.inputs[0].1.iter_mut().for_each(|v| *v += offset);
        let (x, affine) = (&group.inputs[0].1, joined(&group.params[0]));
        let want = naive::norm(x, 16, 1200, 4, f64::from(1e-6f32), &affine);
        // What the mean itself is rounded by, in units of the deviation.
        let bound = 1e-6 + f64::from(offset.abs()) * 6e-8 * 2.0;
        for (got, want) in group.run(2, 1e9).iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < bound, "{got} for {want}");
        }
    }
}

#[test]
fn layer_norm_of_odd_widths() {
    for shape in [&[1, 1, 5][..], &[2, 77, 768], &[300, 1023]] {
        let channels = *shape.last().unwrap();
        let affine = param(Pack::Vector, &[&[channels], &[channels]], 9);
        let case = Case::new(Op::LayerNorm { eps: 1e-5 }, &[shape], vec![affine]);
        let want = naive::norm(
            &case.inputs[0].1,
            channels,
            1,
            channels,
            f64::from(1e-5f32),
            &joined(&case.params[0]),
        );
        case.check(&want);
    }
}

#[test]
fn attention_of_three_values_and_of_one() {
    for (batch, key_batch, tokens, keys, heads, head_dim, causal) in [
        (1, 1, 5, 5, 2, 4, true),
        (2, 2, 77, 77, 3, 8, true),
        (3, 1, 9, 77, 2, 5, false),
        (2, 2, 13, 4, 1, 7, false),
        (1, 1, 1500, 1500, 2, 10, false),
        (1, 1, 1300, 1300, 1, 3, true),
    ] {
        let a = Attention {
            batch,
            tokens,
            keys,
            key_batch,
            heads,
            head_dim,
            causal,
            offsets: [1, 0, 2],
        };
        let width = heads * head_dim;
        let op = Op::Attention {
            heads,
            head_dim,
            causal,
            offsets: a.offsets,
        };
        let (cq, ck, cv) = (width + 1, width, width + 4);
        let shapes = [&[batch, tokens, cq][..], &[key_batch, keys, ck], &[key_batch, keys, cv]];
        let mut case = Case::new(op, &shapes, vec![]);
        // Sharper than what small numbers give.
        case.inputs[0].1.iter_mut().for_each(|v| *v *= 6.0);
        let operand = |i: usize, c: usize| (&case.inputs[i].1[..], c);
        case.check(&naive::attention(&a, [operand(0, cq), operand(1, ck), operand(2, cv)]));
    }
    let (batch, tokens, heads, head_dim) = (2, 21, 4, 6);
    let width = heads * head_dim;
    let offsets = [0, width, 2 * width];
    let mut case = Case::new(
        Op::Attention {
            heads,
            head_dim,
            causal: false,
            offsets,
        },
        &[&[batch, tokens, 3 * width]],
        vec![],
    );
    // One value three times is an operand of the graph, so the inputs are equal here.
    let one = case.inputs[0].clone();
    case.inputs = vec![one.clone(), one.clone(), one];
    let a = Attention {
        batch,
        tokens,
        keys: tokens,
        key_batch: batch,
        heads,
        head_dim,
        causal: false,
        offsets,
    };
    case.check(&naive::attention(
        &a,
        [0, 1, 2].map(|i| (&case.inputs[i].1[..], 3 * width)),
    ));
}

#[test]
fn embedding_adds_positions() {
    let params = vec![param(Pack::Table, &[&[50, 6]], 1), param(Pack::Table, &[&[9, 6]], 2)];
    let mut case = Case::new(Op::Embedding, &[&[2, 7]], params);
    let ids: Vec<u32> = (0..14).map(|i| (i * 31) % 50).collect();
    let (table, positions) = (&case.params[0].parts[0].1, &case.params[1].parts[0].1);
    let sum = |i: usize| {
        let (from, place) = (ids[i / 6] as usize * 6 + i % 6, i / 6 % 7 * 6 + i % 6);
        f64::from(table[from]) + f64::from(positions[place])
    };
    let want: Vec<f64> = (0..14 * 6).map(sum).collect();
    case.ids = Some(ids);
    case.check(&want);
}

#[test]
fn timestep_embedding_both_ways() {
    // Several numbers a row lie side by side, which is the same memory.
    let shapes = [&[3][..], &[1, 3], &[3, 1]];
    for ((flip_sin_to_cos, freq_shift), shape) in [(true, 0.0), (false, 1.0), (true, 1.0)].into_iter().zip(shapes) {
        let mut case = Case::new(
            Op::TimestepEmbedding {
                dim: 10,
                flip_sin_to_cos,
                freq_shift,
            },
            &[shape],
            vec![],
        );
        case.inputs[0].1 = vec![0.0, 31.0, 2.5];
        let mut want = Vec::new();
        for t in &case.inputs[0].1 {
            let angles = (0..5).map(|i| {
                let exponent = -(10_000f64.ln()) * f64::from(i) / (5.0 - f64::from(freq_shift));
                f64::from(*t) * exponent.exp()
            });
            let (sin, cos): (Vec<f64>, Vec<f64>) = angles.map(f64::sin_cos).unzip();
            want.extend(if flip_sin_to_cos {
                [cos, sin].concat()
            } else {
                [sin, cos].concat()
            });
        }
        case.check(&want);
    }
}

#[test]
fn element_by_element() {
    let affine = Unary::Affine { mul: 0.5, add: -2.0 };
    let clamp = Unary::Clamp { min: -0.25, max: 0.5 };
    type Function = fn(f64) -> f64;
    let cases: [(Unary, Function); 4] = [
        (affine, |v| v * 0.5 - 2.0),
        (clamp, |v| v.clamp(-0.25, 0.5)),
        (Unary::Act(Activation::Tanh), f64::tanh),
        (Unary::Act(Activation::Gelu), naive::gelu),
    ];
    for (unary, f) in cases {
        let case = Case::new(Op::Unary(unary), &[&[3, 50_001]], vec![]);
        case.check(&wide(&case.inputs[0].1).into_iter().map(f).collect::<Vec<_>>());
    }
}

#[test]
fn not_a_number_stays_what_it_is() {
    for unary in [
        Unary::Clamp { min: -1.0, max: 1.0 },
        Unary::Affine { mul: 2.0, add: 1.0 },
    ] {
        let mut case = Case::new(Op::Unary(unary), &[&[3]], vec![]);
        case.inputs[0].1 = vec![f32::NAN, 0.5, f32::INFINITY];
        let got = case.run(2, 1e9);
        assert!(got[0].is_nan() && !got[1].is_nan(), "{unary:?}");
    }
}

#[test]
fn geglu_adds_concat_and_upsample() {
    let case = Case::new(Op::Geglu, &[&[2, 5, 14]], vec![]);
    let rows = wide(&case.inputs[0].1);
    let gated = |row: &[f64]| (0..7).map(|c| row[c] * naive::gelu(row[7 + c])).collect::<Vec<_>>();
    case.check(&rows.chunks(14).flat_map(gated).collect::<Vec<_>>());

    let case = Case::new(Op::Add, &[&[2, 5, 3], &[2, 5, 3]], vec![]);
    let (a, b) = (wide(&case.inputs[0].1), wide(&case.inputs[1].1));
    case.check(&a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>());

    for (rows, step) in [(1, 3), (4, 3), (4, 0)] {
        let mut case = Case::new(Op::AddRow, &[&[2, 5, 3], &[rows, 3]], vec![]);
        case.step = step;
        let (a, b) = (wide(&case.inputs[0].1), wide(&case.inputs[1].1));
        let row = if rows == 1 { 0 } else { step };
        case.check(
            &a.iter()
                .enumerate()
                .map(|(i, a)| a + b[row * 3 + i % 3])
                .collect::<Vec<_>>(),
        );
    }

    let case = Case::new(Op::Concat, &[&[2, 4, 3], &[2, 4, 5]], vec![]);
    let (a, b) = (wide(&case.inputs[0].1), wide(&case.inputs[1].1));
    case.check(
        &a.chunks(3)
            .zip(b.chunks(5))
            .flat_map(|(a, b)| [a, b].concat())
            .collect::<Vec<_>>(),
    );

    for size in [[6, 8], [5, 9], [2, 1]] {
        let case = Case::new(Op::Upsample { size }, &[&[2, 3, 4, 2]], vec![]);
        let x = wide(&case.inputs[0].1);
        let mut want = Vec::new();
        for (b, y) in (0..2).flat_map(|b| (0..size[0]).map(move |y| (b, y))) {
            for i in 0..size[1] {
                let at = ((b * 3 + y * 3 / size[0]) * 4 + i * 4 / size[1]) * 2;
                want.extend(&x[at..at + 2]);
            }
        }
        case.check(&want);
    }
}

/// What a layer reads by its prologue, from the operands of the case.
fn read_by(case: &Case, p: Prologue) -> Vec<f32> {
    let (first, second) = (&case.inputs[0], &case.inputs[usize::from(p.joined)]);
    let c = first.0.last().unwrap();
    let rows = first.1.chunks(*c).zip(second.1.chunks(*second.0.last().unwrap()));
    let mut x: Vec<f32> = match p.joined {
        true => rows.flat_map(|(a, b)| [a, b].concat()).collect(),
        false => first.1.clone(),
    };
    if p.norm {
        let (shape, s) = &case.inputs[p.inputs() - 1];
        let (batch, c) = (shape[0], shape[1] / 3);
        let picture = x.len() / batch;
        for (i, x) in x.iter_mut().enumerate() {
            let at = i / picture * 3 * c + i % c;
            *x = (*x - s[at]) * s[at + c] + s[at + 2 * c];
        }
    }
    x.into_iter()
        .map(|x| p.act.map_or(x, |a| naive::act(a, f64::from(x)) as f32))
        .collect()
}

fn prologues() -> Vec<Prologue> {
    let mut all = Vec::new();
    for (joined, norm) in [(true, false), (false, true), (true, true)] {
        let act = Some(Activation::Silu);
        all.push(Prologue {
            joined,
            norm,
            act: None,
        });
        all.push(Prologue { joined, norm, act });
    }
    all
}

/// The shapes of what stands for a value of `shape`, and of its statistics.
fn operands_of(p: Prologue, shape: &[usize]) -> Vec<Vec<usize>> {
    let (c, of) = (*shape.last().unwrap(), |c: usize| {
        [&shape[..shape.len() - 1], &[c]].concat()
    });
    let mut all = if p.joined { vec![of(2), of(c - 2)] } else { vec![of(c)] };
    if p.norm {
        all.push(vec![shape[0], 3 * c]);
    }
    all
}

#[test]
fn layers_that_join_scale_and_activate() {
    let after = After {
        epilogue: Epilogue::default(),
        bias: None,
        row: None,
        residual: None,
    };
    for prologue in prologues() {
        for (shape, n) in [([2, 11, 19], 18), ([1, 700, 40], 600), ([3, 1, 5], 1)] {
            let shapes = operands_of(prologue, &shape);
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            let epilogue = Epilogue::default();
            let op = Op::Linear { prologue, epilogue };
            let case = Case::new(op, &shapes, vec![param(Pack::Matrix, &[&[n, shape[2]]], 3)]);
            let x = read_by(&case, prologue);
            case.check(&naive::linear(&x, &joined(&case.params[0]), shape[2], &after));
        }
        let shapes = [
            ([2, 5, 4, 8], 7, 1, [1; 4], None),
            ([2, 7, 6, 5], 7, 2, [0, 0, 1, 1], None),
            ([3, 4, 3, 6], 7, 1, [2, 0, 3, 5], Some([7, 6])),
            ([2, 40, 90, 40], 7, 1, [1; 4], None),
            // Of as many channels as are made in squares.
            ([2, 21, 9, 20], 18, 1, [1; 4], None),
            ([2, 9, 70, 16], 16, 1, [1; 4], Some([18, 140])),
            ([3, 13, 150, 20], 20, 1, [2, 0, 0, 1], None),
        ];
        for (x, co, stride, padding, upsample) in shapes {
            let c = Conv {
                x,
                co,
                kernel: [3, 3],
                stride,
                padding,
                upsample,
            };
            let op = Op::Conv2d {
                kernel: c.kernel,
                stride,
                padding,
                upsample,
                prologue,
                epilogue: Epilogue::default(),
            };
            let shapes = operands_of(prologue, &x);
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            let case = Case::new(op, &shapes, vec![param(Pack::Conv, &[&[co, x[3], 3, 3]], 5)]);
            let x = read_by(&case, prologue);
            case.check(&naive::conv(&c, &x, &case.params[0].parts[0].1, &after));
        }
    }
}

#[test]
fn gates_in_the_layer_that_makes_them() {
    for (rows, k, n, bias) in [(5, 19, 7, true), (1, 3, 1, false), (700, 300, 1000, true)] {
        let gate = Epilogue {
            gate: true,
            ..Epilogue::default()
        };
        let mut params = vec![param(Pack::Gated, &[&[2 * n, k]], 3)];
        if bias {
            params.push(param(Pack::Vector, &[&[2 * n]], 7));
        }
        let case = Case::new(plain_linear(gate), &[&[rows, k]], params);
        let after = After {
            epilogue: Epilogue::default(),
            bias: bias.then(|| &case.params[1].parts[0].1[..]),
            row: None,
            residual: None,
        };
        let both = naive::linear(&case.inputs[0].1, &joined(&case.params[0]), k, &after);
        let gated = |row: &[f64]| (0..n).map(|c| row[c] * naive::gelu(row[n + c])).collect::<Vec<_>>();
        case.check(&both.chunks(2 * n).flat_map(gated).collect::<Vec<_>>());
    }
}

#[test]
fn statistics_of_one_value_and_of_two() {
    for (parts, batch, rows, groups) in [
        (vec![12], 2, 35, 3),
        (vec![5, 7], 2, 9, 3),
        (vec![64], 1, 4620, 32),
        (vec![3, 5], 3, 1, 8),
    ] {
        let c: usize = parts.iter().sum();
        let shapes: Vec<Vec<usize>> = parts.iter().map(|&own| vec![batch, rows, own]).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let affine = param(Pack::Vector, &[&[c], &[c]], 9);
        let case = Case::new(Op::GroupStatistics { groups, eps: 1e-5 }, &shapes, vec![affine]);
        let both = Prologue {
            joined: parts.len() > 1,
            ..Prologue::default()
        };
        let x = read_by(&case, both);
        let affine = joined(&case.params[0]);
        let want = naive::norm(&x, c, rows, c / groups, f64::from(1e-5f32), &affine);
        let got = case.run(2, 1e9);
        for (i, (x, want)) in x.iter().zip(&want).enumerate() {
            let at = i / (rows * c) * 3 * c + i % c;
            let found = f64::from(*x - got[at]) * f64::from(got[at + c]) + f64::from(got[at + 2 * c]);
            assert!((found - want).abs() < 2e-5, "{i}: {found} for {want}");
        }
    }
}
