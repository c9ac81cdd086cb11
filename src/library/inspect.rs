//! What a checkpoint is and would need, from its configurations and headers alone.

use super::encoder::expect_encoder;
use super::parts::Parts;
use super::resident::describe;
use super::wanted::Wanted;
use super::{ComponentInfo, Defaults, Library, LoadOptions, Working};
use crate::cancel::CancelToken;
use crate::checkpoint::recognise::{kind, lora_family};
use crate::checkpoint::{
    Checkpoint, Component, ExpectedFile, OpenFile, OpenOptions, ProgressSink, Source, VaeSource, vae,
};
use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::models::vae::VaeConfig;
use crate::pipeline::Key;
use std::rc::Rc;

/// What is said of a checkpoint that is not loaded, or of what a person brings in its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspection {
    /// `checkpoint`, `lora` or `vae`; nothing, if it is none of them.
    pub kind: Option<&'static str>,
    /// `diffusers` (a folder) or `single-file`.
    pub layout: &'static str,
    /// What a person calls it; empty if it could not be opened.
    pub name: String,
    /// Such as `SD 1.x`, if it is one that is known.
    pub family: Option<&'static str>,
    /// Its parts; none of them has an id yet.
    pub components: Vec<ComponentInfo>,
    /// Bytes of its weights' files.
    pub bytes: u64,
    /// What its UNet predicts, as far as the checkpoint says.
    pub prediction_type: Option<String>,
    /// What it draws with when nothing is said, with the number that width and height are multiples of.
    pub defaults: Option<(Defaults, usize)>,
    /// The sampler of its own.
    pub sampler: Option<&'static str>,
    /// Bytes that it takes on this device.
    pub memory: Option<Needs>,
    /// What all checkpoints may take together.
    pub budget: Option<u64>,
    /// Why it can't be used as what it is; it can, if there is nothing.
    pub unsupported: Vec<String>,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
}

/// What a checkpoint takes on a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its weights.
    pub weights: u64,
    /// A picture with the defaults, besides.
    pub working: u64,
    /// Weights and a picture together, where it is drawn over an image; nothing, if it can't be.
    pub with_image: Option<u64>,
}

impl Needs {
    /// Weights and a picture together.
    pub fn peak(&self) -> u64 {
        self.weights.saturating_add(self.working)
    }
}

