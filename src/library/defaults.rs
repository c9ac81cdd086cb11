//! What a checkpoint draws with when nothing is said: a catalogue's word goes before that of a LoRA over it, and that before its
//! family's.

use crate::checkpoint::distilled::Taken;
use crate::checkpoint::recognise::Family;
use crate::error::Result;
use crate::pipeline::{Request, check};
use crate::sampler::{SamplerKind, SchedulerConfig};
use serde::Deserialize;

/// What a checkpoint draws with when nothing is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Pixels in a row.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Number of steps.
    pub steps: usize,
    /// Weight of the prompt.
    pub guidance_scale: f32,
    /// The sampler, by name; the checkpoint's own scheduler if there is none.
    pub sampler: Option<String>,
}

/// What a catalogue says that a checkpoint draws well with; it goes before what is known otherwise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultsHint {
    /// Pixels in a row.
    pub width: Option<u32>,
    /// Rows of pixels.
    pub height: Option<u32>,
    /// Number of steps.
    pub steps: Option<u32>,
    /// Weight of the prompt.
    pub guidance_scale: Option<f32>,
    /// The sampler, by name.
    pub sampler: Option<String>,
}

impl Defaults {
    /// The picture that is asked for with these alone.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::error::Error::InvalidArgument) for a sampler that there is not.
    pub(super) fn request(&self) -> Result<Request> {
        Ok(Request {
            prompt: String::new(),
            negative_prompt: String::new(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            sampler: self.sampler.as_deref().map(SamplerKind::from_name).transpose()?,
            seed: 0,
            preview: false,
            image: None,
        })
    }
}

/// What a checkpoint draws with by itself.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) hint: DefaultsHint,
    pub(super) defaults: Defaults,
    pub(super) scheduler: SchedulerConfig,
    /// Pixels of a latent's side.
    pub(super) factor: usize,
    pub(super) kind: Family,
}

impl Own {
    /// Whether a picture can be drawn with a catalogue's hints. They are judged before anything is fetched: with the first picture the
    /// complaint would be about values that nobody asked for.
    pub(super) fn check(&self) -> Result<()> {
        match self.hint == DefaultsHint::default() {
            true => Ok(()),
            false => self.draws(&self.defaults, &self.scheduler),
        }
    }

    fn draws(&self, defaults: &Defaults, scheduler: &SchedulerConfig) -> Result<()> {
        check(self.factor, scheduler, &defaults.request()?)
    }

    /// The same under a LoRA that was distilled so.
    ///
    /// # Errors
    /// Whatever keeps the checkpoint from being drawn with so.
    pub(super) fn with(&self, taken: Taken) -> Result<(Defaults, SchedulerConfig)> {
        let mut defaults = self.defaults.clone();
        let scheduler = self.scheduler.with_changes(&taken.scheduler(), taken.of.eta)?;
        if self.hint.steps.is_none() {
            defaults.steps = taken.steps;
        }
        if self.hint.guidance_scale.is_none() {
            defaults.guidance_scale = taken.of.guidance_scale;
        }
        self.draws(&defaults, &scheduler)?;
        Ok((defaults, scheduler))
    }
}
