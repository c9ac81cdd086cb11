//! What is asked for, and whether it can be drawn at all.

use super::Models;
use super::plans::{Drawing, Key, PlanCache};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::image::{MAX_SIDE, Rgba};
use crate::sampler::{SamplerKind, Schedule, SchedulerConfig};
use std::rc::Rc;

/// What is to be drawn. Every field is set; defaults are the caller's.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the picture shows.
    pub prompt: String,
    /// What it should not show.
    pub negative_prompt: String,
    /// Pixels in a row.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Number of steps.
    pub steps: usize,
    /// Weight of the prompt; guidance is on above 1. What was distilled to be told it is told it.
    pub guidance_scale: f32,
    /// The sampler; the checkpoint's own if there is none.
    pub sampler: Option<SamplerKind>,
    /// Seed of the first noise, as `torch.Generator("cpu")` takes it.
    pub seed: u64,
    /// Whether steps bring previews: as many as do not cost much time.
    pub preview: bool,
    /// What is drawn over; without it the picture comes from the text alone.
    pub image: Option<InitImage>,
}

/// An image that is drawn over, all of it or where a mask says.
#[derive(Clone, Debug)]
pub struct InitImage {
    /// The image. Of another size than the picture's, it is resized.
    pub pixels: Rc<Rgba>,
    /// White where the image is repainted, black where it stays.
    pub mask: Option<Rc<Rgba>>,
    /// From 0 to 1: so much of the steps is taken, the last ones, and so much noise goes over the image first. With a mask, 1
    /// leaves nothing of the image where it is repainted.
    pub strength: f64,
}

impl InitImage {
    /// diffusers' own strength where all of the image is drawn over.
    pub const STRENGTH: f64 = 0.8;
    /// diffusers' own strength where a mask says what is.
    pub const MASKED_STRENGTH: f64 = 1.0;

    /// The same with pixels of this size.
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        let resized = |picture: &Rc<Rgba>| match (picture.width, picture.height) == (width, height) {
            true => picture.clone(),
            false => Rc::new(picture.resized(width, height)),
        };
        Self {
            pixels: resized(&self.pixels),
            mask: self.mask.as_ref().map(resized),
            strength: self.strength,
        }
    }

    /// How many of `steps` are left out (diffusers' `get_timesteps`).
    fn skipped(&self, steps: usize) -> Result<usize> {
        let strength = self.strength;
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::InvalidArgument(format!(
                "strength: expected a number from 0 to 1, found {strength:?}"
            )));
        }
        match steps - ((steps as f64 * strength) as usize).min(steps) {
            skipped if skipped == steps && steps > 0 => Err(Error::InvalidArgument(format!(
                "strength: of {steps} steps {strength:?} leaves none to take; expected at least {}",
                1.0 / steps as f64
            ))),
            skipped => Ok(skipped),
        }
    }
}

/// Whether a request can be drawn at all, before anything runs: `factor` is the pixels of a latent's side.
///
/// # Errors
/// [`Error::InvalidArgument`] for sizes and numbers that cannot be; [`Error::Unsupported`] for a schedule that is not implemented.
pub fn check(factor: usize, scheduler: &SchedulerConfig, request: &Request) -> Result<()> {
    latent_size(factor, request)?;
    schedule(scheduler, request).map(drop)
}

/// The plans that a picture needs.
pub(crate) fn keys(executor: &Executor, models: &Models, request: &Request) -> Result<Vec<Key>> {
    let drawing = Drawing {
        texts: models.text_encoders.iter().map(|text| &text.model.config).collect(),
        unet: &models.unet.config,
        vae: &models.vae.config,
        tokens: models.tokens(),
        size: latent_size(models.vae.config.factor(), request)?,
        evaluations: schedule(&models.scheduler, request)?.steps.len(),
        guidance_scale: request.guidance_scale,
        from_image: request.image.is_some(),
    };
    Ok(drawing.keys(executor))
}

/// Finds out how the heaviest products of a picture are run best on this device, as far as that is not known yet. What was prepared
/// before and would be prepared otherwise now is let go.
///
/// # Errors
/// [`Error::Cancelled`], [`Error::DeviceLost`].
pub async fn tune(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    request: &Request,
    cancel: &CancelToken,
) -> Result<()> {
    for key in keys(executor, models, request)? {
        let key = plans.fitting(key);
        let weights = match key {
            Key::Unet { .. } => &models.unet.weights,
            Key::Decoder { .. } => &models.vae.weights,
            Key::Text { .. } | Key::Encoder { .. } => continue,
        };
        let plan = plans.plan(executor, &key)?;
        executor.tune(&plan, weights, plans.room(), cancel).await?;
    }
    plans.renew(executor);
    Ok(())
}

/// Height and width of the latents.
pub(super) fn latent_size(factor: usize, request: &Request) -> Result<[usize; 2]> {
    for (name, value) in [("width", request.width), ("height", request.height)] {
        if value == 0 || value > MAX_SIDE || !value.is_multiple_of(factor) {
            let message = format!("{name}: expected a multiple of {factor} from {factor} to {MAX_SIDE}, found {value}");
            return Err(Error::InvalidArgument(message));
        }
    }
    if !request.guidance_scale.is_finite() || request.guidance_scale < 0.0 {
        let message = format!(
            "guidanceScale: expected a number from 0 up, found {}",
            request.guidance_scale
        );
        return Err(Error::InvalidArgument(message));
    }
    Ok([request.height / factor, request.width / factor])
}

/// The steps that run.
pub(super) fn schedule(scheduler: &SchedulerConfig, request: &Request) -> Result<Schedule> {
    let skipped = match &request.image {
        Some(image) => image.skipped(request.steps)?,
        None => 0,
    };
    match request.sampler {
        Some(kind) => scheduler.with_sampler(kind).schedule_from(request.steps, skipped),
        None => scheduler.schedule_from(request.steps, skipped),
    }
}
