//! diffusers' `StableDiffusionPipeline`.

use super::Models;
use super::decode::Decoder;
use super::encode::{encode_nothing, encode_prompt};
use super::guidance::Denoiser;
use super::plans::{Drawing, Key, PlanCache};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::{Executor, View};
use crate::image::Rgba;
use crate::platform::now_ms;
use crate::sampler::noise::Generator;
use crate::sampler::{Combine, SamplerKind, Schedule, SchedulerConfig, Slot};
use std::collections::HashMap;

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
}

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
    /// Text encoder, and what depends on the prompt alone.
    pub prompt: f64,
    /// Each step.
    pub steps: Vec<f64>,
    /// Decoder.
    pub decode: f64,
}

/// Draws one picture. Also gives what a person should know and is no error.
///
/// # Errors
/// [`Error::InvalidArgument`] for sizes and numbers that cannot be; [`Error::Corrupt`] if the weights bring forth no picture;
/// [`Error::Cancelled`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub async fn text_to_image(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    request: &Request,
    mut on_step: impl FnMut(StepReport),
    cancel: &CancelToken,
) -> Result<(Rgba, Timings, Vec<String>)> {
    models.draws_from_text()?;
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
    denoiser
        .start(request.guidance_scale, [request.height, request.width], cancel)
        .await?;
    timings.prompt = clock.lap();

    let mut generator = Generator::new(request.seed);
    let latents = Latents::new(executor, models, size, &schedule, &denoiser, &mut generator).await?;
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
            let noise = noise(&mut generator, models.unet.config.in_channels, size);
            executor.fill(latents.view(Slot::Noise)?, &noise)?;
        }
        for combine in &step.update {
            latents.combine(combine, None)?;
        }
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
    };
    Ok(drawing.keys(executor))
}

/// Height and width of the latents.
fn latent_size(factor: usize, request: &Request) -> Result<[usize; 2]> {
    for (name, value) in [("width", request.width), ("height", request.height)] {
        if value == 0 || value > 8192 || !value.is_multiple_of(factor) {
            let message = format!("{name}: expected a multiple of {factor} from {factor} to 8192, found {value}");
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

fn schedule(scheduler: &SchedulerConfig, request: &Request) -> Result<Schedule> {
    match request.sampler {
        Some(kind) => scheduler.with_sampler(kind).schedule(request.steps),
        None => scheduler.schedule(request.steps),
    }
}

/// The buffers that a sampler's combinations are over. All are on the device.
struct Latents<'a> {
    executor: &'a Executor,
    views: HashMap<Slot, View>,
}

impl<'a> Latents<'a> {
    async fn new(
        executor: &'a Executor,
        models: &Models,
        size: [usize; 2],
        schedule: &Schedule,
        denoiser: &Denoiser<'_>,
        generator: &mut Generator,
    ) -> Result<Self> {
        let channels = models.unet.config.in_channels;
        let len = size[0] * size[1] * channels;
        let mut views = HashMap::new();
        let mut slots: Vec<Slot> = (0..schedule.scratch).map(Slot::Scratch).chain([Slot::Sample]).collect();
        match denoiser.branches.as_slice() {
            [only] => drop(views.insert(Slot::ModelOutput, only.output.clone())),
            _ => slots.push(Slot::ModelOutput),
        }
        if schedule.steps.iter().any(|s| s.draws_noise) {
            slots.push(Slot::Noise);
        }
        for slot in slots {
            views.insert(
                slot,
                View {
                    buffer: executor.buffer(len).await?,
                    offset: 0,
                    len,
                },
            );
        }
        let latents = Self { executor, views };
        let start: Vec<f32> = noise(generator, channels, size)
            .iter()
            .map(|x| x * schedule.init_noise_sigma)
            .collect();
        executor.fill(latents.view(Slot::Sample)?, &start)?;
        Ok(latents)
    }

    fn view(&self, slot: Slot) -> Result<&View> {
        self.views
            .get(&slot)
            .ok_or_else(|| Error::Internal(format!("the sampler uses {slot:?}, which it did not ask for")))
    }

    fn combine(&self, combine: &Combine, into: Option<&View>) -> Result<()> {
        let mut terms = Vec::with_capacity(combine.terms.len());
        for (slot, coefficient) in &combine.terms {
            terms.push((self.view(*slot)?.clone(), *coefficient));
        }
        let dst = into.map_or_else(|| self.view(combine.dst), Ok)?;
        self.executor.combine(dst, &terms, combine.clamp)
    }
}

/// What `torch.randn([1, channels, height, width])` draws, as `[height, width, channels]`.
fn noise(generator: &mut Generator, channels: usize, [height, width]: [usize; 2]) -> Vec<f32> {
    let pixels = height * width;
    let planes = generator.randn(channels * pixels);
    (0..pixels)
        .flat_map(|i| planes.iter().skip(i).step_by(pixels).copied())
        .collect()
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
