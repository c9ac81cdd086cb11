//! The checkpoints held in memory, under a budget. `load` brings one, whose weights `reading` reads; `encoder` reads what only images
//! need; `inspect` looks at one that is not loaded; `lora` lays LoRAs over it; `family` knows what its like draws well with, and
//! `defaults` what it draws with in the end; `parts` understands its configurations, `wanted` finds the tensors of its parameters;
//! `pool` holds each component's weights once, by their `content`; `resident` is what is said of it. Here: what is resident, and who
//! gives way to whom. Nothing here draws.

mod content;
mod defaults;
mod encoder;
mod family;
mod inspect;
mod load;
mod lora;
mod parts;
mod pool;
mod reading;
mod resident;
mod wanted;

use crate::error::{Error, Result};
use crate::executor::{Executor, WeightDtype, Weights};
use crate::graph::{ParamSpec, Plan};
use crate::pipeline::{Key, PlanCache, Request, keys};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

pub use defaults::{Defaults, DefaultsHint};
pub use family::Family;
pub use inspect::{Inspection, Needs};
pub use load::Room;
pub use resident::{ComponentInfo, LoadOptions, LoraInfo, Resident};

/// The checkpoints held in memory, and the device that they are on.
pub struct Library {
    /// The device.
    pub executor: Executor,
    /// The plans in use.
    pub plans: PlanCache,
    residents: RefCell<Vec<Rc<Resident>>>,
    pool: pool::Pool,
    budget: Option<u64>,
    /// Ids that someone waits to draw with.
    reserved: RefCell<Vec<String>>,
    /// Every id that a checkpoint was given: one that is not in memory may come back.
    issued: RefCell<HashSet<String>>,
    /// Bytes of weights that are being read, for which there must be room.
    coming: Cell<u64>,
    /// Counts what is asked for, to know what was asked for longest ago.
    clock: Cell<u64>,
    /// Bytes of weights that were read to the device so far.
    uploaded: Cell<u64>,
}

/// What was made since the beginning: a change between checkpoints that are held adds nothing to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// How often slots were made for a plan.
    pub plans: u64,
    /// Pipelines that were compiled.
    pub pipelines: usize,
    /// Bytes of weights that were read to the device.
    pub uploaded: u64,
    /// Products whose fastest way is yet to be found out.
    pub unraced: usize,
}

/// What is held, in bytes of the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What all of it may be.
    pub budget: Option<u64>,
    /// Weights, each component counted once, and what LoRAs lay over them.
    pub weights: u64,
    /// Slots of the plans in use.
    pub working: u64,
}

/// Bytes of slots that are there at once.
struct Working<'a> {
    executor: &'a Executor,
    together: u64,
    alone: u64,
}

impl<'a> Working<'a> {
    fn new(executor: &'a Executor) -> Self {
        Self {
            executor,
            together: 0,
            alone: 0,
        }
    }

    fn add(&mut self, key: &Key, plan: &Plan) {
        let bytes = self.executor.slot_bytes(plan, key.contexts());
        match key.runs_alone() {
            true => self.alone = self.alone.max(bytes),
            false => self.together = self.together.saturating_add(bytes),
        }
    }

    fn bytes(&self) -> u64 {
        self.together.max(self.alone)
    }
}

/// As long as this is held, a checkpoint is let go only if there is no other way.
pub struct Reservation<'a> {
    library: &'a Library,
    id: String,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut reserved = self.library.reserved.borrow_mut();
        if let Some(at) = reserved.iter().position(|id| *id == self.id) {
            reserved.swap_remove(at);
        }
    }
}

/// As long as this is held, there is room for the weights that are being read. Then the slots may have what is left of it.
struct Coming<'a>(&'a Library);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.coming.set(0);
        self.0.set_plan_limit();
    }
}

impl Library {
    /// An empty library. `budget` bounds the bytes of weights and working memory.
    pub fn new(executor: Executor, budget: Option<u64>) -> Self {
        let library = Self {
            executor,
            plans: PlanCache::default(),
            residents: RefCell::default(),
            pool: pool::Pool::default(),
            budget,
            reserved: RefCell::default(),
            issued: RefCell::default(),
            coming: Cell::new(0),
            clock: Cell::new(0),
            uploaded: Cell::new(0),
        };
        library.set_plan_limit();
        library
    }

