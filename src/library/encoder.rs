//! The half of an autoencoder that encodes. Drawing from text has no use of it, so that it is read with the first image.

use super::load::Job;
use super::pool::Shared;
use super::{Library, LoadOptions, Resident, Room, reading};
use crate::cancel::CancelToken;
use crate::checkpoint::{Checkpoint, ProgressSink, Source};
use crate::error::{Error, Result};
use crate::pipeline::Key;
use futures_util::future::try_join;
use std::rc::Rc;

impl Library {
    /// Brings the encoder of a resident checkpoint into memory, from where the checkpoint was loaded, or from another one that has
    /// the same. If that fails, all is as it was, but for what had to give way. Not to be called while another checkpoint is loaded.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no checkpoint of this id; [`Error::Unsupported`] if the encoder is not implemented;
    /// [`Error::Corrupt`] if the file has no encoder, or is no longer the one that was loaded; whatever reading brings forth;
    /// [`Error::OutOfMemory`].
    pub async fn read_encoder(
        &self,
        id: &str,
        source: Source,
        options: &LoadOptions,
        room: Room,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let resident = self.get(id)?;
        let decoder = match resident.shared.last() {
            Some(decoder) if resident.encoder.is_none() => decoder,
            _ => return Ok(resident),
        };
        let size = [resident.defaults.height, resident.defaults.width].map(|n| (n / resident.factor).max(1));
        let key = Key::encoder(&resident.models.vae.config, size);
        let plan = self.plans.plan(&key).map_err(|e| e.at(&resident.name))?;
        let same = |shared: &Rc<Shared>| {
            let specs = shared.params.iter().map(|(spec, _)| spec);
            shared.id == decoder.id && specs.eq(&plan.params)
        };
        if let Some(found) = self.pool.all().into_iter().find(same) {
            return Ok(self.with_encoder(&resident, found));
        }
        let component = Checkpoint::open_vae(source, &options.open, cancel, progress).await?;
        let place = component.place();
        let model = self.reading(&component, &key)?;
        let mut job = Job {
            component,
            models: vec![model],
        };
        progress.set_total(reading::bytes(std::slice::from_ref(&job)));
        let bytes = job.missing().map(|model| model.bytes).sum();
        let _coming = self.make_room(&resident.name, bytes, &resident.keys, room)?;
        self.allocate(&mut job, room).await?;
        let pipelines: Vec<_> = job.models.iter().map(|model| model.wanted.params.clone()).collect();
        let compile = async {
            for params in &pipelines {
                self.executor.warm(&plan, params).await?;
            }
            Ok(())
        };
        let ((), mut read) = try_join(compile, self.read_all(vec![job], progress, cancel)).await?;
        self.executor.settle().await?;
        progress.done();
        match read.pop().and_then(|mut models| models.pop()) {
            Some(encoder) if encoder.id == decoder.id => Ok(self.with_encoder(&resident, encoder)),
            _ => Err(Error::Corrupt(format!(
                "{place}: the file has changed since the checkpoint was loaded"
            ))),
        }
    }

    /// Puts the checkpoint with its encoder where it was without. Who draws with the former one goes on with it; one that was let go
    /// meanwhile stays away.
    fn with_encoder(&self, former: &Resident, encoder: Rc<Shared>) -> Rc<Resident> {
        let mut resident = former.clone();
        resident.models.encoder = Some(encoder.weights.clone());
        resident.encoder = Some(encoder);
        let resident = Rc::new(resident);
        let mut residents = self.residents.borrow_mut();
        if let Some(place) = residents.iter_mut().find(|r| r.id == former.id) {
            *place = resident.clone();
        }
        drop(residents);
        self.set_plan_limit();
        resident
    }
}
