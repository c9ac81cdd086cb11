//! What is asked of the executor itself: buffers, uploads, refusals, cancelling.

use crate::case::{ACTS, Case, Noise, bytes, executors, round};
use pollster::block_on;
use std::rc::Rc;
use tintype::cancel::CancelToken;
use tintype::executor::{Data, Executor, View, WeightDtype};
use tintype::graph::{Element, Epilogue, Graph, Op, Pack, Path, Plan, Prologue, Rate, Unary};

/// Runs a graph of one operation over values with a NaN in the middle and gives the result.
fn with_nan((gpu, make): (&Executor, fn(Graph) -> Plan), op: Op, params: bool) -> Vec<f32> {
    let mut case = Case::new(3);
    let mut x = case.noise.take(2 * 16 * 8);
    x[100] = f32::NAN;
    case.given(&[2, 16, 8], x);
    if params {
        case.param(Pack::Matrix, &[8, 8], WeightDtype::F32);
    }
    let inputs = vec![case.inputs[0].0; if matches!(op, Op::Attention { .. }) { 3 } else { 1 }];
    let value = case.graph.op(&Path::root(), op, &inputs, &case.params).unwrap();
    case.graph.output("y", value);
    case.graph.stand_half();
    let plan = Rc::new(make(case.graph.clone()));
    let (instance, weights) = case.prepare(gpu, &plan);
    block_on(gpu.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
    block_on(gpu.read(&gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap())).unwrap()
}

#[test]
fn nan_is_never_hidden() {
    let Some(executors) = executors() else { return };
    let plans = [Plan::new, Plan::in_halves];
    for gpu in executors
        .iter()
        .flat_map(|gpu| plans.map(|make| (gpu, make as fn(Graph) -> Plan)))
    {
        for kind in ACTS.into_iter().flatten() {
            let y = with_nan(gpu, Op::Unary(Unary::Act(kind)), false);
            assert!(y[100].is_nan(), "{kind:?} of NaN is {}", y[100]);
            let e = Epilogue {
                act: Some(kind),
                ..Default::default()
            };
            let y = with_nan(
                gpu,
                Op::Linear {
                    prologue: Prologue::default(),
                    epilogue: e,
                },
                true,
            );
            assert_eq!(
                y.iter().filter(|v| v.is_nan()).count(),
                8,
                "{kind:?}: one row of a layer is NaN"
            );
        }
        let y = with_nan(gpu, Op::Unary(Unary::Clamp { min: -1.0, max: 1.0 }), false);
        assert!(y[100].is_nan(), "clamped NaN is {}", y[100]);
        let op = Op::Attention {
            heads: 2,
            head_dim: 4,
            causal: false,
            offsets: [0; 3],
        };
        let y = with_nan(gpu, op, false);
        assert_eq!(
            y.iter().filter(|v| v.is_nan()).count(),
            64,
            "every query of that head sees NaN"
        );
    }
}

fn fill(gpu: &Executor, values: &[f32]) -> View {
    let buffer = block_on(gpu.buffer(values.len())).unwrap();
    let view = View {
        buffer,
        offset: 0,
        len: values.len(),
    };
    gpu.fill(&view, values).unwrap();
    view
}

#[test]
fn combinations_of_buffers() {
    let Some([gpu, _]) = executors() else { return };
    let mut noise = Noise(1);
    let (a, b) = (noise.take(2 * 1001), noise.take(1001));
    let (va, vb) = (fill(gpu, &a), fill(gpu, &b));
    let second = va.part(1, 2);
    let submits = gpu.submits();
    gpu.combine(
        &vb,
        &[(va.part(0, 2), 2.0), (second.clone(), -3.0), (vb.clone(), 0.5)],
        Some(1.25),
    )
    .unwrap();
    assert_eq!(gpu.submits(), submits + 1);
    let y = block_on(gpu.read(&vb)).unwrap();
    assert_eq!(gpu.submits(), submits + 2, "reading is one, too");
    for i in 0..1001 {
        let e = (2.0 * a[i] - 3.0 * a[1001 + i] + 0.5 * b[i]).clamp(-1.25, 1.25);
        assert!((y[i] - e).abs() < 1e-5, "element {i} is {}, not {e}", y[i]);
    }
    // Into part of a buffer, from the other part of the same one.
    gpu.combine(&second, &[(va.part(0, 2), 1.0)], None).unwrap();
    assert_eq!(
        block_on(gpu.read(&second)).unwrap(),
        a[..1001],
        "a copy within one buffer"
    );
    gpu.combine(&va.part(0, 2), &[], None).unwrap();
    assert_eq!(
        block_on(gpu.read(&va.part(0, 2))).unwrap(),
        vec![0.0; 1001],
        "no terms make zeros"
    );

    // Where a mask is not 0.
    let (values, mask) = (
        fill(gpu, &b),
        fill(gpu, &a.iter().map(|x| f32::from(*x > 0.0)).collect::<Vec<_>>()),
    );
    let (first, mask) = (va.part(0, 2), mask.part(1, 2));
    gpu.fill(&first, &a[1001..]).unwrap();
    gpu.combine_where(&mask, &values, &[(first.clone(), 2.0), (values.clone(), 1.0)])
        .unwrap();
    let y = block_on(gpu.read(&values)).unwrap();
    for i in 0..1001 {
        let x = a[1001 + i];
        let e = if x > 0.0 { 2.0 * x + b[i] } else { b[i] };
        assert!((y[i] - e).abs() < 1e-5, "masked element {i} is {}, not {e}", y[i]);
    }
    for mask in [&va, &values] {
        let refused = gpu.combine_where(mask, &values, &[(first.clone(), 1.0)]);
        assert_eq!(refused.unwrap_err().code(), "internal");
    }

    let nan = fill(gpu, &[f32::NAN, 9.0, -9.0]);
    gpu.combine(&nan, &[(nan.clone(), 1.0)], Some(1.0)).unwrap();
    let y = block_on(gpu.read(&nan)).unwrap();
    assert!(y[0].is_nan() && y[1..] == [1.0, -1.0], "clamped to {y:?}");

    let overlapping = View {
        offset: 1,
        len: 1000,
        ..va.clone()
    };
    let overlaps = gpu.combine(
        &overlapping,
        &[(
            View {
                offset: 0,
                ..overlapping.clone()
            },
            1.0,
        )],
        None,
    );
    assert_eq!(overlaps.unwrap_err().code(), "internal", "ranges that overlap");
    let beyond = View {
        offset: 2000,
        ..vb.clone()
    };
    assert_eq!(
        gpu.combine(&beyond, &[], None).unwrap_err().code(),
        "internal",
        "beyond the end"
    );
}

#[test]
fn joined_weights_arrive_in_any_order() {
    let Some([gpu, _]) = executors() else { return };
    for dtype in WeightDtype::ALL {
        let (k, widths) = (6, [3usize, 5, 2]);
        let mut noise = Noise(9);
        let parts: Vec<Vec<f32>> = widths
            .iter()
            .map(|n| noise.take(n * k).into_iter().map(|v| round(v, dtype)).collect())
            .collect();
        let x = noise.take(k);
        let mut graph = Graph::new();
        let input = graph.input("x", [1, k], Element::F32, Rate::Step);
        let names = ["q", "k", "v"];
        let param = graph.param(Pack::Matrix, names.iter().zip(widths).map(|(n, w)| (*n, vec![w, k])));
        let y = graph
            .op(
                &Path::root(),
                Op::Linear {
                    prologue: Prologue::default(),
                    epilogue: Epilogue::default(),
                },
                &[input],
                &[param],
            )
            .unwrap();
        graph.output("y", y);
        let plan = Rc::new(Plan::new(graph));
        let spec = plan.params[0].clone();
        let weights = block_on(gpu.allocate(&[(spec.clone(), dtype)])).unwrap();
        let instance = block_on(gpu.prepare(Rc::clone(&plan), 1)).unwrap();
        gpu.write(&instance, "x", 0, Data::F32(&x)).unwrap();
        for part in [2, 0] {
            gpu.upload(&weights, &spec, part, dtype, 0, &bytes(&parts[part], dtype))
                .unwrap();
        }
        let run = || block_on(gpu.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default()));
        let early = run().unwrap_err();
        assert!(
            early.code() == "internal" && early.message().contains("q+k+v"),
            "{early}"
        );
        gpu.upload(&weights, &spec, 1, dtype, 0, &bytes(&parts[1], dtype))
            .unwrap();
        run().unwrap();
        let y = block_on(gpu.read(&gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap())).unwrap();
        let rows = parts.iter().flat_map(|p| p.chunks(k));
        for (y, row) in y.iter().zip(rows) {
            let e: f32 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert!((y - e).abs() < 1e-4, "{y} is not {e}");
        }
    }
}

