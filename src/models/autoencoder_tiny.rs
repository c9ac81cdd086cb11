//! `AutoencoderTiny` of diffusers: the tiny autoencoder (TAESD, by Ollin Boer Bohan), both ways.

use super::config::Config;
use crate::error::{Error, Result};
use crate::graph::{Activation, Element, Graph, Path, Rate, Unary, Value};
use crate::nn;
use serde_json::Value as Json;

/// `vae/config.json` of an `AutoencoderTiny`.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderTinyConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels of the encoder's stages.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of the decoder's stages.
    pub decoder_block_out_channels: Vec<usize>,
    /// Blocks in each of the encoder's stages.
    pub num_encoder_blocks: Vec<usize>,
    /// Blocks in each of the decoder's stages.
    pub num_decoder_blocks: Vec<usize>,
    /// How much each of the decoder's stages but the last enlarges.
    pub upsampling_scaling_factor: usize,
    /// Activation inside blocks.
    pub act_fn: Activation,
    /// What a pipeline divides latents by before it decodes them.
    pub scaling_factor: f32,
    /// Its values are beyond 16-bit floats.
    pub force_upcast: bool,
}

impl AutoencoderTinyConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for malformed keys, [`Error::Unsupported`] for values that are not implemented.
    pub fn from_json(json: &Json) -> Result<Self> {
        let c = Config::new(json)?;
        c.only("upsample_fn", &["nearest".into()])?;
        let config = Self {
            in_channels: c.size("in_channels", 3)?,
            out_channels: c.size("out_channels", 3)?,
            latent_channels: c.size("latent_channels", 4)?,
            encoder_block_out_channels: c.sizes("encoder_block_out_channels", &[64; 4])?,
            decoder_block_out_channels: c.sizes("decoder_block_out_channels", &[64; 4])?,
            num_encoder_blocks: c.sizes("num_encoder_blocks", &[1, 3, 3, 3])?,
            num_decoder_blocks: c.sizes("num_decoder_blocks", &[3, 3, 3, 1])?,
            upsampling_scaling_factor: c.size("upsampling_scaling_factor", 2)?,
            act_fn: c.activation("act_fn", "relu")?,
            scaling_factor: c.float("scaling_factor", 1.0)?,
            force_upcast: c.flag("force_upcast", false)?,
        };
        for (name, blocks, channels) in [
            (
                "encoder",
                &config.num_encoder_blocks,
                &config.encoder_block_out_channels,
            ),
            (
                "decoder",
                &config.num_decoder_blocks,
                &config.decoder_block_out_channels,
            ),
        ] {
            if blocks.len() != channels.len() || blocks.iter().any(|&n| n > 32) {
                return Err(Error::Corrupt(format!(
                    "num_{name}_blocks {blocks:?} for channels {channels:?}"
                )));
            }
        }
        if config.out_channels != 3 || config.in_channels != 3 {
            return Err(Error::Unsupported(format!(
                "pictures of {} channels",
                config.out_channels
            )));
        }
        if config.upsampling_scaling_factor > 8 {
            return Err(Error::Unsupported(format!(
                "upsampling_scaling_factor {}",
                config.upsampling_scaling_factor
            )));
        }
        Ok(config)
    }

    /// Pixels of a latent's side.
    pub fn factor(&self) -> usize {
        self.upsampling_scaling_factor
            .saturating_pow(self.num_decoder_blocks.len() as u32 - 1)
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
        let g = &mut graph;
        let mut l = Layers::new("decoder");
        let x = g.input(
            "latents",
            [batch, height, width, self.latent_channels],
            Element::F32,
            Rate::Step,
        );
        // What is out of range is bent back: 3 tanh(x / 3).
        let x = nn::unary(
            g,
            &l.path,
            x,
            Unary::Affine {
                mul: 1.0 / (3.0 * self.scaling_factor),
                add: 0.0,
            },
        )?;
        let x = nn::activation(g, &l.path, x, Activation::Tanh)?;
        let x = nn::unary(g, &l.path, x, Unary::Affine { mul: 3.0, add: 0.0 })?;
        let x = nn::conv2d(g, &l.next(), x, self.decoder_block_out_channels[0], 3)?;
        let mut x = nn::activation(g, &l.next(), x, self.act_fn)?;
        let stages = self.num_decoder_blocks.len();
        for (i, (&blocks, &channels)) in self
            .num_decoder_blocks
            .iter()
            .zip(&self.decoder_block_out_channels)
            .enumerate()
        {
            for _ in 0..blocks {
                x = block(g, &l.next(), x, channels, self.act_fn)?;
            }
            x = if i + 1 < stages {
                let size = g.shape(x).image().map_or([0; 2], |[_, h, w, _]| {
                    [h, w].map(|n| n.saturating_mul(self.upsampling_scaling_factor))
                });
                let x = g.op(&l.next(), crate::graph::Op::Upsample { size }, &[x], &[])?;
                nn::conv2d_without_bias(g, &l.next(), x, channels, 1)?
            } else {
                nn::conv2d(g, &l.next(), x, self.out_channels, 3)?
            };
        }
        let x = nn::unary(g, &l.path, x, Unary::Affine { mul: 2.0, add: -1.0 })?;
        g.output("sample", x);
        Ok(graph)
    }

    /// The encoder's graph for pictures of `[batch, height, width, 3]` in -1 to 1: `sample` → `latents`, scaled as a sampler wants them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together; [`Error::Unsupported`] if it makes latents of another size than
    /// the decoder takes.
    pub fn encoder(&self, [batch, height, width]: [usize; 3]) -> Result<Graph> {
        let factor = 2usize.saturating_pow(self.num_encoder_blocks.len() as u32 - 1);
        if factor != self.factor() {
            return Err(Error::Unsupported(format!(
                "an encoder that makes pictures {factor} times smaller, where the decoder makes them {} times larger",
                self.factor()
            )));
        }
        let mut graph = Graph::new();
        if !self.force_upcast {
            graph.stand_half();
        }
        let g = &mut graph;
        let mut l = Layers::new("encoder");
        let x = g.input(
            "sample",
            [batch, height, width, self.in_channels],
            Element::F32,
            Rate::Step,
        );
        let mut x = nn::unary(g, &l.path, x, Unary::Affine { mul: 0.5, add: 0.5 })?;
        for (i, (&blocks, &channels)) in self
            .num_encoder_blocks
            .iter()
            .zip(&self.encoder_block_out_channels)
            .enumerate()
        {
            x = if i == 0 {
                nn::conv2d(g, &l.next(), x, channels, 3)?
            } else {
                nn::conv2d_without_bias(g, &l.next(), x, channels, 2)?
            };
            for _ in 0..blocks {
                x = block(g, &l.next(), x, channels, self.act_fn)?;
            }
        }
        let x = nn::conv2d(g, &l.next(), x, self.latent_channels, 3)?;
        let x = nn::unary(
            g,
            &l.path,
            x,
            Unary::Affine {
                mul: self.scaling_factor,
                add: 0.0,
            },
        )?;
        g.output("latents", x);
        Ok(graph)
    }
}

