//! Where the time of a picture goes, node by node, beside what the device can do at most.

use super::decode::Decoder;
use super::encode::encode_prompt;
use super::guidance::Denoiser;
use super::plans::{Key, PlanCache, Prepared};
use super::request::{Request, latent_size, schedule};
use super::{Models, TextEncoder};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Data, Executor, WeightDtype, Weights};
use crate::graph::{Element, Graph, Path, Plan, Rate};
use crate::nn;
use crate::platform::now_ms;
use crate::sampler::noise::Generator;
use serde::Serialize;
use std::rc::Rc;

/// Side of the product that says what a device can compute: small enough to take no time on the slowest that it is for.
const SIDE_GPU: usize = 2048;
/// The same on a processor.
const SIDE_CPU: usize = 512;
/// Bytes of the buffer that is copied, on a device that takes it.
const COPIED: usize = 64 << 20;
/// How often the product is measured, and milliseconds for which it is repeated each time.
const PRODUCTS: usize = 3;
/// See [`PRODUCTS`].
const PRODUCT_MS: f64 = 80.0;
/// Milliseconds for which a plan's nodes, or the whole of it, are repeated.
const ENOUGH_MS: f64 = 1000.0;
/// How often the whole is played, where nobody says, after once that does not count: at least, unless it takes very long, and at most.
const RUNS: usize = 3;
/// See [`RUNS`].
const MOST_RUNS: usize = 60;
/// Milliseconds after which a whole that takes very long is played no more.
const SLOW_MS: f64 = 4000.0;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct ProfileRequest {
    /// A step of the UNet.
    pub unet: bool,
    /// The decoder.
    pub vae: bool,
    /// The first text encoder.
    pub text: bool,
    /// Each node for itself, too.
    pub nodes: bool,
    /// What each read and wrote is given.
    pub tensors: bool,
    /// A step ends when its output was read back, and not when it is computed.
    pub read_output: bool,
    /// How often the whole is played; as often as there is time for, if nothing is said.
    pub runs: Option<usize>,
}

/// What a device can do at most, as its own kernels find it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peaks {
    /// Operations a second in a square product.
    pub gemm: f64,
    /// The same where halves may be multiplied; nothing where they are not.
    pub gemm_half: Option<f64>,
    /// Bytes a second in copying, read and written both counted.
    pub copy: f64,
}

/// A node and what it took.
#[derive(Clone, Debug, Serialize)]
pub struct NodeProfile {
    /// Its number in the plan.
    pub index: usize,
    /// The module that it comes from.
    pub label: String,
    /// What it does.
    pub op: String,
    /// How often it runs: `prompt`, `schedule` or `step`.
    pub rate: &'static str,
    /// What it makes.
    pub shape: Vec<usize>,
    /// Milliseconds.
    pub ms: f64,
    /// Multiplications and additions.
    pub flop: f64,
    /// The least that it has to move.
    pub bytes: f64,
    /// Of what the device can do at most, by whichever peak bounds it: 1 is as fast as can be.
    pub share: f64,
}

/// A plan, or its rate that runs each step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanProfile {
    /// Milliseconds of the whole, as a picture plays it: the median of `runs`.
    pub ms: f64,
    /// Milliseconds of each time that it was played.
    pub runs: Vec<f64>,
    /// GPU dispatches of one time.
    pub dispatches: usize,
    /// GPU submits of one time.
    pub submits: f64,
    /// Multiplications and additions of one time.
    pub flop: f64,
    /// The least that its nodes have to move.
    pub bytes: f64,
    /// The time that its nodes would take at the device's peaks, over the time that it took.
    pub share: f64,
    /// Every node of the plan, those of lower rates too. Empty, if not asked for.
    pub nodes: Vec<NodeProfile>,
    /// What was read and written, where it was asked for.
    #[serde(skip)]
    pub tensors: Option<Tensors>,
}

