//! `UNet2DConditionModel` of diffusers, as SD 1.x and 2.x and what is distilled from them use it.
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
    /// Blocks of each transformer on the way down.
    pub transformer_layers: usize,
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

/// `unet/config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Height and width of latents that it was trained on, if the config tells.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the latents that it reads.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    /// The levels, finest first.
    pub levels: Vec<Level>,
    /// For each block on the way up, coarsest first: whether it has transformers, and their blocks.
    pub up_transformers: Vec<Option<usize>>,
    /// The middle.
    pub mid_block: MidBlock,
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
    ("addition_embed_type", &[]),
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
    ("time_cond_proj_dim", &[]),
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
        let transformers = c.size_each("transformer_layers_per_block", 1, n)?;
        let up_transformers = match c.optional_sizes("reverse_transformer_layers_per_block", n)? {
            Some(given) => given,
            None => transformers.iter().rev().copied().collect(),
        };
        if layers
            .iter()
            .chain(&transformers)
            .chain(&up_transformers)
            .any(|&l| l > 64)
        {
            return Err(Error::Corrupt(format!(
                "layers_per_block {layers:?}, transformer_layers_per_block {transformers:?}"
            )));
        }
        let contexts = c.size_each("cross_attention_dim", 1280, n)?;
        if contexts.iter().any(|&d| d != contexts[0]) {
            return Err(Error::Unsupported(format!(
                "cross_attention_dim {contexts:?} that differs between blocks"
            )));
        }
        // A few bytes of config must not ask for hours of work.
        let blocks: usize = (0..n)
            .map(|i| layers[i] * (1 + transformers[i]) + (layers[i] + 1) * (1 + up_transformers[i]))
            .sum();
        if blocks > 1024 {
            return Err(Error::Corrupt(format!(
                "layers_per_block and transformer_layers_per_block make {blocks} blocks, over 1024"
            )));
        }
        let levels = (0..n).map(|i| Level {
            channels: channels[i],
            layers: layers[i],
            down_attention: down[i],
            heads: heads[i],
            transformer_layers: transformers[i],
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
            mid_block_scale_factor: c.float("mid_block_scale_factor", 1.0)?,
            cross_attention_dim: contexts[0],
            texts: vec![contexts[0]],
            use_linear_projection: c.flag("use_linear_projection", false)?,
            act_fn: c.activation("act_fn", "silu")?,
            norm_num_groups: c.size_not_null("norm_num_groups", 32)?,
            norm_eps: c.float("norm_eps", 1e-5)?,
            flip_sin_to_cos: c.flag("flip_sin_to_cos", true)?,
            freq_shift: c.float("freq_shift", 0.0)?,
            time_embedding_dim: c.size("time_embedding_dim", channels[0].saturating_mul(4))?,
            conv_in_kernel: c.odd_kernel("conv_in_kernel", 3)?,
            conv_out_kernel: c.odd_kernel("conv_out_kernel", 3)?,
            downsample_padding: c.number("downsample_padding", 1)?,
            center_input_sample: c.flag("center_input_sample", false)?,
        })
    }

    /// The name of the input that the hidden states of text encoder `index` go to.
    pub fn text_input(index: usize) -> String {
        match index {
            0 => "encoder_hidden_states".into(),
            _ => format!("encoder_hidden_states_{}", index + 1),
        }
    }

    /// The graph for latents of `[batch, height, width]`, texts of `tokens` tokens and a schedule of `rows` timesteps:
    /// `sample [batch, height, width, in_channels]`, `timesteps [rows]`, and for each text encoder its hidden states
    /// ([`Self::text_input`]) `[batch, tokens, channels]` → `sample [batch, height, width, out_channels]`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together.
    pub fn graph(&self, [batch, height, width]: [usize; 3], tokens: usize, rows: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        let (g, p) = (&mut graph, Path::root());
        let sample = g.input(
            "sample",
            [batch, height, width, self.in_channels],
            Element::F32,
            Rate::Step,
        );
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

        let finest = self.levels[0].channels;
        let sinusoid = Op::TimestepEmbedding {
            dim: finest,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        };
        let time = nn::time_embedding(
            g,
            &p.pp("time_embedding"),
            timesteps,
            sinusoid,
            self.time_embedding_dim,
            self.act_fn,
        )?;
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
                        level.transformer_layers,
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
                let x = self.transformer(g, &a, x, coarsest.heads, coarsest.transformer_layers)?;
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
                    x = self.transformer(g, &b.pp("attentions").pp(layer), x, level.heads, *layers)?;
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
