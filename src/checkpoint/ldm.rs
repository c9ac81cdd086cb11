//! The layout of a single file: tensors named as the original code of latent diffusion names them (LDM, and OpenCLIP in it), and
//! what diffusers and transformers call them.
//!
//! The names are tables. A pattern is the parts of a name between dots: `#` stands for a number, `*` for all that is left. Only
//! the numbers of the UNet's blocks have to be counted: they run on over levels.

use std::collections::{BTreeMap, HashMap};

use crate::Result;
use crate::checkpoint::safetensors::{Header, TensorInfo};
use crate::error::Error;

/// What becomes of a tensor besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Same,
    /// Three tensors lie one after the other, by their rows: `@` in the name is `q`, `k` and `v`.
    Thirds,
    /// Its two dimensions change places.
    Transposed,
}
use How::{Same, Thirds, Transposed};

type Table = &'static [(&'static str, &'static str, How)];

/// Where a component's tensors are, and how they are named.
const PREFIXES: [(&str, &str, Naming); 7] = [
    ("model.diffusion_model.", "unet", Naming::Unet),
    ("first_stage_model.", "vae", Naming::Table(AUTOENCODER)),
    ("cond_stage_model.transformer.", "text_encoder", Naming::Table(CLIP)),
    ("cond_stage_model.model.", "text_encoder", Naming::Table(OPEN_CLIP)),
    (
        "conditioner.embedders.0.transformer.",
        "text_encoder",
        Naming::Table(CLIP),
    ),
    (
        "conditioner.embedders.1.model.",
        "text_encoder_2",
        Naming::Table(OPEN_CLIP),
    ),
    // As some tools write it that know one prefix for all autoencoders.
    ("vae.", "vae", Naming::Table(AUTOENCODER)),
];

#[derive(Clone, Copy)]
enum Naming {
    Unet,
    Table(Table),
}

/// What training leaves in a file, and drawing does not need.
const OF_NO_USE: &[&str] = &[
    "model_ema.*",
    "first_stage_model.loss.*",
    "first_stage_model.model_ema.*",
    "cond_stage_model.logit_scale",
    "cond_stage_model.model.logit_scale",
    "cond_stage_model.model.text_projection",
    "cond_stage_model.text_projection",
    "conditioner.embedders.0.logit_scale",
    "conditioner.embedders.0.text_projection",
    "conditioner.embedders.1.logit_scale",
    "conditioner.embedders.1.model.logit_scale",
    "conditioner.embedders.1.text_projection",
    "denoiser.sigmas",
    "global_step",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "betas",
    "log_one_minus_alphas_cumprod",
    "logvar",
    "lvlb_weights",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "posterior_variance",
    "scale_factor",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    // Marks, see recognise.rs.
    "v_pred",
    "ztsnr",
];

const CLIP: Table = &[
    ("embeddings.*", "embeddings.*", Same),
    ("encoder.*", "encoder.*", Same),
    ("final_layer_norm.*", "final_layer_norm.*", Same),
    ("text_model.*", "*", Same),
];

const OPEN_CLIP: Table = &[
    ("positional_embedding", "embeddings.position_embedding.weight", Same),
    ("token_embedding.*", "embeddings.token_embedding.*", Same),
    ("ln_final.*", "final_layer_norm.*", Same),
    ("text_projection", "text_projection.weight", Transposed),
    ("transformer.resblocks.#.ln_1.*", "encoder.layers.#.layer_norm1.*", Same),
    ("transformer.resblocks.#.ln_2.*", "encoder.layers.#.layer_norm2.*", Same),
    ("transformer.resblocks.#.mlp.c_fc.*", "encoder.layers.#.mlp.fc1.*", Same),
    (
        "transformer.resblocks.#.mlp.c_proj.*",
        "encoder.layers.#.mlp.fc2.*",
        Same,
    ),
    (
        "transformer.resblocks.#.attn.out_proj.*",
        "encoder.layers.#.self_attn.out_proj.*",
        Same,
    ),
    (
        "transformer.resblocks.#.attn.in_proj_weight",
        "encoder.layers.#.self_attn.@_proj.weight",
        Thirds,
    ),
    (
        "transformer.resblocks.#.attn.in_proj_bias",
        "encoder.layers.#.self_attn.@_proj.bias",
        Thirds,
    ),
];

