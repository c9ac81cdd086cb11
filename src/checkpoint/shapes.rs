//! Configurations of components that came without one, read off the shapes of their tensors (named as in a folder) and what is
//! known of the families. What shapes do not tell are the numbers of heads and of groups: those follow the families' rules.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::checkpoint::recognise::{Family, Recognised};
use crate::checkpoint::safetensors::TensorInfo;
use crate::{Error, Result};

/// More levels, layers or blocks than any model has.
const MOST: usize = 64;

/// The shapes of a component's tensors, by name.
pub(super) struct Shapes<'a>(HashMap<&'a str, &'a [usize]>);

impl<'a> Shapes<'a> {
    pub(super) fn new(tensors: &'a [TensorInfo]) -> Self {
        Self(tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        let shape = self.0.get(name).copied();
        shape.ok_or_else(|| Error::Corrupt(format!("tensor {name:?} is missing")))
    }

    fn dim(&self, name: &str, dim: usize) -> Result<usize> {
        let shape = self.shape(name)?;
        let wrong = || {
            Error::Corrupt(format!(
                "tensor {name:?}: expected over {dim} dimensions, found shape {shape:?}"
            ))
        };
        shape.get(dim).copied().ok_or_else(wrong)
    }

    /// How many there are of `name(0)`, `name(1)`, …
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..MOST).take_while(|&i| self.has(&name(i))).count()
    }
}

