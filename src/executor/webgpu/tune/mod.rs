//! Choice by measurement: the heaviest products of a plan are run in each of the ways that `policy` holds likely, on the adapter
//! itself, and the fastest is kept. One that does not compile, or computes something else, is left out.

mod alone;
mod judge;

use super::Webgpu;
use super::kernels::{Chooser, Target, dispatches};
use super::policy;
use super::select::{Choice, Product};
use super::weights::Weights;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::WeightDtype;
use crate::graph::{Plan, Rate};
use crate::platform::now_ms;
use alone::Alone;
use judge::Judge;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Products for whose race there was no room: they are not tried again before the next start.
    passed: RefCell<BTreeSet<String>>,
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

/// Products with their legal choices.
type Seen = Vec<(Product, Vec<Choice>)>;

/// Whether a node is short enough that a page goes on beside its race, and its operands, which are made for the race, take little.
fn can_be_raced(plan: &Plan, node: usize) -> bool {
    let n = &plan.nodes[node];
    let params = n.params.iter().map(|&p| {
        let [rows, columns] = plan.params[p].packed();
        rows.saturating_mul(columns)
    });
    let values = n.inputs.iter().map(|v| plan.nodes[v.0].shape.len());
    let elements = params.chain(values).fold(n.shape.len(), usize::saturating_add);
    plan.flops(node) <= policy::RACE_FLOP && elements <= policy::RACE_ELEMENTS
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
            let mut judge = Judge::new(own, heavy.product.half);
            let raced = self.race(plan, weights, &heavy, &mut judge, cancel).await;
            match raced {
                Err(error @ (Error::Cancelled(_) | Error::DeviceLost(_))) => return Err(error),
                Err(Error::OutOfMemory(_)) => {
                    self.tuner.passed.borrow_mut().insert(format!("{:?}", heavy.product));
                    continue;
                }
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
        for node in plan.phase(Rate::Step).filter(|&node| can_be_raced(plan, node)) {
            let seen: Rc<RefCell<Seen>> = Rc::default();
            let sees = Rc::clone(&seen);
            let target = Target {
                chooser: Some(Rc::new(move |product, choices| {
                    sees.borrow_mut().push((*product, choices.to_vec()));
                    None
                })),
                ..self.target()
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
        let (known, passed) = (self.tuner.known.borrow(), self.tuner.passed.borrow());
        all.retain(|heavy| {
            let name = format!("{:?}", heavy.product);
            heavy.choices.len() > 1 && !known.choices.contains_key(&name) && !passed.contains(&name)
        });
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
            ..self.target()
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
        // The node is the last; inputs are converted before it.
        let ms = times.await?.ms.last().copied().unwrap_or(0.0);
        let view = self.view(&instance, alone.plan.output("y")?, 0)?;
        let crate::executor::Buffer::Webgpu(buffer) = view.buffer else {
            return Err(Error::Internal("a view of another executor".into()));
        };
        Ok((ms, self.read(&buffer, 0, view.len.min(policy::RACE_COMPARED)).await?))
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::alone::made_up;
    use super::judge::apart;
    use super::*;
    use crate::executor::Data;
    use crate::executor::webgpu::Options;
    use crate::graph::{Element, Graph, Path};
    use crate::nn;
    use pollster::block_on;

    /// The output of a plan of three layers on what is prepared now.
    fn output(gpu: &Webgpu, plan: &Rc<Plan>, weights: &Weights) -> Result<Vec<f32>> {
        let instance = block_on(gpu.prepare(plan.clone(), 1))?;
        let values: Vec<f32> = made_up(96 * 128).collect();
        gpu.write(&instance, "x", 0, Data::F32(&values))?;
        block_on(gpu.run(&instance, weights, Rate::Step, 0, 0, &CancelToken::default()))?;
        let view = gpu.view(&instance, plan.output("y")?, 0)?;
        let crate::executor::Buffer::Webgpu(buffer) = view.buffer else {
            return Err(Error::Internal("a view of another executor".into()));
        };
        block_on(gpu.read(&buffer, 0, view.len))
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
        let before = output(&gpu, &plan, &weights).unwrap();
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
        assert!(apart(&before, &output(&gpu, &plan, &weights).unwrap()) < 1e-5);

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