impl Inspection {
    /// Notes what is not implemented, or too large for the device; anything else is an error.
    fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Unsupported(message) | Error::OutOfMemory(message)) => {
                self.unsupported.push(message);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Library {
    /// Reads configurations and headers, and says what is there. Nothing is loaded, and no checkpoint gives way.
    ///
    /// # Errors
    /// Whatever its files bring forth, but for [`Error::Unsupported`], which is part of what is said.
    pub async fn inspect(
        &self,
        source: Source,
        options: &LoadOptions,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Inspection> {
        let mut said = Inspection {
            layout: if options.open.file.is_some() {
                "single-file"
            } else {
                "diffusers"
            },
            budget: self.budget,
            ..Inspection::default()
        };
        let opened = Checkpoint::open(source.clone(), &options.open, cancel, progress).await;
        if options.open.file.is_none() && matches!(opened, Err(Error::NotFound(_))) {
            let vae = as_vae(&source, &options.open);
            if vae::is_folder(&vae, cancel).await? {
                said.kind = Some("vae");
                let looked = self.look_at_vae(&mut said, &vae, &options.open, cancel).await;
                said.note(looked)?;
                return Ok(said);
            }
        }
        let Some(checkpoint) = said.note(opened)? else {
            match &options.open.file {
                Some(path) => {
                    self.look_otherwise(&mut said, &source, path, &options.open, cancel)
                        .await?;
                }
                None => said.kind = Some("checkpoint"),
            }
            return Ok(said);
        };
        said.kind = Some("checkpoint");
        said.name.clone_from(&checkpoint.name);
        said.components = checkpoint.components.iter().map(describe).collect();
        said.bytes = checkpoint.total_bytes();
        let prediction = options
            .prediction_type
            .as_deref()
            .or(checkpoint.scheduler["prediction_type"].as_str());
        // The default of diffusers' schedulers.
        said.prediction_type = Some(prediction.unwrap_or("epsilon").into());
        let Some(mut parts) = said.note(Parts::of(&checkpoint, options))? else {
            return Ok(said);
        };
        let (factor, defaults) = (parts.vae.factor(), parts.own(&options.defaults).defaults);
        said.family = Some(parts.family);
        said.sampler = Some(parts.scheduler.sampler_name());
        let keys = parts.keys(&defaults, &self.executor, false);
        let latents = parts.latents(&defaults);
        said.defaults = Some((defaults, factor));
        let mut weights = 0u64;
        for (component, key) in checkpoint.components.iter().zip(&keys) {
            let plan = self.plans.plan(key).map_err(|e| e.at(component.config_place()))?;
            let wanted = Wanted::new(component, &plan.params).map_err(|e| e.at(component.place()));
            let Some(wanted) = said.note(wanted)? else { continue };
            let whole = key.whole().map(|key| self.plans.plan(&key)).transpose()?;
            parts
                .warnings
                .extend(wanted.unused(component, &whole.as_ref().unwrap_or(&plan).params));
            weights = weights.saturating_add(self.executor.weight_bytes(&wanted.params));
            let limits = self
                .executor
                .check_weights(&wanted.params)
                .map_err(|e| e.at(component.place()));
            said.note(limits)?;
        }
        let mut working = Working::new(&self.executor);
        for (component, key) in checkpoint.components.iter().zip(&self.fitting(keys, weights)?) {
            let plan = self.plans.plan(key)?;
            working.add(key, &plan);
            said.note(self.executor.check_limits(&plan).map_err(|e| e.at(component.place())))?;
        }
        let key = Key::encoder(&parts.vae, latents);
        let mut needs = Needs {
            weights,
            working: working.bytes(),
            with_image: None,
        };
        let encoder = self.encoder_bytes(checkpoint.component("vae")?, &key);
        let paints = parts.unet.inpaints();
        // Where only images need it, it may be missing.
        let encoder = if paints { said.note(encoder)? } else { encoder.ok() };
        if let Some((bytes, plan)) = encoder {
            working.add(&key, &plan);
            let weights = weights.saturating_add(bytes);
            needs.with_image = Some(weights.saturating_add(working.bytes()));
            if paints {
                (needs.weights, needs.working) = (weights, working.bytes());
            }
        }
        said.memory = Some(needs);
        if let Some(budget) = self.budget.filter(|&budget| needs.peak() > budget) {
            let Needs { weights, working, .. } = needs;
            said.unsupported.push(format!(
                "{}: its weights need {weights} bytes and a picture {working}; memoryBudget is {budget}",
                said.name
            ));
        }
        said.warnings = parts.warnings;
        Ok(said)
    }

    /// These keys if there is room for them beside the weights, or else with guidance's branches one after the other, if those have.
    fn fitting(&self, keys: Vec<Key>, weights: u64) -> Result<Vec<Key>> {
        let fits = |keys: &[Key]| -> Result<bool> {
            let mut working = Working::new(&self.executor);
            for key in keys {
                let plan = self.plans.plan(key)?;
                if self.executor.check_limits(&plan).is_err() {
                    return Ok(false);
                }
                working.add(key, &plan);
            }
            let needed = weights.saturating_add(working.bytes());
            Ok(self.budget.is_none_or(|budget| needed <= budget))
        };
        if fits(&keys)? {
            return Ok(keys);
        }
        let apart: Vec<Key> = keys
            .iter()
            .map(|key| key.apart().unwrap_or_else(|| key.clone()))
            .collect();
        Ok(if fits(&apart)? { apart } else { keys })
    }

    /// Says of a file that is no checkpoint whether it is of use otherwise.
    async fn look_otherwise(
        &self,
        said: &mut Inspection,
        source: &Source,
        path: &str,
        open: &OpenOptions,
        cancel: &CancelToken,
    ) -> Result<()> {
        // Why it can't be read was noted.
        let Ok(file) = OpenFile::open(source, path, "", ExpectedFile::default(), cancel).await else {
            return Ok(());
        };
        said.kind = kind(file.header());
        said.bytes = file.file_bytes();
        if matches!(said.kind, Some("lora" | "vae")) {
            said.name = path.rsplit_once('.').map_or(path, |(stem, _)| stem).into();
            said.unsupported.clear();
        }
        if said.kind == Some("lora") {
            said.family = lora_family(file.header());
        }
        drop(file);
        if said.kind == Some("vae") {
            let vae = as_vae(source, open);
            let looked = self.look_at_vae(said, &vae, open, cancel).await;
            said.note(looked)?;
        }
        Ok(())
    }

    /// Says what an autoencoder by itself is: a file, or a folder.
    async fn look_at_vae(
        &self,
        said: &mut Inspection,
        from: &VaeSource,
        open: &OpenOptions,
        cancel: &CancelToken,
    ) -> Result<()> {
        let opened = vae::open(from, open.variant.as_ref(), false, cancel, &ProgressSink::none()).await?;
        if from.file.is_none() {
            said.name = opened.name;
        }
        said.bytes = opened.component.bytes();
        said.components = vec![describe(&opened.component)];
        said.warnings = opened.warnings;
        let decoder = self.check_decoder(&opened.component);
        said.note(decoder)?;
        Ok(())
    }

    /// Whether an autoencoder's decoder is all there, and can be on this device.
    fn check_decoder(&self, vae: &Component) -> Result<()> {
        let config = VaeConfig::from_json(&vae.class, &vae.config).map_err(|e| e.at(vae.config_place()))?;
        // Of any size: the parameters are the same.
        let key = Key::decoder(&config, [8, 8]);
        let plan = self.plans.plan(&key).map_err(|e| e.at(vae.config_place()))?;
        let wanted = Wanted::new(vae, &plan.params).map_err(|e| e.at(vae.place()))?;
        let limits = self.executor.check_weights(&wanted.params);
        limits.map_err(|e| e.at(vae.place()))
    }

    /// Bytes of the encoder's weights, and its plan.
    fn encoder_bytes(&self, vae: &Component, key: &Key) -> Result<(u64, Rc<Plan>)> {
        expect_encoder(vae)?;
        let plan = self.plans.plan(key).map_err(|e| e.at(vae.config_place()))?;
        let fits = || -> Result<u64> {
            let wanted = Wanted::new(vae, &plan.params)?;
            self.executor.check_weights(&wanted.params)?;
            self.executor.check_limits(&plan)?;
            Ok(self.executor.weight_bytes(&wanted.params))
        };
        let bytes = fits().map_err(|e| e.at(vae.place()))?;
        Ok((bytes, plan))
    }
}

/// What was given as a checkpoint, as an autoencoder.
fn as_vae(source: &Source, open: &OpenOptions) -> VaeSource {
    VaeSource {
        source: source.clone(),
        file: open.file.clone(),
        name: open.name.clone(),
        files: open.files.clone(),
    }
}
