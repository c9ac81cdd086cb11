//! Reading the weights of a checkpoint's components: each from its own files, or all from one file that has them all.

use super::Library;
use super::content::{Content, address};
use super::load::Job;
use super::pool::Shared;
use crate::cancel::CancelToken;
use crate::checkpoint::{Component, ProgressSink, SharedFile};
use crate::error::{Error, Result};
use crate::executor::Weights;
use futures_util::future::try_join_all;
use std::rc::Rc;

impl Library {
    /// Reads all that is not here into its room, and gives each component's weights, in order.
    pub(super) async fn read_all(
        &self,
        jobs: Vec<Job>,
        weights: Vec<Option<Weights>>,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Vec<Rc<Shared>>> {
        // Each with its number; those that are in one file are read together.
        type Group = Vec<(usize, Job, Option<Weights>)>;
        let mut groups: Vec<(Option<Rc<SharedFile>>, Group)> = Vec::new();
        for (i, (job, weights)) in jobs.into_iter().zip(weights).enumerate() {
            let file = job.component.shared_file().cloned();
            let same = |(other, _): &&mut (Option<Rc<SharedFile>>, Group)| match (other, &file) {
                (Some(a), Some(b)) => Rc::ptr_eq(a, b),
                _ => false,
            };
            match groups.iter_mut().find(same) {
                Some((_, group)) => group.push((i, job, weights)),
                None => groups.push((file, vec![(i, job, weights)])),
            }
        }
        let read = groups.into_iter().map(|(file, group)| async move {
            match file {
                Some(file) => self.read_together(&file, group, progress, cancel).await,
                None => {
                    try_join_all(group.into_iter().map(|(i, job, weights)| async move {
                        Ok((i, self.read(job, weights, progress, cancel).await?))
                    }))
                    .await
                }
            }
        });
        let mut shared: Vec<_> = try_join_all(read).await?.into_iter().flatten().collect();
        shared.sort_by_key(|(i, _)| *i);
        Ok(shared.into_iter().map(|(_, shared)| shared).collect())
    }

    async fn read(
        &self,
        mut job: Job,
        weights: Option<Weights>,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Rc<Shared>> {
        if let Some(found) = job.found {
            job.component.skip(cancel).await?;
            return Ok(found);
        }
        let weights = roomy(weights)?;
        let mut content = Content::default();
        let wanted = |name: &str| job.wanted.has(name);
        let sink = |tensor: &_, start, piece: &[u8]| {
            content.add(tensor, start, piece);
            job.wanted.place(&self.executor, &weights, tensor, start, piece)
        };
        let files = job.component.for_each_piece(cancel, progress, wanted, sink).await?;
        Ok(self.keep(job, weights, content, &files))
    }

    /// Components of one file, which is read once, or not at all if all of them are here.
    async fn read_together(
        &self,
        file: &SharedFile,
        jobs: Vec<(usize, Job, Option<Weights>)>,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Vec<(usize, Rc<Shared>)>> {
        let (mut read, mut missing) = (Vec::new(), Vec::new());
        let mut skipped = None;
        for (i, job, weights) in jobs {
            match job.found {
                Some(found) => {
                    read.push((i, found));
                    skipped = Some(job.component);
                }
                None => missing.push((i, roomy(weights)?, job)),
            }
        }
        if missing.is_empty() {
            if let Some(component) = skipped {
                component.skip(cancel).await?;
            }
            return Ok(read);
        }
        let components: Vec<&Component> = missing.iter().map(|(_, _, job)| &job.component).collect();
        let mut contents: Vec<Content> = missing.iter().map(|_| Content::default()).collect();
        let wanted = |i: usize, name: &str| missing[i].2.wanted.has(name);
        let sink = |i: usize, tensor: &_, start, piece: &[u8]| {
            let (_, weights, job): &(usize, Weights, Job) = &missing[i];
            contents[i].add(tensor, start, piece);
            job.wanted.place(&self.executor, weights, tensor, start, piece)
        };
        let hash = file.for_each_piece(&components, cancel, progress, wanted, sink).await?;
        let kept = |((i, weights, job), content)| (i, self.keep(job, weights, content, &[hash]));
        read.extend(missing.into_iter().zip(contents).map(kept));
        Ok(read)
    }

    /// Weights that were read, from files of these hashes.
    fn keep(&self, job: Job, weights: Weights, content: Content, files: &[Option<[u8; 32]>]) -> Rc<Shared> {
        self.uploaded.set(self.uploaded.get() + job.bytes);
        let id = content.id();
        if let Some(address) = address(&job.component, &job.wanted, files) {
            self.pool.note(address, &id);
        }
        self.pool.keep(Shared {
            id,
            params: job.wanted.params,
            weights,
            bytes: job.bytes,
        })
    }
}

fn roomy(weights: Option<Weights>) -> Result<Weights> {
    weights.ok_or_else(|| Error::Internal("a component has no room".into()))
}
