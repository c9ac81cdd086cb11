//! The buffers that a sampler's combinations are over. All are on the device.

use super::guidance::Denoiser;
use super::start::Start;
use crate::error::{Error, Result};
use crate::executor::{Executor, View};
use crate::sampler::{Combine, Schedule, Slot};
use std::collections::HashMap;

/// The buffers of a run.
pub(super) struct Latents<'a> {
    executor: &'a Executor,
    views: HashMap<Slot, View>,
    /// Not 0 where the image stays.
    kept: Option<View>,
}

impl<'a> Latents<'a> {
    /// Makes the buffers that the schedule needs, and the first sample.
    pub(super) async fn new(
        executor: &'a Executor,
        schedule: &Schedule,
        denoiser: &Denoiser<'_>,
        start: &Start,
    ) -> Result<Self> {
        let len = start.noise.len();
        let mut slots: Vec<Slot> = (0..schedule.scratch).map(Slot::Scratch).chain([Slot::Sample]).collect();
        let mut latents = Self {
            executor,
            views: HashMap::new(),
            kept: None,
        };
        match denoiser.branches.as_slice() {
            [only] => drop(latents.views.insert(Slot::ModelOutput, only.output.clone())),
            _ => slots.push(Slot::ModelOutput),
        }
        if schedule.steps.iter().any(|s| s.draws_noise) {
            slots.push(Slot::Noise);
        }
        for slot in slots {
            latents.views.insert(slot, buffer(executor, len).await?);
        }
        if let Some(original) = &start.original {
            for (slot, values) in [(Slot::Original, original), (Slot::FirstNoise, &start.noise)] {
                let view = buffer(executor, len).await?;
                executor.fill(&view, values)?;
                latents.views.insert(slot, view);
            }
        }
        if let Some(kept) = &start.kept {
            let view = buffer(executor, len).await?;
            executor.fill(&view, kept)?;
            latents.kept = Some(view);
        }
        match schedule.steps.first() {
            Some(first) if !start.pure_noise => latents.combine(&first.noisy, None)?,
            _ => {
                let sigma = schedule.init_noise_sigma;
                let first: Vec<f32> = start.noise.iter().map(|x| x * sigma).collect();
                executor.fill(latents.view(Slot::Sample)?, &first)?;
            }
        }
        latents.make_ready(schedule, denoiser)?;
        Ok(latents)
    }

    /// Makes what all steps need before the first: one that looks back on others combines more than those did.
    fn make_ready(&self, schedule: &Schedule, denoiser: &Denoiser<'_>) -> Result<()> {
        let ready = |combine: &Combine, dst: &View, mask| {
            let terms = self.terms(combine)?;
            self.executor.ready_to_combine(dst, &terms, mask)
        };
        for (i, step) in schedule.steps.iter().enumerate() {
            for branch in &denoiser.branches {
                ready(&step.model_input, &branch.input, None)?;
            }
            for combine in &step.update {
                ready(combine, self.view(combine.dst)?, None)?;
            }
            if let Some(kept) = &self.kept {
                let original = schedule.original_after(i);
                ready(&original, self.view(original.dst)?, Some(kept))?;
            }
        }
        Ok(())
    }

    /// A buffer of the sampler's.
    pub(super) fn view(&self, slot: Slot) -> Result<&View> {
        self.views
            .get(&slot)
            .ok_or_else(|| Error::Internal(format!("the sampler uses {slot:?}, which it did not ask for")))
    }

    /// Runs a combination, into its own place or another.
    pub(super) fn combine(&self, combine: &Combine, into: Option<&View>) -> Result<()> {
        let dst = into.map_or_else(|| self.view(combine.dst), Ok)?;
        self.executor.combine(dst, &self.terms(combine)?, combine.clamp)
    }

    /// Lays what stays of the image, if anything does, over what step `index` made.
    pub(super) fn lay_original(&self, schedule: &Schedule, index: usize) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let original = schedule.original_after(index);
        let terms = self.terms(&original)?;
        self.executor.combine_where(kept, self.view(original.dst)?, &terms)
    }

    fn terms(&self, combine: &Combine) -> Result<Vec<(View, f32)>> {
        let each = combine.terms.iter();
        each.map(|(slot, coefficient)| Ok((self.view(*slot)?.clone(), *coefficient)))
            .collect()
    }
}

async fn buffer(executor: &Executor, len: usize) -> Result<View> {
    Ok(View {
        buffer: executor.buffer(len).await?,
        offset: 0,
        len,
    })
}
