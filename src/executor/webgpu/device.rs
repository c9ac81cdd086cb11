//! The adapter and its device: limits, errors that arrive later, and waiting for what was submitted.

use crate::error::{Error, Result};
use futures_channel::oneshot;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

/// How the adapter is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Takes the software adapter.
    pub fallback: bool,
    /// Takes the kernels for a processor, or for a GPU, rather than those that suit the adapter.
    pub software: Option<bool>,
    /// Keeps values in 16-bit floats, and multiplies them, where the adapter has such and a model stands it.
    pub half: bool,
    /// Bytes of buffers that the device gives out at most: it refuses more as one does whose memory is full.
    pub memory: Option<u64>,
}

/// What went wrong while nobody waited.
#[derive(Default)]
struct Trouble {
    lost: Option<String>,
    error: Option<Error>,
}

/// A device and its queue.
pub(super) struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    /// Command buffers that were submitted.
    pub submits: Cell<u64>,
    /// Shaders may compute with 16-bit floats.
    pub has_half: bool,
    /// Passes may write timestamps.
    pub has_timestamps: bool,
    /// Bytes that it gives out yet, where that was bounded.
    pub left: Option<Rc<Cell<u64>>>,
    trouble: Arc<Mutex<Trouble>>,
    _handler: uncaptured::Handler,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.device.destroy();
    }
}

/// A submission under way.
pub(super) struct Fence {
    index: wgpu::SubmissionIndex,
    done: oneshot::Receiver<()>,
}

/// What a device says that is full.
pub(super) fn is_full() -> Error {
    Error::OutOfMemory("the GPU has no memory left".into())
}

fn convert(error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => is_full(),
        wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => Error::Internal(format!("WebGPU: {error}")),
    }
}

/// What a person can use of wgpu's text: not which of its backends were compiled in, nor how a browser's error looks in Rust.
fn told(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split(&[';', '\n'][..]).next().unwrap_or_default();
    text.replace("JsValue(", "")
}

