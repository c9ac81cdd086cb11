//! Races on the adapter that there is, with kernels that are spoilt where a test says so.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

use super::made_up::made_up;
use super::*;
use crate::executor::Data;
use crate::executor::webgpu::{Options, Variant};
use crate::graph::{Element, Graph, Path};
use crate::nn;
use pollster::block_on;

const ROWS: usize = 96;
const LAYERS: [(&str, usize); 3] = [("a", 256), ("b", 256), ("c", 128)];

/// Three layers, each of which may run in several ways.
struct Layers {
    gpu: Webgpu,
    plan: Rc<Plan>,
    cancel: CancelToken,
}

impl Layers {
    /// `None` where it is known that there is no adapter.
    fn new() -> Option<Self> {
        if std::env::var_os("TINTYPE_NO_GPU").is_some_and(|v| v == "1") {
            return None;
        }
        let mut g = Graph::new();
        let mut x = g.input("x", [1, ROWS, 128], Element::F32, Rate::Step);
        for (name, n) in LAYERS {
            x = nn::linear_without_bias(&mut g, &Path::root().pp(name), x, n).unwrap();
        }
        g.output("y", x);
        let options = Options {
            software: Some(false),
            ..Options::default()
        };
        Some(Self {
            gpu: block_on(Webgpu::new(options)).unwrap(),
            plan: Rc::new(Plan::new(g)),
            cancel: CancelToken::default(),
        })
    }

    fn racing(self) -> Self {
        self.gpu.set_tuning(Tuning::default(), true);
        self
    }

    fn spoil(&self, spoil: impl Fn(&Variant, String) -> String + 'static) {
        self.gpu.pipelines.spoil.replace(Some(Box::new(spoil)));
    }

    /// `scale`: of the weights.
    fn weights(&self, dtype: WeightDtype, scale: f32) -> Weights {
        let wanted: Vec<_> = self.plan.params.iter().map(|spec| (spec.clone(), dtype)).collect();
        let weights = block_on(self.gpu.allocate(&wanted)).unwrap();
        for (spec, _) in &wanted {
            let values = made_up(spec.parts[0].shape.iter().product()).into_iter();
            let bytes: Vec<u8> = values.flat_map(|x| (x * scale).to_le_bytes()).collect();
            (self.gpu.upload(&weights, spec, 0, WeightDtype::F32, 0, &bytes)).unwrap();
        }
        weights
    }

    fn halves(&self) -> Weights {
        self.weights(WeightDtype::F16, 1.0 / 16.0)
    }

    fn tune(&self, weights: &Weights) -> Result<Tuned> {
        block_on(self.gpu.tune(&self.plan, weights, &self.cancel))
    }

    /// Until nothing is left; says how often that was.
    fn tune_all(&self, weights: &Weights) -> usize {
        let mut times = 1;
        while self.tune(weights).unwrap().more {
            times += 1;
            assert!(times < 100);
        }
        times
    }

    /// The output, on what is prepared now.
    fn output(&self, weights: &Weights) -> Vec<f32> {
        let gpu = &self.gpu;
        let instance = block_on(gpu.prepare(self.plan.clone(), 1)).unwrap();
        gpu.write(&instance, "x", 0, Data::F32(&made_up(ROWS * 128))).unwrap();
        block_on(gpu.run(&instance, weights, Rate::Step, 0, 0, &self.cancel)).unwrap();
        let value = self.plan.output("y").unwrap().0;
        let (y, len) = (instance.value(value, 0).unwrap(), self.plan.values[value].shape.len());
        block_on(gpu.read(&y, 0, len)).unwrap()
    }

    fn dispatches(&self) -> usize {
        block_on(self.gpu.prepare(self.plan.clone(), 1))
            .unwrap()
            .dispatches
            .len()
    }
}

/// How far `found` is from `right`: the largest difference, over the largest value.
fn apart(right: &[f32], found: &[f32]) -> f32 {
    let largest = right.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
    let off = right.iter().zip(found).map(|(a, b)| (a - b).abs());
    off.fold(0.0, f32::max) / largest
}

fn is_of(variant: &Variant, name: &str, value: &str) -> bool {
    variant.macros.iter().any(|(n, v)| *n == name && v == value)
}

