//! What a picture is asked for with: filled in, judged, and told in its file.

use crate::error::{Error, Result};
use crate::image::{MAX_SIDE, Parameters, Rgba};
use crate::library::{Defaults, Resident};
use crate::pipeline::{InitImage, ProfileRequest, Request, check};
use crate::sampler::SamplerKind;
use serde::Deserialize;
use std::rc::Rc;

/// The most pictures of one call.
const MAX_COUNT: u32 = 64;
/// The most bytes of a call's pictures, which are all in memory until it ends.
const MAX_BYTES: u64 = 512 << 20;

/// What a picture is asked for with; what is left out has the checkpoint's default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GenerateOptions {
    /// The id of a loaded checkpoint.
    pub checkpoint: String,
    /// What the picture shows.
    pub prompt: String,
    /// What it should not show.
    pub negative_prompt: String,
    /// Pixels in a row.
    pub width: Option<u32>,
    /// Rows of pixels.
    pub height: Option<u32>,
    /// Number of steps.
    pub steps: Option<u32>,
    /// Weight of the prompt.
    pub guidance_scale: Option<f32>,
    /// diffusers' class name or AUTOMATIC1111's menu name.
    pub sampler: Option<String>,
    /// Decimal digits, below 2^64.
    pub seed: Option<String>,
    /// How many pictures; picture *i* has seed + *i*.
    pub count: Option<u32>,
    /// Whether steps bring previews.
    pub preview: bool,
    /// What is drawn over. Sizes that are left out follow it.
    #[serde(skip)]
    pub image: Option<Rc<Rgba>>,
    /// White where the image is repainted, black where it stays.
    #[serde(skip)]
    pub mask: Option<Rc<Rgba>>,
    /// How much of the image is drawn anew, from 0 to 1.
    pub strength: Option<f64>,
}

/// What is timed, and with what picture; what is left out has the checkpoint's default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileOptions {
    /// The id of a loaded checkpoint.
    pub checkpoint: String,
    /// What the picture shows.
    pub prompt: String,
    /// Pixels in a row.
    pub width: Option<u32>,
    /// Rows of pixels.
    pub height: Option<u32>,
    /// Weight of the prompt: above 1 a step is two branches.
    pub guidance_scale: Option<f32>,
    /// `unet`, `vae` and `text`; the first two, if nothing is said.
    pub parts: Option<Vec<String>>,
    /// Whether nodes are timed each for itself; they are, if nothing is said.
    pub nodes: Option<bool>,
    /// Whether what each read and wrote is given.
    pub tensors: bool,
    /// How often each part is played.
    pub runs: Option<u32>,
}

impl ProfileOptions {
    /// The picture.
    pub(super) fn picture(&self) -> GenerateOptions {
        GenerateOptions {
            checkpoint: self.checkpoint.clone(),
            prompt: self.prompt.clone(),
            width: self.width,
            height: self.height,
            guidance_scale: self.guidance_scale,
            ..GenerateOptions::default()
        }
    }

    /// What is measured.
    pub(super) fn what(&self) -> Result<ProfileRequest> {
        let all = ["unet", "vae", "text"].map(String::from);
        let parts = self.parts.as_deref().unwrap_or(&all[..2]);
        if let Some(unknown) = parts.iter().find(|part| !all.contains(part)) {
            let message = format!("parts: expected unet, vae and text, found {unknown:?}");
            return Err(Error::InvalidArgument(message));
        }
        Ok(ProfileRequest {
            unet: parts.contains(&all[0]),
            vae: parts.contains(&all[1]),
            text: parts.contains(&all[2]),
            nodes: self.nodes.unwrap_or(true),
            tensors: self.tensors,
            runs: self.runs.map(|runs| runs as usize),
        })
    }
}

/// Sees whether pictures that were given are any, and whether they are given for something.
pub(super) fn given(options: &GenerateOptions) -> Result<()> {
    let without = |option: &str| {
        let message = format!("{option}: expected the option image beside it, found none");
        Err(Error::InvalidArgument(message))
    };
    match &options.image {
        Some(image) => image.check("image")?,
        None if options.mask.is_some() => return without("mask"),
        None if options.strength.is_some() => return without("strength"),
        None => {}
    }
    options.mask.as_ref().map_or(Ok(()), |mask| mask.check("mask"))
}