/// `up` counts from the finest level on, `up_blocks` from the coarsest: such numbers are turned round afterwards.
const AUTOENCODER: Table = &[
    ("quant_conv.*", "quant_conv.*", Same),
    ("post_quant_conv.*", "post_quant_conv.*", Same),
    ("encoder.conv_in.*", "encoder.conv_in.*", Same),
    ("encoder.conv_out.*", "encoder.conv_out.*", Same),
    ("encoder.norm_out.*", "encoder.conv_norm_out.*", Same),
    (
        "encoder.down.#.block.#.nin_shortcut.*",
        "encoder.down_blocks.#.resnets.#.conv_shortcut.*",
        Same,
    ),
    ("encoder.down.#.block.#.*", "encoder.down_blocks.#.resnets.#.*", Same),
    (
        "encoder.down.#.downsample.*",
        "encoder.down_blocks.#.downsamplers.0.*",
        Same,
    ),
    ("decoder.conv_in.*", "decoder.conv_in.*", Same),
    ("decoder.conv_out.*", "decoder.conv_out.*", Same),
    ("decoder.norm_out.*", "decoder.conv_norm_out.*", Same),
    (
        "decoder.up.#.block.#.nin_shortcut.*",
        "decoder.up_blocks.#.resnets.#.conv_shortcut.*",
        Same,
    ),
    ("decoder.up.#.block.#.*", "decoder.up_blocks.#.resnets.#.*", Same),
    ("decoder.up.#.upsample.*", "decoder.up_blocks.#.upsamplers.0.*", Same),
    ("encoder.mid.block_1.*", "encoder.mid_block.resnets.0.*", Same),
    ("encoder.mid.block_2.*", "encoder.mid_block.resnets.1.*", Same),
    (
        "encoder.mid.attn_1.norm.*",
        "encoder.mid_block.attentions.0.group_norm.*",
        Same,
    ),
    ("encoder.mid.attn_1.q.*", "encoder.mid_block.attentions.0.to_q.*", Same),
    ("encoder.mid.attn_1.k.*", "encoder.mid_block.attentions.0.to_k.*", Same),
    ("encoder.mid.attn_1.v.*", "encoder.mid_block.attentions.0.to_v.*", Same),
    (
        "encoder.mid.attn_1.proj_out.*",
        "encoder.mid_block.attentions.0.to_out.0.*",
        Same,
    ),
    ("encoder.mid.attn_1.*", "encoder.mid_block.attentions.0.*", Same),
    ("decoder.mid.block_1.*", "decoder.mid_block.resnets.0.*", Same),
    ("decoder.mid.block_2.*", "decoder.mid_block.resnets.1.*", Same),
    (
        "decoder.mid.attn_1.norm.*",
        "decoder.mid_block.attentions.0.group_norm.*",
        Same,
    ),
    ("decoder.mid.attn_1.q.*", "decoder.mid_block.attentions.0.to_q.*", Same),
    ("decoder.mid.attn_1.k.*", "decoder.mid_block.attentions.0.to_k.*", Same),
    ("decoder.mid.attn_1.v.*", "decoder.mid_block.attentions.0.to_v.*", Same),
    (
        "decoder.mid.attn_1.proj_out.*",
        "decoder.mid_block.attentions.0.to_out.0.*",
        Same,
    ),
    ("decoder.mid.attn_1.*", "decoder.mid_block.attentions.0.*", Same),
];