#[test]
fn products_are_raced_once_and_compute_the_same_afterwards() {
    let Some(layers) = Layers::new() else { return };
    let weights = layers.halves();
    let before = layers.output(&weights);
    assert_eq!(
        layers.tune(&weights).unwrap(),
        Tuned::default(),
        "off until it is asked for"
    );
    assert_eq!(layers.gpu.tuning(), Tuning::default());

    let layers = layers.racing();
    layers.tune_all(&weights);
    let found = layers.gpu.tuning();
    assert_eq!(found.choices.len(), 3, "{found:?}");
    assert_eq!(found.left_out, BTreeMap::new());
    assert!(found.choices.keys().all(|name| name.ends_with("with weights of F16")));
    assert!(apart(&before, &layers.output(&weights)) < 1e-5);
    assert_eq!(
        layers.tune(&weights).unwrap(),
        Tuned::default(),
        "there is nothing left"
    );

    // What is known is taken, and what nobody knows any more is of no effect.
    let other = |own: &String| match own.contains("slices: 2,") {
        true => own.replace("slices: 2,", "slices: 1,"),
        false => own.replace("slices: 1,", "slices: 2,"),
    };
    let with = |way: &dyn Fn(&String) -> String| {
        let choices = found.choices.iter().map(|(product, own)| (product.clone(), way(own)));
        let choices = choices.collect();
        layers.gpu.set_tuning(
            Tuning {
                choices,
                ..found.clone()
            },
            true,
        );
        layers.dispatches()
    };
    let changed = with(&other);
    let by_policy = with(&|_| "Choice of another version".into());
    layers.gpu.set_tuning(Tuning::default(), false);
    assert_eq!(by_policy, layers.dispatches());
    layers.gpu.set_tuning(found.clone(), true);
    assert_ne!(
        changed,
        layers.dispatches(),
        "other slices are another number of dispatches"
    );
}

#[test]
fn weights_that_are_kept_in_another_way_are_another_product() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let (halves, singles) = (layers.halves(), layers.weights(WeightDtype::F32, 1.0 / 16.0));
    layers.tune_all(&halves);
    let first = layers.gpu.tuning().choices;
    // Each runs in as many slices as the others do not.
    let twisted = first
        .iter()
        .map(|(name, own)| (name.replace("F16", "F32"), own.replace("slices: 1,", "slices: 2,")));
    let known = Tuning {
        choices: first
            .iter()
            .map(|(n, o)| (n.clone(), o.replace("slices: 2,", "slices: 1,")))
            .chain(twisted)
            .collect(),
        ..Tuning::default()
    };
    layers.gpu.set_tuning(known.clone(), true);
    let of_halves = layers.dispatches();
    assert!(
        layers.tune(&singles).unwrap().changed,
        "what was prepared was for halves"
    );
    assert_eq!(layers.dispatches(), 2 * of_halves);
    assert!(layers.tune(&halves).unwrap().changed);
    assert_eq!(layers.dispatches(), of_halves);
    assert_eq!(layers.gpu.tuning(), known, "both were known");

    layers.gpu.set_tuning(
        Tuning {
            choices: first.clone(),
            ..Tuning::default()
        },
        true,
    );
    layers.tune(&singles).unwrap();
    layers.tune_all(&singles);
    let both = layers.gpu.tuning().choices;
    assert_eq!(both.len(), 6, "{both:?}");
    assert!(first.iter().all(|(name, own)| both.get(name) == Some(own)));
}

#[test]
fn what_does_not_compile_or_computes_something_else_is_left_out() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    let before = layers.output(&weights);
    layers.spoil(|variant, source| {
        if is_of(variant, "ROWS", "8") {
            return source + "no WGSL";
        }
        if is_of(variant, "ROWS", "4") && is_of(variant, "SPLIT", "") {
            let right = "return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));";
            assert!(source.contains(right));
            return source.replace(
                right,
                "return 1.001 * vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));",
            );
        }
        source
    });
    layers.tune_all(&weights);
    let found = layers.gpu.tuning();
    assert_eq!(found.choices.len(), 3);
    let why = |tile: &str, slices: &str| -> Vec<&String> {
        let of = found
            .left_out
            .iter()
            .filter(|(way, _)| way.contains(tile) && way.contains(slices));
        of.map(|(_, why)| why).collect()
    };
    let (broken, wrong) = (why("tile: Big", "slices: 1,"), why("tile: Small", "slices: 2,"));
    assert_eq!(
        (broken.len(), wrong.len(), found.left_out.len()),
        (3, 3, 6),
        "{found:?}"
    );
    assert!(broken.iter().all(|why| why.contains("WebGPU")), "{broken:?}");
    assert!(
        wrong.iter().all(|why| why.contains("of the largest value off")),
        "{wrong:?}"
    );
    assert!(
        found
            .choices
            .values()
            .all(|way| !way.contains("Big") && !way.contains("slices: 2,"))
    );
    // What failed in a race spoils nothing of what is drawn after it.
    assert!(apart(&before, &layers.output(&weights)) < 1e-5);
}

