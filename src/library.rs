//! The checkpoints held in memory: loading them, what they are, and letting them go.

use crate::cancel::CancelToken;
use crate::checkpoint::{Checkpoint, Component, DType, OpenOptions, ProgressSink, Source};
use crate::error::{Error, Result};
use crate::executor::{Executor, WeightDtype, Weights};
use crate::graph::{ParamPart, ParamSpec, Plan};
use crate::models::clip::ClipTextConfig;
use crate::models::unet::UnetConfig;
use crate::models::vae::VaeConfig;
use crate::pipeline::{Model, Models, PlanCache, Request, check, schedule_rows};
use crate::sampler::{SamplerKind, SchedulerConfig};
use crate::text::Tokenizer;
use futures_util::future::try_join;
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

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

/// A part of a resident checkpoint, as a person sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentInfo {
    /// Such as `unet`.
    pub name: &'static str,
    /// Such as `UNet2DConditionModel`.
    pub class: String,
    /// The types of its tensors.
    pub dtypes: Vec<String>,
    /// Bytes of its weights.
    pub bytes: u64,
}

/// A checkpoint in memory.
pub struct Resident {
    /// What it is asked for by.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// Such as `SD 1.x`.
    pub family: &'static str,
    /// Its parts.
    pub components: Vec<ComponentInfo>,
    /// What it draws with when nothing is said.
    pub defaults: Defaults,
    /// Pixels of a latent's side: sizes are multiples of it.
    pub factor: usize,
    /// Bytes of its weights in memory.
    pub bytes: u64,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
    /// What the pipeline runs.
    pub models: Models,
}

/// What a caller says of a checkpoint that it loads.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How its files are found and checked.
    pub open: OpenOptions,
    /// The id that is wished for; another is found if it is taken.
    pub id: Option<String>,
    /// What the model predicts (`epsilon`, `v_prediction`), in place of what its scheduler's config says.
    pub prediction_type: Option<String>,
    /// What the catalogue says of its defaults.
    pub defaults: DefaultsHint,
}

/// The checkpoints held in memory, and the device that they are on.
pub struct Library {
    /// The device.
    pub executor: Executor,
    /// The plans in use.
    pub plans: PlanCache,
    residents: RefCell<Vec<Rc<Resident>>>,
    budget: Option<u64>,
    numbers: Cell<u64>,
}

impl Library {
    /// An empty library. `budget` bounds the bytes of weights and working memory.
    pub fn new(executor: Executor, budget: Option<u64>) -> Self {
        let library = Self {
            executor,
            plans: PlanCache::default(),
            residents: RefCell::default(),
            budget,
            numbers: Cell::new(0),
        };
        library.plans.set_limit(budget);
        library
    }

    /// The checkpoints in memory, in the order in which they were loaded.
    pub fn residents(&self) -> Vec<Rc<Resident>> {
        self.residents.borrow().clone()
    }