/// Width and height: what was asked for, or the image's, or the checkpoint's own. An image's sides are rounded down to multiples of
/// `factor`, as diffusers does it; where one side was asked for, the other is in proportion.
fn size(options: &GenerateOptions, defaults: &Defaults, factor: usize) -> [usize; 2] {
    let [width, height] = [options.width, options.height].map(|side| side.map(|n| n as usize));
    let Some(image) = &options.image else {
        return [width.unwrap_or(defaults.width), height.unwrap_or(defaults.height)];
    };
    let within = |factors: f64| factors.clamp(1.0, (MAX_SIDE / factor).max(1) as f64) as usize * factor;
    let other =
        |side: usize, of: usize, other: usize| within((side as f64 * other as f64 / of as f64 / factor as f64).round());
    let own = |side: usize| within((side / factor) as f64);
    [
        width.unwrap_or_else(|| height.map_or(own(image.width), |side| other(side, image.height, image.width))),
        height.unwrap_or_else(|| width.map_or(own(image.height), |side| other(side, image.width, image.height))),
    ]
}

/// Fills in what was left out, and sees whether it can be drawn.
pub(super) fn resolve(options: &GenerateOptions, resident: &Resident) -> Result<(Request, u32)> {
    let defaults = &resident.defaults;
    let or = |given: Option<u32>, default: usize| given.map_or(default, |n| n as usize);
    let sampler = options.sampler.as_deref().or(defaults.sampler.as_deref());
    let seed = options.seed.as_deref().unwrap_or("0");
    let count = options.count.unwrap_or(1);
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(Error::InvalidArgument(format!(
            "count: expected a number from 1 to {MAX_COUNT}, found {count}"
        )));
    }
    let [width, height] = size(options, defaults, resident.factor);
    let image = options.image.as_ref().map(|pixels| InitImage {
        pixels: pixels.clone(),
        mask: options.mask.clone(),
        strength: options.strength.unwrap_or(match options.mask {
            Some(_) => InitImage::MASKED_STRENGTH,
            None => InitImage::STRENGTH,
        }),
    });
    let request = Request {
        prompt: options.prompt.clone(),
        negative_prompt: options.negative_prompt.clone(),
        width,
        height,
        steps: or(options.steps, defaults.steps),
        guidance_scale: options.guidance_scale.unwrap_or(defaults.guidance_scale),
        sampler: sampler.map(SamplerKind::from_name).transpose()?,
        seed: seed.parse().map_err(|_| {
            Error::InvalidArgument(format!(
                "seed: expected a whole number from 0 to 18446744073709551615, found {seed:?}"
            ))
        })?,
        preview: options.preview,
        image,
    };
    resident.models.draws(&request)?;
    check(resident.factor, &resident.models.scheduler, &request)?;
    let bytes = u64::from(count) * request.width as u64 * request.height as u64 * 4;
    if bytes > MAX_BYTES {
        return Err(Error::InvalidArgument(format!(
            "count: {count} pictures of {} x {} are {bytes} bytes; expected at most {MAX_BYTES} in one call",
            request.width, request.height
        )));
    }
    Ok((request, count))
}

/// What a picture can be made again with.
pub(super) fn parameters(request: &Request, resident: &Resident) -> Parameters {
    let loras = &resident.loras.scales;
    let loras: Vec<String> = loras.iter().map(|(name, scale)| format!("{name}: {scale}")).collect();
    let loras = (!loras.is_empty()).then(|| ("Loras".into(), loras.join(", ")));
    let mask = request.image.as_ref().and_then(|image| image.mask.as_ref());
    let vae = resident.vae.clone().map(|name| ("VAE".into(), name));
    // Sizes and steps have been checked by now; they are small.
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Parameters {
        prompt: request.prompt.clone(),
        negative_prompt: request.negative_prompt.clone(),
        steps: Some(number(request.steps)),
        sampler: Some(sampler_name(request, resident).into()),
        guidance_scale: Some(request.guidance_scale),
        seed: Some(request.seed),
        size: Some((number(request.width), number(request.height))),
        model: Some(resident.name.clone()),
        strength: request.image.as_ref().map(|image| image.strength),
        masked: mask.map(|mask| {
            let white = mask.is_white();
            white.iter().filter(|white| **white).count() as f32 / white.len() as f32
        }),
        version: Some(Parameters::VERSION.into()),
        others: vae.into_iter().chain(loras).collect(),
        ..Parameters::default()
    }
}

fn sampler_name(request: &Request, resident: &Resident) -> &'static str {
    let scheduler = &resident.models.scheduler;
    request.sampler.map_or_else(
        || scheduler.sampler_name(),
        |kind| scheduler.with_sampler(kind).sampler_name(),
    )
}
