//! What keys of LoRA files mean. There are two ways to name a module: kohya's (the path with `_` for `.`, in the names of
//! diffusers or of the original code) and diffusers' (the path as it is). Both are read with `_` for `.`.

use crate::checkpoint::safetensors::Header;
use crate::graph::{ParamPart, ParamSpec};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// What a tensor is in what changes a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `[rank, in]`, first.
    Down,
    /// `[out, rank]`, last.
    Up,
    /// What lies between them, `[rank, rank, kh, kw]`.
    Mid,
    /// The scale is `alpha / rank`.
    Alpha,
    /// DoRA: lengths of the merged rows, or of columns, by its shape.
    DoraScale,
    /// DoRA as PEFT has it: lengths of the merged rows.
    Magnitude,
    /// What is added to the weight, or to the bias, as it is.
    Diff,
    /// The same for the bias.
    DiffBias,
    /// LoHa: the product of two products.
    Hada(Factor, Piece),
    /// LoKr: the Kronecker product of two factors.
    Kron(Factor, Piece),
}

/// Which of two factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Factor {
    /// The first.
    One,
    /// The second.
    Two,
}

/// A factor, or what it is the product of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The left one.
    A,
    /// The right one.
    B,
    /// What lies between them.
    T,
}

/// How keys end, and what that says. Longer ones first where one ends with another.
const ENDINGS: &[(&str, Role)] = &[
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Mid),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::DoraScale),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".lora_magnitude_vector.default.weight", Role::Magnitude),
    (".diff_b", Role::DiffBias),
    (".diff", Role::Diff),
    (".w_norm", Role::Diff),
    (".b_norm", Role::DiffBias),
    (".hada_w1_a", Role::Hada(Factor::One, Piece::A)),
    (".hada_w1_b", Role::Hada(Factor::One, Piece::B)),
    (".hada_t1", Role::Hada(Factor::One, Piece::T)),
    (".hada_w2_a", Role::Hada(Factor::Two, Piece::A)),
    (".hada_w2_b", Role::Hada(Factor::Two, Piece::B)),
    (".hada_t2", Role::Hada(Factor::Two, Piece::T)),
    (".lokr_w1", Role::Kron(Factor::One, Piece::Whole)),
    (".lokr_w1_a", Role::Kron(Factor::One, Piece::A)),
    (".lokr_w1_b", Role::Kron(Factor::One, Piece::B)),
    (".lokr_w2", Role::Kron(Factor::Two, Piece::Whole)),
    (".lokr_w2_a", Role::Kron(Factor::Two, Piece::A)),
    (".lokr_w2_b", Role::Kron(Factor::Two, Piece::B)),
    (".lokr_t2", Role::Kron(Factor::Two, Piece::T)),
];

/// Endings of what is known and not implemented.
const UNSUPPORTED: &[(&str, &str)] = &[
    (".oft_blocks", "OFT"),
    (".oft_diag", "OFT"),
    (".oft_R.weight", "OFT"),
    (".boft_R", "BOFT"),
    (".boft_S", "BOFT"),
    (".on_input", "IA3"),
    (".a1.weight", "GLoRA"),
    (".a2.weight", "GLoRA"),
    (".b1.weight", "GLoRA"),
    (".b2.weight", "GLoRA"),
    (".lora_A.bias", "a bias in a LoRA's layers"),
    (".lora_B.bias", "a bias in a LoRA's layers"),
    (".lora_up.bias", "a bias in a LoRA's layers"),
    (".reshape_weight", "a reshaped weight"),
    (".set_weight", "a replaced weight"),
];