#[test]
fn too_much_memory_is_refused_with_figures() {
    let Some([gpu, _]) = executors() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 1 << 15, 1 << 15], Element::F32, Rate::Step);
    graph.output("y", x);
    let error = block_on(gpu.prepare(Rc::new(Plan::new(graph)), 1)).err().unwrap();
    assert_eq!(error.code(), "out-of-memory", "{error}");
    assert!(error.message().contains("4294967296 bytes"), "{error}");
    let mut graph = Graph::new();
    let param = graph.param(Pack::Table, [("huge", vec![1 << 20, 1 << 14])]);
    let error = block_on(gpu.allocate(&[(graph.params()[param].clone(), WeightDtype::F32)]))
        .err()
        .unwrap();
    assert!(
        error.code() == "out-of-memory" && error.message().contains("huge"),
        "{error}"
    );
    // The device still works.
    assert_eq!(
        block_on(gpu.read(&fill(gpu, &[1.0]))).unwrap(),
        [1.0],
        "after a refusal"
    );
}

#[test]
fn cancelling_and_wrong_calls() {
    let Some([gpu, _]) = executors() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4], Element::F32, Rate::Step);
    let rows = graph.input("rows", [3, 4], Element::F32, Rate::Schedule);
    let y = graph.op(&Path::root(), Op::AddRow, &[x, rows], &[]).unwrap();
    graph.output("y", y);
    let instance = block_on(gpu.prepare(Rc::new(Plan::new(graph)), 2)).unwrap();
    let weights = block_on(gpu.allocate(&[])).unwrap();
    let cancel = CancelToken::default();
    let run = |context, step| block_on(gpu.run(&instance, &weights, Rate::Step, context, step, &cancel));
    assert_eq!(run(0, 3).unwrap_err().code(), "internal", "a step beyond the schedule");
    assert_eq!(run(2, 0).unwrap_err().code(), "internal", "a context that is not there");
    run(1, 2).unwrap();
    cancel.cancel();
    assert_eq!(run(0, 0).unwrap_err().code(), "cancelled", "after cancelling");
    assert_eq!(
        gpu.write(&instance, "x", 0, Data::F32(&[0.0; 5])).unwrap_err().code(),
        "internal",
        "too long"
    );
    assert_eq!(
        gpu.write(&instance, "x", 0, Data::U32(&[0; 4])).unwrap_err().code(),
        "internal",
        "wrong type"
    );
    assert_eq!(
        gpu.write(&instance, "z", 0, Data::F32(&[])).unwrap_err().code(),
        "internal",
        "no such input"
    );
}

#[test]
fn contexts_are_apart() {
    let Some([gpu, _]) = executors() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4], Element::F32, Rate::Step);
    let double = Op::Unary(Unary::Affine { mul: 2.0, add: 0.0 });
    let y = graph.op(&Path::root(), double, &[x], &[]).unwrap();
    graph.output("y", y);
    let plan = Rc::new(Plan::new(graph));
    let instance = block_on(gpu.prepare(Rc::clone(&plan), 2)).unwrap();
    let weights = block_on(gpu.allocate(&[])).unwrap();
    for context in 0..2 {
        gpu.write(&instance, "x", context, Data::F32(&[1.0 + context as f32; 4]))
            .unwrap();
    }
    for context in 0..2 {
        block_on(gpu.run(&instance, &weights, Rate::Step, context, 0, &CancelToken::default())).unwrap();
    }
    for context in 0..2 {
        let view = gpu.view(&instance, plan.output("y").unwrap(), context).unwrap();
        assert_eq!(
            block_on(gpu.read(&view)).unwrap(),
            [2.0 + 2.0 * context as f32; 4],
            "context {context}"
        );
    }
}