/// What a model read and wrote, for comparing with another engine: batch 1, in torch's order. Of a UNet they are those of the branch
/// with the prompt.
#[derive(Clone, Debug)]
pub struct Tensors {
    /// By JavaScript's names: `timestep`, `sample` and `encoderHiddenStates` of a UNet, `latents` of a decoder, `inputIds` of a text encoder.
    pub inputs: Vec<(&'static str, Vec<f32>)>,
    /// Hidden states, or `[channels, height, width]`.
    pub output: Vec<f32>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// `timestamps` or `clock`.
    pub timed_by: &'static str,
    /// What the device can do at most.
    pub peak: Peaks,
    /// A step of the UNet.
    pub unet: Option<PlanProfile>,
    /// The decoder.
    pub vae: Option<PlanProfile>,
    /// The first text encoder.
    pub text: Option<PlanProfile>,
}

/// Measures a device's peaks: a square product with its weights in f32 and in f16, whichever is faster, in each arithmetic that
/// there is; and a copy.
///
/// # Errors
/// [`crate::Error::Cancelled`], [`crate::Error::OutOfMemory`], [`crate::Error::DeviceLost`].
pub(super) async fn peaks(executor: &Executor, cancel: &CancelToken) -> Result<Peaks> {
    let gemm = fastest_product(executor, false, cancel).await?;
    let gemm_half = match executor.multiplies_halves() {
        // What may be multiplied in halves need not be.
        true => Some(fastest_product(executor, true, cancel).await?.max(gemm)),
        false => None,
    };
    let copy = executor.copy_rate(COPIED, cancel).await?;
    Ok(Peaks { gemm, gemm_half, copy })
}

/// Operations a second in a square product, which may be of halves where `half` says so.
async fn fastest_product(executor: &Executor, half: bool, cancel: &CancelToken) -> Result<f64> {
    let info = executor.info();
    let is_gpu = info.kind == "webgpu" && !info.software;
    let side = if is_gpu { SIDE_GPU } else { SIDE_CPU };
    let mut graph = Graph::new();
    if half {
        graph.stand_half();
    }
    let x = graph.input("x", [side, side], Element::F32, Rate::Step);
    let y = nn::linear_without_bias(&mut graph, &Path::root().pp("peak"), x, side)?;
    graph.output("y", y);
    let plan = Rc::new(executor.plan(graph));
    let flop: u64 = plan.phase(Rate::Step).map(|node| plan.flops(node)).sum();
    // Numbers that a product neither loses nor lets grow.
    let values: Vec<f32> = (0..side * side).map(|i| (i * 37 % 251) as f32 / 251.0 - 0.5).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut gemm = 0.0f64;
    for dtype in [WeightDtype::F32, WeightDtype::F16] {
        let wanted: Vec<_> = plan.params.iter().map(|spec| (spec.clone(), dtype)).collect();
        let weights = executor.allocate(&wanted).await?;
        for spec in &plan.params {
            executor.upload(&weights, spec, 0, WeightDtype::F32, 0, &bytes)?;
        }
        while executor.tune(&plan, &weights, u64::MAX, cancel).await? {}
        let instance = executor.prepare(plan.clone(), 1).await?;
        executor.write(&instance, "x", 0, Data::F32(&values))?;
        // A peak is what it does undisturbed.
        for _ in 0..PRODUCTS {
            let ms = executor.time_last(&instance, &weights, PRODUCT_MS, cancel).await?;
            gemm = gemm.max(flop as f64 / ms.max(1e-6) * 1e3);
        }
    }
    Ok(gemm)
}

/// Times what a picture of this request would play: a step of the UNet, on the first noise, and the decoder, on latents of 0.
///
/// # Errors
/// Those of [`draw`](super::draw).
pub async fn profile(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    request: &Request,
    what: ProfileRequest,
    peak: Option<Peaks>,
    cancel: &CancelToken,
) -> Result<Profile> {
    let peak = match peak {
        Some(peak) => peak,
        None => peaks(executor, cancel).await?,
    };
    let mut profile = Profile {
        timed_by: executor.timed_by(),
        peak,
        unet: None,
        vae: None,
        text: None,
    };
    let meter = Meter {
        executor,
        peak,
        what,
        cancel,
    };
    let size = latent_size(models.vae.config.factor(), request)?;
    if what.unet {
        profile.unet = Some(unet(&meter, models, plans, request, size).await?);
    }
    if what.vae {
        let decoder = Decoder::new(executor, models, plans, size).await?;
        let channels = models.vae.config.latent_channels();
        let planes = Generator::new(request.seed).randn(decoder.input.len);
        executor.fill(&decoder.input, &transposed(&planes, channels))?;
        let weights = &models.vae.weights;
        let run = async || {
            executor
                .run(&decoder.decoder.instance, weights, Rate::Step, 0, 0, cancel)
                .await
        };
        let mut measured = meter.plan(&decoder.decoder, weights, 1, Rate::Step, run).await?;
        if what.tensors {
            let Prepared { plan, instance, .. } = &decoder.decoder;
            let output = executor
                .read(&executor.view(instance, plan.output("sample")?, 0)?)
                .await?;
            measured.tensors = Some(Tensors {
                inputs: vec![("latents", planes)],
                output: transposed(&output, output.len() / 3),
            });
        }
        profile.vae = Some(measured);
    }
    if let (true, Some(text)) = (what.text, models.text_encoders.first()) {
        profile.text = Some(text_encoder(&meter, text, plans, &request.prompt).await?);
    }
    Ok(profile)
}

async fn text_encoder(
    meter: &Meter<'_>,
    TextEncoder { tokenizer, model }: &TextEncoder,
    plans: &PlanCache,
    prompt: &str,
) -> Result<PlanProfile> {
    let (executor, cancel) = (meter.executor, meter.cancel);
    let ids = tokenizer.encode(prompt).ids;
    let text = plans.get(executor, Key::text(&model.config, ids.len())).await?;
    executor.write(&text.instance, "input_ids", 0, Data::U32(&ids))?;
    let run = async || {
        executor
            .run(&text.instance, &model.weights, Rate::Prompt, 0, 0, cancel)
            .await
    };
    let mut measured = meter.plan(&text, &model.weights, 1, Rate::Prompt, run).await?;
    if meter.what.tensors {
        let output = executor.view(&text.instance, text.plan.output("hidden_states")?, 0)?;
        measured.tensors = Some(Tensors {
            inputs: vec![("inputIds", ids.iter().map(|id| *id as f32).collect())],
            output: executor.read(&output).await?,
        });
    }
    Ok(measured)
}

async fn unet(
    meter: &Meter<'_>,
    models: &Models,
    plans: &PlanCache,
    request: &Request,
    size: [usize; 2],
) -> Result<PlanProfile> {
    let (executor, cancel) = (meter.executor, meter.cancel);
    let config = &models.unet.config;
    let schedule = schedule(&models.scheduler, request)?;
    let timesteps: Vec<f32> = schedule.steps.iter().map(|step| step.timestep).collect();
    let timestep = timesteps.first().copied().unwrap_or(0.0);
    let branches = if config.is_guided(request.guidance_scale) { 2 } else { 1 };
    let denoiser = Denoiser::new(executor, models, plans, size, timesteps, branches).await?;
    for branch in &denoiser.branches {
        encode_prompt(executor, models, plans, &request.prompt, branch, cancel).await?;
    }
    let pixels = [request.height, request.width];
    denoiser.start(request.guidance_scale, pixels, cancel).await?;
    let channels = models.vae.config.latent_channels();
    let planes = Generator::new(request.seed).randn(channels * size[0] * size[1]);
    let sample = transposed(&planes, channels);
    for branch in &denoiser.branches {
        executor.fill(&branch.input, &sample)?;
    }
    // Brings the time embeddings, too.
    denoiser.step(0, cancel).await?;
    let step = async || {
        denoiser.run(Rate::Step, 0, cancel).await?;
        if meter.what.read_output {
            for branch in &denoiser.branches {
                executor.read(&branch.output).await?;
            }
        }
        Ok(())
    };
    let mut measured = meter
        .plan(
            &denoiser.unet,
            &models.unet.weights,
            denoiser.contexts,
            Rate::Step,
            step,
        )
        .await?;
    if let (true, Some(branch)) = (meter.what.tensors, denoiser.branches.last()) {
        let output = executor.read(&branch.output).await?;
        let mut texts = Vec::new();
        for (view, channels) in branch.texts.iter().zip(&config.texts) {
            texts.push((executor.read(view).await?, (*channels).max(1)));
        }
        let rows = texts.first().map_or(0, |(text, channels)| text.len() / channels);
        let row = |i: usize| {
            texts
                .iter()
                .flat_map(move |(text, c)| text[i * c..(i + 1) * c].iter().copied())
        };
        measured.tensors = Some(Tensors {
            inputs: vec![
                ("timestep", vec![timestep]),
                ("sample", planes),
                ("encoderHiddenStates", (0..rows).flat_map(row).collect()),
            ],
            output: transposed(&output, output.len() / config.out_channels.max(1)),
        });
    }
    Ok(measured)
}

/// A matrix of `rows` rows, columns first.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    (0..columns)
        .flat_map(|column| values.iter().skip(column).step_by(columns).copied())
        .collect()
}