/// How keys begin, by component; the longest that fits counts.
const BEGINNINGS: &[(&str, &str)] = &[
    ("lora_unet_", "unet"),
    ("lycoris_", "unet"),
    ("unet_", "unet"),
    ("base_model_model_unet_", "unet"),
    ("base_model_model_", "unet"),
    ("diffusion_model_", "unet"),
    ("model_diffusion_model_", "unet"),
    ("", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("text_encoder_", "text_encoder"),
    ("text_encoders_clip_l_transformer_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("text_encoder_2_", "text_encoder_2"),
    ("text_encoders_clip_g_transformer_", "text_encoder_2"),
];

/// Ends of module paths that older versions of diffusers wrote otherwise: ours, theirs.
const OLDER: &[(&str, &str)] = &[
    ("_to_out_0", "_to_out"),
    ("_self_attn_q_proj", "_self_attn_to_q"),
    ("_self_attn_k_proj", "_self_attn_to_k"),
    ("_self_attn_v_proj", "_self_attn_to_v"),
    ("_self_attn_out_proj", "_self_attn_to_out"),
];

/// Takes a key apart: the module's path, with `_` for `.`, and what the tensor is. `None` for what is no LoRA's.
///
/// # Errors
/// [`Error::Unsupported`] for what is known and not implemented.
pub fn take_apart(key: &str) -> Result<Option<(String, Role)>> {
    if let Some((_, what)) = UNSUPPORTED.iter().find(|(ending, _)| key.ends_with(ending)) {
        return Err(Error::Unsupported(format!("tensor {key:?}: {what} is not implemented")));
    }
    let found = ENDINGS
        .iter()
        .find_map(|&(ending, role)| Some((key.strip_suffix(ending)?, role)));
    Ok(found.map(|(module, role)| (module.replace('.', "_").replace("_processor_", "_"), role)))
}

/// Whether names are those of a model's own weights.
pub fn looks_like_checkpoint<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let (weights, all) = names.fold((0, 0), |(weights, all), name| {
        let is_weight = name.ends_with(".weight") || name.ends_with(".bias");
        (weights + usize::from(is_weight), all + 1)
    });
    all > 0 && weights * 2 > all
}

/// How many there are, and the first of them.
pub fn shortened(keys: &[&str]) -> Option<String> {
    let first = &keys[..keys.len().min(3)];
    let others = if keys.len() > first.len() { ", …" } else { "" };
    (!keys.is_empty()).then(|| format!("{} ({}{others})", keys.len(), first.join(", ")))
}

/// The modules of a checkpoint's components, by all names that files have for them.
#[derive(Debug)]
pub struct Modules {
    components: Vec<Component>,
}

#[derive(Debug)]
struct Component {
    name: String,
    shapes: HashMap<String, Vec<usize>>,
    /// Ours by theirs.
    modules: HashMap<String, String>,
}

impl Modules {
    /// The modules that the parameters of these components, by name, are of.
    pub fn new<'a>(components: impl IntoIterator<Item = (&'a str, Vec<&'a ParamSpec>)>) -> Self {
        let component = |(name, params): (&str, Vec<&ParamSpec>)| {
            let parts = || params.iter().flat_map(|spec| &spec.parts);
            let shapes = parts().map(|ParamPart { name, shape }| (name.clone(), shape.clone()));
            let paths = parts().filter_map(|part| Some(part.name.rsplit_once('.')?.0));
            let paths: Vec<&str> = paths.collect();
            let blocks = Blocks::of(&paths);
            let mut modules = HashMap::new();
            for path in &paths {
                let plain = path.replace('.', "_");
                let plain = plain.strip_prefix("text_model_").unwrap_or(&plain);
                for (ours, theirs) in OLDER {
                    if let Some(start) = plain.strip_suffix(ours) {
                        modules.insert(format!("{start}{theirs}"), (*path).to_owned());
                    }
                }
                if let Some(original) = blocks.original(path).filter(|_| name == "unet") {
                    modules.insert(original.replace('.', "_"), (*path).to_owned());
                }
                modules.insert(plain.to_owned(), (*path).to_owned());
            }
            Component {
                name: name.to_owned(),
                shapes: shapes.collect(),
                modules,
            }
        };
        Self {
            components: components.into_iter().map(component).collect(),
        }
    }

    /// The component's number, and the parameter's name there, of the module that a file calls so.
    pub(super) fn find(&self, module: &str, role: Role) -> Option<(usize, &str)> {
        let begins = |(beginning, component): &&(&str, &'static str)| {
            let here = self.components.iter().any(|c| c.name == *component);
            here && module.starts_with(beginning)
        };
        let mut beginnings: Vec<_> = BEGINNINGS.iter().filter(begins).collect();
        beginnings.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        let kind = if role == Role::DiffBias { "bias" } else { "weight" };
        beginnings.into_iter().find_map(|(beginning, component)| {
            let rest = &module[beginning.len()..];
            let rest = rest.strip_prefix("text_model_").unwrap_or(rest);
            let index = self.components.iter().position(|c| c.name == *component)?;
            let path = self.components[index].modules.get(rest)?;
            let (name, _) = self.components[index].shapes.get_key_value(&format!("{path}.{kind}"))?;
            Some((index, name.as_str()))
        })
    }

    pub(super) fn component(&self, index: usize) -> &str {
        &self.components[index].name
    }

    pub(super) fn shape(&self, component: usize, parameter: &str) -> &[usize] {
        self.components[component]
            .shapes
            .get(parameter)
            .map_or(&[], Vec::as_slice)
    }
}

/// How many residual blocks a UNet's blocks have, and what else: what the original code numbers its modules by.
struct Blocks {
    down: Vec<Block>,
    up: Vec<Block>,
}

#[derive(Clone, Default)]
struct Block {
    resnets: usize,
    attention: bool,
    sampler: bool,
}

