use super::*;
use crate::graph::{Activation, Epilogue, Prologue, Unary};
use std::future::Future;
use std::task::{Context, Poll, Waker};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn cpu() -> Executor {
    Executor::Cpu(Cpu::new())
}

fn code<T>(result: Result<T>) -> &'static str {
    result.err().map_or("none", |e| e.code())
}

/// A chain of `n` activations over `len` values.
fn chain(n: usize, len: usize) -> Rc<Plan> {
    let mut g = Graph::new();
    let mut x = g.input("x", [1, len], Element::F32, Rate::Step);
    for _ in 0..n {
        x = g
            .op(
                &Path::root().pp("tanh"),
                Op::Unary(Unary::Act(Activation::Tanh)),
                &[x],
                &[],
            )
            .unwrap();
    }
    g.output("y", x);
    Rc::new(Plan::new(g))
}

#[test]
fn cancelling_stops_between_two_slices() {
    let executor = Executor::Cpu(Cpu::with(2, 0.0));
    let plan = chain(5, 10);
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    let weights = pollster::block_on(executor.allocate(&[])).unwrap();
    executor.write(&instance, "x", 0, Data::F32(&[1.0; 10])).unwrap();
    let y = executor.view(&instance, plan.output("y").unwrap(), 0).unwrap();
    let cancel = CancelToken::default();
    {
        let mut run = Box::pin(executor.run(&instance, &weights, Rate::Step, 0, 0, &cancel));
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_pending());
        assert!(run.as_mut().poll(&mut context).is_pending());
        cancel.cancel();
        let Poll::Ready(result) = run.as_mut().poll(&mut context) else {
            panic!("goes on");
        };
        assert_eq!(code(result), "cancelled");
    }
    // The last node did not run.
    assert_eq!(pollster::block_on(executor.read(&y)).unwrap(), [0.0; 10]);
    // Not even a first slice once it is asked to stop; and another run works.
    assert_eq!(
        code(pollster::block_on(executor.run(
            &instance,
            &weights,
            Rate::Step,
            0,
            0,
            &cancel
        ))),
        "cancelled"
    );
    pollster::block_on(executor.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
    let want = (0..5).fold(1f64, |x, _| x.tanh()) as f32;
    assert!((pollster::block_on(executor.read(&y)).unwrap()[9] - want).abs() < 1e-6);
}

#[test]
fn a_long_node_is_cut() {
    // Counts the pauses of one product whose units are more than one.
    let case = Case::new(
        Op::Linear {
            prologue: Prologue::default(),
            epilogue: Epilogue::default(),
        },
        &[&[2000, 256]],
        vec![param(Pack::Matrix, &[&[1024, 256]], 1)],
    );
    let executor = Executor::Cpu(Cpu::with(2, 0.0));
    let plan = Rc::new(case.plan());
    let weights = pollster::block_on(upload(&executor, &plan, &case.params));
    let instance = pollster::block_on(executor.prepare(plan, 1)).unwrap();
    let cancel = CancelToken::default();
    let mut run = Box::pin(executor.run(&instance, &weights, Rate::Step, 0, 0, &cancel));
    let mut context = Context::from_waker(Waker::noop());
    let mut pauses = 0;
    while run.as_mut().poll(&mut context).is_pending() {
        pauses += 1;
    }
    assert!(pauses >= 2 * 2000 * 256 * 1024 / (100 << 20), "{pauses} pauses");
}

#[test]
fn contexts_have_their_own_inputs_and_outputs() {
    let (executor, plan) = (cpu(), chain(2, 4));
    let instance = pollster::block_on(executor.prepare(plan.clone(), 2)).unwrap();
    let weights = pollster::block_on(executor.allocate(&[])).unwrap();
    for context in 0..2 {
        executor
            .write(&instance, "x", context, Data::F32(&[context as f32; 4]))
            .unwrap();
    }
    let cancel = CancelToken::default();
    for context in [1, 0] {
        pollster::block_on(executor.run(&instance, &weights, Rate::Step, context, 0, &cancel)).unwrap();
    }
    let y = |context| executor.view(&instance, plan.output("y").unwrap(), context).unwrap();
    assert_eq!(pollster::block_on(executor.read(&y(0))).unwrap(), [0.0; 4]);
    assert!((pollster::block_on(executor.read(&y(1))).unwrap()[0] - 1f32.tanh().tanh()).abs() < 1e-6);
    assert_eq!(code(executor.view(&instance, Value(0), 2)), "internal");
}