/// Numbers the layers of a `torch.nn.Sequential`.
struct Layers {
    path: Path,
    next: usize,
}

impl Layers {
    fn new(name: &str) -> Self {
        Self {
            path: Path::root().pp(name).pp("layers"),
            next: 0,
        }
    }

    fn next(&mut self) -> Path {
        self.next += 1;
        self.path.pp(self.next - 1)
    }
}

/// diffusers' `AutoencoderTinyBlock`.
fn block(g: &mut Graph, p: &Path, x: Value, channels: usize, act: Activation) -> Result<Value> {
    let skip = if g.shape(x).channels() == channels {
        x
    } else {
        nn::conv2d_padded(g, &p.pp("skip"), x, channels, 1, 1, [0; 4], false)?
    };
    let c = p.pp("conv");
    let h = nn::conv2d(g, &c.pp(0), x, channels, 3)?;
    let h = nn::activation(g, &c.pp(1), h, act)?;
    let h = nn::conv2d(g, &c.pp(2), h, channels, 3)?;
    let h = nn::activation(g, &c.pp(3), h, act)?;
    let h = nn::conv2d(g, &c.pp(4), h, channels, 3)?;
    let h = nn::add(g, p, skip, h)?;
    nn::activation(g, &p.pp("fuse"), h, Activation::Relu)
}
