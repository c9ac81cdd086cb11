//! What the worker sees: [`Engine`] for JavaScript. Thin: values are turned from JavaScript's to ours and back, nothing else.

mod backend;
mod given;
mod profile;
mod sha256;
mod values;

use crate::checkpoint::ProgressSink;
use crate::engine;
use crate::image::png;
use crate::library::Library;
use crate::pipeline::StepReport;
use given::Held;
use js_sys::{Function, Uint8Array};
use std::rc::Rc;
use values::{CreateOptions, to_js};
use wasm_bindgen::prelude::*;

/// The engine in the worker.
#[wasm_bindgen]
pub struct Engine {
    engine: Rc<engine::Engine>,
    given: Held,
    reason: String,
}

fn progress_sink(report: Option<&Function>) -> ProgressSink<'_> {
    ProgressSink::new(move |p| {
        if let (Some(report), Ok(value)) = (report, values::progress(&p)) {
            // A callback that throws must not end the load; the worker's own does not throw.
            let _ = report.call1(&JsValue::NULL, &value);
        }
    })
}

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| {
        if crate::platform::logs() {
            console_error_panic_hook::hook(panic);
        }
        crate::platform::panicked(&panic.to_string());
    }));
}

#[wasm_bindgen]
impl Engine {
    /// Chooses the device: `options` are `{ backend, reason, threads, memoryBudget, deviceMemory, adapterInfo, arithmetic, tuning,
    /// tuned }`.
    pub async fn create(options: JsValue) -> Result<Engine, JsValue> {
        let options: CreateOptions = values::read(options, "create")?;
        let (executor, reason) = backend::choose(&options).await.map_err(values::error)?;
        let default = backend::default_budget(executor.info().kind, options.device_memory);
        let library = Library::new(executor, Some(options.memory_budget.map_or(default, |b| b as u64)));
        Ok(Engine {
            engine: Rc::new(engine::Engine::new(library)),
            given: Held::default(),
            reason,
        })
    }

    /// `{ kind, name, software, features, threads, reason }`.
    pub fn backend(&self) -> Result<JsValue, JsValue> {
        values::backend(self.engine.library.executor.info(), &self.reason)
    }

    /// `{ choices, leftOut, lost? }`: what was found out about the adapter so far; null on the CPU.
    pub fn tuning(&self) -> Result<JsValue, JsValue> {
        let found = self.engine.library.executor.tuning();
        found.map_or(Ok(JsValue::NULL), |found| to_js(&found))
    }

    /// This engine's version.
    pub fn version() -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    /// What tells this build's GPU kernels from another's: what was found out about them holds for them alone.
    pub fn kernels() -> String {
        crate::executor::webgpu::fingerprint()
    }

    /// Races that came to nothing since this was last asked, by no fault of a way to compute, and why: texts.
    #[wasm_bindgen(js_name = takeBrokenOff)]
    pub fn take_broken_off(&self) -> Vec<String> {
        self.engine.library.executor.take_broken_off()
    }

    /// The names that `sampler` takes.
    pub fn samplers(&self) -> Result<JsValue, JsValue> {
        to_js(&crate::sampler::SamplerKind::names())
    }

