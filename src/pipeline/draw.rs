//! diffusers' `StableDiffusionPipeline` and its like: the way from a prompt, with or without an image, to a picture.

use super::Models;
use super::decode::Decoder;
use super::encode::{encode_nothing, encode_prompt};
use super::guidance::Denoiser;
use super::latents::Latents;
use super::plans::PlanCache;
use super::request::{Request, latent_size, schedule};
use super::start::{EncodedImage, Start, noise};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::image::Rgba;
use crate::platform::now_ms;
use crate::sampler::Slot;
use crate::sampler::noise::Generator;

/// What is known after a step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Steps that are done: calls of the model, of which some samplers make more than the request has steps.
    pub step: usize,
    /// Such steps in all.
    pub steps: usize,
    /// What the picture looks like so far.
    pub preview: Option<Rgba>,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timings {
    /// From when it was asked for until its first node ran.
    pub start: f64,
    /// Encoder of an image, with the first of the pictures that are drawn over it.
    pub encode: f64,
    /// Text encoder, and what depends on the prompt alone.
    pub prompt: f64,
    /// Each step.
    pub steps: Vec<f64>,
    /// Decoder.
    pub decode: f64,
}

/// Draws one picture; over `image`, if the request has one ([`encode_image`](super::encode_image)). Also gives what a person should
/// know and is no error.
///
/// # Errors
/// [`Error::InvalidArgument`] for sizes and numbers that cannot be; [`Error::Corrupt`] if the weights bring forth no picture;
/// [`Error::Cancelled`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub async fn draw(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    request: &Request,
    image: Option<&EncodedImage>,
    mut on_step: impl FnMut(StepReport),
    cancel: &CancelToken,
) -> Result<(Rgba, Timings, Vec<String>)> {
    models.draws(request)?;
    if image.is_some() != request.image.is_some() {
        return Err(Error::Internal("the image was not encoded".into()));
    }
    let size = latent_size(models.vae.config.factor(), request)?;
    let schedule = schedule(&models.scheduler, request)?;
    let (mut timings, mut warnings, mut clock) = (Timings::default(), Vec::new(), Clock::start());

    let guided = models.unet.config.is_guided(request.guidance_scale);
    let timesteps = schedule.steps.iter().map(|s| s.timestep).collect();
    let denoiser = Denoiser::new(executor, models, plans, size, timesteps, if guided { 2 } else { 1 }).await?;
    // Now and not after all steps, so that a picture too large for the device is refused at once.
    let decoder = Decoder::new(executor, models, plans, size).await?;
    let prompts = [guided.then_some(&request.negative_prompt), Some(&request.prompt)];
    for (prompt, branch) in prompts.into_iter().flatten().zip(&denoiser.branches) {
        if guided
            && models.zeros_for_empty_prompt
            && prompt.is_empty()
            && std::ptr::eq(prompt, &request.negative_prompt)
        {
            encode_nothing(executor, branch)?;
        } else {
            warnings.extend(encode_prompt(executor, models, plans, prompt, branch, cancel).await?);
        }
    }
    if models.unet.config.time_cond_proj_dim.is_some() && !request.negative_prompt.is_empty() {
        warnings.push("the negative prompt has no effect: this checkpoint draws with the prompt alone".into());
    }
    let mut generator = Generator::new(request.seed);
    let start = Start::new(models, image, size, &mut generator);
    if let Some(condition) = &start.condition {
        denoiser.set_condition(condition)?;
    }
    denoiser
        .start(request.guidance_scale, [request.height, request.width], cancel)
        .await?;
    timings.prompt = clock.lap();

    let latents = Latents::new(executor, &schedule, &denoiser, &start).await?;
    let guidance = if guided { request.guidance_scale } else { 1.0 };
    let mut previews = Previews::new();
    for (i, step) in schedule.steps.iter().enumerate() {
        cancel.check()?;
        for branch in &denoiser.branches {
            latents.combine(&step.model_input, Some(&branch.input))?;
        }
        denoiser.step(i, cancel).await?;
        if let [negative, positive] = denoiser.branches.as_slice() {
            let terms = [
                (negative.output.clone(), 1.0 - guidance),
                (positive.output.clone(), guidance),
            ];
            executor.combine(latents.view(Slot::ModelOutput)?, &terms, None)?;
        }
        let done = i + 1 == schedule.steps.len();
        let preview = if request.preview && !done && previews.are_due() {
            latents.combine(&step.denoised, Some(&decoder.input))?;
            let preview = decoder.preview(cancel).await?;
            previews.done();
            preview
        } else {
            None
        };
        if step.draws_noise {
            let noise = noise(&mut generator, models.vae.config.latent_channels(), size);
            executor.fill(latents.view(Slot::Noise)?, &noise)?;
        }
        for combine in &step.update {
            latents.combine(combine, None)?;
        }
        latents.lay_original(&schedule, i)?;
        timings.steps.push(clock.lap());
        on_step(StepReport {
            step: i + 1,
            steps: schedule.steps.len(),
            preview,
        });
    }

    decoder.write(latents.view(Slot::Sample)?).await?;
    let (picture, bad) = decoder.picture(cancel).await?;
    timings.decode = clock.lap();
    if bad > 0 {
        return Err(Error::Corrupt(format!(
            "{bad} of the picture's {} values are not finite numbers: the weights, or their precision, bring forth no picture",
            picture.width * picture.height * 3
        )));
    }
    Ok((picture, timings, warnings))
}

/// Keeps previews from taking much of the time: the first comes with the first step, each other one after a while that is
/// as long as three of them.
struct Previews {
    asked: f64,
    due: f64,
}

impl Previews {
    fn new() -> Self {
        Self {
            asked: 0.0,
            due: f64::NEG_INFINITY,
        }
    }

    fn are_due(&mut self) -> bool {
        self.asked = now_ms();
        self.asked >= self.due
    }

    fn done(&mut self) {
        let now = now_ms();
        self.due = now + 3.0 * (now - self.asked);
    }
}

struct Clock(f64);

impl Clock {
    fn start() -> Self {
        Self(now_ms())
    }

    /// Milliseconds since the last call.
    fn lap(&mut self) -> f64 {
        let now = now_ms();
        now - std::mem::replace(&mut self.0, now)
    }
}
