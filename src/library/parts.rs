//! What a checkpoint's configurations say, understood.

use super::{Defaults, DefaultsHint, LoadOptions};
use crate::checkpoint::{Checkpoint, Component};
use crate::error::{Error, Result};
use crate::models::clip::ClipTextConfig;
use crate::models::unet::UnetConfig;
use crate::models::vae::VaeConfig;
use crate::pipeline::{Request, check};
use crate::sampler::{SamplerKind, SchedulerConfig};
use crate::text::Tokenizer;
use std::rc::Rc;

/// A checkpoint's configurations, understood.
pub(super) struct Parts {
    pub(super) text: ClipTextConfig,
    pub(super) unet: UnetConfig,
    pub(super) vae: VaeConfig,
    pub(super) scheduler: SchedulerConfig,
    pub(super) tokenizer: Rc<Tokenizer>,
    pub(super) warnings: Vec<String>,
}

impl Parts {
    pub(super) fn of(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let place = |file: &str| checkpoint.source.locate(file);
        let text_config = place("text_encoder/config.json");
        let text = ClipTextConfig::from_json(&checkpoint.text_encoder.config).map_err(|e| e.at(&text_config))?;
        let unet_config = place("unet/config.json");
        let unet = UnetConfig::from_json(&checkpoint.unet.config).map_err(|e| e.at(&unet_config))?;
        let vae = VaeConfig::from_json(&checkpoint.vae.class, &checkpoint.vae.config)
            .map_err(|e| e.at(place("vae/config.json")))?;
        if unet.cross_attention_dim != text.hidden_size {
            return Err(Error::Corrupt(format!(
                "{unet_config}: cross_attention_dim: expected the text encoder's {}, found {}",
                text.hidden_size, unet.cross_attention_dim
            )));
        }
        if unet.in_channels != vae.latent_channels() || unet.out_channels != vae.latent_channels() {
            return Err(Error::Unsupported(format!(
                "{unet_config}: {} channels in and {} out, where latents have {}",
                unet.in_channels,
                unet.out_channels,
                vae.latent_channels()
            )));
        }
        let mut scheduler = SchedulerConfig::from_json(&checkpoint.scheduler)
            .map_err(|e| e.at(place("scheduler/scheduler_config.json")))?
            .for_stable_diffusion();
        if let Some(prediction_type) = &options.prediction_type {
            let with = scheduler.with_prediction_type(prediction_type);
            scheduler = with.map_err(|e| e.at("predictionType"))?;
        }
        let mut warnings: Vec<String> = checkpoint.source.warnings();
        if let Some(variant) = &options.open.variant {
            let others = checkpoint.components().into_iter().filter(|c| c.variant.is_none());
            let fell_back =
                |c: &Component| format!("{}: no weights of variant {variant:?}, the plain ones are used", c.name);
            warnings.extend(others.map(fell_back));
        }
        let tokenizer = Tokenizer::new(&checkpoint.tokenizer, text.max_position_embeddings, text.vocab_size)?;
        Ok(Self {
            text,
            unet,
            vae,
            scheduler,
            tokenizer: Rc::new(tokenizer),
            warnings,
        })
    }
}

/// What it draws with, by the catalogue or by what it was trained on.
pub(super) fn defaults(hint: &DefaultsHint, unet: &UnetConfig, factor: usize) -> Defaults {
    let [height, width] = unet
        .sample_size
        .unwrap_or([64; 2])
        .map(|n| n.saturating_mul(factor).min(8192));
    let or = |hint: Option<u32>, known: usize| hint.map_or(known, |n| n as usize);
    Defaults {
        width: or(hint.width, width),
        height: or(hint.height, height),
        steps: or(hint.steps, 20),
        guidance_scale: hint.guidance_scale.unwrap_or(7.5),
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
    };
    check(factor, scheduler, &request)
}