    /// Loads a checkpoint by its recipe: `{ source, options, loras?, vae? }`, where `source` is
    /// `{ kind: "url", url, files?, path?, place?, label? }` or `{ kind: "files", files: [{ path, file }], path? }`; `loras`, if there are
    /// any, are `[{ source, path, scale }]`, and `vae`, if it is from elsewhere, is `{ source, name? }`. `path` is the name of the one file
    /// that has all of it, `files` what is known of those at a URL, `place` and `label` are in place of the URL in messages and in the
    /// store.
    pub fn load(&self, job: u32, recipe: JsValue, on_progress: Option<Function>) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let recipe = values::recipe(&recipe)?;
            let progress = progress_sink(on_progress.as_ref());
            let resident = engine.load(job, &recipe, &progress).await.map_err(values::error)?;
            values::checkpoint(&resident)
        })
    }

    /// Says what a checkpoint is and would need: of its weights only the headers are read.
    pub fn inspect(&self, job: u32, recipe: JsValue) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let recipe = values::recipe(&recipe)?;
            let said = engine.inspect(job, &recipe, &progress_sink(None)).await;
            values::inspection(&said.map_err(values::error)?)
        })
    }

    /// Draws pictures. `recipe` gives the checkpoint's, or nothing; it is asked if the checkpoint has to be loaded again. `on_event`
    /// hears of steps, and of that load's progress.
    pub fn generate(
        &self,
        job: u32,
        request: JsValue,
        recipe: Function,
        on_event: Option<Function>,
    ) -> js_sys::Promise {
        let (engine, given) = (self.engine.clone(), self.given.clone());
        wasm_bindgen_futures::future_to_promise(async move {
            // Held until the pictures are drawn.
            let given = given.take(&request)?;
            let options = engine::GenerateOptions {
                image: given.image.clone(),
                mask: given.mask.clone(),
                ..values::read(request, "generate")?
            };
            let recipe = || values::known_recipe(&recipe);
            let progress = progress_sink(on_event.as_ref());
            let report = |step: StepReport| {
                if let (Some(report), Ok(value)) = (&on_event, values::step(&step)) {
                    let _ = report.call1(&JsValue::NULL, &value);
                }
            };
            let generated = engine.generate(job, &options, recipe, &progress, report);
            values::generated(&generated.await.map_err(values::error)?)
        })
    }

    /// Times a step of the UNet and the decoder, node by node. `recipe` and `on_event` are those of `generate`.
    pub fn profile(&self, job: u32, request: JsValue, recipe: Function, on_event: Option<Function>) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let options: engine::ProfileOptions = values::read(request, "profile")?;
            let recipe = || values::known_recipe(&recipe);
            let progress = progress_sink(on_event.as_ref());
            let measured = engine.profile(job, &options, recipe, &progress).await;
            profile::profile(&measured.map_err(values::error)?)
        })
    }

    /// Times the operations of a model that is not there: `request` is `{ part, config, height, width, tokens }`.
    pub fn sweep(&self, job: u32, request: JsValue) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let swept = engine.sweep(job, &values::read(request, "sweep")?).await;
            to_js(&swept.map_err(values::error)?)
        })
    }

    /// Lays the LoRAs of `recipe` over the checkpoint `id`, which is loaded by it if it is not in memory. Gives `{ warnings, defaults }`.
    #[wasm_bindgen(js_name = setLoras)]
    pub fn set_loras(&self, job: u32, id: String, recipe: JsValue, on_progress: Option<Function>) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let recipe = values::recipe(&recipe)?;
            let progress = progress_sink(on_progress.as_ref());
            let set = engine.set_loras(job, &id, &recipe.options.loras, Some(&recipe), &progress);
            values::set_loras(&*set.await.map_err(values::error)?)
        })
    }

    /// `{ budget, weights, working, gpu, wasm }`, in bytes: what all of it may be; weights, each component once; slots of plans;
    /// all GPU buffers; the memory of this module.
    pub fn memory(&self) -> Result<JsValue, JsValue> {
        values::memory(&self.engine.library.memory())
    }

    /// `{ plans, pipelines, uploaded, unraced }`: what was made so far, for tests of what need not be made again, and what is to be measured yet.
    pub fn counts(&self) -> Result<JsValue, JsValue> {
        values::counts(&self.engine.library.counts())
    }

    /// The ids of the checkpoints in memory.
    pub fn residents(&self) -> Vec<String> {
        let residents = self.engine.library.residents();
        residents.iter().map(|r| r.id.clone()).collect()
    }

    /// Lets a checkpoint go, if it is in memory.
    pub fn unload(&self, id: &str) {
        // One that gave way to others is not.
        let _ = self.engine.library.unload(id);
    }

    /// Destroys the GPU device, as a driver that is reset would: for tests of what comes after.
    #[wasm_bindgen(js_name = loseDevice)]
    pub fn lose_device(&self) {
        self.engine.library.executor.lose_device();
    }

    /// Asks a job to stop.
    pub fn cancel(&self, job: u32) {
        self.engine.cancel(job);
    }

    /// A PNG with its parameters in a text chunk.
    pub fn png(&self, width: u32, height: u32, rgba: &[u8], parameters: &str) -> Result<Uint8Array, JsValue> {
        png::encode(rgba, width, height, parameters)
            .map(|png| Uint8Array::from(png.as_slice()))
            .map_err(values::error)
    }
}