/// The UNet outside of its blocks.
const UNET: Table = &[
    ("time_embed.0.*", "time_embedding.linear_1.*", Same),
    ("time_embed.2.*", "time_embedding.linear_2.*", Same),
    ("time_embed.cond_proj.*", "time_embedding.cond_proj.*", Same),
    ("time_embedding.cond_proj.*", "time_embedding.cond_proj.*", Same),
    ("label_emb.0.0.*", "add_embedding.linear_1.*", Same),
    ("label_emb.0.2.*", "add_embedding.linear_2.*", Same),
    ("input_blocks.0.0.weight", "conv_in.weight", Same),
    ("input_blocks.0.0.bias", "conv_in.bias", Same),
    ("out.0.*", "conv_norm_out.*", Same),
    ("out.2.*", "conv_out.*", Same),
];

/// What is inside of a block's parts: a part is of the kind that one of its names tells.
const RESNET: Table = &[
    ("in_layers.0.*", "norm1.*", Same),
    ("in_layers.2.*", "conv1.*", Same),
    ("emb_layers.1.*", "time_emb_proj.*", Same),
    ("out_layers.0.*", "norm2.*", Same),
    ("out_layers.3.*", "conv2.*", Same),
    ("skip_connection.*", "conv_shortcut.*", Same),
];
const ATTENTION: Table = &[
    ("norm.*", "norm.*", Same),
    ("proj_in.*", "proj_in.*", Same),
    ("transformer_blocks.*", "transformer_blocks.*", Same),
    ("proj_out.*", "proj_out.*", Same),
];
const DOWNSAMPLER: Table = &[("op.*", "conv.*", Same)];
const UPSAMPLER: Table = &[("conv.*", "conv.*", Same)];

/// The tensors of a single file, sorted by component and named as in a folder.
#[derive(Debug, Default)]
pub struct Mapped {
    /// The components' tensors, by the components' names.
    pub components: BTreeMap<&'static str, Vec<TensorInfo>>,
    /// Tensors that no table knows.
    pub unknown: Vec<String>,
}

/// Finds the place of each tensor.
///
/// # Errors
/// [`Error::Corrupt`] for joined tensors that can't be taken apart.
pub fn map(header: &Header) -> Result<Mapped> {
    let blocks = blocks(header);
    let mut mapped = Mapped::default();
    for tensor in header.tensors() {
        if OF_NO_USE.iter().any(|pattern| matches(pattern, &tensor.name).is_some()) {
            continue;
        }
        let place = PREFIXES.iter().find_map(|(prefix, component, naming)| {
            let name = tensor.name.strip_prefix(prefix)?;
            let (to, how) = match naming {
                Naming::Unet => in_unet(&blocks, name)?,
                Naming::Table(table) => rename(table, name)?,
            };
            Some((*component, to, how))
        });
        match place {
            Some((component, to, how)) => {
                let tensors = mapped.components.entry(component).or_default();
                tensors.extend(parts(header.file(), tensor, to, how)?);
            }
            None => mapped.unknown.push(tensor.name.clone()),
        }
    }
    for tensors in mapped.components.values_mut() {
        turn_round(tensors);
    }
    Ok(mapped)
}

/// Finds the place of each tensor of an autoencoder that is a file by itself: the original code's names without their beginning.
///
/// # Errors
/// Those of [`map`].
pub fn map_autoencoder(header: &Header) -> Result<(Vec<TensorInfo>, Vec<String>)> {
    let (mut tensors, mut unknown) = (Vec::new(), Vec::new());
    for tensor in header.tensors() {
        match rename(AUTOENCODER, &tensor.name) {
            Some((to, how)) => tensors.extend(parts(header.file(), tensor, to, how)?),
            // What training leaves in it.
            None if tensor.name.starts_with("loss.") || tensor.name.starts_with("model_ema.") => {}
            None => unknown.push(tensor.name.clone()),
        }
    }
    turn_round(&mut tensors);
    Ok((tensors, unknown))
}