#[test]
fn combine_adds_clamps_and_takes_views() {
    let executor = cpu();
    let buffer = pollster::block_on(executor.buffer(10_000)).unwrap();
    let all = View {
        buffer: buffer.clone(),
        offset: 0,
        len: 10_000,
    };
    let values: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
    executor.fill(&all, &values).unwrap();
    let (a, b) = (all.part(0, 2), all.part(1, 2));
    executor
        .combine(&a, &[(a.clone(), 2.0), (b.clone(), -1.0)], Some(3000.0))
        .unwrap();
    let got = pollster::block_on(executor.read(&all)).unwrap();
    for i in 0..5000 {
        assert_eq!(got[i], (i as f32 * 2.0 - (i as f32 + 5000.0)).clamp(-3000.0, 3000.0));
        assert_eq!(got[5000 + i], i as f32 + 5000.0);
    }
    executor.combine(&b, &[], None).unwrap();
    assert_eq!(pollster::block_on(executor.read(&b)).unwrap(), [0.0; 5000]);
    executor.fill(&b, &[f32::NAN; 5000]).unwrap();
    executor.combine(&b, &[(b.clone(), 1.0)], Some(1.0)).unwrap();
    assert!(pollster::block_on(executor.read(&b)).unwrap()[4999].is_nan());
}

#[test]
fn combine_writes_where_a_mask_says() {
    let executor = cpu();
    let filled = |values: &[f32]| {
        let buffer = pollster::block_on(executor.buffer(values.len())).unwrap();
        let view = View {
            buffer,
            offset: 0,
            len: values.len(),
        };
        executor.fill(&view, values).unwrap();
        view
    };
    // Over more than one chunk.
    let values: Vec<f32> = (0..9000).map(|i| i as f32).collect();
    let mask: Vec<f32> = (0..18_000).map(|i| [0.0, 1.0, -2.0][i % 3]).collect();
    let (to, mask) = (filled(&values), filled(&mask));
    executor
        .combine_where(&mask.part(1, 2), &to, &[(to.clone(), 10.0)])
        .unwrap();
    let got = pollster::block_on(executor.read(&to)).unwrap();
    for (i, got) in got.iter().enumerate() {
        assert_eq!(*got, if i % 3 == 0 { i as f32 } else { 10.0 * i as f32 });
    }
    assert_eq!(
        code(executor.combine_where(&mask, &to, &[(to.clone(), 1.0)])),
        "internal"
    );
}