#[test]
fn one_wrong_element_is_seen_wherever_it_is() {
    let Some(Layers { gpu, .. }) = Layers::new() else {
        return;
    };
    let len = 3 * 8192 + 77;
    let right = made_up(len);
    let filled = |values: &[f32]| {
        let buffer = block_on(gpu.buffer(len)).unwrap();
        gpu.fill(&buffer, 0, len, values).unwrap();
        buffer
    };
    let first = filled(&right);
    let same = block_on(gpu.compare(&first, &first, len)).unwrap();
    assert!(same.tells() && same.apart() == 0.0, "{same:?}");
    let largest = right.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert_eq!(same.largest, largest);
    for at in [0, 1, 8191, 8192, len - 2, len - 1] {
        let mut wrong = right.clone();
        wrong[at] += 0.5;
        let off = block_on(gpu.compare(&first, &filled(&wrong), len)).unwrap();
        assert!((off.apart() - 0.5 / largest).abs() < 1e-6, "{at}: {off:?}");
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            wrong[at] = strange;
            let of = filled(&wrong);
            let off = block_on(gpu.compare(&first, &of, len)).unwrap();
            assert_eq!((off.apart(), off.strange), (f32::INFINITY, [0, 1]), "{at}: {strange}");
            assert!(!block_on(gpu.compare(&of, &first, len)).unwrap().tells());
        }
    }
}

#[test]
fn weights_that_tell_nothing_decide_nothing() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let nothing = layers.weights(WeightDtype::F16, 0.0);
    assert_eq!(layers.tune_all(&nothing), 1);
    assert_eq!(layers.gpu.tuning(), Tuning::default());
}

#[test]
fn a_race_without_timestamps_goes_by_the_clock() {
    let Some(mut layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    layers.gpu.device.has_timestamps = false;
    let weights = layers.halves();
    let before = layers.output(&weights);
    layers.tune_all(&weights);
    let found = layers.gpu.tuning();
    assert_eq!((found.choices.len(), found.left_out.len()), (3, 0), "{found:?}");
    assert!(apart(&before, &layers.output(&weights)) < 1e-5);
}

#[test]
fn time_is_looked_at_between_ways_and_a_race_is_gone_on_with() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    layers.gpu.tuner.budget.set(0.0);
    let first = layers.tune(&weights).unwrap();
    assert_eq!((first.more, layers.gpu.unraced()), (true, 3));
    assert_eq!(layers.gpu.tuning().choices.len(), 0, "no race is over after one way");
    let ways = layers.gpu.tuner.under_way.borrow().len();
    assert_eq!(ways, 1);
    // A way each time: four or more of each product.
    assert!(layers.tune_all(&weights) >= 9);
    assert_eq!((layers.gpu.unraced(), layers.gpu.tuning().choices.len()), (0, 3));
    assert_eq!(layers.gpu.tuner.under_way.borrow().len(), 0);
}

#[test]
fn what_was_found_out_before_it_was_cancelled_stays() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    let cancel = layers.cancel.clone();
    layers.spoil(move |variant, source| {
        if is_of(variant, "ROWS", "1") {
            cancel.cancel();
        }
        source
    });
    let stopped = layers.tune(&weights).unwrap_err();
    assert_eq!(stopped.code(), "cancelled");
    assert_eq!(layers.gpu.tuner.under_way.borrow().len(), 1, "what was heard is kept");
    let layers = Layers {
        cancel: CancelToken::default(),
        ..layers
    };
    layers.tune_all(&weights);
    assert_eq!(layers.gpu.tuning().choices.len(), 3);
}

#[test]
fn a_device_that_is_lost_in_a_race_is_remembered_by_it() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    let device = layers.gpu.device.device.clone();
    layers.spoil(move |variant, source| {
        if is_of(variant, "ROWS", "8") {
            device.destroy();
        }
        source
    });
    let lost = layers.tune(&weights).unwrap_err();
    assert_eq!(lost.code(), "device-lost", "{lost}");
    let found = layers.gpu.tuning();
    let by = found.lost.clone().unwrap();
    assert!(by.contains("tile: Big") && by.ends_with("with weights of F16"), "{by}");
    assert_eq!(found.left_out, BTreeMap::new());

    let next = Layers::new().unwrap();
    next.gpu.set_tuning(found.clone(), true);
    let weights = next.halves();
    assert_eq!(
        next.tune(&weights).unwrap(),
        Tuned::default(),
        "nothing is raced any more"
    );
    assert_eq!(next.gpu.tuning(), found);

    // One that was lost before was not lost by a race.
    let next = Layers::new().unwrap().racing();
    let weights = next.halves();
    next.gpu.lose_device();
    assert_eq!(next.tune(&weights).unwrap_err().code(), "device-lost");
    assert_eq!(next.gpu.tuning(), Tuning::default());
}