    /// The checkpoint of this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub fn get(&self, id: &str) -> Result<Rc<Resident>> {
        let residents = self.residents.borrow();
        residents.iter().find(|r| r.id == id).cloned().ok_or_else(|| {
            let known: Vec<&str> = residents.iter().map(|r| r.id.as_str()).collect();
            Error::NotFound(format!("checkpoint {id:?} is not loaded; loaded are {known:?}"))
        })
    }

    /// Lets a checkpoint go, with its memory on the device.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this id.
    pub fn unload(&self, id: &str) -> Result<()> {
        self.get(id)?;
        self.residents.borrow_mut().retain(|r| r.id != id);
        if self.residents.borrow().is_empty() {
            self.plans.clear();
        }
        self.set_plan_limit();
        Ok(())
    }

    /// Reads a checkpoint into memory. If that fails, all that was loaded before is as it was.
    ///
    /// # Errors
    /// Whatever its files bring forth; [`Error::OutOfMemory`] before a weight is fetched, if it cannot fit.
    pub async fn load(
        &self,
        source: Source,
        options: &LoadOptions,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let checkpoint = Checkpoint::open(source, &options.open, cancel, progress).await?;
        let Parts {
            text,
            unet,
            vae,
            scheduler,
            tokenizer,
            warnings,
        } = Parts::of(&checkpoint, options)?;

        let factor = vae.factor();
        let defaults = defaults(&options.defaults, &unet, factor);
        if options.defaults != DefaultsHint::default() {
            drawable(&defaults, factor, &scheduler).map_err(|e| e.at("source: defaults"))?;
        }
        // At the size that it draws by default: what that needs is known before anything is fetched, and compiles meanwhile.
        let tokens = tokenizer.length();
        let (height, width) = ((defaults.height / factor).max(1), (defaults.width / factor).max(1));
        let branches = if defaults.guidance_scale > 1.0 { 2 } else { 1 };
        let (batch, contexts) = self.executor.batch_and_contexts(branches);
        let config = |name: &str| checkpoint.source.locate(&format!("{name}/config.json"));
        let plans = [
            text.graph(1, tokens).map_err(|e| e.at(config("text_encoder")))?,
            unet.graph([batch, height, width], tokens, schedule_rows(defaults.steps))
                .map_err(|e| e.at(config("unet")))?,
            vae.decoder([1, height, width]).map_err(|e| e.at(config("vae")))?,
        ]
        .map(Plan::new);
        let Checkpoint {
            mut text_encoder,
            unet: mut unet_component,
            vae: mut vae_component,
            name,
            source,
            ..
        } = checkpoint;
        let mut jobs = Vec::new();
        for (component, plan) in [&text_encoder, &unet_component, &vae_component].into_iter().zip(&plans) {
            jobs.push(Wanted::new(component, &plan.params).map_err(|e| e.at(source.locate(component.name)))?);
        }
        let bytes: u64 = jobs.iter().map(Wanted::bytes).sum();
        let [text_plan, unet_plan, vae_plan] = &plans;
        let working = text_plan.peak_bytes(1) + unet_plan.peak_bytes(contexts) + vae_plan.peak_bytes(1);
        self.admit(&name, bytes, working)?;

        let components = [&text_encoder, &unet_component, &vae_component].map(describe).into();
        let mut weights = Vec::new();
        // Everything is allocated before anything is fetched.
        for job in &jobs {
            weights.push(self.executor.allocate(&job.params).await?);
        }
        let compile = async {
            for (plan, job) in plans.iter().zip(&jobs) {
                self.executor.warm(plan, &job.params).await?;
            }
            Ok::<(), Error>(())
        };
        let fetch = async {
            let all = [&mut text_encoder, &mut unet_component, &mut vae_component];
            for ((component, job), weights) in all.into_iter().zip(&jobs).zip(&weights) {
                job.read(&self.executor, component, weights, progress, cancel).await?;
            }
            Ok(())
        };
        try_join(compile, fetch).await?;
        let [text_weights, unet_weights, vae_weights]: [Weights; 3] = weights
            .try_into()
            .map_err(|_| Error::Internal("three components have three sets of weights".into()))?;

        let resident = Rc::new(Resident {
            id: self.free_id(options.id.as_deref().unwrap_or(&name)),
            name,
            family: if unet.use_linear_projection { "SD 2.x" } else { "SD 1.x" },
            components,
            defaults,
            factor,
            bytes,
            warnings,
            models: Models {
                tokenizer,
                text_encoder: Model {
                    config: text,
                    weights: text_weights,
                },
                unet: Model {
                    config: unet,
                    weights: unet_weights,
                },
                vae: Model {
                    config: vae,
                    weights: vae_weights,
                },
                scheduler,
            },
        });
        self.residents.borrow_mut().push(resident.clone());
        self.set_plan_limit();
        Ok(resident)
    }

    fn resident_bytes(&self) -> u64 {
        self.residents.borrow().iter().map(|r| r.bytes).sum()
    }

    fn set_plan_limit(&self) {
        self.plans
            .set_limit(self.budget.map(|b| b.saturating_sub(self.resident_bytes())));
    }

    /// Refuses what is known to be too much: weights, and what a picture of the default size needs besides.
    fn admit(&self, name: &str, bytes: u64, working: u64) -> Result<()> {
        let held = self.resident_bytes();
        match self.budget {
            Some(budget) if held.saturating_add(bytes).saturating_add(working) > budget => {
                Err(Error::OutOfMemory(format!(
                    "{name}: its weights need {bytes} bytes and a picture {working}; memoryBudget is {budget}, of which {held} are \
                     in use"
                )))
            }
            _ => Ok(()),
        }
    }

    fn free_id(&self, wish: &str) -> String {
        if self.get(wish).is_err() {
            return wish.into();
        }
        loop {
            self.numbers.set(self.numbers.get() + 1);
            let id = format!("{wish}-{}", self.numbers.get() + 1);
            if self.get(&id).is_err() {
                return id;
            }
        }
    }
}

/// A checkpoint's configurations, understood.
struct Parts {
    text: ClipTextConfig,
    unet: UnetConfig,
    vae: VaeConfig,
    scheduler: SchedulerConfig,
    tokenizer: Rc<Tokenizer>,
    warnings: Vec<String>,
}

impl Parts {
    fn of(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
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
            scheduler = scheduler
                .with_prediction_type(prediction_type)
                .map_err(|e| e.at("predictionType"))?;
        }
        let tokenizer = Tokenizer::new(&checkpoint.tokenizer, text.max_position_embeddings, text.vocab_size)?;
        Ok(Self {
            text,
            unet,
            vae,
            scheduler,
            tokenizer: Rc::new(tokenizer),
            warnings: Vec::new(),
        })
    }
}