/// What captures of a pattern's `#` and `*` a name gives, if it fits.
fn matches<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let (mut rest, mut captured) = (name, Vec::new());
    let mut wanted = pattern.split('.').peekable();
    while let Some(part) = wanted.next() {
        if part == "*" {
            captured.push(rest);
            return Some(captured);
        }
        let (first, others) = match (rest.split_once('.'), wanted.peek()) {
            (Some((first, others)), Some(_)) => (first, others),
            (None, None) => (rest, ""),
            _ => return None,
        };
        match part {
            "#" if !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit()) => captured.push(first),
            "#" => return None,
            _ if part == first => {}
            _ => return None,
        }
        rest = others;
    }
    Some(captured)
}

fn rename(table: Table, name: &str) -> Option<(String, How)> {
    table.iter().find_map(|(from, to, how)| {
        let mut captured = matches(from, name)?.into_iter();
        let parts = to.split('.').map(|part| match part {
            "#" | "*" => captured.next().unwrap_or_default(),
            part => part,
        });
        Some((parts.collect::<Vec<_>>().join("."), *how))
    })
}

/// A tensor under its new name, or the tensors that it is made of.
fn parts(file: &str, tensor: &TensorInfo, name: String, how: How) -> Result<Vec<TensorInfo>> {
    let wrong = |expected: &str| {
        let (name, shape) = (&tensor.name, &tensor.shape);
        Err(Error::Corrupt(format!(
            "{file}: tensor {name:?}: expected {expected}, found shape {shape:?}"
        )))
    };
    let of = |name, shape, start, end, transposed| TensorInfo {
        name,
        dtype: tensor.dtype,
        shape,
        start,
        end,
        transposed,
    };
    match how {
        Same => Ok(vec![of(name, tensor.shape.clone(), tensor.start, tensor.end, false)]),
        Transposed => match tensor.shape[..] {
            [rows, columns] if tensor.dtype.bitsize().is_multiple_of(8) => {
                Ok(vec![of(name, vec![columns, rows], tensor.start, tensor.end, true)])
            }
            _ => wrong("a matrix"),
        },
        Thirds => {
            let (rows, bytes) = (tensor.shape.first().copied().unwrap_or(0), tensor.bytes());
            if rows == 0 || rows % 3 != 0 || bytes % 3 != 0 {
                return wrong("a multiple of three rows");
            }
            let part = |(i, letter): (u64, &str)| {
                let mut shape = tensor.shape.clone();
                shape[0] = rows / 3;
                let start = tensor.start + i * (bytes / 3);
                of(name.replace('@', letter), shape, start, start + bytes / 3, false)
            };
            Ok((0..).zip(["q", "k", "v"]).map(part).collect())
        }
    }
}

/// Numbers a decoder's blocks from the coarsest on.
fn turn_round(tensors: &mut [TensorInfo]) {
    const BLOCKS: &str = "decoder.up_blocks.";
    let split = |name: &str| {
        let (number, rest) = name.strip_prefix(BLOCKS)?.split_once('.')?;
        Some((number.parse::<usize>().ok()?, rest.to_owned()))
    };
    let last = tensors
        .iter()
        .filter_map(|t| Some(split(&t.name)?.0))
        .max()
        .unwrap_or(0);
    for tensor in tensors {
        if let Some((number, rest)) = split(&tensor.name) {
            tensor.name = format!("{BLOCKS}{}.{rest}", last - number);
        }
    }
}

/// For each part of a UNet's blocks (`"input_blocks.1.0"`): what diffusers calls it, and what is in it.
type Blocks = HashMap<String, (String, Table)>;

