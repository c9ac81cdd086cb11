//! What a checkpoint's configurations say, understood.

use super::family::Family;
use super::pool::Shared;
use super::{Defaults, DefaultsHint, LoadOptions};
use crate::checkpoint::{Checkpoint, Component};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::models::clip::{ClipTextConfig, Hidden};
use crate::models::unet::{TextTime, UnetConfig};
use crate::models::vae::VaeConfig;
use crate::pipeline::{Drawing, Key, Model, Models, Request, TextEncoder, check};
use crate::sampler::{SamplerKind, SchedulerConfig};
use crate::text::Tokenizer;
use std::rc::Rc;

/// A checkpoint's configurations, understood.
pub(super) struct Parts {
    pub(super) texts: Vec<(ClipTextConfig, Rc<Tokenizer>)>,
    pub(super) unet: UnetConfig,
    pub(super) vae: VaeConfig,
    pub(super) scheduler: SchedulerConfig,
    pub(super) family: &'static Family,
    zeros_for_empty_prompt: bool,
    pub(super) warnings: Vec<String>,
}

impl Parts {
    pub(super) fn of(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let place = |file: &str| checkpoint.place(file);
        let xl = checkpoint.pipeline_class.starts_with("StableDiffusionXL");
        let mut texts: Vec<(ClipTextConfig, Rc<Tokenizer>)> = Vec::new();
        for (encoder, files) in checkpoint.text_encoders().zip(&checkpoint.tokenizers) {
            let mut config = ClipTextConfig::from_json(&encoder.config)
                .map_err(|e| e.at(place(&format!("{}/config.json", encoder.name))))?;
            if xl {
                config.hidden = Hidden::Penultimate;
            }
            let tokenizer = Tokenizer::new(files, config.max_position_embeddings, config.vocab_size)?;
            if let Some((_, first)) = texts.first()
                && first.length() != tokenizer.length()
            {
                return Err(Error::Corrupt(format!(
                    "{}: expected prompts of {} tokens as the first tokenizer has them, found {}",
                    files.place,
                    first.length(),
                    tokenizer.length()
                )));
            }
            texts.push((config, Rc::new(tokenizer)));
        }
        let (unet, vae) = (checkpoint.component("unet")?, checkpoint.component("vae")?);
        let unet_config = place("unet/config.json");
        let mut unet = UnetConfig::from_json(&unet.config).map_err(|e| e.at(&unet_config))?;
        let mut vae = VaeConfig::from_json(&vae.class, &vae.config).map_err(|e| e.at(place("vae/config.json")))?;
        let channels = texts
            .iter()
            .fold(0, |sum, (text, _)| text.hidden_size.saturating_add(sum));
        if unet.cross_attention_dim != channels {
            return Err(Error::Corrupt(format!(
                "{unet_config}: cross_attention_dim: expected {channels} as the text has, found {}",
                unet.cross_attention_dim
            )));
        }
        unet.texts = texts.iter().map(|(text, _)| text.hidden_size).collect();
        if let Some(TextTime { text_embeds, .. }) = unet.text_time
            && !texts.iter().any(|(text, _)| text.projection_dim == Some(text_embeds))
        {
            return Err(Error::Corrupt(format!(
                "{unet_config}: addition_embed_type \"text_time\" wants a CLIPTextModelWithProjection with a projection_dim of \
                 {text_embeds}"
            )));
        }
        if let (VaeConfig::Kl(vae), false) = (&mut vae, xl) {
            // The other pipelines do not look at it.
            vae.latents_mean_std = None;
        }
        // A UNet that inpaints also reads the picture's latents and its mask.
        let both = vae.latent_channels().saturating_mul(2).saturating_add(1);
        if ![vae.latent_channels(), both].contains(&unet.in_channels) || unet.out_channels != vae.latent_channels() {
            return Err(Error::Unsupported(format!(
                "{unet_config}: {} channels in and {} out, where latents have {}",
                unet.in_channels,
                unet.out_channels,
                vae.latent_channels()
            )));
        }
        let read = match checkpoint.pipeline_class.as_str() {
            "StableDiffusionInpaintPipeline" => SchedulerConfig::for_inpainting(&checkpoint.scheduler),
            _ => SchedulerConfig::from_json(&checkpoint.scheduler),
        };
        let mut scheduler = read.map_err(|e| e.at(place("scheduler/scheduler_config.json")))?;
        // Other pipelines take the file as it is.
        if checkpoint.pipeline_class == "StableDiffusionPipeline" {
            scheduler = scheduler.for_stable_diffusion();
        }
        if let Some(prediction_type) = &options.prediction_type {
            let with = scheduler.with_prediction_type(prediction_type);
            scheduler = with.map_err(|e| e.at("predictionType"))?;
        }
        let mut warnings: Vec<String> = checkpoint.source.warnings();
        warnings.extend(checkpoint.warnings.iter().cloned());
        warnings.extend(checkpoint.components.iter().filter_map(|c| other_variant(c, options)));
        Ok(Self {
            texts,
            family: Family::of(&unet, &checkpoint.scheduler),
            // diffusers' own default is true.
            zeros_for_empty_prompt: xl && checkpoint.index["force_zeros_for_empty_prompt"] != false,
            unet,
            vae,
            scheduler,
            warnings,
        })
    }

