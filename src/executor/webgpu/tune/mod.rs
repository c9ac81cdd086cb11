//! Choice by measurement: the heaviest products of a plan are run in each of the ways that `policy` holds likely, on the adapter
//! itself, and the fastest is kept. One that does not compile, or computes something else, is left out.

mod compare;
mod judge;
mod made_up;
mod race;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

use super::Webgpu;
use super::buffers::Buffer;
use super::kernels::{Chooser, Target, dispatches};
use super::policy;
use super::select::{Choice, Product};
use super::weights::Weights;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::WeightDtype;
use crate::graph::{ParamSpec, Plan, Rate};
use crate::platform::now_ms;
use judge::Judge;
use race::{End, Time};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

/// What was found out on this adapter. Products and choices are texts: what another version wrote and this one does not know is
/// of no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// The fastest choice of each product that was raced.
    pub choices: BTreeMap<String, String>,
    /// Choices that failed or were wrong, and why.
    pub left_out: BTreeMap<String, String>,
    /// The choice over whose race the device was lost. Nothing more is found out then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// A plan that is in use.
struct Known {
    plan: Weak<Plan>,
    /// How most of its weights are kept.
    dtype: WeightDtype,
    /// Products that are to be raced yet, where they were looked at, with weights of this dtype.
    left: Option<usize>,
}

/// What is known, and whether more may be found out.
pub(super) struct Tuner {
    known: Rc<RefCell<Tuning>>,
    on: Cell<bool>,
    /// Milliseconds that a plan's products are raced at a time.
    budget: Cell<f64>,
    /// Products for whose race there was no room, or nothing to tell right from wrong by, or that something else went wrong in: not
    /// tried again before the next start.
    passed: RefCell<BTreeSet<String>>,
    /// Races that are not over.
    under_way: RefCell<BTreeMap<String, Judge>>,
    plans: RefCell<Vec<Known>>,
    /// What products are raced with.
    made_up: RefCell<Option<Buffer>>,
    /// Grows with each change of what plans are prepared by.
    age: Cell<u64>,
    /// Races that came to nothing by no fault of a way's, and why, until someone asks.
    broken_off: RefCell<Vec<String>>,
}

impl Default for Tuner {
    fn default() -> Self {
        Self {
            known: Rc::default(),
            on: Cell::new(false),
            budget: Cell::new(policy::RACE_MS),
            passed: RefCell::default(),
            under_way: RefCell::default(),
            plans: RefCell::default(),
            made_up: RefCell::default(),
            age: Cell::new(0),
            broken_off: RefCell::default(),
        }
    }
}

/// What a product is known by: how weights are kept decides what loading them costs.
fn name_of(product: &Product, dtype: WeightDtype) -> String {
    format!("{product:?} with weights of {dtype:?}")
}

/// How most of these weights are kept.
fn most<'a>(params: impl Iterator<Item = (&'a ParamSpec, WeightDtype)>) -> WeightDtype {
    let mut sums = WeightDtype::ALL.map(|dtype| (dtype, 0));
    for (spec, dtype) in params {
        let [rows, columns] = spec.packed();
        let own = sums.iter_mut().filter(|(other, _)| *other == dtype);
        own.for_each(|(_, sum)| *sum = rows.saturating_mul(columns).saturating_add(*sum));
    }
    // Of equals the first.
    let first = sums.iter().rev().max_by_key(|(_, sum)| *sum);
    first.map_or(WeightDtype::F32, |(dtype, _)| *dtype)
}

impl Tuner {
    /// Chooses by what is known, for a plan.
    pub(super) fn chooser(&self, plan: &Plan) -> Chooser {
        let known = Rc::clone(&self.known);
        let is_this = |of: &&Known| of.plan.upgrade().is_some_and(|other| std::ptr::eq(&*other, plan));
        let dtype = self.plans.borrow().iter().find(is_this).map(|of| of.dtype);
        Rc::new(move |product, choices| {
            let known = known.borrow();
            let wanted = known.choices.get(&name_of(product, dtype?))?;
            choices.iter().find(|choice| format!("{choice:?}") == *wanted).copied()
        })
    }

