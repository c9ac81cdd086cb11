//! Reading a checkpoint into memory.

use super::content::address;
use super::encoder::expect_encoder;
use super::lora::Loras;
use super::parts::Parts;
use super::pool::Shared;
use super::resident::describe;
use super::wanted::Wanted;
use super::{Library, LoadOptions, Resident};
use crate::cancel::CancelToken;
use crate::checkpoint::component::file_bytes;
use crate::checkpoint::{Checkpoint, Component, ProgressSink, Source};
use crate::error::{Error, Result};
use crate::executor::Weights;
use crate::graph::Plan;
use crate::pipeline::Key;
use futures_util::future::try_join;
use std::rc::Rc;

/// A component on its way into memory.
pub(super) struct Job {
    pub(super) component: Component,
    /// What is made of it: one model, or of an autoencoder the decoder and the encoder.
    pub(super) models: Vec<Reading>,
}

/// A model on its way into memory, for which its component's files are read.
pub(super) struct Reading {
    pub(super) wanted: Wanted,
    pub(super) plan: Rc<Plan>,
    pub(super) bytes: u64,
    /// It is here already: another checkpoint has it.
    pub(super) found: Option<Rc<Shared>>,
    /// Where it goes, if it is not.
    pub(super) room: Option<Weights>,
}

impl Job {
    /// Those that are not here.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Reading> {
        self.models.iter().filter(|model| model.found.is_none())
    }
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
        let mut keys = parts.keys(&own.defaults, &self.executor, options.encodes);

        let Checkpoint {
            components,
            name,
            source,
            vae,
            ..
        } = checkpoint;
        let mut jobs = Vec::new();
        for (component, key) in components.into_iter().zip(&keys) {
            let model = self.reading(&component, key)?;
            // Of a text encoder pipelines may leave the last layer alone, which is in the file all the same.
            let whole = key
                .whole()
                .map(|key| self.plans.plan(&self.executor, &key))
                .transpose()?;
            let whole = whole.as_ref().unwrap_or(&model.plan);
            parts.warnings.extend(model.wanted.unused(&component, &whole.params));
            jobs.push(Job {
                component,
                models: vec![model],
            });
        }
        if let (Some(job), Some(key)) = (jobs.last_mut(), keys.iter().find(|key| key.runs_alone())) {
            expect_encoder(&job.component)?;
            let encoder = self.reading(&job.component, key)?;
            job.models.push(encoder);
        }
        let needed: Vec<_> = jobs
            .iter()
            .flat_map(|job| Some((job.component.name, job.models.first()?.wanted.params.as_slice())))
            .collect();
        let mut loras = Loras::read(&self.executor, &options.loras, &needed, progress, cancel).await?;
        let defaults;
        (defaults, parts.scheduler) = loras.defaults(&own);
        if defaults != own.defaults {
            keys = parts.keys(&defaults, &self.executor, options.encodes);
        }
        let missing = || jobs.iter().flat_map(Job::missing);
        let read = jobs.iter().filter(|job| job.missing().next().is_some());
        progress.set_total(file_bytes(read.map(|job| &job.component)).saturating_add(loras.bytes()));
        let bytes = missing().map(|model| model.bytes).fold(0, u64::saturating_add);
        let bytes = bytes.saturating_add(self.overlay_bytes(&loras));
        let _coming = self.make_room_for(&name, bytes, &mut keys, room)?;
        for job in &mut jobs {
            self.allocate(job, room).await?;
        }
        let mut freed = false;
        loop {
            // What was read by may be another by now.
            for (job, key) in jobs.iter_mut().zip(&keys) {
                let plan = self.plans.plan(&self.executor, key)?;
                job.models
                    .iter_mut()
                    .take(1)
                    .for_each(|model| model.plan = plan.clone());
            }
            for model in jobs.iter().flat_map(|job| &job.models) {
                self.executor.expect(&model.plan, &model.wanted.params);
            }
            match self.make_slots(&keys).await {
                Err(Error::OutOfMemory(_)) if self.make_do(&keys, &mut freed, room) => self.fit(&mut keys),
                made => break made?,
            }
        }
        let rooms = self.allocate_overlays(&loras, room).await?;

        let mut components: Vec<_> = jobs.iter().map(|job| describe(&job.component)).collect();
        let models = jobs.iter().flat_map(|job| &job.models);
        let pipelines: Vec<_> = models
            .map(|model| (model.plan.clone(), model.wanted.params.clone()))
            .collect();
        let compile = async {
            for (plan, params) in &pipelines {
                self.executor.warm(plan, params).await?;
            }
            Ok(())
        };
        let fetch = self.read_all(jobs, progress, cancel);
        let ((), mut read) = try_join(compile, fetch).await?;
        let encoder = read.last_mut().filter(|models| models.len() > 1).and_then(Vec::pop);
        let shared: Vec<Rc<Shared>> = read.into_iter().flatten().collect();
        // A GPU says late that it could not take what it was given.
        self.executor.settle().await?;
        let overlays = self.merge(&loras, &shared, rooms, cancel).await?;
        progress.done();
        let bytes = shared.iter().chain(&encoder).map(|s| s.bytes).sum();
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
        models.encoder = encoder.as_ref().map(|encoder| encoder.weights.clone());
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
            encoder,
            keys,
            overlays,
            loras: loras.said(),
            used: self.tick().into(),
        });
        self.residents.borrow_mut().push(resident.clone());
        Ok(resident)
    }

    /// A model of a component, which another checkpoint may have brought.
    pub(super) fn reading(&self, component: &Component, key: &Key) -> Result<Reading> {
        let plan = self
            .plans
            .plan(&self.executor, key)
            .map_err(|e| e.at(component.config_place()))?;
        let wanted = Wanted::new(component, &plan.params).map_err(|e| e.at(component.place()))?;
        let address = address(component, &wanted, &component.known_hashes());
        let found = address.and_then(|address| self.pool.find_at(address, &wanted.params));
        if found.is_none() {
            // No one else's going would help against this.
            let limits = self.executor.check_weights(&wanted.params);
            limits.map_err(|e| e.at(component.place()))?;
        }
        Ok(Reading {
            bytes: self.executor.weight_bytes(&wanted.params),
            plan,
            wanted,
            found,
            room: None,
        })
    }

    /// Room for the weights that are not here, before anything is fetched.
    pub(super) async fn allocate(&self, job: &mut Job, room: Room) -> Result<()> {
        for model in job.models.iter_mut().filter(|model| model.found.is_none()) {
            model.room = Some(self.allocate_weights(&model.wanted.params, room).await?);
        }
        Ok(())
    }
}
