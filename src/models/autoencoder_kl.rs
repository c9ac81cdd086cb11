//! `AutoencoderKL` of diffusers, both ways.
//! Rombach et al., *High-Resolution Image Synthesis with Latent Diffusion Models* (2022).

use super::config::Config;
use crate::error::{Error, Result};
use crate::graph::{Activation, Element, Graph, Path, Rate, Unary, Value};
use crate::nn::{self, Resnet};
use serde_json::Value as Json;

/// `vae/config.json` of an `AutoencoderKL`.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderKlConfig {
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels of a picture.
    pub out_channels: usize,
    /// Channels of each stage, the encoder's first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of an encoder's stage; the decoder's have one more.
    pub layers_per_block: usize,
    /// Groups of all norms.
    pub norm_num_groups: usize,
    /// Activation of all blocks.
    pub act_fn: Activation,
    /// The middle has attention.
    pub mid_block_add_attention: bool,
    /// A convolution of 1 x 1 comes after the encoder.
    pub use_quant_conv: bool,
    /// A convolution of 1 x 1 comes before the decoder.
    pub use_post_quant_conv: bool,
    /// Its values are beyond 16-bit floats, as those of SDXL's are.
    pub force_upcast: bool,
    /// Why there is no encoder for it, if there is none: pictures are decoded all the same.
    pub no_encoder: Option<String>,
    /// What a pipeline divides latents by before it decodes them.
    pub scaling_factor: f32,
    /// Mean and standard deviation of each channel of latents, where SDXL's pipeline is to undo them.
    pub latents_mean_std: Option<(Vec<f32>, Vec<f32>)>,
}