/// The leaves of a residual block: ours, theirs.
const RESNET: &[(&str, &str)] = &[
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// Modules outside of blocks.
const OUTSIDE: &[(&str, &str)] = &[
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
];

impl Blocks {
    fn of(paths: &[&str]) -> Self {
        let mut blocks = Self {
            down: Vec::new(),
            up: Vec::new(),
        };
        for path in paths {
            let mut parts = path.split('.');
            let list = match parts.next() {
                Some("down_blocks") => &mut blocks.down,
                Some("up_blocks") => &mut blocks.up,
                _ => continue,
            };
            let (Some(Ok(index)), kind, number) = (parts.next().map(str::parse::<usize>), parts.next(), parts.next())
            else {
                continue;
            };
            if list.len() <= index {
                list.resize(index + 1, Block::default());
            }
            let block = &mut list[index];
            match (kind, number.and_then(|n| n.parse::<usize>().ok())) {
                (Some("resnets"), Some(n)) => block.resnets = block.resnets.max(n + 1),
                (Some("attentions"), _) => block.attention = true,
                (Some("downsamplers" | "upsamplers"), _) => block.sampler = true,
                _ => {}
            }
        }
        blocks
    }

    /// What the original code calls a module of the UNet.
    fn original(&self, path: &str) -> Option<String> {
        if let Some((_, theirs)) = OUTSIDE.iter().find(|(ours, _)| *ours == path) {
            return Some((*theirs).into());
        }
        let mut parts = path.splitn(5, '.');
        let side = parts.next()?;
        if side == "mid_block" {
            let (kind, number, rest) = (parts.next()?, parts.next()?, path.splitn(4, '.').nth(3)?);
            return match (kind, number) {
                ("resnets", n) => Some(format!("middle_block.{}.{}", n.parse::<usize>().ok()? * 2, leaf(rest)?)),
                ("attentions", "0") => Some(format!("middle_block.1.{rest}")),
                _ => None,
            };
        }
        let (block, kind, number) = (parts.next()?, parts.next()?, parts.next()?);
        let (block, number): (usize, usize) = (block.parse().ok()?, number.parse().ok()?);
        let rest = parts.next()?;
        let (list, root, first) = match side {
            "down_blocks" => (&self.down, "input_blocks", 1),
            "up_blocks" => (&self.up, "output_blocks", 0),
            _ => return None,
        };
        let halving = |b: &Block| usize::from(side == "down_blocks" && b.sampler);
        let start = first + list.get(..block)?.iter().map(|b| b.resnets + halving(b)).sum::<usize>();
        let Block { resnets, attention, .. } = *list.get(block)?;
        match kind {
            "resnets" => Some(format!("{root}.{}.0.{}", start + number, leaf(rest)?)),
            "attentions" => Some(format!("{root}.{}.1.{rest}", start + number)),
            "downsamplers" => Some(format!("{root}.{}.0.op", start + resnets)),
            "upsamplers" => {
                let last = (start + resnets).checked_sub(1)?;
                Some(format!("{root}.{last}.{}.conv", 1 + usize::from(attention)))
            }
            _ => None,
        }
    }
}

fn leaf(ours: &str) -> Option<&'static str> {
    RESNET.iter().find(|(name, _)| *name == ours).map(|(_, theirs)| *theirs)
}

/// What a file's metadata says of how a parameter's change is scaled, where it has no `alpha` itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scaling {
    /// In place of the tensor.
    pub alpha: Option<f32>,
    /// Divided by the root of the rank.
    pub by_root: bool,
}