/// Groups of the norms: 32, or where that does not divide, the largest power of two that does.
fn groups(channels: &[usize]) -> usize {
    let fits = |groups: &usize| channels.iter().all(|c| c % groups == 0);
    [32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// A level's transformers.
struct Block {
    channels: usize,
    layers: usize,
    /// For each layer the blocks of its transformer; none if there is no transformer.
    depths: Vec<usize>,
}

fn block(s: &Shapes<'_>, path: &str) -> Result<Block> {
    let layers = s.count(|j| format!("{path}.resnets.{j}.conv1.weight"));
    let depth = |j: usize| s.count(|k| format!("{path}.attentions.{j}.transformer_blocks.{k}.attn1.to_q.weight"));
    let depths: Vec<usize> = (0..layers).map(depth).collect();
    let with = depths.iter().filter(|&&n| n > 0).count();
    if with != 0 && with != layers {
        return Err(Error::Unsupported(format!(
            "{path}: transformers in {with} of {layers} layers"
        )));
    }
    Ok(Block {
        channels: s.dim(&format!("{path}.resnets.0.conv1.weight"), 0)?,
        layers,
        depths: if with == 0 { Vec::new() } else { depths },
    })
}

/// `unet/config.json`.
///
/// `text_embeds` are the channels of the vector for the whole text, if the file has an encoder that gives one.
pub(super) fn unet(s: &Shapes<'_>, known: Recognised, text_embeds: Option<u64>) -> Result<Value> {
    let levels = s.count(|i| format!("down_blocks.{i}.resnets.0.conv1.weight"));
    let side = |name: &str| -> Result<Vec<Block>> { (0..levels).map(|i| block(s, &format!("{name}.{i}"))).collect() };
    let (down, up) = (side("down_blocks")?, side("up_blocks")?);
    if down.is_empty() || s.has(&format!("up_blocks.{levels}.resnets.0.conv1.weight")) {
        return Err(Error::Corrupt(format!(
            "UNet: {levels} levels on the way down, not so many on the way up"
        )));
    }
    if let Some((down, up)) = down.iter().rev().zip(&up).find(|(d, u)| d.layers + 1 != u.layers) {
        return Err(Error::Unsupported(format!(
            "UNet: a level of {} layers on the way down and {} on the way up",
            down.layers, up.layers
        )));
    }
    let mid_depth = s.count(|k| format!("mid_block.attentions.0.transformer_blocks.{k}.attn1.to_q.weight"));
    let mid = match (mid_depth, s.has("mid_block.resnets.0.conv1.weight")) {
        (0, false) => None,
        (0, true) => Some("UNetMidBlock2D"),
        _ => Some("UNetMidBlock2DCrossAttn"),
    };
    let depths = |blocks: &[Block], without: &dyn Fn(usize) -> usize| -> Vec<Value> {
        let depth = |(i, block): (usize, &Block)| match block.depths.first() {
            None => without(i).into(),
            Some(&first) if block.depths.iter().all(|&n| n == first) => first.into(),
            Some(_) => json!(block.depths),
        };
        blocks.iter().enumerate().map(depth).collect()
    };
    // diffusers' middle is as deep as the coarsest level, also where that has no transformers.
    let last = levels - 1;
    let down_depths = depths(&down, &|i| if i == last { mid_depth.max(1) } else { 1 });
    let coarsest = down[last].depths.first().copied();
    if let Some(depth) = coarsest.filter(|&depth| mid_depth > 0 && depth != mid_depth) {
        return Err(Error::Unsupported(format!(
            "UNet: a middle of {mid_depth} transformer blocks beside a level of {depth}"
        )));
    }
    let up_depths = depths(&up, &|_| 1);
    let (key, value) =
        s.0.iter()
            .find(|(name, _)| name.ends_with(".transformer_blocks.0.attn2.to_k.weight"))
            .ok_or_else(|| Error::Unsupported("a UNet that reads no text".into()))?;
    let context = value.get(1).copied();
    let context =
        context.ok_or_else(|| Error::Corrupt(format!("tensor {key:?}: expected a matrix, found {value:?}")))?;
    let linear =
        s.0.iter()
            .any(|(name, shape)| name.ends_with(".proj_in.weight") && shape.len() == 2);
    let channels: Vec<usize> = down.iter().map(|block| block.channels).collect();
    // Linear projections came with heads of 64 channels; before that there were eight heads on each level.
    let heads = |c: &usize| match c {
        _ if linear => (c / 64).max(1),
        _ if c.is_multiple_of(8) => 8,
        _ => 1,
    };
    let types = |blocks: &[Block], with: &str, without: &str| -> Vec<String> {
        let name = |block: &Block| if block.depths.is_empty() { without } else { with };
        blocks.iter().map(|block| name(block).to_owned()).collect()
    };
    let sample_size = match (known.family, known.prediction_type) {
        (Family::Sdxl, _) => 128,
        (Family::Sd2, Some("v_prediction") | None) => 96,
        _ => 64,
    };
    let kernel = |name: &str| s.dim(name, 2);
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size,
        "in_channels": s.dim("conv_in.weight", 1)?,
        "out_channels": s.dim("conv_out.weight", 0)?,
        "block_out_channels": channels,
        "layers_per_block": down.iter().map(|block| block.layers).collect::<Vec<_>>(),
        "down_block_types": types(&down, "CrossAttnDownBlock2D", "DownBlock2D"),
        "mid_block_type": mid,
        "up_block_types": types(&up, "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": down_depths,
        "reverse_transformer_layers_per_block": up_depths,
        "attention_head_dim": channels.iter().map(heads).collect::<Vec<_>>(),
        "cross_attention_dim": context,
        "use_linear_projection": linear,
        "norm_num_groups": groups(&channels),
        "time_embedding_dim": s.dim("time_embedding.linear_1.weight", 0)?,
        "conv_in_kernel": kernel("conv_in.weight")?,
        "conv_out_kernel": kernel("conv_out.weight")?,
    });
    if s.has("time_embedding.cond_proj.weight") {
        config["time_cond_proj_dim"] = s.dim("time_embedding.cond_proj.weight", 1)?.into();
    }
    if s.has("add_embedding.linear_1.weight") {
        config["addition_embed_type"] = "text_time".into();
        let all = s.dim("add_embedding.linear_1.weight", 1)? as u64;
        // What is not the text's is of the six sizes that it is told.
        let sizes = text_embeds.and_then(|text| all.checked_sub(text)).unwrap_or(0);
        config["addition_time_embed_dim"] = (sizes / 6).into();
        config["projection_class_embeddings_input_dim"] = all.into();
    }
    Ok(config)
}

/// `vae/config.json` of an `AutoencoderKL` of SDXL or of its elders, which shapes do not tell apart.
pub(super) fn autoencoder(s: &Shapes<'_>, xl: bool) -> Result<Value> {
    let levels = s.count(|i| format!("decoder.up_blocks.{i}.resnets.0.conv1.weight"));
    let channels = |i: usize| s.dim(&format!("decoder.up_blocks.{i}.resnets.0.conv1.weight"), 0);
    let channels: Vec<usize> = (0..levels).rev().map(channels).collect::<Result<_>>()?;
    let layers = s.count(|j| format!("decoder.up_blocks.0.resnets.{j}.conv1.weight"));
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "latent_channels": s.dim("decoder.conv_in.weight", 1)?,
        "out_channels": s.dim("decoder.conv_out.weight", 0)?,
        "block_out_channels": channels,
        "layers_per_block": layers.saturating_sub(1).max(1),
        "norm_num_groups": groups(&channels),
        "mid_block_add_attention": s.has("decoder.mid_block.attentions.0.to_q.weight"),
        "use_quant_conv": s.has("quant_conv.weight"),
        "use_post_quant_conv": s.has("post_quant_conv.weight"),
        "scaling_factor": if xl { 0.13025 } else { 0.18215 },
    }))
}

