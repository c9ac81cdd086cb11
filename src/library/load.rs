//! Reading a checkpoint into memory.

use super::parts::{Parts, defaults};
use super::pool::{Shared, content_id};
use super::resident::describe;
use super::wanted::Wanted;
use super::{Library, LoadOptions, Resident, Room};
use crate::cancel::CancelToken;
use crate::checkpoint::{Checkpoint, Component, ProgressSink, Source};
use crate::error::{Error, Result};
use crate::executor::{Executor, Weights};
use crate::graph::Plan;
use crate::pipeline::{Key, Model, Models};
use futures_util::future::{try_join, try_join_all};
use std::rc::Rc;

/// A component on its way into memory.
struct Job {
    component: Component,
    wanted: Wanted,
    plan: Rc<Plan>,
    /// It is here already: another checkpoint has it.
    found: Option<Rc<Shared>>,
    bytes: u64,
}

impl Library {
    /// Reads a checkpoint into memory; components that others have are shared. If that fails, all that was loaded before is as
    /// it was, but for what had to give way to it. Not to be called twice at once.
    ///
    /// # Errors
    /// Whatever its files bring forth; [`Error::OutOfMemory`] before a weight is fetched, if it cannot fit.
    pub async fn load(
        &self,
        source: Source,
        options: &LoadOptions,
        room: Room,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let checkpoint = Checkpoint::open(source, &options.open, cancel, progress).await?;
        let mut parts = Parts::of(&checkpoint, options)?;
        let factor = parts.vae.factor();
        let defaults = defaults(&options.defaults, &parts.unet, factor);
        // At the size that it draws by default: what that needs is known before anything is fetched, and compiles meanwhile.
        let tokens = parts.tokenizer.length();
        let size = [defaults.height, defaults.width].map(|n| (n / factor).max(1));
        let branches = if defaults.guidance_scale > 1.0 { 2 } else { 1 };
        let keys = [
            Key::text(&parts.text, tokens),
            Key::unet(&self.executor, &parts.unet, size, tokens, defaults.steps, branches),
            Key::decoder(&parts.vae, size),
        ];

        let Checkpoint {
            text_encoder,
            unet,
            vae,
            name,
            source,
            ..
        } = checkpoint;
        let (mut jobs, mut working) = (Vec::new(), 0u64);
        for (component, key) in [text_encoder, unet, vae].into_iter().zip(&keys) {
            let config = || source.locate(&format!("{}/config.json", component.name));
            let plan = self.plans.plan(key).map_err(|e| e.at(config()))?;
            let wanted = Wanted::new(&component, &plan.params).map_err(|e| e.at(source.locate(component.name)))?;
            parts.warnings.extend(wanted.unused(&component));
            working = working.saturating_add(plan.peak_bytes(key.contexts()));
            let id = component.known_hashes().map(|files| content_id(&component.class, &files));
            jobs.push(Job {
                found: id.and_then(|id| self.pool.find(&id, &wanted.params)),
                bytes: self.executor.weight_bytes(&wanted.params),
                component,
                wanted,
                plan,
            });
        }
        progress.set_total(jobs.iter().filter(|j| j.found.is_none()).map(|j| j.component.bytes()).sum());
        let missing = jobs.iter().filter(|j| j.found.is_none()).map(|j| j.bytes).sum();
        self.make_room(&name, missing, working, room)?;
        let weights = self.allocate(&jobs, &keys, room).await?;

        let mut components: Vec<_> = jobs.iter().map(|job| describe(&job.component)).collect();
        let compile = async {
            for job in &jobs {
                self.executor.warm(&job.plan, &job.wanted.params).await?;
            }
            Ok::<(), Error>(())
        };
        // Its own borrow of each component, while the plans are read above.
        let mut reading: Vec<Component> = Vec::new();
        let _ = &mut reading;
        let (executor, pool) = (&self.executor, &self.pool);
        let _ = pool;
        try_join(compile, async { Ok::<(), Error>(()) }).await?;
        let shared = try_join_all(jobs.into_iter().zip(weights).map(|(job, weights)| job.read(executor, weights, progress, cancel))).await?;
        let shared: Vec<Rc<Shared>> = shared.into_iter().map(|read| read.unwrap_or_else(|new| self.pool.keep(new))).collect();
        unimplemented!()
    }
}