impl AutoencoderKlConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for malformed keys, [`Error::Unsupported`] for values that are not implemented.
    pub fn from_json(json: &Json) -> Result<Self> {
        let c = Config::new(json)?;
        let latent_channels = c.size("latent_channels", 4)?;
        let floats = |key| c.optional_floats(key, latent_channels);
        let config = Self {
            latent_channels,
            out_channels: c.size("out_channels", 3)?,
            block_out_channels: c.sizes("block_out_channels", &[64])?,
            layers_per_block: c.size("layers_per_block", 1)?,
            norm_num_groups: c.size("norm_num_groups", 32)?,
            act_fn: c.activation("act_fn", "silu")?,
            mid_block_add_attention: c.flag("mid_block_add_attention", true)?,
            use_quant_conv: c.flag("use_quant_conv", true)?,
            force_upcast: c.flag("force_upcast", true)?,
            no_encoder: no_encoder(&c)?,
            use_post_quant_conv: c.flag("use_post_quant_conv", true)?,
            scaling_factor: c.float("scaling_factor", 0.18215)?,
            latents_mean_std: floats("latents_mean")?.zip(floats("latents_std")?),
        };
        if let Some(other) = c
            .names("up_block_types", &[])?
            .iter()
            .find(|t| *t != "UpDecoderBlock2D")
        {
            return Err(Error::Unsupported(format!(
                "up_block_types {other:?}; there is UpDecoderBlock2D"
            )));
        }
        if config.out_channels != 3 {
            return Err(Error::Unsupported(format!(
                "pictures of {} channels",
                config.out_channels
            )));
        }
        if config.layers_per_block > 32 {
            return Err(Error::Corrupt(format!(
                "layers_per_block: expected at most 32, found {}",
                config.layers_per_block
            )));
        }
        Ok(config)
    }

    /// Pixels of a latent's side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The decoder's graph for latents of `[batch, height, width, latent_channels]`, as a sampler leaves them (scaled):
    /// `latents` → `sample [batch, height · factor, width · factor, 3]` in -1 to 1.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together.
    pub fn decoder(&self, [batch, height, width]: [usize; 3]) -> Result<Graph> {
        let mut graph = Graph::new();
        if !self.force_upcast {
            graph.stand_half();
        }
        let (g, root) = (&mut graph, Path::root());
        let p = root.pp("decoder");
        let x = g.input(
            "latents",
            [batch, height, width, self.latent_channels],
            Element::F32,
            Rate::Step,
        );
        let mut x = nn::unary(
            g,
            &root,
            x,
            Unary::Affine {
                mul: 1.0 / self.scaling_factor,
                add: 0.0,
            },
        )?;
        if self.use_post_quant_conv {
            x = nn::conv1x1(g, &root.pp("post_quant_conv"), x, self.latent_channels)?;
        }
        // `sizes` refuses an empty list.
        let top = self.block_out_channels.last().copied().unwrap_or(0);
        let x = nn::conv2d(g, &p.pp("conv_in"), x, top, 3)?;
        let mut x = self.mid_block(g, &p.pp("mid_block"), x, top)?;
        for (i, &channels) in self.block_out_channels.iter().rev().enumerate() {
            let b = p.pp("up_blocks").pp(i);
            for layer in 0..=self.layers_per_block {
                x = nn::resnet_block(g, &b.pp("resnets").pp(layer), x, None, self.resnet(channels))?;
            }
            if i + 1 < self.block_out_channels.len() {
                let size = g
                    .shape(x)
                    .image()
                    .map_or([0; 2], |[_, h, w, _]| [h, w].map(|n| n.saturating_mul(2)));
                x = nn::upsample(g, &b.pp("upsamplers").pp(0), x, size)?;
            }
        }
        let x = nn::group_norm(g, &p.pp("conv_norm_out"), x, self.norm_num_groups, 1e-6)?;
        let x = nn::activation(g, &p.pp("conv_act"), x, Activation::Silu)?;
        let x = nn::conv2d(g, &p.pp("conv_out"), x, self.out_channels, 3)?;
        g.output("sample", x);
        Ok(graph)
    }

    /// The encoder's graph for pictures of `[batch, height, width, 3]` in -1 to 1, whose sides are multiples of [`Self::factor`]:
    /// `sample` → `moments [batch, height / factor, width / factor, 2 · latent_channels]`, see [`Self::latents`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together; [`Error::Unsupported`] for encoders that are not implemented.
    pub fn encoder(&self, [batch, height, width]: [usize; 3]) -> Result<Graph> {
        if let Some(why) = &self.no_encoder {
            return Err(Error::Unsupported(why.clone()));
        }
        let mut graph = Graph::new();
        if !self.force_upcast {
            graph.stand_half();
        }
        let (g, root) = (&mut graph, Path::root());
        let p = root.pp("encoder");
        let x = g.input(
            "sample",
            [batch, height, width, self.out_channels],
            Element::F32,
            Rate::Step,
        );
        // `sizes` refuses an empty list.
        let mut channels = self.block_out_channels.first().copied().unwrap_or(0);
        let mut x = nn::conv2d(g, &p.pp("conv_in"), x, channels, 3)?;
        for (i, &out) in self.block_out_channels.iter().enumerate() {
            let b = p.pp("down_blocks").pp(i);
            channels = out;
            for layer in 0..self.layers_per_block {
                x = nn::resnet_block(g, &b.pp("resnets").pp(layer), x, None, self.resnet(channels))?;
            }
            if i + 1 < self.block_out_channels.len() {
                x = nn::downsample(g, &b.pp("downsamplers").pp(0), x, 0)?;
            }
        }
        let x = self.mid_block(g, &p.pp("mid_block"), x, channels)?;
        let x = nn::group_norm(g, &p.pp("conv_norm_out"), x, self.norm_num_groups, 1e-6)?;
        let x = nn::activation(g, &p.pp("conv_act"), x, Activation::Silu)?;
        let moments = self.latent_channels.saturating_mul(2);
        let mut x = nn::conv2d(g, &p.pp("conv_out"), x, moments, 3)?;
        if self.use_quant_conv {
            x = nn::conv1x1(g, &root.pp("quant_conv"), x, moments)?;
        }
        g.output("moments", x);
        Ok(graph)
    }

    /// diffusers' `DiagonalGaussianDistribution.sample`, scaled as a sampler wants it: `moments` are what the encoder gives, each
    /// latent's means and logarithms of variances, and `noise` is standard normal. With `normalised`, each channel's mean and
    /// standard deviation ([`Self::latents_mean_std`]) are taken off, where the config has them.
    pub fn latents(&self, moments: &[f32], noise: &[f32], normalised: bool) -> Vec<f32> {
        let n = self.latent_channels;
        let normal = self.latents_mean_std.as_ref().filter(|_| normalised);
        let one = |(moments, noise): (&[f32], &[f32])| -> Vec<f32> {
            let (means, variances) = moments.split_at(n);
            let sample = |i: usize| {
                let x = means[i] + libm::expf(0.5 * variances[i].clamp(-30.0, 20.0)) * noise[i];
                match normal {
                    Some((mean, std)) => (x - mean[i]) * self.scaling_factor / std[i],
                    None => self.scaling_factor * x,
                }
            };
            (0..n).map(sample).collect()
        };
        let latents = moments.chunks_exact(2 * n).zip(noise.chunks_exact(n));
        latents.flat_map(one).collect()
    }

    fn resnet(&self, out_channels: usize) -> Resnet {
        Resnet {
            out_channels,
            groups: self.norm_num_groups,
            eps: 1e-6,
            act: self.act_fn,
            output_scale_factor: 1.0,
        }
    }

    /// diffusers' `UNetMidBlock2D`: its attention has one head.
    fn mid_block(&self, g: &mut Graph, p: &Path, x: Value, channels: usize) -> Result<Value> {
        let mut x = nn::resnet_block(g, &p.pp("resnets").pp(0), x, None, self.resnet(channels))?;
        if self.mid_block_add_attention {
            let a = p.pp("attentions").pp(0);
            let h = nn::group_norm(g, &a.pp("group_norm"), x, self.norm_num_groups, 1e-6)?;
            let h = nn::self_attention(g, &a, h, 1, ["to_q", "to_k", "to_v"], true, false)?;
            let h = nn::linear(g, &a.pp("to_out").pp(0), h, channels)?;
            x = nn::add(g, &a, x, h)?;
        }
        nn::resnet_block(g, &p.pp("resnets").pp(1), x, None, self.resnet(channels))
    }
}

/// Why the encoder that a config describes is not implemented, if it isn't.
fn no_encoder(c: &Config<'_>) -> Result<Option<String>> {
    let blocks = c.names("down_block_types", &[])?;
    let pixels = c.size("in_channels", 3)?;
    Ok(match blocks.iter().find(|t| *t != "DownEncoderBlock2D") {
        Some(other) => Some(format!("down_block_types {other:?}; there is DownEncoderBlock2D")),
        None if pixels != 3 => Some(format!("an encoder of pictures of {pixels} channels")),
        None => None,
    })
}
