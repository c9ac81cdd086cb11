//! `UNet2DConditionModel` of diffusers, as Stable Diffusion 1.x, 2.x and XL and what is distilled from them use it.
//! Rombach et al., *High-Resolution Image Synthesis with Latent Diffusion Models* (2022).

use super::config::Config;
use crate::error::{Error, Result};
use crate::graph::{Activation, Element, Graph, Op, Path, Rate, Unary, Value};
use crate::nn::{self, Resnet, Transformer};
use serde_json::Value as Json;

/// One level of the UNet, from the finest to the coarsest.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Channels.
    pub channels: usize,
    /// Residual blocks on the way down; one more on the way up.
    pub layers: usize,
    /// The way down has transformers.
    pub down_attention: bool,
    /// Heads of the transformers.
    pub heads: usize,
    /// Blocks of the transformer in each layer on the way down.
    pub transformer_layers: Vec<usize>,
}

/// The middle of the UNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MidBlock {
    /// `UNetMidBlock2DCrossAttn`.
    CrossAttention,
    /// `UNetMidBlock2D`: one residual block.
    Resnet,
    /// None at all.
    None,
}

/// What SDXL adds to the time embedding (`addition_embed_type` `text_time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTime {
    /// Channels of a text's vector (`text_embeds`).
    pub text_embeds: usize,
    /// Channels of the embedding of each number in `time_ids`.
    pub time_embed_dim: usize,
}

/// The numbers of a picture that SDXL is told: height and width of its original, top and left of its part, height and width of that.
const TIME_IDS: usize = 6;

/// `unet/config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Height and width of latents that it was trained on, if the config tells.
    pub sample_size: Option<[usize; 2]>,
    /// Channels that it reads: those of latents; of one that inpaints also those of a mask and of the latents of what stays.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    /// The levels, finest first.
    pub levels: Vec<Level>,
    /// For each block on the way up, coarsest first: whether it has transformers, and their blocks layer by layer.
    pub up_transformers: Vec<Option<Vec<usize>>>,
    /// The middle.
    pub mid_block: MidBlock,
    /// Blocks of the middle's transformer.
    pub mid_transformer_layers: usize,
    /// The sum of the middle's residual blocks is divided by it.
    pub mid_block_scale_factor: f32,
    /// Channels of the text's hidden states.
    pub cross_attention_dim: usize,
    /// Channels of each text encoder's hidden states, which lie side by side. Not in the file, which does not know the encoders:
    /// one has all channels, until a caller knows better.
    pub texts: Vec<usize>,
    /// Projections around transformers are linear layers.
    pub use_linear_projection: bool,
    /// Activation of residual blocks and of the time embedding.
    pub act_fn: Activation,
    /// Groups of all group norms.
    pub norm_num_groups: usize,
    /// Added to the variance in residual blocks.
    pub norm_eps: f32,
    /// Cosines come first in the time embedding.
    pub flip_sin_to_cos: bool,
    /// See [`Op::TimestepEmbedding`].
    pub freq_shift: f32,
    /// Channels of the time embedding.
    pub time_embedding_dim: usize,
    /// Channels of an embedding of the guidance scale, if the UNet was distilled to be told it.
    pub time_cond_proj_dim: Option<usize>,
    /// What else is added to the time embedding.
    pub text_time: Option<TextTime>,
    /// Kernel of the first convolution.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution.
    pub conv_out_kernel: usize,
    /// Padding of the convolutions that halve.
    pub downsample_padding: usize,
    /// Latents are first mapped from 0..1 to -1..1.
    pub center_input_sample: bool,
}