#[test]
fn combine_writes_a_plans_input() {
    let (executor, plan) = (cpu(), chain(1, 4));
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    let x = executor.view(&instance, plan.input("x").unwrap(), 0).unwrap();
    let buffer = pollster::block_on(executor.buffer(4)).unwrap();
    let view = View {
        buffer,
        offset: 0,
        len: 4,
    };
    executor.fill(&view, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    executor
        .combine(&x, &[(view.clone(), 0.5), (x.clone(), 1.0)], None)
        .unwrap();
    executor.combine(&x, &[(view, 0.5), (x.clone(), 1.0)], None).unwrap();
    assert_eq!(pollster::block_on(executor.read(&x)).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (executor, plan) = (cpu(), chain(1, 4));
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    assert_eq!(
        code(executor.write(&instance, "x", 0, Data::F32(&[0.0; 5]))),
        "internal"
    );
    assert_eq!(code(executor.write(&instance, "x", 0, Data::U32(&[0; 4]))), "internal");
    assert_eq!(code(executor.write(&instance, "z", 0, Data::F32(&[0.0]))), "internal");
    assert_eq!(code(executor.write(&instance, "x", 1, Data::F32(&[0.0]))), "internal");
    executor
        .write(&instance, "x", 0, Data::F32(&[1.0, 2.0, 3.0, 4.0]))
        .unwrap();
    executor.write(&instance, "x", 0, Data::F32(&[9.0])).unwrap();
    let x = executor.view(&instance, plan.input("x").unwrap(), 0).unwrap();
    assert_eq!(pollster::block_on(executor.read(&x)).unwrap(), [9.0, 2.0, 3.0, 4.0]);

    let outside = View { offset: 1, ..x.clone() };
    let huge = View {
        offset: usize::MAX,
        ..x.clone()
    };
    for view in [&outside, &huge] {
        assert_eq!(code(pollster::block_on(executor.read(view))), "internal");
        assert_eq!(code(executor.fill(view, &[0.0; 4])), "internal");
        assert_eq!(code(executor.combine(&x, &[(view.clone(), 1.0)], None)), "internal");
    }
    assert_eq!(code(executor.fill(&x, &[0.0; 3])), "internal");
    let part = |offset| View {
        offset,
        len: 3,
        ..x.clone()
    };
    assert_eq!(code(executor.combine(&part(0), &[(part(1), 1.0)], None)), "internal");
    assert_eq!(code(executor.combine(&part(0), &[(x.clone(), 1.0)], None)), "internal");
    let five: Vec<_> = (0..5).map(|_| (x.clone(), 1.0)).collect();
    assert_eq!(code(executor.combine(&x, &five, None)), "internal");
}

#[test]
fn weights_that_are_missing_or_of_another_size_are_errors() {
    let case = Case::new(
        Op::Linear {
            prologue: Prologue::default(),
            epilogue: Epilogue::default(),
        },
        &[&[1, 4]],
        vec![param(Pack::Matrix, &[&[3, 4]], 1)],
    );
    let (executor, plan) = (cpu(), Rc::new(case.plan()));
    let spec = plan.params[0].clone();
    let none = pollster::block_on(executor.allocate(&[])).unwrap();
    assert_eq!(
        code(executor.upload(&none, &spec, 0, WeightDtype::F32, 0, &[0; 48])),
        "internal"
    );
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    let result = pollster::block_on(executor.run(&instance, &none, Rate::Step, 0, 0, &CancelToken::default()));
    assert_eq!(result.unwrap_err().message(), "tested: no room was made for p0.0");
    let room = pollster::block_on(executor.allocate(&[(spec.clone(), WeightDtype::F32)])).unwrap();
    assert_eq!(
        code(executor.upload(&room, &spec, 0, WeightDtype::F32, 0, &[0; 52])),
        "internal"
    );
    executor.upload(&room, &spec, 0, WeightDtype::F32, 0, &[0; 44]).unwrap();
    let result = pollster::block_on(executor.run(&instance, &room, Rate::Step, 0, 0, &CancelToken::default()));
    assert_eq!(result.unwrap_err().message(), "tested: p0.0 was not uploaded");
    assert_eq!(
        code(executor.upload(&room, &spec, 1, WeightDtype::F32, 0, &[0; 48])),
        "internal"
    );
    let mut other = spec.clone();
    other.parts[0].shape = vec![4, 4];
    assert_eq!(
        code(executor.upload(&room, &other, 0, WeightDtype::F32, 0, &[0; 64])),
        "internal"
    );
}

#[test]
fn too_much_is_out_of_memory() {
    let mut spec = chain(1, 1).params.clone();
    assert!(spec.is_empty());
    spec.push(crate::graph::ParamSpec {
        parts: vec![crate::graph::ParamPart {
            name: "huge".into(),
            shape: vec![usize::MAX / 8, 2],
        }],
        pack: Pack::Matrix,
    });
    let specs: Vec<_> = spec.into_iter().map(|s| (s, WeightDtype::F32)).collect();
    let result = pollster::block_on(cpu().allocate(&specs));
    assert!(
        matches!(&result, Err(Error::OutOfMemory(m)) if m.starts_with("huge: ")),
        "{:?}",
        result.err()
    );
    assert_eq!(code(pollster::block_on(cpu().buffer(usize::MAX))), "out-of-memory");
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let params = vec![param(Pack::Table, &[&[5, 2]], 1), param(Pack::Table, &[&[3, 2]], 2)];
    let mut case = Case::new(Op::Embedding, &[&[1, 2]], params);
    case.ids = Some(vec![0, 0]);
    let (executor, plan) = (cpu(), Rc::new(case.plan()));
    let weights = pollster::block_on(upload(&executor, &plan, &case.params));
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    executor.write(&instance, "0", 0, Data::U32(&[1, 5])).unwrap();
    let result = pollster::block_on(executor.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default()));
    assert_eq!(result.unwrap_err().message(), "tested: token 5 of a vocabulary of 5");
    // Ids are no f32 that could be read or combined.
    let ids = executor.view(&instance, plan.input("0").unwrap(), 0).unwrap();
    assert_eq!(code(pollster::block_on(executor.read(&ids))), "internal");
}

#[test]
fn half_precision_weights_are_widened() {
    let case = Case::new(
        Op::Linear {
            prologue: Prologue::default(),
            epilogue: Epilogue::default(),
        },
        &[&[1, 2]],
        vec![param(Pack::Matrix, &[&[1, 2], &[1, 2]], 1)],
    );
    let (executor, plan) = (cpu(), Rc::new(case.plan()));
    let spec = plan.params[0].clone();
    let weights = pollster::block_on(executor.allocate(&[(spec.clone(), WeightDtype::F32)])).unwrap();
    let f16: Vec<u8> = [1.5f32, -2.0]
        .iter()
        .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
        .collect();
    let bf16: Vec<u8> = [0.25f32, 8.0]
        .iter()
        .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
        .collect();
    executor.upload(&weights, &spec, 0, WeightDtype::F16, 0, &f16).unwrap();
    executor
        .upload(&weights, &spec, 1, WeightDtype::Bf16, 0, &bf16)
        .unwrap();
    let instance = pollster::block_on(executor.prepare(plan.clone(), 1)).unwrap();
    executor.write(&instance, "0", 0, Data::F32(&[2.0, 3.0])).unwrap();
    pollster::block_on(executor.run(&instance, &weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
    let out = executor.view(&instance, plan.output("out").unwrap(), 0).unwrap();
    assert_eq!(pollster::block_on(executor.read(&out)).unwrap(), [-3.0, 24.5]);
}

#[test]
fn info_says_what_it_is() {
    let executor = cpu();
    let info = executor.info();
    assert_eq!((info.kind, info.software), ("cpu", false));
    assert!(info.name.starts_with("candle") && info.threads >= 1);
    assert_eq!(executor.batch_and_contexts(2), (1, 2));
}