fn defaults(hint: &DefaultsHint, unet: &UnetConfig, factor: usize) -> Defaults {
    let side = unet.sample_size.unwrap_or(64).saturating_mul(factor).min(8192);
    let or = |hint: Option<u32>, known: usize| hint.map_or(known, |n| n as usize);
    Defaults {
        width: or(hint.width, side),
        height: or(hint.height, side),
        steps: or(hint.steps, 20),
        guidance_scale: hint.guidance_scale.unwrap_or(7.5),
        sampler: hint.sampler.clone(),
    }
}

/// Whether a picture can be drawn with these. A catalogue's are judged before anything is fetched: with the first picture
/// the complaint would be about values that nobody asked for.
fn drawable(defaults: &Defaults, factor: usize, scheduler: &SchedulerConfig) -> Result<()> {
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

fn describe(component: &Component) -> ComponentInfo {
    let mut dtypes: Vec<String> = component
        .tensors()
        .map(|t| format!("{:?}", t.dtype).to_lowercase())
        .collect();
    dtypes.sort();
    dtypes.dedup();
    ComponentInfo {
        name: component.name,
        class: component.class.clone(),
        dtypes,
        bytes: component.bytes(),
    }
}

/// The parameters of a component, and which tensors they are made of.
struct Wanted {
    params: Vec<(ParamSpec, WeightDtype)>,
    /// For each tensor: which parameters it is part of, and which part.
    places: HashMap<String, Vec<(usize, usize)>>,
}

impl Wanted {
    /// Finds each parameter's tensors in the component's files.
    fn new(component: &Component, needed: &[ParamSpec]) -> Result<Self> {
        let mut places: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        let mut params = Vec::new();
        for (i, spec) in needed.iter().enumerate() {
            let mut kept: Option<WeightDtype> = None;
            for (p, part) in spec.parts.iter().enumerate() {
                let dtype = find(component, part)?;
                kept = Some(kept.map_or(dtype, |k| k.join(dtype)));
                places.entry(part.name.clone()).or_default().push((i, p));
            }
            params.push((spec.clone(), kept.unwrap_or(WeightDtype::F32)));
        }
        Ok(Self { params, places })
    }

    fn bytes(&self) -> u64 {
        let packed = |(spec, dtype): &(ParamSpec, WeightDtype)| {
            let [rows, columns] = spec.packed();
            rows as u64 * columns as u64 * dtype.size() as u64
        };
        self.params.iter().map(packed).sum()
    }

    async fn read(
        &self,
        executor: &Executor,
        component: &mut Component,
        weights: &Weights,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let wanted = |name: &str| self.places.contains_key(name);
        let sink = |tensor: &crate::checkpoint::TensorInfo, bytes: Vec<u8>| {
            let dtype = weight_dtype(tensor.dtype).ok_or_else(|| Error::Internal(tensor.name.clone()))?;
            for &(param, part) in self.places.get(&tensor.name).into_iter().flatten() {
                executor.upload(weights, &self.params[param].0, part, dtype, &bytes)?;
            }
            Ok(())
        };
        component
            .for_each_tensor(cancel, progress, wanted, sink)
            .await
            .map(drop)
    }
}

/// The dtype of a tensor that must be there, of this shape.
fn find(component: &Component, part: &ParamPart) -> Result<WeightDtype> {
    let ParamPart { name, shape } = part;
    let tensor = component
        .tensor(name)
        .ok_or_else(|| Error::Corrupt(format!("tensor {name:?} is missing")))?;
    // A convolution of 1 x 1 and a linear layer are one thing; older files have the one, newer ones the other.
    let trimmed = |s: &[usize]| {
        if s.len() == 4 && s[2..] == [1, 1] {
            s[..2].to_vec()
        } else {
            s.to_vec()
        }
    };
    if trimmed(&tensor.shape) != trimmed(shape) {
        return Err(Error::Corrupt(format!(
            "tensor {name:?}: expected shape {shape:?}, found {:?}",
            tensor.shape
        )));
    }
    weight_dtype(tensor.dtype).ok_or_else(|| {
        Error::Unsupported(format!(
            "tensor {name:?}: expected dtype F32, F16 or BF16, found {:?}",
            tensor.dtype
        ))
    })
}

fn weight_dtype(dtype: DType) -> Option<WeightDtype> {
    match dtype {
        DType::F32 => Some(WeightDtype::F32),
        DType::F16 => Some(WeightDtype::F16),
        DType::BF16 => Some(WeightDtype::Bf16),
        _ => None,
    }
}
