//! The executor over wgpu: natively on Vulkan, in a browser on WebGPU. `kernels` says what an operation dispatches, beside the
//! WGSL in `shaders`; `select` which variants of a kernel are legal, `policy` every number that tuning may change, `tune` finds
//! out by measurement which variants win, `profile` how long nodes take, by `stopwatch`. The other files hold GPU objects. No models and no sampling here.

mod buffers;
mod combine;
mod device;
mod instance;
mod kernels;
mod pipelines;
mod policy;
mod preprocess;
mod profile;
mod run;
mod select;
mod stopwatch;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
mod tune;
mod weights;

use super::BackendInfo;
use crate::error::Result;
use crate::graph::{Plan, Rate};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub use buffers::{Buffer, gpu_bytes, objects};
pub use device::Options;
pub use instance::Instance;
pub use kernels::Chooser;
pub use select::{Choice, Product, Rows, Tile, Variant, fingerprint, variants};
pub use tune::Tuning;
pub use weights::Weights;

/// Products with the ways that they may run.
pub type Ways = Vec<(Product, Vec<Choice>)>;

/// The executor.
pub struct Webgpu {
    device: Box<device::Device>,
    pipelines: Box<pipelines::Pipelines>,
    combine: Box<combine::Combine>,
    info: BackendInfo,
    /// Values may be kept in 16-bit floats, and multiplied so.
    half: bool,
    /// Operations of a dispatch at most.
    most: u64,
    chooser: Option<Chooser>,
    tuner: Box<tune::Tuner>,
    /// Operations a millisecond, as last estimated.
    speed: Cell<f64>,
    /// Bytes handed to the queue since it was last told to begin.
    waiting: Cell<usize>,
    /// When the first dispatches were submitted since someone asked.
    pub(super) began: Cell<Option<f64>>,
}

/// Operations of a dispatch at most.
fn most(software: bool) -> u64 {
    if software {
        policy::DISPATCH_MOST_SOFTWARE
    } else {
        policy::DISPATCH_MOST
    }
}

/// Dispatches of one rate of a plan, on a GPU or on a processor that plays one.
///
/// # Errors
/// [`crate::Error::Unsupported`] where a size is beyond what kernels can do.
pub fn dispatches(plan: &Plan, rate: Rate, software: bool) -> Result<usize> {
    let target = kernels::Target {
        registers: software,
        // What every adapter has.
        max_workgroups: 65_535,
        most: most(software),
        chooser: None,
    };
    plan.phase(rate)
        .map(|node| kernels::dispatches(plan, node, &target).map(|d| d.len()))
        .sum()
}

/// Whether an adapter of this name is emulated by the processor.
pub fn is_processor(name: &str) -> bool {
    let name = name.to_lowercase();
    ["swiftshader", "llvmpipe", "basic render"]
        .iter()
        .any(|known| name.contains(known))
}

impl Webgpu {
    /// Finds an adapter and makes a device on it.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] where there is no adapter or no device.
    pub async fn new(options: Options) -> Result<Self> {
        // Timestamps are for measuring alone.
        Self::with(options, wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY).await
    }

    /// On an adapter that is used with no more than these `features`.
    async fn with(options: Options, features: wgpu::Features) -> Result<Self> {
        let (device, adapter) = device::Device::new(&options, features).await?;
        let device = Box::new(device);
        let combine = device.guarded(|| combine::Combine::new(&device)).await?;
        let half = options.half && device.has_half;
        let mut gpu = Self {
            half,
            most: policy::DISPATCH_MOST,
            chooser: None,
            tuner: Box::default(),
            device,
            pipelines: Box::default(),
            combine: Box::new(combine),
            info: BackendInfo {
                kind: "webgpu",
                name: String::new(),
                software: false,
                features: Vec::new(),
                threads: 1,
            },
            speed: Cell::new(policy::FIRST_SPEED),
            waiting: Cell::new(0),
            began: Cell::new(None),
        };
        let software = options
            .software
            .unwrap_or(is_processor(&adapter.name) || adapter.device_type == wgpu::DeviceType::Cpu);
        gpu.set_name(adapter.name, software);
        Ok(gpu)
    }

    /// Says what the adapter is, where the caller knows better than wgpu, which a browser tells little. To be called before
    /// anything is prepared: kernels for a software adapter are others. An empty name changes nothing.
    pub fn set_name(&mut self, name: String, software: bool) {
        if !name.is_empty() {
            self.info.name = name;
        }
        self.info.software = software;
        self.most = most(software);
        self.speed.set(if software {
            policy::FIRST_SPEED_SOFTWARE
        } else {
            policy::FIRST_SPEED
        });
    }

    /// Asks `chooser` how products are run, of plans that are prepared from now on; what it does not know is the policy's.
    pub fn set_chooser(&mut self, chooser: Option<Chooser>) {
        self.chooser = chooser;
    }

    /// The products of a plan, each once, with the legal ways to run it here: what a chooser has to decide.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] where a size is beyond what kernels can do.
    pub fn products(&self, plan: &Plan) -> Result<Ways> {
        let seen: Rc<RefCell<Ways>> = Rc::default();
        let found = Rc::clone(&seen);
        let see = move |product: &Product, choices: &[Choice]| {
            let mut found = found.borrow_mut();
            if found.iter().all(|(known, _)| known != product) {
                found.push((*product, choices.to_vec()));
            }
            None
        };
        let mut target = self.target(plan);
        target.chooser = Some(Rc::new(see));
        for node in 0..plan.nodes.len() {
            kernels::dispatches(plan, node, &target)?;
        }
        Ok(seen.take())
    }

    /// Says what the adapter offers, by WebGPU's names. Nothing here depends on it.
    pub fn set_features(&mut self, features: Vec<String>) {
        self.info.features = features;
    }

    /// Whether plans are to be those in 16-bit floats.
    pub(super) fn keeps_halves(&self) -> bool {
        self.half
    }

    pub(super) async fn settle(&self) -> Result<()> {
        self.device.queue.submit([]);
        self.device.guarded(|| Ok(())).await
    }

    pub(super) fn check_size(&self, what: &str, bytes: u64) -> Result<()> {
        buffers::check_size(&self.device, what, bytes)
    }

    pub(super) fn lose_device(&self) {
        self.device.device.destroy();
    }

    /// Products that are to be raced yet.
    pub(super) fn unraced(&self) -> usize {
        self.tuner.left()
    }

    pub(super) fn pipelines(&self) -> usize {
        self.pipelines.count()
    }

    pub(super) fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Bytes of buffers that the device gives out yet, where [`Options::memory`] bounds them.
    pub fn memory_left(&self) -> Option<u64> {
        self.device.left.as_ref().map(|left| left.get())
    }

    fn target(&self, plan: &Plan) -> kernels::Target {
        kernels::Target {
            registers: self.info.software,
            max_workgroups: self.device.limits.max_compute_workgroups_per_dimension,
            most: self.most,
            chooser: Some(self.chooser.clone().unwrap_or_else(|| self.tuner.chooser(plan))),
        }
    }
}
