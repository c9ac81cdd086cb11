//! diffusers' `scheduler_config.json`, and what it becomes when another sampler is chosen.

use serde_json::{Map, Value};

use super::ddim::Ddim;
use super::ddpm::Ddpm;
use super::deis_multistep::DeisMultistep;
use super::dpm_solver_multistep::DpmSolverMultistep;
use super::euler::Euler;
use super::euler_ancestral::EulerAncestral;
use super::heun::Heun;
use super::keys::Keys;
use super::kind::{SamplerKind, SchedulerClass, menu_name};
use super::lcm::Lcm;
use super::pndm::Pndm;
use super::schedule::{Schedule, Step};
use super::tcd::Tcd;
use super::unipc_multistep::UniPcMultistep;
use crate::{Error, Result};

/// A scheduler of diffusers with its configuration. Keys that are absent have the defaults of diffusers' constructors.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    class: SchedulerClass,
    keys: Map<String, Value>,
    /// What the pipeline passes to each step as `eta`; the class's default where there is none.
    eta: Option<f64>,
}

/// One scheduler, its keys read and checked.
pub(super) trait Scheduler {
    /// How many steps the model was trained on, or distilled to; no more can be asked for.
    fn train_steps(&self) -> usize;

    /// How many calls of the model a step makes (diffusers' `order`), but for the last.
    fn order(&self) -> usize {
        1
    }