/// Keys that change the arithmetic, with the values that this code stands for; null always is one.
const FIXED: &[(&str, &[&str])] = &[
    ("addition_embed_type", &["\"text_time\""]),
    ("attention_type", &["\"default\""]),
    ("class_embed_type", &[]),
    ("class_embeddings_concat", &["false"]),
    ("cross_attention_norm", &[]),
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim", &[]),
    ("encoder_hid_dim_type", &[]),
    ("mid_block_only_cross_attention", &["false"]),
    ("num_attention_heads", &[]),
    ("num_class_embeds", &[]),
    ("only_cross_attention", &["false"]),
    ("resnet_out_scale_factor", &["1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("time_embedding_act_fn", &[]),
    ("time_embedding_type", &["\"positional\""]),
    ("timestep_post_act", &[]),
];

impl UnetConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for malformed keys, [`Error::Unsupported`] for values that are not implemented.
    pub fn from_json(json: &Json) -> Result<Self> {
        let c = Config::new(json)?;
        for (key, values) in FIXED {
            let values: Vec<Json> = values.iter().filter_map(|v| serde_json::from_str(v).ok()).collect();
            c.only(key, &values)?;
        }
        let channels = c.sizes("block_out_channels", &[320, 640, 1280, 1280])?;
        let n = channels.len();
        let blocks = |key: &str, default: [&str; 4], with: &str, without: &str| -> Result<Vec<bool>> {
            let names = c.names(key, &default)?;
            if names.len() != n {
                return Err(Error::Corrupt(format!(
                    "{key}: expected {n} blocks, found {}",
                    names.len()
                )));
            }
            let known = |name: &String| match name.as_str() {
                name if name == with => Ok(true),
                name if name == without => Ok(false),
                _ => Err(Error::Unsupported(format!(
                    "{key} {name:?}; there are {with} and {without}"
                ))),
            };
            names.iter().map(known).collect()
        };
        let (cross, plain) = ("CrossAttnDownBlock2D", "DownBlock2D");
        let down = blocks("down_block_types", [cross, cross, cross, plain], cross, plain)?;
        let (cross, plain) = ("CrossAttnUpBlock2D", "UpBlock2D");
        let up = blocks("up_block_types", [plain, cross, cross, cross], cross, plain)?;
        let heads = c.size_each("attention_head_dim", 8, n)?;
        let layers = c.size_each("layers_per_block", 2, n)?;
        if layers.iter().any(|&n| n > 64) {
            return Err(Error::Corrupt(format!("layers_per_block {layers:?}")));
        }
        const TRANSFORMERS: &str = "transformer_layers_per_block";
        let ones: Vec<Vec<usize>> = layers.iter().map(|&n| vec![1; n]).collect();
        let transformers = c.number_each_layer(TRANSFORMERS, &ones, &layers)?;
        let layers_up: Vec<usize> = layers.iter().rev().map(|&n| n.saturating_add(1)).collect();
        const REVERSE: &str = "reverse_transformer_layers_per_block";
        let up_transformers = if json.get(REVERSE).is_some_and(|v| !v.is_null()) {
            c.number_each_layer(REVERSE, &[], &layers_up)?
        } else {
            let mut reversed = json.clone();
            if let Some(blocks) = reversed.get_mut(TRANSFORMERS).and_then(Json::as_array_mut) {
                if blocks.iter().any(Json::is_array) {
                    return Err(Error::Corrupt(format!(
                        "{REVERSE} is missing beside {TRANSFORMERS} by layer"
                    )));
                }
                blocks.reverse();
            }
            let ones: Vec<Vec<usize>> = layers_up.iter().map(|&n| vec![1; n]).collect();
            Config::new(&reversed)?.number_each_layer(TRANSFORMERS, &ones, &layers_up)?
        };
        let contexts = c.size_each("cross_attention_dim", 1280, n)?;
        if contexts.iter().any(|&d| d != contexts[0]) {
            return Err(Error::Unsupported(format!(
                "cross_attention_dim {contexts:?} that differs between blocks"
            )));
        }
        // A few bytes of config must not ask for hours of work.
        let transformer_layers = transformers.iter().chain(&up_transformers).flatten();
        let blocks: usize = transformer_layers.map(|n| n + 1).sum();
        if blocks > 1024 {
            return Err(Error::Corrupt(format!(
                "layers_per_block and transformer_layers_per_block make {blocks} blocks, over 1024"
            )));
        }
        let mid_transformer_layers = transformers.last().and_then(|layers| layers.first()).copied();
        let time_embedding_dim = c.size("time_embedding_dim", channels[0].saturating_mul(4))?;
        let text_time = match c.nullable_name("addition_embed_type", "")?.as_deref() {
            Some("text_time") => Some(text_time(&c)?),
            _ => None,
        };
        let levels = (0..n).map(|i| Level {
            channels: channels[i],
            layers: layers[i],
            down_attention: down[i],
            heads: heads[i],
            transformer_layers: transformers[i].clone(),
        });
        Ok(Self {
            sample_size: c.optional_area("sample_size")?,
            in_channels: c.size("in_channels", 4)?,
            out_channels: c.size("out_channels", 4)?,
            levels: levels.collect(),
            up_transformers: up
                .into_iter()
                .zip(up_transformers)
                .map(|(cross, layers)| cross.then_some(layers))
                .collect(),
            mid_block: match c.nullable_name("mid_block_type", "UNetMidBlock2DCrossAttn")?.as_deref() {
                Some("UNetMidBlock2DCrossAttn") => MidBlock::CrossAttention,
                Some("UNetMidBlock2D") => MidBlock::Resnet,
                Some(other) => return Err(Error::Unsupported(format!("mid_block_type {other:?}"))),
                None => MidBlock::None,
            },
            mid_transformer_layers: mid_transformer_layers.unwrap_or(1),
            mid_block_scale_factor: c.float("mid_block_scale_factor", 1.0)?,
            cross_attention_dim: contexts[0],
            texts: vec![contexts[0]],
            use_linear_projection: c.flag("use_linear_projection", false)?,
            act_fn: c.activation("act_fn", "silu")?,
            norm_num_groups: c.size_not_null("norm_num_groups", 32)?,
            norm_eps: c.float("norm_eps", 1e-5)?,
            flip_sin_to_cos: c.flag("flip_sin_to_cos", true)?,
            freq_shift: c.float("freq_shift", 0.0)?,
            time_embedding_dim,
            time_cond_proj_dim: c.optional_size("time_cond_proj_dim")?,
            text_time,
            conv_in_kernel: c.odd_kernel("conv_in_kernel", 3)?,
            conv_out_kernel: c.odd_kernel("conv_out_kernel", 3)?,
            downsample_padding: c.number("downsample_padding", 1)?,
            center_input_sample: c.flag("center_input_sample", false)?,
        })
    }

    /// Whether pictures are drawn with classifier-free guidance at this scale; a UNet that is told the scale needs none.
    pub fn is_guided(&self, guidance_scale: f32) -> bool {
        guidance_scale > 1.0 && self.time_cond_proj_dim.is_none()
    }

    /// Whether it paints into pictures: it reads more than it predicts.
    pub fn inpaints(&self) -> bool {
        self.in_channels > self.out_channels
    }

    /// The name of the input that the hidden states of text encoder `index` go to.
    pub fn text_input(index: usize) -> String {
        match index {
            0 => "encoder_hidden_states".into(),
            _ => format!("encoder_hidden_states_{}", index + 1),
        }
    }

    /// The graph for latents of `[batch, height, width]`, texts of `tokens` tokens and a schedule of `rows` timesteps:
    /// `sample [batch, height, width, out_channels]`, `timesteps [rows]`, and for each text encoder its hidden states
    /// ([`Self::text_input`]) `[batch, tokens, channels]` → `sample [batch, height, width, out_channels]`. Where the config has them
    /// there are `condition [batch, height, width, in_channels - out_channels]`, which the first convolution reads behind the sample,
    /// `timestep_cond [1, time_cond_proj_dim]` ([`guidance_embedding`]), and `text_embeds [1, ..]` with `time_ids [1, 6]`;
    /// the latter are for a batch of one, as each member would have a time embedding of its own.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together.
    pub fn graph(&self, [batch, height, width]: [usize; 3], tokens: usize, rows: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        graph.stand_half();
        let (g, p) = (&mut graph, Path::root());
        let channels = self.in_channels.min(self.out_channels);
        let mut sample = g.input("sample", [batch, height, width, channels], Element::F32, Rate::Step);
        if self.inpaints() {
            let shape = [batch, height, width, self.in_channels - channels];
            let condition = g.input("condition", shape, Element::F32, Rate::Prompt);
            sample = nn::concat(g, &p, sample, condition)?;
        }
        let timesteps = g.input("timesteps", [rows], Element::F32, Rate::Schedule);
        let texts: Vec<Value> = (self.texts.iter().enumerate())
            .map(|(i, &channels)| {
                g.input(
                    &Self::text_input(i),
                    [batch, tokens, channels],
                    Element::F32,
                    Rate::Prompt,
                )
            })
            .collect();
        let text = texts
            .into_iter()
            .map(Ok)
            .reduce(|a, b| nn::concat(g, &p, a?, b?))
            .unwrap_or_else(|| Err(Error::Internal("a UNet reads a text".into())))?;

        let mut input = |name: &str, channels: usize| g.input(name, [1, channels], Element::F32, Rate::Prompt);
        let timestep_cond = self.time_cond_proj_dim.map(|channels| input("timestep_cond", channels));
        let text_time = self.text_time.map(
            |TextTime {
                 text_embeds,
                 time_embed_dim,
             }| {
                (
                    input("text_embeds", text_embeds),
                    input("time_ids", TIME_IDS),
                    time_embed_dim,
                )
            },
        );
        if text_time.is_some() && batch != 1 {
            return Err(Error::Internal(format!(
                "a UNet that reads time_ids in a batch of {batch}"
            )));
        }

        let finest = self.levels[0].channels;
        let sinusoid = |dim| Op::TimestepEmbedding {
            dim,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        };
        let (t, width) = (p.pp("time_embedding"), self.time_embedding_dim);
        let mut time = g.op(&p.pp("time_proj"), sinusoid(finest), &[timesteps], &[])?;
        if let Some(condition) = timestep_cond {
            let condition = nn::linear_without_bias(g, &t.pp("cond_proj"), condition, finest)?;
            time = nn::add_row(g, &t, time, condition)?;
        }
        let mut time = nn::timestep_embedding(g, &t, time, width, self.act_fn)?;
        if let Some((text_embeds, time_ids, dim)) = text_time {
            let ids = g.op(&p.pp("add_time_proj"), sinusoid(dim), &[time_ids], &[])?;
            let a = p.pp("add_embedding");
            let added = nn::concat(g, &a, text_embeds, ids)?;
            let added = nn::timestep_embedding(g, &a, added, width, Activation::Silu)?;
            time = nn::add_row(g, &a, time, added)?;
        }
        // Every reader begins with it.
        let time = nn::activation(g, &t, time, self.act_fn)?;
        let parts = Parts { unet: self, time, text };

        let x = if self.center_input_sample {
            nn::unary(g, &p, sample, Unary::Affine { mul: 2.0, add: -1.0 })?
        } else {
            sample
        };
        let x = nn::conv2d(g, &p.pp("conv_in"), x, finest, self.conv_in_kernel)?;
        let mut skips = vec![x];
        let x = parts.down(g, &p.pp("down_blocks"), x, &mut skips)?;
        let x = parts.mid(g, &p.pp("mid_block"), x)?;
        let x = parts.up(g, &p.pp("up_blocks"), x, skips)?;
        let x = nn::group_norm(g, &p.pp("conv_norm_out"), x, self.norm_num_groups, self.norm_eps)?;
        let x = nn::activation(g, &p.pp("conv_act"), x, self.act_fn)?;
        let x = nn::conv2d(g, &p.pp("conv_out"), x, self.out_channels, self.conv_out_kernel)?;
        g.output("sample", x);
        Ok(graph)
    }
}

fn text_time(c: &Config<'_>) -> Result<TextTime> {
    let time_embed_dim = c.required("addition_time_embed_dim")?;
    let all = c.required("projection_class_embeddings_input_dim")?;
    let text_embeds = all.checked_sub(TIME_IDS * time_embed_dim).filter(|&n| n > 0);
    let text_embeds = text_embeds.ok_or_else(|| {
        Error::Corrupt(format!(
            "projection_class_embeddings_input_dim: expected over {TIME_IDS} times addition_time_embed_dim {time_embed_dim}, found {all}"
        ))
    })?;
    Ok(TextTime {
        text_embeds,
        time_embed_dim,
    })
}

/// diffusers' `get_guidance_scale_embedding`: what a UNet with `time_cond_proj_dim` is told of the guidance scale. Each f32
/// operation is rounded as there.
/// Meng et al., *On Distillation of Guided Diffusion Models* (2023).
pub fn guidance_embedding(guidance_scale: f32, dim: usize) -> Vec<f32> {
    let (w, half) = ((guidance_scale - 1.0) * 1000.0, dim / 2);
    let log = 10_000f64.ln() as f32 / (half as f32 - 1.0);
    let angle = |i: usize| f64::from(w * f64::from(i as f32 * -log).exp() as f32);
    let sines = (0..half).map(|i| angle(i).sin() as f32);
    let cosines = (0..half).map(|i| angle(i).cos() as f32);
    sines.chain(cosines).chain(std::iter::repeat_n(0.0, dim % 2)).collect()
}

/// What every block reads.
struct Parts<'a> {
    unet: &'a UnetConfig,
    time: Value,
    text: Value,
}

