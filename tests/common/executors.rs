//! The executors that this machine has.

use tintype::executor::Executor;
use tintype::executor::cpu::Cpu;
use tintype::executor::webgpu::{Options, Webgpu};

/// The CPU, which is always there.
pub fn cpu() -> Executor {
    Executor::Cpu(Cpu::new())
}

/// WebGPU by way of Vulkan, with the kernels that it takes on this adapter. `TINTYPE_NO_GPU=1` says that there is none.
pub fn webgpu() -> Option<Executor> {
    open(Options::default()).map(Executor::Webgpu)
}

/// The same with the kernels that it takes on a real GPU.
pub fn webgpu_as_gpu() -> Option<Executor> {
    let mut webgpu = open(Options::default())?;
    webgpu.set_name(String::new(), false);
    Some(Executor::Webgpu(webgpu))
}

/// The same with values in 16-bit floats where a model stands them.
pub fn webgpu_in_halves() -> Option<Executor> {
    let half = true;
    let mut webgpu = open(Options {
        half,
        ..Options::default()
    })?;
    webgpu.set_name(String::new(), false);
    Some(Executor::Webgpu(webgpu))
}

/// Whether it is known that there is no adapter.
pub fn has_no_gpu() -> bool {
    std::env::var_os("TINTYPE_NO_GPU").is_some_and(|v| v == "1")
}

fn open(options: Options) -> Option<Webgpu> {
    if has_no_gpu() {
        println!("passed over: TINTYPE_NO_GPU is set");
        return None;
    }
    let webgpu = pollster::block_on(Webgpu::new(options));
    Some(webgpu.unwrap_or_else(|e| panic!("{e}; set TINTYPE_NO_GPU=1 where there is none")))
}
