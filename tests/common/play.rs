//! Runs a graph once, as a pipeline runs it: weights, inputs, then rate after rate.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;
use tintype::cancel::CancelToken;
use tintype::executor::{Data, Executor, WeightDtype, Weights};
use tintype::graph::{Graph, ParamSpec, Plan, Rate};

use super::{Golden, golden_path};

/// A JSON file below `tests/golden`.
pub fn open(path: &str) -> Json {
    serde_json::from_slice(&std::fs::read(golden_path(path)).unwrap()).unwrap()
}

/// Plays `graph` with the weights of `file`, found by name, and gives its outputs. `step` is the row of what is computed once a
/// schedule.
pub fn play(
    executor: &Executor,
    graph: Graph,
    file: &Golden,
    inputs: &[(&str, Data<'_>)],
    step: usize,
) -> BTreeMap<String, Vec<f32>> {
    pollster::block_on(async {
        let plan = Rc::new(executor.plan(graph));
        let (weights, params) = place(executor, &plan, file).await;
        executor.warm(&plan, &params).await.unwrap();
        let instance = executor.prepare(plan.clone(), 1).await.unwrap();
        for (name, data) in inputs {
            executor.write(&instance, name, 0, *data).unwrap();
        }
        let cancel = CancelToken::default();
        for rate in [Rate::Load, Rate::Prompt, Rate::Schedule, Rate::Step] {
            executor.run(&instance, &weights, rate, 0, step, &cancel).await.unwrap();
        }
        let mut outputs = BTreeMap::new();
        for name in plan.output_names() {
            let view = executor.view(&instance, plan.output(name).unwrap(), 0).unwrap();
            outputs.insert(name.to_owned(), executor.read(&view).await.unwrap());
        }
        outputs
    })
}

/// Puts the weights of `file` that `plan` needs on the device, found by name.
pub async fn place(executor: &Executor, plan: &Plan, file: &Golden) -> (Weights, Vec<(ParamSpec, WeightDtype)>) {
    let dtype = |name: &str| file.get(name).weight_dtype();
    let params: Vec<_> = (plan.params.iter())
        .map(|spec| {
            let kept = spec.parts.iter().map(|p| dtype(&p.name)).reduce(|a, b| a.join(b));
            (spec.clone(), kept.unwrap())
        })
        .collect();
    let weights = executor.allocate(&params).await.unwrap();
    for (spec, _) in &params {
        for (i, part) in spec.parts.iter().enumerate() {
            let tensor = file.get(&part.name);
            assert_eq!(tensor.shape, part.shape, "{}", part.name);
            executor
                .upload(&weights, spec, i, tensor.weight_dtype(), 0, &tensor.bytes)
                .unwrap();
        }
    }
    (weights, params)
}

/// The largest difference between `ours` and `theirs`, in parts of the largest of `theirs`; infinite where something is no number.
pub fn distance(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    if ours.iter().any(|x| !x.is_finite()) {
        return f32::INFINITY;
    }
    let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    worst / largest.max(f32::MIN_POSITIVE)
}
