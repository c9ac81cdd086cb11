//! Choice by measurement: the heaviest products of a plan are run in each of the ways that `policy` holds likely, on the adapter
//! itself, and the fastest is kept. One that does not compile, or computes something else, is left out.

use super::Webgpu;
use super::instance::Instance;
use super::kernels::{Chooser, Target, dispatches};
use super::policy;
use super::select::{Choice, Product};
use super::weights::Weights;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::{Data, WeightDtype};
use crate::graph::{Element, Graph, Node, Path, Plan, Rate};
use crate::platform::now_ms;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What was found out on this adapter. Products and choices are texts: what another version wrote and this one does not know is
/// of no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// The fastest choice of each product that was raced.
    pub choices: BTreeMap<String, String>,
    /// Choices that failed or were wrong, and why.
    pub left_out: BTreeMap<String, String>,
}

/// What is known, and whether more may be found out.
#[derive(Default)]
pub(super) struct Tuner {
    known: Rc<RefCell<Tuning>>,
    on: Cell<bool>,
}

impl Tuner {
    /// Chooses by what is known.
    pub(super) fn chooser(&self) -> Chooser {
        let known = Rc::clone(&self.known);
        Rc::new(move |product, choices| {
            let known = known.borrow();
            let wanted = known.choices.get(&format!("{product:?}"))?;
            choices.iter().find(|choice| format!("{choice:?}") == *wanted).copied()
        })
    }
}

/// A product to be raced: a node that is one, and how heavy all of its like are.
struct Heavy {
    product: Product,
    choices: Vec<Choice>,
    node: usize,
    flop: u64,
}

impl Webgpu {
    /// Says what is known already, and whether more may be found out.
    pub fn set_tuning(&self, known: Tuning, on: bool) {
        *self.tuner.known.borrow_mut() = known;
        self.tuner.on.set(on);
    }

    /// What was found out so far.
    pub fn tuning(&self) -> Tuning {
        self.tuner.known.borrow().clone()
    }

    /// Races the products of a plan that are heavy and not known yet, as long as policy says. Says whether anything was found out.
    /// Plans that were prepared before stay as they are.
    pub(in crate::executor) async fn tune(&self, plan: &Plan, weights: &Weights, cancel: &CancelToken) -> Result<bool> {
        if !self.tuner.on.get() {
            return Ok(false);
        }
        let (began, mut found) = (now_ms(), false);
        for heavy in self.heavy(plan)? {
            if now_ms() - began >= policy::RACE_MS {
                break;
            }
            let Some(own) = policy::product(&heavy.product, &heavy.choices) else {
                continue;
            };
            let mut judge = Judge::new(own);
            let raced = self.race(plan, weights, &heavy, &mut judge, cancel).await;
            match raced {
                Err(error @ (Error::Cancelled(_) | Error::DeviceLost(_))) => return Err(error),
                // Racing is no part of what was asked for: the policy's own stays.
                Err(error) => judge.left_out.push((own, error.to_string())),
                Ok(()) => {}
            }
            let mut known = self.tuner.known.borrow_mut();
            let product = format!("{:?}", heavy.product);
            for (choice, why) in judge.left_out {
                known.left_out.insert(format!("{choice:?} of {product}"), why);
            }
            known.choices.insert(product, format!("{:?}", judge.best));
            found = true;
        }
        Ok(found)
    }

    /// The heaviest products that are not known, each once, the heaviest first.
    fn heavy(&self, plan: &Plan) -> Result<Vec<Heavy>> {
        let mut all: Vec<Heavy> = Vec::new();
        for node in plan.phase(Rate::Step) {
            let seen: Rc<RefCell<Vec<(Product, Vec<Choice>)>>> = Rc::default();
            let sees = Rc::clone(&seen);
            let target = Target {
                chooser: Some(Rc::new(move |product, choices| {
                    sees.borrow_mut().push((*product, choices.to_vec()));
                    None
                })),
                ..self.target(plan)
            };
            dispatches(plan, node, &target)?;
            for (product, choices) in seen.take() {
                let flop = plan.flops(node);
                match all.iter_mut().find(|heavy| heavy.product == product) {
                    Some(same) => same.flop += flop,
                    None => all.push(Heavy {
                        product,
                        choices,
                        node,
                        flop,
                    }),
                }
            }
        }
        all.sort_by_key(|heavy| std::cmp::Reverse(heavy.flop));
        all.truncate(policy::RACE_PRODUCTS);
        let known = self.tuner.known.borrow();
        all.retain(|heavy| heavy.choices.len() > 1 && !known.choices.contains_key(&format!("{:?}", heavy.product)));
        Ok(all)
    }