    /// A number that is another after each change of what plans are prepared by.
    pub(super) fn age(&self) -> u64 {
        self.age.get()
    }

    fn grow(&self) {
        self.age.set(self.age.get() + 1);
    }

    /// Hears how a plan's weights are kept.
    pub(super) fn hear<'a>(&self, plan: &Rc<Plan>, params: impl Iterator<Item = (&'a ParamSpec, WeightDtype)>) {
        let dtype = most(params);
        let mut plans = self.plans.borrow_mut();
        plans.retain(|of| of.plan.strong_count() > 0);
        let of = Rc::downgrade(plan);
        let Some(known) = plans.iter_mut().find(|known| known.plan.ptr_eq(&of)) else {
            plans.push(Known {
                plan: of,
                dtype,
                left: None,
            });
            return self.grow();
        };
        if std::mem::replace(&mut known.dtype, dtype) != dtype {
            known.left = None;
            self.grow();
        }
    }

    /// How a plan's weights are kept, and what is left to be raced of it.
    fn of(&self, plan: &Rc<Plan>) -> Option<(WeightDtype, Option<usize>)> {
        let of = Rc::downgrade(plan);
        let plans = self.plans.borrow();
        let known = plans.iter().find(|known| known.plan.ptr_eq(&of));
        known.map(|known| (known.dtype, known.left))
    }

    fn set_left(&self, plan: &Rc<Plan>, left: usize) {
        let of = Rc::downgrade(plan);
        let mut plans = self.plans.borrow_mut();
        let own = plans.iter_mut().filter(|known| known.plan.ptr_eq(&of));
        own.for_each(|known| known.left = Some(left));
    }

    /// Products of plans in use that are to be raced yet.
    pub(super) fn left(&self) -> usize {
        let plans = self.plans.borrow();
        let alive = plans.iter().filter(|known| known.plan.strong_count() > 0);
        alive.filter_map(|known| known.left).sum()
    }

    /// The race that was begun, or a new one.
    fn take_up<'a>(&'a self, name: &'a str, new: impl FnOnce() -> Judge) -> UnderWay<'a> {
        let begun = self.under_way.borrow_mut().remove(name);
        UnderWay {
            tuner: self,
            name,
            judge: begun.unwrap_or_else(new),
            is_over: false,
        }
    }

    fn leave_out(&self, choice: Choice, name: &str, why: String) {
        let mut known = self.known.borrow_mut();
        known.left_out.insert(format!("{choice:?} of {name}"), why);
    }

    fn is_left_out(&self, choice: Choice, name: &str) -> bool {
        self.known
            .borrow()
            .left_out
            .contains_key(&format!("{choice:?} of {name}"))
    }
}

/// A race: if it is not over when this goes, as where nobody waits for it any more, it can be taken up again.
struct UnderWay<'a> {
    tuner: &'a Tuner,
    name: &'a str,
    judge: Judge,
    is_over: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let judge = self.judge.clone();
            self.tuner.under_way.borrow_mut().insert(self.name.into(), judge);
        }
    }
}

/// A product to be raced: a node that is one, and how heavy all of its like are.
struct Heavy {
    product: Product,
    name: String,
    choices: Vec<Choice>,
    node: usize,
    flop: u64,
}

/// Products with their legal choices.
type Seen = Vec<(Product, Vec<Choice>)>;

/// Whether a node is short enough that a page goes on beside its race, and its operands, which are there twice for it, take little.
fn can_be_raced(plan: &Plan, node: usize) -> bool {
    plan.flops(node) <= policy::RACE_FLOP && plan.moved(node) <= policy::RACE_BYTES
}

impl Webgpu {
    /// Says what is known already, and whether more may be found out. What lost the device once is not gone on with.
    pub fn set_tuning(&self, known: Tuning, on: bool) {
        self.tuner.on.set(on && known.lost.is_none());
        *self.tuner.known.borrow_mut() = known;
        self.tuner.grow();
    }

    /// Races that came to nothing since this was last asked, and why.
    pub(in crate::executor) fn take_broken_off(&self) -> Vec<String> {
        self.tuner.broken_off.take()
    }