/// What measuring needs.
struct Meter<'a> {
    executor: &'a Executor,
    peak: Peaks,
    what: ProfileRequest,
    cancel: &'a CancelToken,
}

impl Meter<'_> {
    /// Times `run`, which plays what runs at a rate of a plan in all contexts, and then the nodes of the plan.
    async fn plan(
        &self,
        prepared: &Prepared,
        weights: &Weights,
        contexts: usize,
        rate: Rate,
        run: impl AsyncFn() -> Result<()>,
    ) -> Result<PlanProfile> {
        let Prepared { plan, instance, .. } = prepared;
        run().await?;
        let (mut runs, before, began) = (Vec::new(), self.executor.submits(), now_ms());
        let more = |runs: usize| match self.what.runs {
            Some(wanted) => runs < wanted.max(1),
            None => match now_ms() - began {
                took if took < ENOUGH_MS => runs < MOST_RUNS,
                took => runs == 0 || (runs < RUNS && took < SLOW_MS),
            },
        };
        while more(runs.len()) {
            let began = now_ms();
            run().await?;
            runs.push(now_ms() - began);
        }
        let submits = (self.executor.submits() - before) as f64 / runs.len() as f64;
        let mut nodes = Vec::new();
        for (index, node) in plan.nodes.iter().enumerate() {
            nodes.push(NodeProfile {
                index,
                label: node.label.clone(),
                op: node.op.to_string(),
                rate: match node.rate {
                    Rate::Load | Rate::Prompt => "prompt",
                    Rate::Schedule => "schedule",
                    Rate::Step => "step",
                },
                shape: node.shape.dims().to_vec(),
                ms: 0.0,
                flop: plan.flops(index) as f64 * contexts as f64,
                bytes: self.executor.node_bytes(plan, weights, index)? as f64 * contexts as f64,
                share: 0.0,
            });
        }
        let step = &nodes[plan.phase(rate)];
        let ms = median(&runs);
        let mut measured = PlanProfile {
            ms,
            runs,
            dispatches: self.executor.dispatches(instance, rate) * contexts,
            submits,
            flop: step.iter().map(|node| node.flop).sum(),
            bytes: step.iter().map(|node| node.bytes).sum(),
            share: ratio(step.iter().map(|node| self.least(plan, node)).sum(), ms),
            nodes: Vec::new(),
            tensors: None,
        };
        if self.what.nodes {
            for rate in [Rate::Prompt, Rate::Schedule, Rate::Step] {
                for context in 0..contexts {
                    let enough = ENOUGH_MS / contexts as f64;
                    let at = [context, 0];
                    let timing = self
                        .executor
                        .time_nodes(instance, weights, rate, at, enough, self.cancel);
                    for (node, ms) in nodes[plan.phase(rate)].iter_mut().zip(timing.await?.ms) {
                        node.ms += ms;
                    }
                }
            }
            for node in &mut nodes {
                node.share = ratio(self.least(plan, node), node.ms);
            }
            measured.nodes = nodes;
        }
        Ok(measured)
    }

    /// The milliseconds that a node of a plan would take at the peak that bounds it.
    fn least(&self, plan: &Plan, node: &NodeProfile) -> f64 {
        let is_half = || plan.nodes.iter().any(|n| n.element == Element::F16);
        let half = self.peak.gemm_half.filter(|_| is_half());
        let gemm = half.unwrap_or(self.peak.gemm);
        let seconds = (node.flop / gemm).max(node.bytes / self.peak.copy);
        seconds * 1e3
    }
}

fn ratio(least: f64, ms: f64) -> f64 {
    if ms > 0.0 { least / ms } else { 0.0 }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