    /// The standard deviation of the first sample, and the steps: one for each call of the model, which may be more than
    /// asked for. `steps` is from 1 to [`Self::train_steps`]. The first `begin` calls are left out, and what came of them is
    /// not known to those that follow.
    fn schedule(&self, steps: usize, begin: usize) -> Result<(f64, Vec<Step>)>;
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`. Infinite numbers, which JSON lacks, are expected as the strings "Infinity" and
    /// "-Infinity".
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a class, a key or a value that is not implemented; [`Error::Corrupt`] for a value that
    /// makes no sense.
    pub fn from_json(json: &Value) -> Result<Self> {
        let Some(keys) = json.as_object() else {
            return Err(Error::Corrupt("scheduler configuration: expected a JSON object".into()));
        };
        let Some(class) = keys.get("_class_name").and_then(Value::as_str) else {
            return Err(Error::Corrupt(
                "scheduler key \"_class_name\": expected the name of a class".into(),
            ));
        };
        let config = Self {
            class: SchedulerClass::from_name(class)?,
            keys: keys.clone(),
            eta: None,
        };
        config.scheduler()?;
        Ok(config)
    }

    /// What diffusers' `StableDiffusionInpaintPipeline` makes of its checkpoint's configuration: timesteps are offset by one, a
    /// `PNDMScheduler` takes no Runge-Kutta steps, and each step is taken with an eta of 0. Latents are clipped where it says so.
    ///
    /// # Errors
    /// Those of [`Self::from_json`].
    pub fn for_inpainting(json: &Value) -> Result<Self> {
        let mut json = json.clone();
        if let Some(keys) = json.as_object_mut() {
            keys.insert("steps_offset".into(), 1.into());
            if keys.get("_class_name") == Some(&SchedulerClass::Pndm.name().into()) {
                keys.insert("skip_prk_steps".into(), true.into());
            }
        }
        Self::from_json(&json)?.with_eta(0.0)
    }

    /// What diffusers' `StableDiffusionPipeline` makes of its checkpoint's configuration: timesteps are offset by one, and latents
    /// are never clipped, whatever the file says.
    #[must_use]
    pub fn for_stable_diffusion(mut self) -> Self {
        self.keys.insert("steps_offset".into(), 1.into());
        if matches!(self.class, SchedulerClass::Ddim | SchedulerClass::Ddpm) || self.keys.contains_key("clip_sample") {
            self.keys.insert("clip_sample".into(), false.into());
        }
        self
    }

    /// The same configuration in any of diffusers' pipelines: each step is taken with an eta of 0 where nothing is said of it (TCD's
    /// own default is 0.3).
    #[must_use]
    pub fn for_pipeline(mut self) -> Self {
        self.eta = Some(0.0);
        self
    }

    /// The same configuration with `eta`, as a pipeline of diffusers passes it to each step: how much of the noise is drawn
    /// anew by TCD (its paper's γ), from 0 to 1. DDIM takes 0 alone; on the others it has no effect.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a number that is not from 0 to 1.
    pub fn with_eta(mut self, eta: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::InvalidArgument(format!(
                "eta: expected a number from 0 to 1, found {eta}"
            )));
        }
        self.eta = Some(eta);
        Ok(self)
    }

    /// The same configuration with these keys in place of its own, `_class_name` among them, and with this `eta`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a class, a key or a value that is not implemented, also where it is a key that stays.
    pub fn with_changes(&self, changes: &Value, eta: f64) -> Result<Self> {
        let mut keys = self.keys.clone();
        keys.extend(changes.as_object().cloned().unwrap_or_default());
        keys.entry("_class_name").or_insert_with(|| self.class.name().into());
        Self::from_json(&Value::Object(keys))?.with_eta(eta)
    }

    /// The same configuration run by another sampler, as diffusers' `from_config` does it: the keys stay, and those that
    /// are absent have the other class's defaults. An `eta` was meant for the one class: the other is passed 0, as by default. A
    /// value that the other class has no implementation for is an error of [`Self::schedule`].
    #[must_use]
    pub fn with_sampler(&self, kind: SamplerKind) -> Self {
        let mut config = Self {
            class: kind.class,
            keys: self.keys.clone(),
            eta: self.eta.map(|eta| if kind.class == self.class { eta } else { 0.0 }),
        };
        if kind.class == SchedulerClass::DpmSolverMultistep && !kind.settings.is_empty() {
            // The menu's names of this class say the algorithm and the order.
            config.keys.insert("algorithm_type".into(), "dpmsolver++".into());
            config.keys.insert("solver_order".into(), 2.into());
        }
        config.keys.extend(
            kind.settings
                .iter()
                .map(|(key, on)| ((*key).to_string(), Value::from(*on))),
        );
        config
    }

    /// The same configuration for a model that predicts something else ("epsilon", "v_prediction", "sample").
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that is not one of them.
    pub fn with_prediction_type(&self, prediction_type: &str) -> Result<Self> {
        let mut config = self.clone();
        config.keys.insert("prediction_type".into(), prediction_type.into());
        config
            .scheduler()
            .map_err(|error| Error::InvalidArgument(error.message().into()))?;
        Ok(config)
    }

    /// The scheduler class.
    pub fn class(&self) -> SchedulerClass {
        self.class
    }

    /// The name of the sampler that this configuration is: the menu's, or the class's where the menu has none.
    pub fn sampler_name(&self) -> &'static str {
        let order = self.keys.get("solver_order").is_none_or(|order| *order == 2);
        let algorithm = self.keys.get("algorithm_type");
        let plain = algorithm.is_none_or(|name| *name == "dpmsolver++" || *name == "deis");
        if self.class == SchedulerClass::DpmSolverMultistep && !(order && plain) {
            return self.class.name();
        }
        menu_name(self.class, |key| self.keys.get(key) == Some(&Value::Bool(true)))
    }

    /// A run of `steps` steps.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `steps` is 0 or more than the model was trained on, or too many for the spacing
    /// of this scheduler; [`Error::Unsupported`] for a configuration that has no finite schedule.
    pub fn schedule(&self, steps: usize) -> Result<Schedule> {
        self.schedule_from(steps, 0)
    }

    /// The same without its first `skipped` steps, for a sample that is made of an image: diffusers' `get_timesteps`.
    ///
    /// # Errors
    /// Those of [`Self::schedule`]; [`Error::InvalidArgument`] if no step is left.
    pub fn schedule_from(&self, steps: usize, skipped: usize) -> Result<Schedule> {
        let scheduler = self.scheduler()?;
        let most = scheduler.train_steps();
        if steps == 0 || steps > most {
            return Err(Error::InvalidArgument(format!(
                "steps: expected 1 to {most}, found {steps}"
            )));
        }
        if skipped >= steps {
            return Err(Error::InvalidArgument(format!(
                "steps: expected more than the {skipped} that are left out, found {steps}"
            )));
        }
        let (sigma, steps) = scheduler.schedule(steps, skipped * scheduler.order())?;
        Schedule::new(sigma, steps).map_err(|error| error.at(self.class.name()))
    }

    fn scheduler(&self) -> Result<Box<dyn Scheduler>> {
        let keys = Keys(&self.keys);
        keys.check_known()?;
        // Dynamic thresholding needs quantiles of the sample; it is of no use in latent space.
        keys.off("thresholding")?;
        Ok(match self.class {
            SchedulerClass::Ddim if self.eta.is_some_and(|eta| eta != 0.0) => {
                return Err(Error::Unsupported(
                    "eta of DDIMScheduler: not implemented; expected 0".into(),
                ));
            }
            SchedulerClass::Ddim => Box::new(Ddim::read(&keys)?),
            SchedulerClass::Ddpm => Box::new(Ddpm::read(&keys)?),
            SchedulerClass::Pndm => Box::new(Pndm::read(&keys)?),
            SchedulerClass::EulerAncestral => Box::new(EulerAncestral::read(&keys)?),
            SchedulerClass::Euler => Box::new(Euler::read(&keys)?),
            SchedulerClass::DpmSolverMultistep => Box::new(DpmSolverMultistep::read(&keys)?),
            SchedulerClass::Heun => Box::new(Heun::read(&keys)?),
            SchedulerClass::Lcm => Box::new(Lcm::read(&keys)?),
            SchedulerClass::Tcd => Box::new(Tcd::read(&keys, self.eta)?),
            SchedulerClass::UniPcMultistep => Box::new(UniPcMultistep::read(&keys)?),
            SchedulerClass::DeisMultistep => Box::new(DeisMultistep::read(&keys)?),
        })
    }
}
