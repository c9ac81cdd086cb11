//! The half of an autoencoder that encodes. Drawing from text has no use of it, so that it is read with the first image.

use super::content::{Content, address};
use super::load::Job;
use super::pool::Shared;
use super::reading::{nothing_yet, take};
use super::wanted::Wanted;
use super::{Library, LoadOptions, Resident, Room};
use crate::cancel::CancelToken;
use crate::checkpoint::component::file_bytes;
use crate::checkpoint::{Checkpoint, Component, ProgressSink, Source, TensorInfo};
use crate::error::{Error, Result};
use crate::pipeline::Key;
use futures_util::future::try_join;
use std::rc::Rc;

/// Refuses an autoencoder that has no encoder.
pub(super) fn expect_encoder(vae: &Component) -> Result<()> {
    match vae.tensors().any(|tensor| tensor.name.starts_with("encoder.")) {
        true => Ok(()),
        false => Err(Error::Unsupported(format!(
            "{}: expected an encoder beside the decoder, to draw over an image with, found none",
            vae.place()
        ))),
    }
}

impl Library {
    /// Brings the encoder of a resident checkpoint into memory, from where the checkpoint was loaded, or from another one that has
    /// the same. If that fails, all is as it was, but for what had to give way. Not to be called while another checkpoint is loaded.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no checkpoint of this id; [`Error::Unsupported`] if there is no encoder, or one that is not
    /// implemented; [`Error::Corrupt`] if the file is no longer the one that was loaded; whatever reading brings forth;
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
        let plan = self
            .plans
            .plan(&self.executor, &key)
            .map_err(|e| e.at(&resident.name))?;
        let xl = resident.models.unet.config.text_time.is_some();
        let component = Checkpoint::open_vae(source, &options.open, xl, cancel, progress).await?;
        let place = component.place().to_owned();
        expect_encoder(&component)?;
        let changed = || Error::Corrupt(format!("{place}: the file has changed since the checkpoint was loaded"));
        // What must be there too, if it is still what was loaded.
        let specs: Vec<_> = decoder.params.iter().map(|(spec, _)| spec.clone()).collect();
        let before = Wanted::new(&component, &specs).map_err(|e| e.at(&place))?;
        let model = self.reading(&component, &key)?;
        if let Some(found) = model.found {
            let address = address(&component, &before, &component.known_hashes());
            if address.and_then(|address| self.pool.id_at(address)).as_ref() != Some(&decoder.id) {
                return Err(changed());
            }
            component.skip(cancel).await?;
            return Ok(self.with_encoder(&resident, found));
        }
        progress.set_total(file_bytes([&component]));
        let keys: Vec<_> = resident.keys.iter().cloned().chain([key]).collect();
        let _coming = self.make_room(&resident.name, model.bytes, &keys, room)?;
        let params = model.wanted.params.clone();
        let mut job = Job {
            component,
            models: vec![model],
        };
        self.allocate(&mut job, room).await?;
        let Job { component, models } = &mut job;
        let (mut content, mut contents) = (Content::default(), nothing_yet(models));
        let wanted = |name: &str| before.has(name) || models.iter().any(|model| model.wants(name));
        let sink = |tensor: &TensorInfo, start, piece: &_| {
            if before.has(&tensor.name) {
                content.add(tensor, start, piece);
            }
            take(models, &mut contents, &self.executor, (tensor, start, piece))
        };
        let read = component.for_each_piece(cancel, progress, wanted, sink);
        let ((), files) = try_join(self.executor.warm(&plan, &params), read).await?;
        self.executor.settle().await?;
        progress.done();
        if content.id() != decoder.id {
            return Err(changed());
        }
        let encoder = self.keep(job, contents, &files)?.pop();
        let encoder = encoder.ok_or_else(|| Error::Internal("the encoder was read for nobody".into()))?;
        Ok(self.with_encoder(&resident, encoder))
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
