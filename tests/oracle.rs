//! Our UNet against candle-transformers' own, which shares no code with it, on one SD 1.x config.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use candle_core::{DType, Device, Tensor as Candle};
use candle_nn::VarBuilder;
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use common::{cpu, distance, play, random_weights};
use serde_json::json;
use std::collections::HashMap;
use tintype::executor::Data;
use tintype::models::unet::UnetConfig;
use tintype::sampler::noise::Generator;

/// candle-transformers' GEGLU uses the tanh approximation of GELU, which is up to 5e-4 off what diffusers computes.
const TOLERANCE: f32 = 1e-3;

const CHANNELS: [usize; 4] = [32, 64, 96, 96];
const HEADS: usize = 4;
const TEXT: usize = 48;
const TOKENS: usize = 11;
// Halved, neither divides evenly: the way up goes back to sizes that are not twice as large.
const SIZE: [usize; 2] = [12, 10];
const BATCH: usize = 2;

/// SD 1.x in everything but its width.
fn ours() -> UnetConfig {
    UnetConfig::from_json(&json!({
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": CHANNELS,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": HEADS,
        "cross_attention_dim": TEXT,
        "layers_per_block": 2,
    }))
    .unwrap()
}

fn theirs() -> UNet2DConditionModelConfig {
    let block = |i: usize| BlockConfig {
        out_channels: CHANNELS[i],
        use_cross_attn: (i < 3).then_some(1),
        attention_head_dim: HEADS,
    };
    UNet2DConditionModelConfig {
        blocks: (0..4).map(block).collect(),
        cross_attention_dim: TEXT,
        ..Default::default()
    }
}

#[test]
fn agrees_with_candle_transformers() {
    let [height, width] = SIZE;
    let graph = ours().graph([BATCH, height, width], TOKENS, 1).unwrap();
    let weights = random_weights(&graph);
    let mut generator = Generator::new(2);
    let sample = generator.randn(BATCH * height * width * 4);
    let text = generator.randn(BATCH * TOKENS * TEXT);
    let timestep = 481.0;

    let inputs = [
        ("sample", Data::F32(&sample)),
        ("timesteps", Data::F32(&[timestep])),
        ("encoder_hidden_states", Data::F32(&text)),
    ];
    let ours = &play(&cpu(), graph, &weights, &inputs, 0)["sample"];

    let device = Device::Cpu;
    let tensors: HashMap<String, Candle> = (weights.tensors.iter())
        .map(|(name, t)| {
            let tensor = Candle::from_vec(t.f32(), t.shape.clone(), &device).unwrap();
            (name.clone(), tensor)
        })
        .collect();
    let vars = VarBuilder::from_tensors(tensors, DType::F32, &device);
    let unet = UNet2DConditionModel::new(vars, 4, 4, false, theirs()).unwrap();
    let sample = Candle::from_vec(sample, (BATCH, height, width, 4), &device).unwrap();
    let sample = sample.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    let text = Candle::from_vec(text, (BATCH, TOKENS, TEXT), &device).unwrap();
    let theirs = unet.forward(&sample, f64::from(timestep), &text).unwrap();
    let theirs = theirs.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap();
    let theirs: Vec<f32> = theirs.to_vec1().unwrap();

    let far = distance(ours, &theirs);
    println!("off by {far:.1e}");
    assert!(far <= TOLERANCE, "off by {far:.1e}");
}
