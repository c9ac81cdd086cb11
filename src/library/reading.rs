//! Reading the weights of a checkpoint's components: each from its own files, or all from one file that has them all.

use super::Library;
use super::content::{Content, address};
use super::load::{Job, Reading};
use super::pool::Shared;
use crate::cancel::CancelToken;
use crate::checkpoint::{Component, ProgressSink, SharedFile, TensorInfo};
use crate::error::{Error, Result};
use crate::executor::Executor;
use futures_util::future::try_join_all;
use std::rc::Rc;

impl Reading {
    /// Whether it is not here and has a part of this tensor.
    pub(super) fn wants(&self, tensor: &str) -> bool {
        self.found.is_none() && self.wanted.has(tensor)
    }
}

/// Puts a piece of a tensor where these models have it.
pub(super) fn take(
    models: &[Reading],
    contents: &mut [Content],
    executor: &Executor,
    (tensor, start, piece): (&TensorInfo, u64, &[u8]),
) -> Result<()> {
    for (model, content) in models.iter().zip(contents) {
        if let Some(weights) = model.room.as_ref().filter(|_| model.wants(&tensor.name)) {
            content.add(tensor, start, piece);
            model.wanted.place(executor, weights, tensor, start, piece)?;
        }
    }
    Ok(())
}

/// What is known of each model's tensors before they arrive.
pub(super) fn nothing_yet(models: &[Reading]) -> Vec<Content> {
    models.iter().map(|_| Content::default()).collect()
}

impl Library {
    /// Reads all that is not here into its room, and gives each component's weights, model by model, in order.
    pub(super) async fn read_all(
        &self,
        jobs: Vec<Job>,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Vec<Vec<Rc<Shared>>>> {
        // Each with its number; those that are in one file are read together.
        type Group = Vec<(usize, Job)>;
        let mut groups: Vec<(Option<Rc<SharedFile>>, Group)> = Vec::new();
        for (i, job) in jobs.into_iter().enumerate() {
            let file = job.component.shared_file().cloned();
            let same = |(other, _): &&mut (Option<Rc<SharedFile>>, Group)| match (other, &file) {
                (Some(a), Some(b)) => Rc::ptr_eq(a, b),
                _ => false,
            };
            match groups.iter_mut().find(same) {
                Some((_, group)) => group.push((i, job)),
                None => groups.push((file, vec![(i, job)])),
            }
        }
        let read = groups.into_iter().map(|(file, group)| async move {
            match file {
                Some(file) => self.read_together(&file, group, progress, cancel).await,
                None => {
                    try_join_all(
                        group
                            .into_iter()
                            .map(|(i, job)| async move { Ok((i, self.read(job, progress, cancel).await?)) }),
                    )
                    .await
                }
            }
        });
        let mut shared: Vec<_> = try_join_all(read).await?.into_iter().flatten().collect();
        shared.sort_by_key(|(i, _)| *i);
        Ok(shared.into_iter().map(|(_, shared)| shared).collect())
    }

    async fn read(&self, mut job: Job, progress: &ProgressSink<'_>, cancel: &CancelToken) -> Result<Vec<Rc<Shared>>> {
        if job.missing().next().is_none() {
            let Job { component, models } = job;
            component.skip(cancel).await?;
            return Ok(models.into_iter().filter_map(|model| model.found).collect());
        }
        let Job { component, models } = &mut job;
        let mut contents = nothing_yet(models);
        let wanted = |name: &str| models.iter().any(|model| model.wants(name));
        let sink = |tensor: &_, start, piece: &_| take(models, &mut contents, &self.executor, (tensor, start, piece));
        let files = component.for_each_piece(cancel, progress, wanted, sink).await?;
        self.keep(job, contents, &files)
    }

    /// Components of one file, which is read once, or not at all if all of them are here.
    async fn read_together(
        &self,
        file: &SharedFile,
        jobs: Vec<(usize, Job)>,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Vec<(usize, Vec<Rc<Shared>>)>> {
        let is_here = |(_, job): &(usize, Job)| job.missing().next().is_none();
        let (here, missing): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_here);
        let mut read = Vec::with_capacity(here.len() + missing.len());
        for (i, Job { component, models }) in here {
            if missing.is_empty() {
                // The first ends the download for all.
                component.skip(cancel).await?;
            }
            read.push((i, models.into_iter().filter_map(|model| model.found).collect()));
        }
        if missing.is_empty() {
            return Ok(read);
        }
        let components: Vec<&Component> = missing.iter().map(|(_, job)| &job.component).collect();
        let models = |i: usize| missing[i].1.models.as_slice();
        let mut contents: Vec<_> = (0..missing.len()).map(|i| nothing_yet(models(i))).collect();
        let wanted = |i: usize, name: &str| models(i).iter().any(|model| model.wants(name));
        let sink = |i: usize, tensor: &_, start, piece: &_| {
            take(models(i), &mut contents[i], &self.executor, (tensor, start, piece))
        };
        let hash = file.for_each_piece(&components, cancel, progress, wanted, sink).await?;
        for ((i, job), contents) in missing.into_iter().zip(contents) {
            read.push((i, self.keep(job, contents, &[hash])?));
        }
        Ok(read)
    }

    /// Weights that were read, from files of these hashes, and those that were here.
    pub(super) fn keep(&self, job: Job, contents: Vec<Content>, files: &[Option<[u8; 32]>]) -> Result<Vec<Rc<Shared>>> {
        let Job { component, models } = job;
        let kept = |(model, content): (Reading, Content)| {
            if let Some(found) = model.found {
                return Ok(found);
            }
            let weights = model.room;
            let weights = weights.ok_or_else(|| Error::Internal("a component has no room".into()))?;
            self.uploaded.set(self.uploaded.get() + model.bytes);
            let id = content.id();
            if let Some(address) = address(&component, &model.wanted, files) {
                self.pool.note(address, &id);
            }
            Ok(self.pool.keep(Shared {
                id,
                params: model.wanted.params,
                weights,
                bytes: model.bytes,
            }))
        };
        models.into_iter().zip(contents).map(kept).collect()
    }
}
