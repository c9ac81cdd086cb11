//! The decoder of `AutoencoderKL` of diffusers.
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
    /// A convolution of 1 x 1 comes before the decoder.
    pub use_post_quant_conv: bool,
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
