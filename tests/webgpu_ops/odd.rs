//! Every operation in sizes that fill no tile, in every way that it may run, against the CPU executor.

use crate::case::{ACTS, Case, epilogues};
use tintype::executor::WeightDtype;
use tintype::graph::{Element, Epilogue, Op, Pack, Prologue, Rate, Unary};

const SIZES: [usize; 5] = [1, 3, 5, 77, 1023];

/// Multiplications of a case at most: all of these are run in some ten ways by a processor.
const MOST: usize = 4_000_000;

fn pairs() -> impl Iterator<Item = [usize; 2]> {
    SIZES.into_iter().flat_map(|a| SIZES.map(|b| [a, b]))
}

/// The operands that an epilogue of an output of this shape wants, but for the bias.
fn operands(case: &mut Case, e: Epilogue, out: &[usize]) {
    let n = *out.last().unwrap();
    if e.row_bias.is_some() {
        case.input(&[3, n + 5]);
    }
    if e.residual {
        case.input(out);
    }
}

#[test]
fn linear_layers() {
    let all = pairs().flat_map(|[m, k]| SIZES.map(|n| [m, k, n]));
    for (i, [m, k, n]) in all.filter(|size| size.iter().product::<usize>() <= MOST).enumerate() {
        let e = epilogues().nth(i % 8).unwrap();
        let mut case = Case::new(i as u32);
        case.step = i % 3;
        case.input(&[1, m, k]);
        case.param(Pack::Matrix, &[n, k], WeightDtype::ALL[i % 5]);
        if i % 2 == 0 {
            case.param(Pack::Vector, &[n], WeightDtype::F32);
        }
        operands(&mut case, e, &[1, m, n]);
        case.check_with_cpu(Op::Linear {
            prologue: Prologue::default(),
            epilogue: e,
        });
    }
}

#[test]
fn convolutions() {
    let all = pairs().flat_map(|[ci, co]| [[1, 1], [3, 5], [5, 77], [77, 3]].map(|[h, w]| [h, w, ci, co]));
    let few = all.filter(|size| 9 * size.iter().product::<usize>() <= MOST);
    for (i, [h, w, ci, co]) in few.enumerate() {
        let e = epilogues().nth(i % 8).unwrap();
        let stride = 1 + i % 2;
        let mut case = Case::new(i as u32);
        case.step = i % 3;
        case.input(&[1, h, w, ci]);
        case.param(Pack::Conv, &[co, ci, 3, 3], WeightDtype::ALL[i % 5]);
        case.param(Pack::Vector, &[co], WeightDtype::F32);
        operands(&mut case, e, &[1, h.div_ceil(stride), w.div_ceil(stride), co]);
        case.check_with_cpu(Op::Conv2d {
            kernel: [3, 3],
            stride,
            padding: [1; 4],
            upsample: None,
            prologue: Prologue::default(),
            epilogue: e,
        });
    }
}

#[test]
fn norms() {
    for (i, [pixels, c]) in pairs().enumerate() {
        let with = |i: usize| {
            let mut case = Case::new(i as u32);
            case.input(&[1, pixels, c]);
            case.param(Pack::Vector, &[2 * c], WeightDtype::F32);
            case
        };
        // One of a channel is its shift alone.
        if c > 1 {
            with(i).check_with_cpu(Op::LayerNorm { eps: 1e-5 });
        }
        for groups in [1, 3, 11]
            .into_iter()
            .filter(|groups| c % groups == 0 && pixels * c / groups > 1)
        {
            let eps = 1e-5;
            with(i).check_with_cpu(Op::GroupStatistics { groups, eps });
            let act = ACTS[i % 2];
            with(i).check_with_cpu(Op::GroupNorm { groups, eps, act });
        }
    }
}

#[test]
fn attention() {
    for (i, [queries, keys]) in pairs().enumerate() {
        for (heads, head_dim) in [(1, 1), (3, 5), (1, 77), (2, 40)] {
            if 2 * queries * keys * heads * head_dim > MOST {
                continue;
            }
            let mut case = Case::new(i as u32);
            for tokens in [queries, keys, keys] {
                case.input(&[1, tokens, heads * head_dim]);
            }
            case.check_with_cpu(Op::Attention {
                heads,
                head_dim,
                causal: queries == keys && i % 2 == 0,
                offsets: [0; 3],
            });
        }
    }
}

#[test]
fn what_goes_element_by_element() {
    for (i, [rows, c]) in pairs().enumerate() {
        let mut seed = i as u32;
        let mut with = |shapes: &[&[usize]]| {
            seed += 100;
            let mut case = Case::new(seed);
            shapes.iter().for_each(|shape| drop(case.input(shape)));
            case
        };
        let x = [1, rows, c];
        let unary = match ACTS[i % 7] {
            Some(act) => Unary::Act(act),
            None => Unary::Clamp { min: -0.5, max: 0.25 },
        };
        with(&[&x]).check_with_cpu(Op::Unary(unary));
        with(&[&x, &x]).check_with_cpu(Op::Add);
        with(&[&x, &[1, c]]).check_with_cpu(Op::AddRow);
        with(&[&[1, rows, 2 * c]]).check_with_cpu(Op::Geglu);
        with(&[&x, &[1, rows, 3]]).check_with_cpu(Op::Concat);
        with(&[&[1, rows, 3, c.min(77)]]).check_with_cpu(Op::Upsample { size: [2 * rows, 5] });
    }
}

#[test]
fn embeddings() {
    for (i, [tokens, c]) in pairs().enumerate() {
        let mut case = Case::new(i as u32);
        let ids: Vec<u32> = (0..tokens).map(|i| (i * 17 % 50) as u32).collect();
        let value = case.graph.input("ids", [1, tokens], Element::U32, Rate::Step);
        case.inputs.push((value, "ids".into(), Vec::new()));
        case.ids.insert("ids".into(), ids);
        case.param(Pack::Table, &[50, c], WeightDtype::ALL[i % 5]);
        case.param(Pack::Table, &[tokens, c], WeightDtype::F32);
        case.check_with_cpu(Op::Embedding);
    }
}
