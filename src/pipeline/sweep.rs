//! Each of a model's operations by itself, at the sizes that a config gives it, with random operands: how fast a device is at them,
//! without a checkpoint.

use super::plans::{Key, PlanCache};
use super::profile::{Peaks, peaks};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::{Data, Executor, WeightDtype, Weights};
use crate::graph::{Element, Op, ParamSpec, Plan};
use crate::models::clip::ClipTextConfig;
use crate::models::unet::UnetConfig;
use crate::models::vae::VaeConfig;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

/// How often each operation is measured, of which the fastest counts: nothing makes one faster than it is.
const TIMES: usize = 3;
/// Milliseconds for which it is repeated each time.
const ENOUGH_MS: f64 = 25.0;
/// Elements of a weight that are handed over at once.
const PIECE: usize = 1 << 18;

/// A model, and the sizes that it runs at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SweepRequest {
    /// `unet`, `vae` (its decoder) or `text`.
    pub part: String,
    /// Its `config.json`.
    pub config: String,
    /// Rows of latents.
    pub height: usize,
    /// Latents in a row.
    pub width: usize,
    /// Tokens of a prompt.
    pub tokens: usize,
}

/// An operation at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Swept {
    /// What it does.
    pub op: String,
    /// What it reads.
    pub inputs: Vec<Vec<usize>>,
    /// What it makes.
    pub shape: Vec<usize>,
    /// How often it is in the model.
    pub count: usize,
    /// Milliseconds.
    pub ms: f64,
    /// Multiplications and additions.
    pub flop: f64,
    /// The least that it has to move.
    pub bytes: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// What the device can do at most.
    pub peak: Peaks,
    /// Every operation and size, in the model's order.
    pub nodes: Vec<Swept>,
}

impl SweepRequest {
    fn key(&self, executor: &Executor) -> Result<Key> {
        let json = serde_json::from_str::<serde_json::Value>(&self.config);
        let json = json.map_err(|e| Error::InvalidArgument(format!("config: expected JSON, found {e}")))?;
        let size = [self.height, self.width];
        Ok(match self.part.as_str() {
            "unet" => Key::unet(executor, &UnetConfig::from_json(&json)?, size, self.tokens, 1, 1),
            "vae" => {
                let class = json["_class_name"].as_str().unwrap_or_default();
                Key::decoder(&VaeConfig::from_json(class, &json)?, size)
            }
            "text" => Key::text(&ClipTextConfig::from_json(&json)?, self.tokens),
            other => {
                return Err(Error::InvalidArgument(format!(
                    "part: expected unet, vae or text, found {other:?}"
                )));
            }
        })
    }
}

/// Times every operation and size of a model's plan.
///
/// # Errors
/// [`Error::InvalidArgument`] for what is no model; those of its config; [`Error::Cancelled`], [`Error::OutOfMemory`],
/// [`Error::DeviceLost`].
pub async fn sweep(
    executor: &Executor,
    plans: &PlanCache,
    request: &SweepRequest,
    peak: Option<Peaks>,
    cancel: &CancelToken,
) -> Result<Sweep> {
    let plan = plans.plan(executor, &request.key(executor)?)?;
    let peak = match peak {
        Some(peak) => peak,
        None => peaks(executor, cancel).await?,
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut nodes: Vec<Swept> = Vec::new();
    for (i, node) in plan.nodes.iter().enumerate() {
        if matches!(node.op, Op::Input { .. }) {
            continue;
        }
        let inputs: Vec<Vec<usize>> = (node.inputs.iter())
            .map(|v| plan.values[v.0].shape.dims().to_vec())
            .collect();
        match seen.entry(format!("{:?} {inputs:?} {}", node.op, node.shape)) {
            Entry::Occupied(at) => nodes[*at.get()].count += 1,
            Entry::Vacant(at) => {
                at.insert(nodes.len());
                let (ms, bytes) = alone(executor, &plan, i, cancel).await?;
                nodes.push(Swept {
                    op: node.op.to_string(),
                    inputs,
                    shape: node.shape.dims().to_vec(),
                    count: 1,
                    ms,
                    flop: plan.flops(i) as f64,
                    bytes: bytes as f64,
                });
            }
        }
    }
    Ok(Sweep { peak, nodes })
}

/// Milliseconds of a plan's node, and the bytes that it moves at least.
async fn alone(executor: &Executor, plan: &Plan, i: usize, cancel: &CancelToken) -> Result<(f64, u64)> {
    let alone = Rc::new(executor.plan(plan.alone(i)?));
    let wanted: Vec<_> = (alone.params.iter().cloned())
        .map(|spec| (spec, WeightDtype::F16))
        .collect();
    let weights = executor.allocate(&wanted).await?;
    for (spec, _) in &wanted {
        upload(executor, &weights, spec)?;
    }
    executor.tune(&alone, &weights, u64::MAX, cancel).await?;
    let instance = executor.prepare(alone.clone(), 1).await?;
    for name in alone.input_names() {
        let value = &alone.values[alone.input(name)?.0];
        let len = value.shape.len();
        match value.element {
            Element::U32 => executor.write(&instance, name, 0, Data::U32(&vec![0; len]))?,
            Element::F32 | Element::F16 => {
                let values: Vec<f32> = (0..len).map(|i| (i * 37 % 251) as f32 / 251.0 - 0.5).collect();
                executor.write(&instance, name, 0, Data::F32(&values))?;
            }
        }
    }
    let mut fastest = f64::INFINITY;
    for _ in 0..TIMES {
        let ms = executor.time_last(&instance, &weights, ENOUGH_MS, cancel).await?;
        fastest = fastest.min(ms);
    }
    let last = alone.nodes.len() - 1;
    let bytes = executor.node_bytes(&alone, &weights, last)?;
    Ok((fastest, bytes - alone.converted(last)))
}

/// Halves about as large as a layer's are.
fn upload(executor: &Executor, weights: &Weights, spec: &ParamSpec) -> Result<()> {
    let half = |i: usize| 0x2c00u16 | (i * 37 % 1024) as u16 | if i.is_multiple_of(3) { 0x8000 } else { 0 };
    let piece: Vec<u8> = (0..PIECE).flat_map(|i| half(i).to_le_bytes()).collect();
    for (i, part) in spec.parts.iter().enumerate() {
        let len: usize = part.shape.iter().product();
        for start in (0..len).step_by(PIECE) {
            let bytes = &piece[..2 * PIECE.min(len - start)];
            executor.upload(weights, spec, i, WeightDtype::F16, start, bytes)?;
        }
    }
    Ok(())
}