impl Device {
    /// On an adapter that is used with no more than these `features`.
    pub(super) async fn new(options: &Options, features: wgpu::Features) -> Result<(Self, wgpu::AdapterInfo)> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let wanted = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            force_fallback_adapter: options.fallback,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&wanted).await;
        let adapter = adapter.map_err(|e| Error::Unsupported(format!("there is no WebGPU adapter: {}", told(&e))))?;
        let limits = adapter.limits();
        let features = adapter.features() & features;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("tintype"),
            required_features: features,
            // Defaults would stop at 128 MiB a binding, which is less than CLIP's table of tokens.
            required_limits: limits.clone(),
            ..Default::default()
        };
        let device = adapter.request_device(&descriptor).await;
        let (device, queue) =
            device.map_err(|e| Error::Unsupported(format!("there is no WebGPU device: {}", told(&e))))?;

        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let shared = Arc::clone(&trouble);
        device.set_device_lost_callback(move |reason, message| {
            if let Ok(mut trouble) = shared.lock() {
                trouble.lost.get_or_insert(format!("{reason:?}: {message}"));
            }
        });
        let handler = uncaptured::listen(&device, Arc::clone(&trouble));
        let made = Self {
            device,
            queue,
            limits,
            submits: Cell::new(0),
            has_half: features.contains(wgpu::Features::SHADER_F16),
            left: options.memory.map(|bytes| Rc::new(Cell::new(bytes))),
            has_timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            trouble,
            _handler: handler,
        };
        Ok((made, adapter.get_info()))
    }

    /// Says what went wrong since the last call.
    pub(super) fn check(&self) -> Result<()> {
        let mut trouble = self.trouble()?;
        trouble.error.take().map_or(Ok(()), Err)
    }

    /// What went wrong, if the device is still there.
    fn trouble(&self) -> Result<MutexGuard<'_, Trouble>> {
        let trouble = self.trouble.lock();
        let trouble = trouble.map_err(|_| Error::Internal("an error handler panicked".into()))?;
        match &trouble.lost {
            Some(lost) => Err(Error::DeviceLost(format!("the GPU device was lost: {lost}"))),
            None => Ok(trouble),
        }
    }

    /// Makes GPU objects; what goes wrong is this call's error, and what was made is given up.
    pub(super) async fn guarded<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let made = make();
        let (memory, validation) = (memory.pop(), validation.pop());
        let errors = [memory.await, validation.await];
        if let Some(error) = errors.iter().flatten().next() {
            // A lost device makes all kinds of errors.
            return self.trouble().and_then(|_| Err(convert(error)));
        }
        self.check()?;
        made
    }

    /// Submits a command buffer.
    pub(super) fn send(&self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        self.submits.set(self.submits.get() + 1);
        self.queue.submit([commands])
    }

    /// Submits a command buffer; the fence tells when it is done.
    pub(super) fn submit(&self, commands: wgpu::CommandBuffer) -> Fence {
        let index = self.send(commands);
        let (tell, done) = oneshot::channel();
        self.queue.on_submitted_work_done(move || {
            // Who no longer waits needs no answer.
            let _ = tell.send(());
        });
        Fence { index, done }
    }

    /// Waits for a submission.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], and whatever went wrong meanwhile.
    pub(super) async fn wait(&self, fence: Fence) -> Result<()> {
        self.drive(Some(fence.index))?;
        let told = fence.done.await;
        self.check()?;
        told.map_err(|_| Error::DeviceLost("the GPU device is gone".into()))
    }

    /// Natively, callbacks are run by polling, here until the submission (or the last one) is done. A browser runs them by itself,
    /// and this does nothing there.
    pub(super) fn drive(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let wait = wgpu::PollType::Wait {
            submission_index,
            timeout: None,
        };
        match self.device.poll(wait) {
            Ok(_) => Ok(()),
            Err(e) => {
                self.check()?;
                Err(Error::DeviceLost(format!("the GPU device does not answer: {e}")))
            }
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod uncaptured {
    use super::{Trouble, convert};
    use std::sync::{Arc, Mutex};

    /// Held by wgpu.
    pub(super) struct Handler;

    /// Keeps errors that nobody waits for.
    pub(super) fn listen(device: &wgpu::Device, trouble: Arc<Mutex<Trouble>>) -> Handler {
        device.on_uncaptured_error(Arc::new(move |error| {
            if let Ok(mut trouble) = trouble.lock() {
                // The first error tells most; others often follow from it.
                trouble.error.get_or_insert(convert(&error));
            }
        }));
        Handler
    }
}

/// wgpu's own handler panics on errors that are neither validation nor memory.
#[cfg(target_arch = "wasm32")]
mod uncaptured {
    use super::Trouble;
    use crate::error::Error;
    use js_sys::Reflect;
    use std::sync::{Arc, Mutex};
    use wasm_bindgen::prelude::*;

    pub(super) type Handler = Option<Closure<dyn FnMut(JsValue)>>;

    /// Keeps errors that nobody waits for.
    pub(super) fn listen(device: &wgpu::Device, trouble: Arc<Mutex<Trouble>>) -> Handler {
        let device: &JsValue = device.as_webgpu()?.as_ref();
        let hear = move |event: JsValue| {
            let get = |of: &JsValue, name: &str| Reflect::get(of, &name.into()).unwrap_or_default();
            let error = get(&event, "error");
            let kind = get(&get(&error, "constructor"), "name").as_string();
            let error = match kind.as_deref() {
                Some("GPUOutOfMemoryError") => Error::OutOfMemory("the GPU has no memory left".into()),
                _ => Error::Internal(format!(
                    "WebGPU: {}",
                    get(&error, "message").as_string().unwrap_or_default()
                )),
            };
            if let Ok(mut trouble) = trouble.lock() {
                trouble.error.get_or_insert(error);
            }
        };
        let handler = Closure::<dyn FnMut(JsValue)>::new(hear);
        Reflect::set(device, &"onuncapturederror".into(), handler.as_ref()).ok()?;
        Some(handler)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use crate::executor::webgpu::{Options, Webgpu};
    use pollster::block_on;

    #[test]
    fn a_lost_device_is_said_to_be_lost() {
        if crate::executor::webgpu::tests::has_no_gpu() {
            return;
        }
        let gpu = block_on(Webgpu::new(Options::default())).unwrap();
        let buffer = block_on(gpu.buffer(4)).unwrap();
        gpu.device.device.destroy();
        let read = block_on(gpu.read(&buffer, 0, 4));
        assert_eq!(read.unwrap_err().code(), "device-lost", "reading");
        assert_eq!(
            block_on(gpu.buffer(4)).err().unwrap().code(),
            "device-lost",
            "making a buffer"
        );
    }

    #[test]
    fn a_fault_of_ours_is_an_error() {
        if crate::executor::webgpu::tests::has_no_gpu() {
            return;
        }
        let gpu = block_on(Webgpu::new(Options::default())).unwrap();
        let broken = wgpu::ShaderSource::Wgsl("this is no shader".into());
        let module = || {
            Ok(gpu.device.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: broken,
            }))
        };
        let error = block_on(gpu.device.guarded(module)).err().unwrap();
        assert_eq!(error.code(), "internal", "{error}");
        // Outside of a scope it waits for the next call.
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage,
            mapped_at_creation: false,
        };
        drop(gpu.device.device.create_buffer(&descriptor));
        assert_eq!(
            block_on(gpu.buffer(4)).err().unwrap().code(),
            "internal",
            "an error that nobody waited for"
        );
        assert!(block_on(gpu.buffer(4)).is_ok(), "is said once");
    }
}
