//! Reading a checkpoint into memory.

use super::content::address;
use super::lora::Loras;
use super::parts::Parts;
use super::pool::Shared;
use super::resident::describe;
use super::wanted::Wanted;
use super::{Library, LoadOptions, Resident};
use crate::cancel::CancelToken;
use crate::checkpoint::component::file_bytes;
use crate::checkpoint::{Checkpoint, Component, ProgressSink, Source};
use crate::error::Result;
use crate::executor::Weights;
use crate::graph::Plan;
use crate::pipeline::Key;
use futures_util::future::try_join;
use std::rc::Rc;

/// A component on its way into memory.
pub(super) struct Job {
    pub(super) component: Component,
    pub(super) wanted: Wanted,
    pub(super) plan: Rc<Plan>,
    pub(super) bytes: u64,
    /// It is here already: another checkpoint has it.
    pub(super) found: Option<Rc<Shared>>,
}

/// Which checkpoints give way to one that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Those that nobody waits for.
    Idle,
    /// All but those that are drawing.
    Any,
}

impl Library {
    /// Reads a checkpoint into memory; components that others have are shared. If that fails, all that was loaded before is as
    /// it was, but for what had to give way. Not to be called twice at once.
    ///
    /// # Errors
    /// Whatever its files bring forth; [`OutOfMemory`](crate::error::Error::OutOfMemory) before a weight is fetched, if it cannot fit.
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
        let own = parts.own(&options.defaults);
        own.check().map_err(|e| e.at("source: defaults"))?;
        // At the size that it draws by default: what that needs is known before anything is fetched, and compiles meanwhile.
        let mut keys = parts.keys(&own.defaults, &self.executor);

        let Checkpoint {
            components,
            name,
            source,
            vae,
            ..
        } = checkpoint;
        let mut jobs = Vec::new();
        for (component, key) in components.into_iter().zip(&keys) {
            let plan = self.plans.plan(key).map_err(|e| e.at(component.config_place()))?;
            let wanted = Wanted::new(&component, &plan.params).map_err(|e| e.at(component.place()))?;
            // Of a text encoder pipelines may leave the last layer alone, which is in the file all the same.
            let whole = key.whole().map(|key| self.plans.plan(&key)).transpose()?;
            let whole = whole.as_ref().unwrap_or(&plan);
            parts.warnings.extend(wanted.unused(&component, &whole.params));
            let address = address(&component, &wanted, &component.known_hashes());
            jobs.push(Job {
                found: address.and_then(|address| self.pool.find_at(address, &wanted.params)),
                bytes: self.executor.weight_bytes(&wanted.params),
                component,
                wanted,
                plan,
            });
        }
        let needed: Vec<_> = jobs
            .iter()
            .map(|job| (job.component.name, job.wanted.params.as_slice()))
            .collect();
        let mut loras = Loras::read(&options.loras, &needed, progress, cancel).await?;
        let defaults;
        (defaults, parts.scheduler) = loras.defaults(&own);
        if defaults != own.defaults {
            keys = parts.keys(&defaults, &self.executor);
            for (job, key) in jobs.iter_mut().zip(&keys) {
                job.plan = self.plans.plan(key)?;
            }
        }
        let missing = || jobs.iter().filter(|job| job.found.is_none());
        let components = missing().map(|job| &job.component);
        progress.set_total(file_bytes(components).saturating_add(loras.bytes()));
        let bytes = missing().map(|job| job.bytes).fold(0, u64::saturating_add);
        let bytes = bytes.saturating_add(self.overlay_bytes(&loras));
        for job in missing() {
            // No one else's going would help against this.
            let limits = self.executor.check_weights(&job.wanted.params);
            limits.map_err(|e| e.at(job.component.place()))?;
        }
        let _coming = self.make_room(&name, bytes, &keys, room)?;
        let weights = self.allocate(&jobs, keys.clone(), room).await?;
        let rooms = self.allocate_overlays(&loras, room).await?;

        let mut components: Vec<_> = jobs.iter().map(|job| describe(&job.component)).collect();
        let pipelines: Vec<_> = jobs
            .iter()
            .map(|job| (job.plan.clone(), job.wanted.params.clone()))
            .collect();
        let compile = async {
            for (plan, params) in &pipelines {
                self.executor.warm(plan, params).await?;
            }
            Ok(())
        };
        let fetch = self.read_all(jobs, weights, progress, cancel);
        let ((), shared) = try_join(compile, fetch).await?;
        // A GPU says late that it could not take what it was given.
        self.executor.settle().await?;
        let overlays = self.merge(&loras, &shared, rooms, cancel).await?;
        progress.done();
        let bytes = shared.iter().map(|s| s.bytes).sum();
        // Meanwhile there may be more to say, such as that there was no room to store it.
        let of_vae = options.open.vae.iter().flat_map(|vae| vae.source.warnings());
        for warning in source.warnings().into_iter().chain(of_vae) {
            if !parts.warnings.contains(&warning) {
                parts.warnings.push(warning);
            }
        }
        for (info, shared) in components.iter_mut().zip(&shared) {
            info.id.clone_from(&shared.id);
        }
        let mut models = parts.models(&shared)?;
        models.set_weights(self.overlaid(&shared, &overlays)?);
        let resident = Rc::new(Resident {
            id: self.free_id(options, &name),
            name,
            family: parts.family,
            vae,
            components,
            defaults,
            factor: own.factor,
            own,
            bytes,
            models,
            warnings: parts.warnings,
            shared,
            keys,
            overlays,
            loras: loras.said(),
            used: self.tick().into(),
        });
        self.residents.borrow_mut().push(resident.clone());
        Ok(resident)
    }

    /// Room for the weights that are not here, and for a picture of the default size, before anything is fetched.
    async fn allocate(&self, jobs: &[Job], keys: Vec<Key>, room: Room) -> Result<Vec<Option<Weights>>> {
        let mut all = Vec::with_capacity(jobs.len());
        for job in jobs {
            all.push(match job.found {
                Some(_) => None,
                None => Some(self.allocate_weights(&job.wanted.params, room).await?),
            });
        }
        for key in keys {
            let prepare = async || self.plans.get(&self.executor, key.clone()).await;
            self.giving_way_to(room, prepare).await?;
        }
        Ok(all)
    }
}
