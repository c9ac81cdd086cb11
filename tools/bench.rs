//! One pass of a UNet on the CPU, ours beside candle-transformers': the same weights, the same inputs, in turn, warm.
//!
//! `./build.sh bench`. Times on a shared machine vary; the ratio of medians of one run is what counts.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at what is not as it should be")]

#[path = "../tests/common/mod.rs"]
mod common;

use candle_core::{DType, Device, Tensor as Candle};
use candle_nn::VarBuilder;
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use common::{Golden, cpu, distance, place, random_weights};
use serde_json::json;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;
use tintype::cancel::CancelToken;
use tintype::executor::{Data, Executor};
use tintype::graph::{Plan, Rate};
use tintype::models::unet::UnetConfig;
use tintype::sampler::noise::Generator;

const CHANNELS: [usize; 3] = [128, 256, 512];
const HEADS: usize = 8;
const TEXT: usize = 768;
const TOKENS: usize = 77;
const SIDE: usize = 32;
const TIMESTEP: f32 = 481.0;
const RUNS: usize = 9;

fn config() -> UnetConfig {
    let json = json!({
        "block_out_channels": CHANNELS,
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": HEADS,
        "cross_attention_dim": TEXT,
    });
    UnetConfig::from_json(&json).unwrap()
}

/// candle-transformers' UNet, and its inputs as it wants them.
struct Theirs {
    unet: UNet2DConditionModel,
    sample: Candle,
    text: Candle,
}

impl Theirs {
    fn new(weights: &Golden, sample: &[f32], text: &[f32]) -> Self {
        let device = Device::Cpu;
        let tensors: HashMap<String, Candle> = (weights.tensors.iter())
            .map(|(name, t)| {
                (
                    name.clone(),
                    Candle::from_vec(t.f32(), t.shape.clone(), &device).unwrap(),
                )
            })
            .collect();
        let block = |i: usize| BlockConfig {
            out_channels: CHANNELS[i],
            use_cross_attn: (i < 2).then_some(1),
            attention_head_dim: HEADS,
        };
        let config = UNet2DConditionModelConfig {
            blocks: (0..3).map(block).collect(),
            cross_attention_dim: TEXT,
            layers_per_block: 1,
            ..Default::default()
        };
        let vars = VarBuilder::from_tensors(tensors, DType::F32, &device);
        let sample = Candle::from_slice(sample, (1, SIDE, SIDE, 4), &device).unwrap();
        Self {
            unet: UNet2DConditionModel::new(vars, 4, 4, false, config).unwrap(),
            sample: sample.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap(),
            text: Candle::from_slice(text, (1, TOKENS, TEXT), &device).unwrap(),
        }
    }

    fn run(&self) -> Vec<f32> {
        let out = self
            .unet
            .forward(&self.sample, f64::from(TIMESTEP), &self.text)
            .unwrap();
        out.permute((0, 2, 3, 1))
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    }
}

fn timed(run: impl FnOnce() -> Vec<f32>) -> (f64, Vec<f32>) {
    let start = Instant::now();
    let out = run();
    (start.elapsed().as_secs_f64() * 1e3, out)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let graph = config().graph([1, SIDE, SIDE], TOKENS, 1).unwrap();
    let weights = random_weights(&graph);
    let mut generator = Generator::new(2);
    let (sample, text) = (generator.randn(SIDE * SIDE * 4), generator.randn(TOKENS * TEXT));
    let theirs = Theirs::new(&weights, &sample, &text);

    let plan = Rc::new(Plan::new(graph));
    let gflop = plan.phase(Rate::Step).map(|i| plan.flops(i)).sum::<u64>() as f64 / 1e9;
    let executor: Executor = cpu();
    let (ours, candles) = pollster::block_on(async {
        let (placed, _) = place(&executor, &plan, &weights).await;
        let instance = executor.prepare(plan.clone(), 1).await.unwrap();
        let cancel = CancelToken::default();
        // Everything that candle-transformers does in a pass: it keeps nothing of the prompt or of the schedule.
        let run = || {
            pollster::block_on(async {
                executor.write(&instance, "sample", 0, Data::F32(&sample)).unwrap();
                executor
                    .write(&instance, "timesteps", 0, Data::F32(&[TIMESTEP]))
                    .unwrap();
                executor
                    .write(&instance, "encoder_hidden_states", 0, Data::F32(&text))
                    .unwrap();
                for rate in [Rate::Prompt, Rate::Schedule, Rate::Step] {
                    executor.run(&instance, &placed, rate, 0, 0, &cancel).await.unwrap();
                }
                executor
                    .read(&executor.view(&instance, plan.output("sample").unwrap(), 0).unwrap())
                    .await
                    .unwrap()
            })
        };
        let (mut ours, mut candles) = (Vec::new(), Vec::new());
        for i in 0..=RUNS {
            let ((a, x), (b, y)) = (timed(run), timed(|| theirs.run()));
            let far = distance(&x, &y);
            assert!(far < 1e-3, "the two do not agree: off by {far:.1e}");
            // The first of each warms up.
            if i > 0 {
                ours.push(a);
                candles.push(b);
            }
        }
        (median(ours), median(candles))
    });
    println!(
        "UNet {CHANNELS:?} at {SIDE} x {SIDE}, {gflop:.1} GFLOP, {}, medians of {RUNS}:",
        executor.info().name
    );
    println!("  tintype             {ours:8.1} ms");
    println!("  candle-transformers {candles:8.1} ms");
    println!("  ratio               {:8.2}", candles / ours);
}