    /// What was found out so far.
    pub fn tuning(&self) -> Tuning {
        self.tuner.known.borrow().clone()
    }

    pub(in crate::executor) fn expect(&self, plan: &Rc<Plan>, dtypes: &[(ParamSpec, WeightDtype)]) {
        self.tuner.hear(plan, dtypes.iter().map(|(spec, dtype)| (spec, *dtype)));
    }

    /// Races the products of a plan that are heavy and not known yet, as long as policy says, a way at least each time, and where there
    /// are `room` bytes for it. What was prepared before stays as it is. Says whether more is to be found out, which there was no time for.
    pub(in crate::executor) async fn tune(
        &self,
        plan: &Rc<Plan>,
        weights: &Weights,
        room: u64,
        cancel: &CancelToken,
    ) -> Result<bool> {
        let params = plan.params.iter().map(|spec| Ok((spec, weights.dtype(spec)?)));
        let params: Vec<_> = params.collect::<Result<_>>()?;
        self.tuner.hear(plan, params.into_iter());
        let Some((dtype, left)) = self.tuner.of(plan) else {
            return Ok(false);
        };
        if !self.tuner.on.get() || left == Some(0) {
            return Ok(false);
        }
        // What was lost before is no fault of a race's.
        self.device.drive(None)?;
        self.device.check()?;
        let all = self.heavy(plan, weights, dtype)?;
        let mut left = all.len();
        let mut time = Time::until(now_ms() + self.tuner.budget.get(), room);
        for heavy in all {
            self.tuner.set_left(plan, left);
            if time.is_up() {
                break;
            }
            let Some(own) = policy::product(&heavy.product, &heavy.choices) else {
                left -= 1;
                continue;
            };
            let mut race = self.tuner.take_up(&heavy.name, || Judge::new(own, heavy.product.half));
            let ran = self
                .race(plan, weights, &heavy, &mut race.judge, &mut time, cancel)
                .await;
            race.is_over = !matches!(ran, Ok(End::TimeIsUp) | Err(Error::Cancelled(_)));
            drop(race);
            let best = match ran {
                Ok(End::Won(best)) => best,
                Ok(End::TimeIsUp) => break,
                Err(Error::Cancelled(why)) => return Err(Error::Cancelled(why)),
                Err(Error::DeviceLost(why)) => return Err(Error::DeviceLost(why)),
                Ok(End::SaysNothing | End::NoRoom) | Err(Error::OutOfMemory(_)) => {
                    self.tuner.passed.borrow_mut().insert(heavy.name);
                    left -= 1;
                    continue;
                }
                // Racing is no part of what was asked for: the policy's own stays, and nothing is known.
                Err(error) => {
                    let said = format!("{}: {}", heavy.name, error.message());
                    self.tuner.broken_off.borrow_mut().push(said);
                    self.tuner.passed.borrow_mut().insert(heavy.name);
                    left -= 1;
                    continue;
                }
            };
            let mut known = self.tuner.known.borrow_mut();
            known.choices.insert(heavy.name, format!("{best:?}"));
            if best != own {
                self.tuner.grow();
            }
            left -= 1;
        }
        self.tuner.set_left(plan, left);
        Ok(left > 0)
    }

    /// The heaviest products that are not known, each once, the heaviest first.
    fn heavy(&self, plan: &Plan, weights: &Weights, dtype: WeightDtype) -> Result<Vec<Heavy>> {
        let mut all: Vec<Heavy> = Vec::new();
        for node in plan.phase(Rate::Step).filter(|&node| can_be_raced(plan, node)) {
            let first = plan.nodes[node].params.first();
            // One whose weights are kept in another way is not known by the plan's name.
            if first.is_some_and(|&p| weights.dtype(&plan.params[p]).is_ok_and(|own| own != dtype)) {
                continue;
            }
            let seen: Rc<RefCell<Seen>> = Rc::default();
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
                        name: name_of(&product, dtype),
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
            heavy.choices.len() > 1 && !known.choices.contains_key(&heavy.name) && !passed.contains(&heavy.name)
        });
        Ok(all)
    }
}