    /// Runs a node in each way that is likely, the policy's own first.
    async fn race(
        &self,
        plan: &Plan,
        weights: &Weights,
        heavy: &Heavy,
        judge: &mut Judge,
        cancel: &CancelToken,
    ) -> Result<()> {
        let node = &plan.nodes[heavy.node];
        let dtype = node
            .params
            .first()
            .map(|&p| weights.dtype(&plan.params[p]))
            .transpose()?;
        let alone = Alone::new(self, plan, node, dtype.unwrap_or(WeightDtype::F32)).await?;
        for choice in policy::raced(&heavy.product, &heavy.choices) {
            let ran = self.run_one(&alone, choice, cancel).await;
            judge.hear(choice, ran)?;
        }
        Ok(())
    }

    /// Runs a node in one way: milliseconds, and what came out.
    async fn run_one(&self, alone: &Alone, choice: Choice, cancel: &CancelToken) -> Result<(f64, Vec<f32>)> {
        let target = Target {
            chooser: Some(Rc::new(move |_, _| Some(choice))),
            ..self.target(&alone.plan)
        };
        let made = self.device.guarded(|| self.make(alone.plan.clone(), 1, &target));
        let instance = made.await?;
        alone.write(self, &instance)?;
        let times = self.time_nodes(
            &instance,
            &alone.weights,
            Rate::Step,
            [0, 0],
            policy::RACE_ONE_MS,
            cancel,
        );
        let ms = times.await?.ms.iter().sum();
        let view = self.view(&instance, alone.plan.output("y")?, 0)?;
        let crate::executor::Buffer::Webgpu(buffer) = view.buffer else {
            return Err(Error::Internal("a view of another executor".into()));
        };
        Ok((ms, self.read(&buffer, 0, view.len.min(policy::RACE_COMPARED)).await?))
    }
}

/// Who wins. The policy's own way is the measure of what is right, and stays if nothing is clearly faster.
struct Judge {
    own: Choice,
    best: Choice,
    least: f64,
    right: Option<Vec<f32>>,
    left_out: Vec<(Choice, String)>,
}

impl Judge {
    fn new(own: Choice) -> Self {
        Self {
            own,
            best: own,
            least: f64::INFINITY,
            right: None,
            left_out: Vec::new(),
        }
    }

    /// Hears how a way ran: milliseconds and result. One that failed or is wrong is left out.
    ///
    /// # Errors
    /// That of the policy's own; being cancelled, and a lost device.
    fn hear(&mut self, choice: Choice, ran: Result<(f64, Vec<f32>)>) -> Result<()> {
        let (ms, output) = match ran {
            Err(error @ (Error::Cancelled(_) | Error::DeviceLost(_))) => return Err(error),
            Err(error) if choice != self.own => {
                self.left_out.push((choice, error.to_string()));
                return Ok(());
            }
            ran => ran?,
        };
        let off = self.right.as_ref().map_or(0.0, |right| apart(right, &output));
        let most = if choice.half {
            policy::RACE_APART_HALF
        } else {
            policy::RACE_APART
        };
        if off > most {
            self.left_out
                .push((choice, format!("its result is {off:e} of the largest value off")));
            return Ok(());
        }
        self.right.get_or_insert(output);
        let margin = if choice == self.own {
            1.0 - policy::RACE_MARGIN
        } else {
            1.0
        };
        if ms * margin < self.least {
            (self.best, self.least) = (choice, ms * margin);
        }
        Ok(())
    }
}

/// How far `found` is from `right`: the largest difference, over the largest value. What is no number is as far as can be.
fn apart(right: &[f32], found: &[f32]) -> f32 {
    let largest = right.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
    let off = |(a, b): (&f32, &f32)| {
        if (a - b).is_finite() {
            (a - b).abs()
        } else {
            f32::INFINITY
        }
    };
    right.iter().zip(found).map(off).fold(0.0, f32::max) / largest
}

