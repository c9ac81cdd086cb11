//! Which device is taken, and why.

use super::values::{AdapterInfo, CreateOptions};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::executor::cpu::Cpu;
use crate::executor::webgpu::{Options, Webgpu, is_processor};

/// What is told of an adapter: the features that decide how fast it could be, or that it can be measured.
const FEATURES: [&str; 3] = ["shader-f16", "subgroups", "timestamp-query"];

/// The device that the options ask for, and the reason for it in words.
pub(super) async fn choose(options: &CreateOptions) -> Result<(Executor, String)> {
    let mut adapter = options.adapter_info.clone().unwrap_or_default();
    adapter.software |= is_processor(&name(&adapter));
    let absent = || adapter.reason.clone().unwrap_or_else(|| "no WebGPU here".into());
    let threads = options.threads.unwrap_or(1);
    let cpu = |reason: String| Ok((Executor::Cpu(Cpu::with_threads(threads)), reason));
    match options.backend.as_deref().unwrap_or("auto") {
        "cpu" => cpu(options.reason.clone().unwrap_or_else(|| "asked for".into())),
        "webgpu" if !adapter.available => Err(Error::Unsupported(format!("backend \"webgpu\": {}", absent()))),
        "webgpu" => Ok((webgpu(&adapter, options).await?, "asked for".into())),
        "auto" if !adapter.available => cpu(absent()),
        "auto" if adapter.software => {
            cpu("the only WebGPU adapter is a software one, which is slower than the CPU backend".into())
        }
        "auto" => match webgpu(&adapter, options).await {
            Ok(executor) => Ok((executor, "the adapter is a GPU".into())),
            Err(error) => cpu(format!("WebGPU failed: {}", error.message())),
        },
        other => Err(Error::InvalidArgument(format!(
            "backend: expected auto, webgpu or cpu, found {other:?}"
        ))),
    }
}

/// Bytes that checkpoints and pictures may take where the page does not say: half of what the device has. A page's WebAssembly
/// addresses 4 GiB, of which the CPU leaves one to what cannot be planned.
pub(super) fn default_budget(kind: &str, device_memory: Option<f64>) -> u64 {
    const GIB: f64 = (1u64 << 30) as f64;
    // Browsers that do not tell run on phones too.
    let half = device_memory.unwrap_or(4.0) * GIB / 2.0;
    let most = if kind == "cpu" { 3.0 * GIB } else { f64::MAX };
    half.min(most) as u64
}

fn name(adapter: &AdapterInfo) -> String {
    let parts = [
        &adapter.description,
        &adapter.device,
        &adapter.vendor,
        &adapter.architecture,
    ];
    let mut parts: Vec<&str> = parts
        .into_iter()
        .flatten()
        .map(String::as_str)
        .filter(|s| !s.is_empty())
        .collect();
    parts.dedup();
    parts.join(" ")
}

async fn webgpu(adapter: &AdapterInfo, options: &CreateOptions) -> Result<Executor> {
    let mut webgpu = Webgpu::new(Options {
        half: options.arithmetic.as_deref() == Some("f16"),
        ..Options::default()
    })
    .await?;
    webgpu.set_name(name(adapter), adapter.software);
    let offered = adapter.features.iter().filter(|f| FEATURES.contains(&f.as_str()));
    webgpu.set_features(offered.cloned().collect());
    webgpu.set_tuning(options.tuning.clone().unwrap_or_default(), !options.tuned);
    Ok(Executor::Webgpu(webgpu))
}