fn in_unet(blocks: &Blocks, name: &str) -> Option<(String, How)> {
    if let Some(found) = rename(UNET, name) {
        return Some(found);
    }
    // "middle_block.0" has one number, the others have two.
    let dots = if name.starts_with("middle_block.") { 2 } else { 3 };
    let (at, _) = name.match_indices('.').nth(dots - 1)?;
    let (to, table) = blocks.get(&name[..at])?;
    let (inside, how) = rename(table, &name[at + 1..])?;
    Some((format!("{to}.{inside}"), how))
}

/// Counts the UNet's blocks: on each side they run on over the levels, and a level ends with what changes the size.
fn blocks(header: &Header) -> Blocks {
    let (unet, ..) = PREFIXES[0];
    let mut kinds: HashMap<String, Table> = HashMap::new();
    for name in header.tensors().iter().filter_map(|t| t.name.strip_prefix(unet)) {
        let dots = if name.starts_with("middle_block.") { 2 } else { 3 };
        let Some((at, _)) = name.match_indices('.').nth(dots - 1) else {
            continue;
        };
        let inside = &name[at + 1..];
        let fits = |table: &Table| rename(table, inside).is_some();
        if let Some(kind) = [RESNET, ATTENTION, DOWNSAMPLER, UPSAMPLER].into_iter().find(fits) {
            kinds.insert(name[..at].into(), kind);
        }
    }
    let mut blocks = Blocks::new();
    for (side, of) in [("input_blocks", "down_blocks"), ("output_blocks", "up_blocks")] {
        let (mut level, mut layer) = (0, 0);
        for n in usize::from(side == "input_blocks").. {
            if !kinds.contains_key(&format!("{side}.{n}.0")) {
                break;
            }
            let (mut ends, mut has_layer) = (false, false);
            for part in 0..3 {
                let from = format!("{side}.{n}.{part}");
                let Some(&kind) = kinds.get(&from) else { continue };
                let to = if kind == RESNET {
                    has_layer = true;
                    format!("{of}.{level}.resnets.{layer}")
                } else if kind == ATTENTION {
                    format!("{of}.{level}.attentions.{layer}")
                } else {
                    ends = true;
                    let what = if kind == DOWNSAMPLER {
                        "downsamplers"
                    } else {
                        "upsamplers"
                    };
                    format!("{of}.{level}.{what}.0")
                };
                blocks.insert(from, (to, kind));
            }
            layer += usize::from(has_layer);
            if ends {
                (level, layer) = (level + 1, 0);
            }
        }
    }
    let mut resnets = 0;
    for n in 0..3 {
        let from = format!("middle_block.{n}");
        if let Some(&kind) = kinds.get(&from) {
            let to = if kind == RESNET {
                resnets += 1;
                format!("mid_block.resnets.{}", resnets - 1)
            } else {
                "mid_block.attentions.0".into()
            };
            blocks.insert(from, (to, kind));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        assert_eq!(matches("a.#.b.*", "a.12.b.c.d"), Some(vec!["12", "c.d"]));
        assert_eq!(matches("a.#", "a.7"), Some(vec!["7"]));
        assert_eq!(matches("a", "a"), Some(vec![]));
        for (pattern, name) in [
            ("a.#", "a.x"),
            ("a.#", "a."),
            ("a", "a.b"),
            ("a.b", "a"),
            ("a.*", "a"),
            ("a.#.b", "a.1.b.c"),
        ] {
            assert_eq!(matches(pattern, name), None, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_put_together_again() {
        let renamed = |table, name| rename(table, name).map(|(to, _)| to);
        let found = renamed(AUTOENCODER, "decoder.up.3.block.1.nin_shortcut.weight");
        assert_eq!(
            found.as_deref(),
            Some("decoder.up_blocks.3.resnets.1.conv_shortcut.weight")
        );
        let found = renamed(CLIP, "text_model.encoder.layers.0.mlp.fc1.bias");
        assert_eq!(found.as_deref(), Some("encoder.layers.0.mlp.fc1.bias"));
        assert_eq!(renamed(OPEN_CLIP, "visual.proj"), None);
    }
}