/// `vae/config.json` of an `AutoencoderTiny`: stages of blocks, each ended by a convolution. Layers between them have no weights.
pub(super) fn tiny_autoencoder(s: &Shapes<'_>) -> Result<Value> {
    let mut config = json!({
        "_class_name": "AutoencoderTiny",
        "latent_channels": s.dim("decoder.layers.0.weight", 1)?,
    });
    for side in ["encoder", "decoder"] {
        let (mut stages, mut blocks, mut last) = (Vec::new(), Vec::new(), 0);
        for i in 1..16 * MOST {
            let layer = format!("{side}.layers.{i}");
            if let Some(shape) = s.0.get(format!("{layer}.conv.0.weight").as_str()) {
                blocks.push(shape.first().copied().unwrap_or(0));
            } else if s.has(&format!("{layer}.weight")) {
                let inner = s.dim(&format!("{layer}.weight"), 1)?;
                stages.push((blocks.len(), blocks.first().copied().unwrap_or(inner)));
                (blocks, last) = (Vec::new(), s.dim(&format!("{layer}.weight"), 0)?);
            }
        }
        // A decoder may come alone.
        if !stages.is_empty() {
            let (blocks, channels): (Vec<usize>, Vec<usize>) = stages.into_iter().unzip();
            config[format!("num_{side}_blocks")] = blocks.into();
            config[format!("{side}_block_out_channels")] = channels.into();
        }
        if side == "decoder" {
            if last == 0 {
                return Err(Error::Corrupt(
                    "decoder: expected a convolution after its blocks, found none".into(),
                ));
            }
            config["out_channels"] = last.into();
        }
    }
    Ok(config)
}

/// `text_encoder/config.json`, of OpenCLIP or of OpenAI's CLIP.
pub(super) fn text_encoder(s: &Shapes<'_>, open_clip: bool) -> Result<Value> {
    let hidden = s.dim("embeddings.token_embedding.weight", 1)?;
    let layers = s.count(|i| format!("encoder.layers.{i}.mlp.fc1.weight"));
    let class = match s.has("text_projection.weight") {
        true => "CLIPTextModelWithProjection",
        false => "CLIPTextModel",
    };
    let vocabulary = s.dim("embeddings.token_embedding.weight", 0)?;
    let mut config = json!({
        "architectures": [class],
        "vocab_size": vocabulary,
        "max_position_embeddings": s.dim("embeddings.position_embedding.weight", 0)?,
        "hidden_size": hidden,
        "intermediate_size": s.dim("encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": layers,
        "num_attention_heads": (hidden / 64).max(1),
        "hidden_act": if open_clip { "gelu" } else { "quick_gelu" },
        // As published configs have it: the highest token ends a text.
        "eos_token_id": 2,
    });
    if s.has("text_projection.weight") {
        config["projection_dim"] = s.dim("text_projection.weight", 0)?.into();
    }
    Ok(config)
}

/// `scheduler_config.json`, as the families' own checkpoints have it.
pub(super) fn scheduler(known: Recognised, is_told_guidance: bool) -> Value {
    let mut config = json!({
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    });
    let prediction = match (known.prediction_type, known.family) {
        (Some(said), _) => said,
        (None, Family::Sd2) => "v_prediction",
        (None, _) => "epsilon",
    };
    config["prediction_type"] = prediction.into();
    let class = match (known.family, prediction) {
        _ if is_told_guidance => "LCMScheduler",
        (Family::Sdxl, _) => "EulerDiscreteScheduler",
        (_, "v_prediction") => "DDIMScheduler",
        _ => {
            config["skip_prk_steps"] = true.into();
            "PNDMScheduler"
        }
    };
    config["_class_name"] = class.into();
    if is_told_guidance {
        config["set_alpha_to_one"] = true.into();
        config["steps_offset"] = 0.into();
        config["original_inference_steps"] = 50.into();
        config["timestep_scaling"] = 10.0.into();
    }
    if known.zero_snr {
        config["rescale_betas_zero_snr"] = true.into();
        config["timestep_spacing"] = "trailing".into();
    }
    config
}

/// `tokenizer_config.json`: OpenCLIP pads with the first token.
pub(super) fn tokenizer(open_clip: bool) -> Value {
    let pad = if open_clip { "!" } else { "<|endoftext|>" };
    json!({ "model_max_length": 77, "pad_token": pad })
}
