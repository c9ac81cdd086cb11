//! What a checkpoint's configurations say, understood.

use super::defaults::{Defaults, Own};
use super::family::Family;
use super::pool::Shared;
use super::{DefaultsHint, LoadOptions};
use crate::checkpoint::{Checkpoint, recognise};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::models::clip::{ClipTextConfig, Hidden};
use crate::models::unet::{TextTime, UnetConfig};
use crate::models::vae::VaeConfig;
use crate::pipeline::{Drawing, Key, Model, Models, TextEncoder};
use crate::sampler::{SamplerKind, SchedulerConfig};
use crate::text::Tokenizer;
use std::rc::Rc;

/// A checkpoint's configurations, understood.
pub(super) struct Parts {
    pub(super) texts: Vec<(ClipTextConfig, Rc<Tokenizer>)>,
    pub(super) unet: UnetConfig,
    pub(super) vae: VaeConfig,
    pub(super) scheduler: SchedulerConfig,
    pub(super) family: &'static str,
    /// What its like draws well with.
    steps: usize,
    guidance_scale: f32,
    zeros_for_empty_prompt: bool,
    pub(super) warnings: Vec<String>,
}

impl Parts {
    pub(super) fn of(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let place = |file: &str| checkpoint.place(file);
        let xl = checkpoint.is_xl();
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
        let vae_place = vae.place();
        let mut vae = VaeConfig::from_json(&vae.class, &vae.config).map_err(|e| e.at(vae.config_place()))?;
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
        let (latents, (read, written)) = (vae.latent_channels(), (unet.in_channels, unet.out_channels));
        let inpaints = latents.saturating_mul(2).saturating_add(1);
        if ![latents, inpaints].contains(&read) || written != latents {
            return Err(Error::Unsupported(match checkpoint.vae {
                Some(_) => format!(
                    "{vae_place}: expected an autoencoder for latents of {written} channels, as this checkpoint's UNet has them, \
                     found one for {latents}: it is of another family"
                ),
                None => {
                    format!("{unet_config}: {read} channels in and {written} out, where latents have {latents}")
                }
            }));
        }
        let read = match checkpoint.pipeline_class.as_str() {
            "StableDiffusionInpaintPipeline" => SchedulerConfig::for_inpainting(&checkpoint.scheduler),
            _ => SchedulerConfig::from_json(&checkpoint.scheduler).map(SchedulerConfig::for_pipeline),
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
        let family = Family::of(&unet, &checkpoint.scheduler);
        let (mut name, mut steps, mut guidance_scale) = (family.name, family.steps, family.guidance_scale);
        if let Some(taken) = &checkpoint.distilled {
            (name, steps, guidance_scale) = (taken.name, taken.steps, taken.of.guidance_scale);
            scheduler = scheduler.with_eta(taken.of.eta)?;
        }
        let mut warnings: Vec<String> = checkpoint.source.warnings();
        warnings.extend(options.open.vae.iter().flat_map(|vae| vae.source.warnings()));
        warnings.extend(checkpoint.warnings.iter().cloned());
        Ok(Self {
            texts,
            family: name,
            steps,
            guidance_scale,
            // diffusers' own default is true.
            zeros_for_empty_prompt: xl && checkpoint.index["force_zeros_for_empty_prompt"] != false,
            unet,
            vae,
            scheduler,
            warnings,
        })
    }

    /// What it draws with: by the catalogue, by what it was trained on, by its family.
    pub(super) fn own(&self, hint: &DefaultsHint) -> Own {
        let factor = self.vae.factor();
        let side = |n: usize| n.saturating_mul(factor).min(8192);
        let [height, width] = self.unet.sample_size.unwrap_or([64; 2]).map(side);
        let or = |hint: Option<u32>, known: usize| hint.map_or(known, |n| n as usize);
        let defaults = Defaults {
            width: or(hint.width, width),
            height: or(hint.height, height),
            steps: or(hint.steps, self.steps),
            guidance_scale: hint.guidance_scale.unwrap_or(self.guidance_scale),
            sampler: hint.sampler.clone(),
        };
        Own {
            hint: hint.clone(),
            defaults,
            scheduler: self.scheduler.clone(),
            factor,
            kind: match (self.unet.text_time.is_some(), self.unet.use_linear_projection) {
                (true, _) => recognise::Family::Sdxl,
                (false, true) => recognise::Family::Sd2,
                (false, false) => recognise::Family::Sd1,
            },
        }
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

fn model<C: Clone>(config: &C, shared: &Shared) -> Model<C> {
    Model {
        config: config.clone(),
        weights: shared.weights.clone(),
    }
}
