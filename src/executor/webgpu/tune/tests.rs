//! Races on the adapter that there is, with kernels that are spoilt where a test says so.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

use super::made_up::made_up;
use super::*;
use crate::executor::Data;
use crate::executor::webgpu::{Instance, Options, Variant};
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
        Self::with(false)
    }

    /// In 16-bit floats; `None` where the adapter has none, too.
    fn in_halves() -> Option<Self> {
        let layers = Self::with(true)?;
        let has = layers.gpu.keeps_halves();
        if !has {
            println!("passed over: this adapter has no 16-bit floats");
        }
        has.then_some(layers)
    }

    fn with(half: bool) -> Option<Self> {
        if crate::executor::webgpu::tests::has_no_gpu() {
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
            half,
            ..Options::default()
        };
        g.stand_half();
        Some(Self {
            gpu: block_on(Webgpu::new(options)).unwrap(),
            plan: Rc::new(if half { Plan::in_halves(g) } else { Plan::new(g) }),
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

    /// Whether there is more to find out.
    /// As the engine does it: nobody waits for the end of what is cancelled.
    fn tune(&self, weights: &Weights) -> Result<bool> {
        let tuning = self.gpu.tune(&self.plan, weights, u64::MAX, &self.cancel);
        block_on(self.cancel.guard(tuning))
    }

    /// Until nothing is left; says how often that was.
    fn tune_all(&self, weights: &Weights) -> usize {
        let mut times = 1;
        while self.tune(weights).unwrap() {
            times += 1;
            assert!(times < 100);
        }
        times
    }

    /// The output, on what is prepared now.
    fn output(&self, weights: &Weights) -> Vec<f32> {
        let gpu = &self.gpu;
        let instance = self.prepared();
        gpu.write(&instance, "x", 0, Data::F32(&made_up(ROWS * 128))).unwrap();
        block_on(gpu.run(&instance, weights, Rate::Step, 0, 0, &self.cancel)).unwrap();
        let value = self.plan.output("y").unwrap().0;
        let (y, len) = (instance.value(value, 0).unwrap(), self.plan.values[value].shape.len());
        block_on(gpu.read(&y, 0, len)).unwrap()
    }

    fn prepared(&self) -> Instance {
        block_on(self.gpu.prepare(self.plan.clone(), 1)).unwrap()
    }

    fn dispatches(&self) -> usize {
        self.prepared().dispatches.len()
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
    assert!(!layers.tune(&weights).unwrap(), "off until it is asked for");
    assert_eq!(layers.gpu.tuning(), Tuning::default());

    let layers = layers.racing();
    layers.tune_all(&weights);
    let found = layers.gpu.tuning();
    assert_eq!(found.choices.len(), 3, "{found:?}");
    assert_eq!(found.left_out, BTreeMap::new());
    assert!(found.choices.keys().all(|name| name.ends_with("with weights of F16")));
    assert!(apart(&before, &layers.output(&weights)) < 1e-5);
    assert!(!layers.tune(&weights).unwrap(), "there is nothing left");

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
    let (prepared, of_halves) = (layers.prepared(), layers.dispatches());
    let outdated = |instance: &Instance| layers.gpu.is_outdated(instance);
    assert!(!outdated(&prepared));
    // Whoever says it first.
    let dtypes: Vec<_> = layers
        .plan
        .params
        .iter()
        .cloned()
        .map(|p| (p, WeightDtype::F32))
        .collect();
    layers.gpu.expect(&layers.plan, &dtypes);
    layers.tune(&singles).unwrap();
    assert!(outdated(&prepared), "it was for halves");
    let next = layers.prepared();
    assert_eq!((next.dispatches.len(), outdated(&next)), (2 * of_halves, false));
    layers.tune(&halves).unwrap();
    assert!(outdated(&next) && !outdated(&prepared));
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
    assert_eq!((first, layers.gpu.unraced()), (true, 3));
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
    assert!(!next.tune(&weights).unwrap(), "nothing is raced any more");
    assert_eq!(next.gpu.tuning(), found);

    // One that was lost before was not lost by a race.
    let next = Layers::new().unwrap().racing();
    let weights = next.halves();
    next.gpu.lose_device();
    assert_eq!(next.tune(&weights).unwrap_err().code(), "device-lost");
    assert_eq!(next.gpu.tuning(), Tuning::default());
}

#[test]
fn products_of_16_bit_floats_are_raced_without_what_converts() {
    let Some(layers) = Layers::in_halves().map(Layers::racing) else {
        return;
    };
    let (gpu, weights) = (&layers.gpu, layers.halves());
    let before = layers.output(&weights);
    let mut converted = 0;
    for node in layers.plan.phase(Rate::Step) {
        if matches!(layers.plan.nodes[node].op, crate::graph::Op::Input { .. }) {
            continue;
        }
        let alone = Rc::new(Plan::in_halves(layers.plan.alone(node).unwrap()));
        assert!(alone.values.iter().all(|value| value.element == Element::F16));
        let instance = block_on(gpu.prepare(alone, 1)).unwrap();
        let last = instance.plan.nodes.len() - 1;
        let (own, end) = (instance.own(last), instance.first[last + 1]);
        let shaders = |of: std::ops::Range<usize>| instance.dispatches[of].iter().map(|d| d.variant.shader);
        assert!(!own.is_empty() && shaders(own.clone()).all(|shader| shader.starts_with("gemm")));
        assert!(shaders(own.end..end).all(|shader| shader == "convert"));
        converted += end - own.end;
    }
    assert_eq!(converted, LAYERS.len(), "each makes what is seen from outside");

    layers.tune_all(&weights);
    let found = gpu.tuning();
    assert_eq!((found.choices.len(), found.left_out.len()), (3, 0), "{found:?}");
    assert!(
        found.choices.keys().all(|name| name.contains("half: true")),
        "{found:?}"
    );
    assert!(apart(&before, &layers.output(&weights)) < 2e-3);
}

/// Its statistics are f32 always.
#[test]
fn statistics_of_16_bit_floats_are_those_by_themselves() {
    let mut g = Graph::new();
    g.stand_half();
    let x = g.input("x", [1, 8, 8, 8], Element::F32, Rate::Step);
    let affine = g.param(crate::graph::Pack::Vector, [("affine", vec![16])]);
    let op = crate::graph::Op::GroupStatistics { groups: 2, eps: 1e-5 };
    let y = g.op(&Path::root(), op, &[x], &[affine]).unwrap();
    g.output("y", y);
    let elements = |plan: &Plan| -> Vec<_> { plan.values.iter().map(|value| value.element).collect() };
    let plan = Plan::in_halves(g);
    assert_eq!(elements(&plan), [Element::F16, Element::F32]);
    let alone = Plan::in_halves(plan.alone(1).unwrap());
    assert_eq!(elements(&alone), [Element::F16, Element::F32]);
}

#[test]
fn a_race_that_goes_wrong_by_no_fault_of_a_way_says_nothing_of_it() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    let before = layers.output(&weights);
    layers.spoil(|variant, source| match variant.shader {
        "compare" => source + "no WGSL",
        _ => source,
    });
    layers.tune_all(&weights);
    assert_eq!(layers.gpu.tuning(), Tuning::default());
    assert_eq!(layers.gpu.unraced(), 0, "none is tried over and over");
    let said = layers.gpu.take_broken_off();
    assert!(
        said.len() == 3 && said.iter().all(|why| why.contains("with weights of F16: WebGPU")),
        "{said:?}"
    );
    layers.tune_all(&weights);
    assert_eq!(layers.gpu.take_broken_off(), Vec::<String>::new(), "it is said once");
    assert!(apart(&before, &layers.output(&weights)) < 1e-6);
}

#[test]
fn a_race_that_has_no_room_is_left_out() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    // The largest, of 96 x 256 to 96 x 256, and what only the others have room for.
    let room = 2 * 4 * (ROWS * (256 + 256)) as u64;
    block_on(layers.gpu.tune(&layers.plan, &weights, room - 1, &layers.cancel)).unwrap();
    while block_on(layers.gpu.tune(&layers.plan, &weights, room - 1, &layers.cancel)).unwrap() {}
    let found = layers.gpu.tuning();
    assert_eq!((found.choices.len(), found.left_out.len()), (2, 0), "{found:?}");
    assert_eq!(layers.gpu.take_broken_off(), Vec::<String>::new());
}

#[test]
fn what_is_prepared_as_it_would_be_anew_stays() {
    let Some(layers) = Layers::new().map(Layers::racing) else {
        return;
    };
    let weights = layers.halves();
    let prepared = layers.prepared();
    layers.tune_all(&weights);
    let found = layers.gpu.tuning();
    let with = |from: &str, to: &str| {
        let choices = found
            .choices
            .iter()
            .map(|(name, own)| (name.clone(), own.replace(from, to)));
        let choices = choices.collect();
        let left_out = BTreeMap::new();
        let lost = None;
        layers.gpu.set_tuning(
            Tuning {
                choices,
                left_out,
                lost,
            },
            true,
        );
        layers.gpu.is_outdated(&prepared)
    };
    layers.gpu.set_tuning(Tuning::default(), true);
    assert!(!layers.gpu.is_outdated(&prepared), "by the policy, as before");
    assert!(!with("Choice", "of another version"));
    assert!(with("slices: 1,", "slices: 2,") || with("slices: 2,", "slices: 1,"));
}
