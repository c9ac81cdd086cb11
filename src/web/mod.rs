//! What the worker sees: [`Engine`] for JavaScript. Thin: values are turned from JavaScript's to ours and back, nothing else.

mod backend;
mod sha256;
mod values;

use crate::checkpoint::{ProgressSink, Source};
use crate::engine;
use crate::image::png;
use crate::library::Library;
use crate::pipeline::StepReport;
use js_sys::{Function, Uint8Array};
use std::rc::Rc;
use values::{CreateOptions, LoadValues, SourceKind, to_js};
use wasm_bindgen::prelude::*;

/// The engine in the worker.
#[wasm_bindgen]
pub struct Engine {
    engine: Rc<engine::Engine>,
    reason: String,
}

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

#[wasm_bindgen]
impl Engine {
    /// Chooses the device: `options` are `{ backend, memoryBudget, threads, adapterInfo }`.
    pub async fn create(options: JsValue) -> Result<Engine, JsValue> {
        let options: CreateOptions = values::read(options, "create")?;
        let (executor, reason) = backend::choose(&options).await.map_err(values::error)?;
        let library = Library::new(executor, options.memory_budget.map(|b| b as u64));
        Ok(Engine {
            engine: Rc::new(engine::Engine::new(library)),
            reason,
        })
    }

    /// `{ kind, name, software, features, threads, reason }`.
    pub fn backend(&self) -> Result<JsValue, JsValue> {
        values::backend(self.engine.library.executor.info(), &self.reason)
    }

    /// The names that `sampler` takes.
    pub fn samplers(&self) -> Result<JsValue, JsValue> {
        to_js(&crate::sampler::SamplerKind::names())
    }

    /// Loads a checkpoint: `source` is `{ kind: "url", url, files? }` or `{ kind: "files", files: [{ path, file }] }`.
    pub fn load(&self, job: u32, source: JsValue, options: JsValue, on_progress: Option<Function>) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let mut options: LoadValues = values::read(options, "load")?;
            let source = match values::source(&source)? {
                SourceKind::Url { url, files } => {
                    options.files = files;
                    Source::http(&url)
                }
                SourceKind::Files(files) => Source::files(files),
            };
            let progress = ProgressSink::new(|p| {
                if let (Some(report), Ok(value)) = (&on_progress, values::progress(&p)) {
                    // A callback that throws must not end the load; the worker's own does not throw.
                    let _ = report.call1(&JsValue::NULL, &value);
                }
            });
            let resident = engine
                .load(job, source, &options.into(), &progress)
                .await
                .map_err(values::error)?;
            values::checkpoint(&resident)
        })
    }

    /// Draws pictures.
    pub fn generate(&self, job: u32, request: JsValue, on_step: Option<Function>) -> js_sys::Promise {
        let engine = self.engine.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let options: engine::GenerateOptions = values::read(request, "generate")?;
            let report = |step: StepReport| {
                if let (Some(report), Ok(value)) = (&on_step, values::step(&step)) {
                    let _ = report.call1(&JsValue::NULL, &value);
                }
            };
            let generated = engine.generate(job, &options, report).await.map_err(values::error)?;
            values::generated(&generated)
        })
    }

    /// The checkpoints in memory.
    pub fn checkpoints(&self) -> Result<js_sys::Array, JsValue> {
        self.engine
            .library
            .residents()
            .iter()
            .map(|r| values::checkpoint(r))
            .collect()
    }

    /// Lets a checkpoint go.
    pub fn unload(&self, id: &str) -> Result<(), JsValue> {
        self.engine.library.unload(id).map_err(values::error)
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