impl Parts<'_> {
    fn resnet(
        &self,
        g: &mut Graph,
        p: &Path,
        x: Value,
        out_channels: usize,
        output_scale_factor: f32,
    ) -> Result<Value> {
        let UnetConfig {
            norm_num_groups: groups,
            norm_eps: eps,
            act_fn: act,
            ..
        } = *self.unet;
        nn::resnet_block(
            g,
            p,
            x,
            Some(self.time),
            Resnet {
                out_channels,
                groups,
                eps,
                act,
                output_scale_factor,
            },
        )
    }

    fn transformer(&self, g: &mut Graph, p: &Path, x: Value, heads: usize, layers: usize) -> Result<Value> {
        let UnetConfig {
            norm_num_groups: groups,
            use_linear_projection,
            ..
        } = *self.unet;
        nn::transformer_2d(
            g,
            p,
            x,
            self.text,
            Transformer {
                heads,
                layers,
                groups,
                use_linear_projection,
            },
        )
    }

    fn down(&self, g: &mut Graph, p: &Path, mut x: Value, skips: &mut Vec<Value>) -> Result<Value> {
        for (i, level) in self.unet.levels.iter().enumerate() {
            let b = p.pp(i);
            for layer in 0..level.layers {
                x = self.resnet(g, &b.pp("resnets").pp(layer), x, level.channels, 1.0)?;
                if level.down_attention {
                    x = self.transformer(
                        g,
                        &b.pp("attentions").pp(layer),
                        x,
                        level.heads,
                        level.transformer_layers[layer],
                    )?;
                }
                skips.push(x);
            }
            if i + 1 < self.unet.levels.len() {
                x = nn::downsample(g, &b.pp("downsamplers").pp(0), x, self.unet.downsample_padding)?;
                skips.push(x);
            }
        }
        Ok(x)
    }

    fn mid(&self, g: &mut Graph, p: &Path, x: Value) -> Result<Value> {
        let Some(coarsest) = self.unet.levels.last() else {
            return Ok(x);
        };
        let resnet = |g: &mut Graph, i: usize, x: Value| {
            self.resnet(
                g,
                &p.pp("resnets").pp(i),
                x,
                coarsest.channels,
                self.unet.mid_block_scale_factor,
            )
        };
        match self.unet.mid_block {
            MidBlock::None => Ok(x),
            MidBlock::Resnet => resnet(g, 0, x),
            MidBlock::CrossAttention => {
                let x = resnet(g, 0, x)?;
                let a = p.pp("attentions").pp(0);
                let x = self.transformer(g, &a, x, coarsest.heads, self.unet.mid_transformer_layers)?;
                resnet(g, 1, x)
            }
        }
    }

    fn up(&self, g: &mut Graph, p: &Path, mut x: Value, mut skips: Vec<Value>) -> Result<Value> {
        let levels = self
            .unet
            .levels
            .iter()
            .rev()
            .zip(&self.unet.up_transformers)
            .enumerate();
        for (i, (level, transformer_layers)) in levels {
            let b = p.pp(i);
            for layer in 0..=level.layers {
                let Some(skip) = skips.pop() else {
                    return Err(Error::Corrupt(format!(
                        "{}: layers_per_block does not mirror the way down",
                        b.name()
                    )));
                };
                x = nn::concat(g, &b, x, skip)?;
                x = self.resnet(g, &b.pp("resnets").pp(layer), x, level.channels, 1.0)?;
                if let Some(layers) = transformer_layers {
                    x = self.transformer(g, &b.pp("attentions").pp(layer), x, level.heads, layers[layer])?;
                }
            }
            // Twice the size, or where the way down rounded up, the size that it came from.
            if let Some([_, h, w, _]) = skips.last().and_then(|&skip| g.shape(skip).image()) {
                x = nn::upsample(g, &b.pp("upsamplers").pp(0), x, [h, w])?;
            }
        }
        Ok(x)
    }
}