    /// The checkpoints in memory, in the order in which they were loaded.
    pub fn residents(&self) -> Vec<Rc<Resident>> {
        self.residents.borrow().clone()
    }

    /// The checkpoint of this id. It counts as asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub fn get(&self, id: &str) -> Result<Rc<Resident>> {
        let residents = self.residents.borrow();
        let found = residents.iter().find(|r| r.id == id).cloned();
        let found = found.ok_or_else(|| {
            let known: Vec<&str> = residents.iter().map(|r| r.id.as_str()).collect();
            Error::NotFound(format!("checkpoint {id:?} is not loaded; loaded are {known:?}"))
        })?;
        found.used.set(self.tick());
        Ok(found)
    }

    /// Keeps the checkpoint of this id, now or once it is loaded, from giving way to one that nobody waits for.
    pub fn reserve(&self, id: &str) -> Reservation<'_> {
        self.reserved.borrow_mut().push(id.into());
        Reservation {
            library: self,
            id: id.into(),
        }
    }

    /// Lets a checkpoint go, with its memory on the device, but for what others share with it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this id.
    pub fn unload(&self, id: &str) -> Result<()> {
        self.get(id)?;
        self.let_go(id);
        if self.residents.borrow().is_empty() {
            self.plans.clear();
        }
        Ok(())
    }

    /// What is held.
    pub fn memory(&self) -> Memory {
        Memory {
            budget: self.budget,
            weights: self.pool.bytes(),
            working: self.plans.bytes(),
        }
    }

    /// What was made so far.
    pub fn counts(&self) -> Counts {
        Counts {
            plans: self.plans.made(),
            pipelines: self.executor.pipelines(),
            uploaded: self.uploaded.get(),
            unraced: self.executor.unraced(),
        }
    }

    /// Whether some checkpoint would give way only to one that someone waits for, or to none.
    pub fn is_crowded(&self) -> bool {
        self.giving_way(Room::Idle).len() < self.residents.borrow().len()
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn let_go(&self, id: &str) {
        self.residents.borrow_mut().retain(|r| r.id != id);
        self.set_plan_limit();
    }

    /// Who can give way, the one asked for longest ago first.
    fn giving_way(&self, room: Room) -> Vec<String> {
        let residents = self.residents.borrow();
        let reserved = self.reserved.borrow();
        let idle = |r: &&Rc<Resident>| Rc::strong_count(r) == 1 && (room == Room::Any || !reserved.contains(&r.id));
        let mut idle: Vec<&Rc<Resident>> = residents.iter().filter(idle).collect();
        idle.sort_by_key(|r| r.used.get());
        idle.iter().map(|r| r.id.clone()).collect()
    }

    /// Lets one checkpoint go. Says whether there was one.
    fn let_go_of_one(&self, room: Room) -> bool {
        let first = self.giving_way(room).into_iter().next();
        first.inspect(|id| self.let_go(id)).is_some()
    }

    /// What `make` makes; where the device has less memory than was thought, more checkpoints give way.
    async fn giving_way_to<T>(&self, room: Room, make: impl AsyncFn() -> Result<T>) -> Result<T> {
        loop {
            match make().await {
                Err(Error::OutOfMemory(_)) if self.let_go_of_one(room) => {}
                made => return made,
            }
        }
    }

    /// Room on the device for weights.
    async fn allocate_weights(&self, params: &[(ParamSpec, WeightDtype)], room: Room) -> Result<Weights> {
        self.giving_way_to(room, async || self.executor.allocate(params).await)
            .await
    }

    /// What `work` makes for a picture, once there is room for it: checkpoints that nobody draws with give way, if they have to. Where
    /// the device has less memory than was thought, slots are freed once, as `work` fills them again, then guidance's branches run one
    /// after the other, then more checkpoints give way.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if even that would not do; nobody goes then where that was known before. Those of `work`.
    pub async fn with_room<T>(
        &self,
        resident: &Resident,
        request: &Request,
        work: impl AsyncFn() -> Result<T>,
    ) -> Result<T> {
        let mut keys = keys(&self.executor, &resident.models, request)?;
        drop(self.make_room_for(&resident.name, 0, &mut keys, Room::Any)?);
        let mut freed = false;
        loop {
            match work().await {
                Err(Error::OutOfMemory(_)) if self.make_do(&keys, &mut freed, Room::Any) => {}
                made => return made,
            }
        }
    }

    /// Slots of the plans that a picture runs whenever it is drawn.
    async fn make_slots(&self, keys: &[Key]) -> Result<()> {
        for key in keys.iter().filter(|key| !key.runs_alone()) {
            self.plans.get(&self.executor, key.clone()).await?;
        }
        Ok(())
    }

    /// What is run for these keys by now.
    fn fit(&self, keys: &mut [Key]) {
        keys.iter_mut().for_each(|key| *key = self.plans.fitting(key.clone()));
    }

    fn make_do(&self, keys: &[Key], freed: &mut bool, room: Room) -> bool {
        let before = self.plans.bytes();
        self.plans.clear();
        let frees = self.plans.bytes() < before;
        (frees && !std::mem::replace(freed, true)) || self.plans.run_apart(keys, true) || self.let_go_of_one(room)
    }

    /// [`Self::make_room`], with guidance in a batch if that has room, and else with its branches one after the other, which `keys`
    /// are then for.
    fn make_room_for(&self, name: &str, weights: u64, keys: &mut [Key], room: Room) -> Result<Coming<'_>> {
        self.plans.run_together(keys);
        self.fit(keys);
        match self.make_room(name, weights, keys, room) {
            Err(Error::OutOfMemory(_)) if self.plans.run_apart(keys, false) => {
                self.fit(keys);
                self.make_room(name, weights, keys, room)
            }
            made => made,
        }
    }

    /// Lets checkpoints go until there is room in the budget for weights of these bytes, and for the slots of these plans. If there
    /// cannot be, nobody goes. The weights' room is theirs as long as what this gives is held.
    fn make_room(&self, name: &str, weights: u64, keys: &[Key], room: Room) -> Result<Coming<'_>> {
        let mut working = Working::new(&self.executor);
        for key in keys {
            let plan = self.plans.plan(&self.executor, key)?;
            // No one else's going would help against this.
            self.executor.check_limits(&plan).map_err(|e| e.at(name))?;
            working.add(key, &plan);
        }
        let working = working.bytes();
        let Some(budget) = self.budget else {
            return Ok(self.coming(weights));
        };
        let busy = self.plans.busy_bytes(keys);
        let needed = weights.saturating_add(working).saturating_add(busy);
        let going = self.giving_way(room);
        let stays = |shared: &Rc<pool::Shared>| {
            let residents = self.residents.borrow();
            let holders = residents.iter().filter(|r| going.contains(&r.id));
            let holders = holders
                .filter(|r| r.all_weights().any(|s| Rc::ptr_eq(s, shared)))
                .count();
            // One more is the list that is gone through here.
            Rc::strong_count(shared) > holders + 1
        };
        let staying: u64 = self.pool.all().iter().filter(|s| stays(s)).map(|s| s.bytes).sum();
        if staying.saturating_add(needed) > budget {
            let used = staying.saturating_add(busy);
            let what = match weights {
                0 => format!("a picture needs {working} bytes"),
                _ => format!("its weights need {weights} bytes and a picture {working}"),
            };
            return Err(Error::OutOfMemory(format!(
                "{name}: {what}; memoryBudget is {budget}, of which {used} are in use"
            )));
        }
        for id in going {
            if self.pool.bytes().saturating_add(needed) <= budget {
                break;
            }
            self.let_go(&id);
        }
        Ok(self.coming(weights))
    }

    fn coming(&self, bytes: u64) -> Coming<'_> {
        self.coming.set(bytes);
        self.set_plan_limit();
        Coming(self)
    }

    /// What the budget leaves for slots, beside the weights that are here and those that are coming.
    fn set_plan_limit(&self) {
        let held = self.pool.bytes().saturating_add(self.coming.get());
        self.plans.set_limit(self.budget.map(|b| b.saturating_sub(held)));
    }

    /// The id that is wished for, or one like it that is free.
    fn free_id(&self, options: &LoadOptions, name: &str) -> String {
        let wish = options.id.as_deref().unwrap_or(name);
        if options.again {
            return wish.into();
        }
        let mut issued = self.issued.borrow_mut();
        issued.extend(options.taken.iter().cloned());
        let others = (2u64..).map(|n| format!("{wish}-{n}"));
        let free = std::iter::once(wish.to_owned())
            .chain(others)
            .find(|id| !issued.contains(id));
        let id = free.unwrap_or_default();
        issued.insert(id.clone());
        id
    }
}
