//! The executor over wgpu: natively on Vulkan, in a browser on WebGPU. `kernels` says what an operation dispatches, beside the
//! WGSL in `shaders`; `select` which variants of a kernel are legal, `policy` every number that tuning may change. The other files
//! hold GPU objects. No models and no sampling here.

mod buffers;
mod combine;
mod device;
mod instance;
mod kernels;
mod pipelines;
mod policy;
mod preprocess;
mod run;
mod select;
mod weights;

use super::BackendInfo;
use crate::error::Result;
use std::cell::Cell;

pub use buffers::Buffer;
pub use device::Options;
pub use instance::Instance;
pub use select::{Variant, variants};
pub use weights::Weights;

/// The executor.
pub struct Webgpu {
    device: Box<device::Device>,
    pipelines: Box<pipelines::Pipelines>,
    combine: Box<combine::Combine>,
    info: BackendInfo,
    /// Operations a millisecond, as last estimated.
    speed: Cell<f64>,
    /// Bytes handed to the queue since it was last told to begin.
    waiting: Cell<usize>,
}

impl Webgpu {
    /// Finds an adapter and makes a device on it.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] where there is no adapter or no device.
    pub async fn new(options: Options) -> Result<Self> {
        let (device, adapter) = device::Device::new(&options).await?;
        let device = Box::new(device);
        let name = options.name.unwrap_or(adapter.name);
        let lower = name.to_lowercase();
        let software = options.software.unwrap_or(
            adapter.device_type == wgpu::DeviceType::Cpu
                || ["swiftshader", "llvmpipe", "basic render"]
                    .iter()
                    .any(|s| lower.contains(s)),
        );
        let combine = device.guarded(|| combine::Combine::new(&device)).await?;
        let speed = Cell::new(if software {
            policy::FIRST_SPEED_SOFTWARE
        } else {
            policy::FIRST_SPEED
        });
        let info = BackendInfo {
            kind: "webgpu",
            name,
            software,
            features: Vec::new(),
            threads: 1,
        };
        Ok(Self {
            device,
            pipelines: Default::default(),
            combine: Box::new(combine),
            info,
            speed,
            waiting: Cell::new(0),
        })
    }

    pub(super) fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn target(&self) -> kernels::Target {
        kernels::Target {
            registers: self.info.software,
            max_workgroups: self.device.limits.max_compute_workgroups_per_dimension,
        }
    }
}
