//! Reading the weights of a checkpoint's components: each from its own files, or all from one file that has them all.

use super::Library;
use super::load::{Job, Reading};
use super::pool::{Shared, content_id};
use crate::cancel::CancelToken;
use crate::checkpoint::{Component, ProgressSink, SharedFile, TensorInfo};
use crate::error::{Error, Result};
use crate::executor::Executor;
use futures_util::future::try_join_all;
use std::rc::Rc;

/// Bytes of the files that these jobs read.
pub(super) fn bytes(jobs: &[Job]) -> u64 {
    let mut files: Vec<&Rc<SharedFile>> = Vec::new();
    let mut sum = 0u64;
    for job in jobs.iter().filter(|job| job.missing().next().is_some()) {
        sum = sum.saturating_add(match job.component.shared_file() {
            None => job.component.bytes(),
            Some(file) if files.iter().any(|f| Rc::ptr_eq(f, file)) => 0,
            Some(file) => {
                files.push(file);
                file.bytes()
            }
        });
    }
    sum
}

impl Reading {
    /// Puts a piece of a tensor where it goes.
    fn place(&self, executor: &Executor, tensor: &TensorInfo, start: u64, piece: &[u8]) -> Result<()> {
        match &self.room {
            Some(weights) if self.found.is_none() => self.wanted.place(executor, weights, tensor, start, piece),
            _ => Ok(()),
        }
    }
}

impl Job {
    /// Whether a model that is not here has a part of this tensor.
    fn wants(&self, tensor: &str) -> bool {
        self.missing().any(|model| model.wanted.has(tensor))
    }
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
        let wanted = |name: &str| models.iter().any(|m| m.found.is_none() && m.wanted.has(name));
        let sink = |tensor: &_, start, piece: &[u8]| {
            let mut each = models.iter();
            each.try_for_each(|model| model.place(&self.executor, tensor, start, piece))
        };
        let files = component.for_each_piece(cancel, progress, wanted, sink).await?;
        self.keep(job, &files)
    }

    /// Components of one file, which is read once, or not at all if all of them are here.
    async fn read_together(
        &self,
        file: &SharedFile,
        jobs: Vec<(usize, Job)>,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Vec<(usize, Vec<Rc<Shared>>)>> {
        let missing: Vec<&Job> = jobs.iter().map(|(_, job)| job).collect();
        let missing: Vec<&Job> = missing
            .into_iter()
            .filter(|job| job.missing().next().is_some())
            .collect();
        if missing.is_empty() {
            let mut read = Vec::with_capacity(jobs.len());
            for (i, Job { component, models }) in jobs {
                // The first ends the download for all.
                component.skip(cancel).await?;
                read.push((i, models.into_iter().filter_map(|model| model.found).collect()));
            }
            return Ok(read);
        }
        let components: Vec<&Component> = missing.iter().map(|job| &job.component).collect();
        let wanted = |i: usize, name: &str| missing[i].wants(name);
        let sink = |i: usize, tensor: &_, start, piece: &[u8]| {
            let mut each = missing[i].models.iter();
            each.try_for_each(|model| model.place(&self.executor, tensor, start, piece))
        };
        let hash = file.for_each_piece(&components, cancel, progress, wanted, sink).await?;
        jobs.into_iter()
            .map(|(i, job)| Ok((i, self.keep(job, &[hash])?)))
            .collect()
    }

    /// Weights that were read, and those that were here.
    fn keep(&self, job: Job, files: &[[u8; 32]]) -> Result<Vec<Rc<Shared>>> {
        let Job { component, models } = job;
        let kept = |model: Reading| {
            if let Some(found) = model.found {
                return Ok(found);
            }
            let weights = model.room;
            let weights = weights.ok_or_else(|| Error::Internal("a component has no room".into()))?;
            self.uploaded.set(self.uploaded.get() + model.bytes);
            Ok(self.pool.keep(Shared {
                id: content_id(&component.class, files),
                params: model.wanted.params,
                weights,
                bytes: model.bytes,
            }))
        };
        models.into_iter().map(kept).collect()
    }
}