impl Scaling {
    /// Reads what diffusers writes of PEFT's configuration.
    pub(super) fn of(header: &Header, component: &str, parameter: &str) -> Result<Self> {
        let Some(text) = header.metadata("lora_adapter_metadata") else {
            return Ok(Self::default());
        };
        let json: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)
            .map_err(|e| Error::Corrupt(format!("metadata lora_adapter_metadata: expected an object: {e}")))?;
        let get = |key: &str| json.get(&format!("{component}.{key}")).filter(|v| !v.is_null());
        let module = parameter.rsplit_once('.').map_or(parameter, |(module, _)| module);
        let mut alpha = get("lora_alpha").and_then(serde_json::Value::as_f64);
        for (pattern, value) in get("alpha_pattern").and_then(|v| v.as_object()).into_iter().flatten() {
            if pattern.contains(['*', '+', '?', '(', '[', '|', '\\', '^', '$']) {
                return Err(Error::Unsupported(format!(
                    "metadata alpha_pattern: the pattern {pattern:?} is not implemented"
                )));
            }
            let ends = |rest: &str| rest.is_empty() || rest.ends_with('.');
            let matches = |module: &str| module.strip_suffix(pattern.as_str()).is_some_and(ends);
            if matches(module) || matches(&format!("text_model.{module}")) {
                alpha = value.as_f64();
            }
        }
        Ok(Self {
            alpha: alpha.map(|alpha| alpha as f32),
            by_root: get("use_rslora").is_some_and(|v| *v == true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Pack;

    fn modules(unet: &[&str], text: &[&str]) -> Modules {
        let specs = |names: &[&str]| -> Vec<ParamSpec> {
            let spec = |name: &&str| ParamSpec {
                parts: vec![ParamPart {
                    name: format!("{name}.weight"),
                    shape: vec![4, 4],
                }],
                pack: Pack::Matrix,
            };
            names.iter().map(spec).collect()
        };
        let (unet, text) = (specs(unet), specs(text));
        Modules::new([("text_encoder", text.iter().collect()), ("unet", unet.iter().collect())])
    }

    #[test]
    fn keys_find_their_parameter() {
        // SDXL's blocks: two residual blocks each, attention but in the first, a sampler but in the last.
        let mut unet = vec!["conv_in", "time_embedding.linear_1", "mid_block.resnets.1.conv2"];
        let mut more = Vec::new();
        for i in 0..3 {
            more.extend((0..2).map(|j| format!("down_blocks.{i}.resnets.{j}.conv1")));
            more.extend((0..3).map(|j| format!("up_blocks.{i}.resnets.{j}.conv_shortcut")));
            if i < 2 {
                more.push(format!("down_blocks.{i}.downsamplers.0.conv"));
                more.push(format!("up_blocks.{i}.upsamplers.0.conv"));
                more.extend((0..3).map(|j| format!("up_blocks.{i}.attentions.{j}.proj_in")));
            }
            if i > 0 {
                more.extend(
                    ["attn1.to_q", "attn2.to_out.0", "ff.net.0.proj"]
                        .map(|leaf| format!("down_blocks.{i}.attentions.1.transformer_blocks.0.{leaf}")),
                );
            }
        }
        unet.extend(more.iter().map(String::as_str));
        let text = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.0.mlp.fc1"];
        let modules = modules(&unet, &text);
        for (key, expected) in [
            (
                "lora_unet_down_blocks_1_attentions_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
                "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q.weight",
            ),
            (
                "lora_unet_input_blocks_5_1_transformer_blocks_0_attn2_to_out_0.alpha",
                "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0.weight",
            ),
            (
                "lora_unet_input_blocks_8_1_transformer_blocks_0_ff_net_0_proj.hada_w1_a",
                "down_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj.weight",
            ),
            (
                "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.processor.to_out_lora.up.weight",
                "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0.weight",
            ),
            (
                "base_model.model.down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q.lora_A.default.weight",
                "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q.weight",
            ),
            ("lora_unet_input_blocks_0_0.lora_up.weight", "conv_in.weight"),
            ("lora_unet_time_embed_0.diff", "time_embedding.linear_1.weight"),
            (
                "lora_unet_input_blocks_2_0_in_layers_2.lora_up.weight",
                "down_blocks.0.resnets.1.conv1.weight",
            ),
            (
                "lora_unet_input_blocks_3_0_op.lora_mid.weight",
                "down_blocks.0.downsamplers.0.conv.weight",
            ),
            (
                "lora_unet_input_blocks_7_0_in_layers_2.lokr_w1",
                "down_blocks.2.resnets.0.conv1.weight",
            ),
            (
                "lora_unet_middle_block_2_out_layers_3.lokr_w2_b",
                "mid_block.resnets.1.conv2.weight",
            ),
            (
                "lora_unet_output_blocks_5_2_conv.alpha",
                "up_blocks.1.upsamplers.0.conv.weight",
            ),
            (
                "lora_unet_output_blocks_4_1_proj_in.alpha",
                "up_blocks.1.attentions.1.proj_in.weight",
            ),
            (
                "lora_unet_output_blocks_8_0_skip_connection.alpha",
                "up_blocks.2.resnets.2.conv_shortcut.weight",
            ),
            (
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight",
                "encoder.layers.0.self_attn.q_proj.weight",
            ),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight",
                "encoder.layers.0.self_attn.q_proj.weight",
            ),
            (
                "text_encoder.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight",
                "encoder.layers.0.mlp.fc1.weight",
            ),
        ] {
            let (module, role) = take_apart(key).unwrap().unwrap();
            assert_eq!(
                modules.find(&module, role).map(|(_, name)| name),
                Some(expected),
                "{key}"
            );
        }
        for key in [
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
            "transformer.single_blocks.0.attn.to_q.lora_A.weight",
            "lora_unet_conv_in.diff_b",
        ] {
            let (module, role) = take_apart(key).unwrap().unwrap();
            assert_eq!(modules.find(&module, role), None, "{key}");
        }
        assert_eq!(take_apart("conv_in.weight"), Ok(None));
        assert_eq!(
            take_apart("lora_unet_conv_in.oft_blocks").unwrap_err().code(),
            "unsupported"
        );
    }
}