    /// Tokens of a prompt.
    pub(super) fn tokens(&self) -> usize {
        self.texts.first().map_or(0, |(_, tokenizer)| tokenizer.length())
    }

    /// How often the UNet is asked for a picture with these defaults: some samplers ask more often than they step.
    pub(super) fn evaluations(&self, defaults: &Defaults) -> usize {
        let kind = defaults.sampler.as_deref().map(SamplerKind::from_name);
        let schedule = match kind {
            Some(Ok(kind)) => self.scheduler.with_sampler(kind).schedule(defaults.steps),
            _ => self.scheduler.schedule(defaults.steps),
        };
        schedule.map_or(defaults.steps, |schedule| schedule.steps.len())
    }

    /// Height and width of the latents of a picture with these defaults.
    pub(super) fn latents(&self, defaults: &Defaults) -> [usize; 2] {
        [defaults.height, defaults.width].map(|n| (n / self.vae.factor()).max(1))
    }

    /// The plans that a picture with these defaults needs, in the order of the components, and where it is drawn over an image
    /// that of the encoder.
    pub(super) fn keys(&self, defaults: &Defaults, executor: &Executor, from_image: bool) -> Vec<Key> {
        let drawing = Drawing {
            texts: self.texts.iter().map(|(text, _)| text).collect(),
            unet: &self.unet,
            vae: &self.vae,
            tokens: self.tokens(),
            size: self.latents(defaults),
            evaluations: self.evaluations(defaults),
            guidance_scale: defaults.guidance_scale,
            from_image: from_image || self.unet.inpaints(),
        };
        drawing.keys(executor)
    }

    /// What a pipeline runs, with the components' weights in their order.
    pub(super) fn models(&self, shared: &[Rc<Shared>]) -> Result<Models> {
        let (texts, others) = shared.split_at_checked(self.texts.len()).unwrap_or_default();
        let [unet, vae] = others else {
            return Err(Error::Internal("each component has its weights".into()));
        };
        let text_encoder = |((config, tokenizer), shared): (&(ClipTextConfig, _), &Rc<Shared>)| TextEncoder {
            tokenizer: Rc::clone(tokenizer),
            model: model(config, shared),
        };
        Ok(Models {
            text_encoders: self.texts.iter().zip(texts).map(text_encoder).collect(),
            unet: model(&self.unet, unet),
            vae: model(&self.vae, vae),
            encoder: None,
            scheduler: self.scheduler.clone(),
            zeros_for_empty_prompt: self.zeros_for_empty_prompt,
        })
    }
}

/// What is said where a component's weights are not of the variant that was wished.
fn other_variant(component: &Component, options: &LoadOptions) -> Option<String> {
    let Component { name, variant, .. } = component;
    let wished = options.open.variant.as_deref();
    if variant.as_deref() == wished || component.shared_file().is_some() {
        return None;
    }
    let none = wished.map_or("no plain weights".into(), |wished| {
        format!("no weights of variant {wished:?}")
    });
    let used = variant.as_ref().map_or("the plain ones are used".into(), |used| {
        format!("those of variant {used:?} are used")
    });
    Some(format!("{name}: {none}, {used}"))
}

fn model<C: Clone>(config: &C, shared: &Shared) -> Model<C> {
    Model {
        config: config.clone(),
        weights: shared.weights.clone(),
    }
}

/// What it draws with: by the catalogue, by what it was trained on, by its family.
pub(super) fn defaults(hint: &DefaultsHint, family: &Family, unet: &UnetConfig, factor: usize) -> Defaults {
    let [height, width] = unet
        .sample_size
        .unwrap_or([64; 2])
        .map(|n| n.saturating_mul(factor).min(8192));
    let or = |hint: Option<u32>, known: usize| hint.map_or(known, |n| n as usize);
    Defaults {
        width: or(hint.width, width),
        height: or(hint.height, height),
        steps: or(hint.steps, family.steps),
        guidance_scale: hint.guidance_scale.unwrap_or(family.guidance_scale),
        sampler: hint.sampler.clone(),
    }
}

/// Whether a picture can be drawn with these. A catalogue's are judged before anything is fetched: with the first picture
/// the complaint would be about values that nobody asked for.
pub(super) fn drawable(defaults: &Defaults, factor: usize, scheduler: &SchedulerConfig) -> Result<()> {
    let request = Request {
        prompt: String::new(),
        negative_prompt: String::new(),
        width: defaults.width,
        height: defaults.height,
        steps: defaults.steps,
        guidance_scale: defaults.guidance_scale,
        sampler: defaults.sampler.as_deref().map(SamplerKind::from_name).transpose()?,
        seed: 0,
        preview: false,
        image: None,
    };
    check(factor, scheduler, &request)
}