/// A node as a plan of its own, with made-up operands.
struct Alone {
    plan: Rc<Plan>,
    weights: Weights,
}

/// Numbers from -1 to 1, the same each time.
fn made_up(len: usize) -> impl Iterator<Item = f32> {
    let mut state = 1u32;
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

impl Alone {
    async fn new(gpu: &Webgpu, plan: &Plan, node: &Node, dtype: WeightDtype) -> Result<Self> {
        let mut graph = Graph::new();
        if plan.stands_half {
            graph.stand_half();
        }
        let inputs: Vec<_> = (node.inputs.iter().enumerate())
            .map(|(i, v)| {
                let shape = plan.values[v.0].shape.dims();
                graph.input(&format!("x{i}"), shape, Element::F32, Rate::Step)
            })
            .collect();
        let params: Vec<_> = (node.params.iter())
            .map(|&p| {
                let spec = &plan.params[p];
                let parts = spec.parts.iter().map(|part| (part.name.clone(), part.shape.clone()));
                graph.param(spec.pack, parts)
            })
            .collect();
        let y = graph.op(&Path::root(), node.op.clone(), &inputs, &params)?;
        graph.output("y", y);
        let plan = Rc::new(Plan::new(graph));
        let wanted: Vec<_> = plan.params.iter().map(|spec| (spec.clone(), dtype)).collect();
        let weights = gpu.allocate(&wanted).await?;
        for (spec, _) in &wanted {
            for (part, tensor) in spec.parts.iter().enumerate() {
                let len = tensor.shape.iter().product();
                let bytes: Vec<u8> = match dtype {
                    WeightDtype::F32 => made_up(len).flat_map(f32::to_le_bytes).collect(),
                    WeightDtype::F16 => made_up(len)
                        .flat_map(|x| half::f16::from_f32(x).to_le_bytes())
                        .collect(),
                    WeightDtype::Bf16 => made_up(len)
                        .flat_map(|x| half::bf16::from_f32(x).to_le_bytes())
                        .collect(),
                };
                gpu.upload(&weights, spec, part, dtype, 0, &bytes)?;
            }
        }
        Ok(Self { plan, weights })
    }

    fn write(&self, gpu: &Webgpu, instance: &Instance) -> Result<()> {
        for name in self.plan.input_names() {
            let shape = &self.plan.values[self.plan.input(name)?.0].shape;
            let values: Vec<f32> = made_up(shape.len()).collect();
            gpu.write(instance, name, 0, Data::F32(&values))?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::executor::webgpu::{Options, Tile};
    use crate::nn;
    use pollster::block_on;

    const OWN: Choice = Choice {
        tile: Tile::Small,
        slices: 1,
        half: false,
        apart: false,
    };

    fn with_slices(slices: usize) -> Choice {
        Choice { slices, ..OWN }
    }

    #[test]
    fn what_fails_or_is_wrong_is_left_out_and_the_fastest_of_the_others_wins() {
        let mut judge = Judge::new(OWN);
        judge.hear(OWN, Ok((10.0, vec![1.0, -2.0]))).unwrap();
        judge
            .hear(with_slices(2), Err(Error::Internal("it does not compile".into())))
            .unwrap();
        judge.hear(with_slices(4), Ok((1.0, vec![1.0, 2.0]))).unwrap();
        judge.hear(with_slices(8), Ok((1.0, vec![1.0, f32::NAN]))).unwrap();
        judge.hear(with_slices(16), Ok((5.0, vec![1.0, -2.000_01]))).unwrap();
        assert_eq!(judge.best, with_slices(16));
        let out: Vec<_> = judge.left_out.iter().map(|(choice, _)| choice.slices).collect();
        assert_eq!(out, [2, 4, 8]);
        let lost = judge.hear(with_slices(2), Err(Error::DeviceLost("it is gone".into())));
        assert_eq!(lost.unwrap_err().code(), "device-lost");
    }

    #[test]
    fn the_policys_own_stays_if_nothing_is_clearly_faster() {
        let mut judge = Judge::new(OWN);
        judge.hear(OWN, Ok((10.0, vec![1.0]))).unwrap();
        judge.hear(with_slices(2), Ok((9.9, vec![1.0]))).unwrap();
        assert_eq!((judge.best, judge.left_out.len()), (OWN, 0));
        let failed = Judge::new(OWN).hear(OWN, Err(Error::Internal("no".into())));
        assert_eq!(failed.unwrap_err().code(), "internal");
    }

    /// The output of a plan of three layers on what is prepared now.
    fn output(gpu: &Webgpu, plan: &Rc<Plan>, weights: &Weights) -> Vec<f32> {
        let instance = block_on(gpu.prepare(plan.clone(), 1)).unwrap();
        let values: Vec<f32> = made_up(96 * 128).collect();
        gpu.write(&instance, "x", 0, Data::F32(&values)).unwrap();
        block_on(gpu.run(&instance, weights, Rate::Step, 0, 0, &CancelToken::default())).unwrap();
        let view = gpu.view(&instance, plan.output("y").unwrap(), 0).unwrap();
        let crate::executor::Buffer::Webgpu(buffer) = view.buffer else {
            panic!("a view of another executor")
        };
        block_on(gpu.read(&buffer, 0, view.len)).unwrap()
    }

    #[test]
    fn products_are_raced_once_and_compute_the_same_afterwards() {
        if std::env::var_os("TINTYPE_NO_GPU").is_some_and(|v| v == "1") {
            return;
        }
        let mut g = Graph::new();
        let mut x = g.input("x", [1, 96, 128], Element::F32, Rate::Step);
        for (name, n) in [("a", 256), ("b", 256), ("c", 128)] {
            x = nn::linear_without_bias(&mut g, &Path::root().pp(name), x, n).unwrap();
        }
        g.output("y", x);
        let plan = Rc::new(Plan::new(g));
        let options = Options {
            software: Some(false),
            ..Options::default()
        };
        let gpu = block_on(Webgpu::new(options)).unwrap();
        let wanted: Vec<_> = plan
            .params
            .iter()
            .map(|spec| (spec.clone(), WeightDtype::F16))
            .collect();
        let weights = block_on(gpu.allocate(&wanted)).unwrap();
        for (spec, _) in &wanted {
            let bytes: Vec<u8> = made_up(spec.parts[0].shape.iter().product())
                .flat_map(|x| half::f16::from_f32(x / 16.0).to_le_bytes())
                .collect();
            gpu.upload(&weights, spec, 0, WeightDtype::F16, 0, &bytes).unwrap();
        }
        let before = output(&gpu, &plan, &weights);
        let cancel = CancelToken::default();
        assert!(
            !block_on(gpu.tune(&plan, &weights, &cancel)).unwrap(),
            "it is off until it is asked for"
        );

        gpu.set_tuning(Tuning::default(), true);
        // Each time races what time allows, one product at least.
        let races = (0..4)
            .take_while(|_| block_on(gpu.tune(&plan, &weights, &cancel)).unwrap())
            .count();
        assert!((1..4).contains(&races), "{races}");
        let found = gpu.tuning();
        assert_eq!(found.choices.len(), 3, "{found:?}");
        assert_eq!(found.left_out, BTreeMap::new());
        assert!(apart(&before, &output(&gpu, &plan, &weights)) < 1e-5);

        // What is known is taken, and what nobody knows any more is of no effect.
        let other = |own: &String| {
            if own.contains("slices: 2,") {
                own.replace("slices: 2,", "slices: 1,")
            } else {
                own.replace("slices: 1,", "slices: 2,")
            }
        };
        let choices: BTreeMap<_, _> = found
            .choices
            .iter()
            .map(|(product, own)| (product.clone(), other(own)))
            .collect();
        gpu.set_tuning(
            Tuning {
                choices,
                ..found.clone()
            },
            true,
        );
        let count = |gpu: &Webgpu| block_on(gpu.prepare(plan.clone(), 1)).unwrap().dispatches.len();
        let changed = count(&gpu);
        let strange = found
            .choices
            .keys()
            .map(|product| (product.clone(), "Choice of another version".into()));
        gpu.set_tuning(
            Tuning {
                choices: strange.collect(),
                ..found.clone()
            },
            true,
        );
        let by_policy = count(&gpu);
        gpu.set_tuning(Tuning::default(), false);
        assert_eq!(by_policy, count(&gpu));
        gpu.set_tuning(found, true);
        assert_ne!(
            changed,
            count(&gpu),
            "another number of slices is another number of dispatches"
        );
    }
}
