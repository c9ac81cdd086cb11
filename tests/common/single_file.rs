//! A folder's tensors under the names that single files have for them, in one file.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{Golden, Tensor};

/// Which text encoders a family has, with their prefixes, and whether they are OpenCLIP's.
pub const SD1: &[(&str, &str, bool)] = &[("text_encoder", "cond_stage_model.transformer.", false)];
pub const SD2: &[(&str, &str, bool)] = &[("text_encoder", "cond_stage_model.model.", true)];
pub const SDXL: &[(&str, &str, bool)] = &[
    ("text_encoder", "conditioner.embedders.0.transformer.", false),
    ("text_encoder_2", "conditioner.embedders.1.model.", true),
];

/// The file that a golden pipeline would be. `change` may make others of the tensors.
pub fn single_file(case: &str, encoders: &[(&str, &str, bool)], change: impl Fn(&str, Tensor) -> Tensor) -> Vec<u8> {
    let mut all: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, prefix, open_clip) in encoders {
        let tensors = tensors(case, name, "model");
        let tensors = if *open_clip {
            open_clip_names(tensors)
        } else {
            clip_names(tensors)
        };
        all.extend(tensors.into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)));
    }
    let unet = unet_names(tensors(case, "unet", "diffusion_pytorch_model"));
    all.extend(
        unet.into_iter()
            .map(|(name, t)| (format!("model.diffusion_model.{name}"), t)),
    );
    let vae = vae_names(tensors(case, "vae", "diffusion_pytorch_model"));
    all.extend(
        vae.into_iter()
            .map(|(name, t)| (format!("first_stage_model.{name}"), t)),
    );
    let all: Vec<_> = all
        .into_iter()
        .map(|(name, t)| {
            let t = change(&name, t);
            (name, t)
        })
        .collect();
    let views = all
        .iter()
        .map(|(name, t)| (name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn tensors(case: &str, component: &str, stem: &str) -> BTreeMap<String, Tensor> {
    Golden::read(&format!("pipelines/{case}/{component}/{stem}.safetensors")).tensors
}

fn plain(name: &str) -> &str {
    name.strip_prefix("text_model.").unwrap_or(name)
}

fn clip_names(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors
        .into_iter()
        .map(|(name, t)| (format!("text_model.{}", plain(&name)), t))
        .collect()
}

/// Queries, keys and values are joined, and the projection lies the other way round.
fn open_clip_names(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut out: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut joined: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let name = plain(&name).to_owned();
        if name.ends_with("position_ids") {
            continue;
        }
        if let Some((layer, rest)) = name
            .strip_prefix("encoder.layers.")
            .and_then(|name| name.split_once('.'))
        {
            let block = format!("transformer.resblocks.{layer}");
            let (module, kind) = rest.rsplit_once('.').unwrap();
            if let Some(part) = ["q", "k", "v"]
                .iter()
                .position(|p| module == format!("self_attn.{p}_proj"))
            {
                joined
                    .entry(format!("{block}.attn.in_proj_{kind}"))
                    .or_default()
                    .insert(part, tensor);
                continue;
            }
            let module = match module {
                "layer_norm1" => "ln_1",
                "layer_norm2" => "ln_2",
                "mlp.fc1" => "mlp.c_fc",
                "mlp.fc2" => "mlp.c_proj",
                "self_attn.out_proj" => "attn.out_proj",
                other => panic!("{other}"),
            };
            out.insert(format!("{block}.{module}.{kind}"), tensor);
            continue;
        }
        let (name, tensor) = match name.as_str() {
            "embeddings.position_embedding.weight" => ("positional_embedding".into(), tensor),
            "text_projection.weight" => ("text_projection".into(), transposed(&tensor)),
            name => (
                name.replace("embeddings.", "").replace("final_layer_norm", "ln_final"),
                tensor,
            ),
        };
        out.insert(name, tensor);
    }
    for (name, parts) in joined {
        assert_eq!(parts.len(), 3);
        let parts: Vec<Tensor> = parts.into_values().collect();
        let mut shape = parts[0].shape.clone();
        shape[0] *= 3;
        let bytes = parts.iter().flat_map(|t| t.bytes.clone()).collect();
        out.insert(
            name,
            Tensor {
                dtype: parts[0].dtype,
                shape,
                bytes,
            },
        );
    }
    out.insert(
        "logit_scale".into(),
        Tensor {
            dtype: Dtype::F32,
            shape: vec![],
            bytes: vec![0; 4],
        },
    );
    out
}

fn transposed(t: &Tensor) -> Tensor {
    let ([rows, columns], size) = ([t.shape[0], t.shape[1]], t.dtype.bitsize() / 8);
    let element = |i: usize| t.bytes[i * size..][..size].to_vec();
    let bytes = (0..columns)
        .flat_map(|c| (0..rows).flat_map(move |r| element(r * columns + c)))
        .collect();
    Tensor {
        dtype: t.dtype,
        shape: vec![columns, rows],
        bytes,
    }
}

/// By the formula: a level has its layers and what halves the size, or doubles it.
fn unet_names(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let layers = |side: &str| {
        (0..)
            .take_while(|j| tensors.contains_key(&format!("{side}_blocks.0.resnets.{j}.conv1.weight")))
            .count()
    };
    let (down, up) = (layers("down"), layers("up"));
    let attends = |level: &str| {
        tensors
            .keys()
            .any(|name| name.starts_with(&format!("up_blocks.{level}.attentions.")))
    };
    let rename = |name: &str| -> String {
        let parts: Vec<&str> = name.split('.').collect();
        let block = |side: &str, parts: &[&str]| -> String {
            let (level, n): (usize, usize) = (parts[0].parse().unwrap(), parts[2].parse().unwrap());
            let rest = parts[3..].join(".");
            match (side, parts[1]) {
                ("input", "resnets") => format!("input_blocks.{}.0.{}", 1 + level * (down + 1) + n, resnet(&rest)),
                ("input", "attentions") => format!("input_blocks.{}.1.{rest}", 1 + level * (down + 1) + n),
                ("input", _) => format!(
                    "input_blocks.{}.0.{}",
                    (level + 1) * (down + 1),
                    rest.replace("conv", "op")
                ),
                (_, "resnets") => format!("output_blocks.{}.0.{}", level * up + n, resnet(&rest)),
                (_, "attentions") => format!("output_blocks.{}.1.{rest}", level * up + n),
                _ => format!(
                    "output_blocks.{}.{}.{rest}",
                    level * up + up - 1,
                    1 + usize::from(attends(parts[0]))
                ),
            }
        };
        match parts[0] {
            "down_blocks" => block("input", &parts[1..]),
            "up_blocks" => block("output", &parts[1..]),
            "mid_block" if parts[1] == "attentions" => format!("middle_block.1.{}", parts[3..].join(".")),
            "mid_block" => {
                let n = 2 * parts[2].parse::<usize>().unwrap();
                format!("middle_block.{n}.{}", resnet(&parts[3..].join(".")))
            }
            _ => name
                .replace("time_embedding.linear_1", "time_embed.0")
                .replace("time_embedding.linear_2", "time_embed.2")
                .replace("time_embedding.cond_proj", "time_embed.cond_proj")
                .replace("add_embedding.linear_1", "label_emb.0.0")
                .replace("add_embedding.linear_2", "label_emb.0.2")
                .replace("conv_norm_out", "out.0")
                .replace("conv_out", "out.2")
                .replace("conv_in", "input_blocks.0.0"),
        }
    };
    let names: Vec<String> = tensors.keys().map(|name| rename(name)).collect();
    names.into_iter().zip(tensors.into_values()).collect()
}

fn resnet(name: &str) -> String {
    name.replace("norm1", "in_layers.0")
        .replace("conv1", "in_layers.2")
        .replace("time_emb_proj", "emb_layers.1")
        .replace("norm2", "out_layers.0")
        .replace("conv2", "out_layers.3")
        .replace("conv_shortcut", "skip_connection")
}

fn vae_names(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let levels = (0..)
        .take_while(|i| tensors.contains_key(&format!("decoder.up_blocks.{i}.resnets.0.conv1.weight")))
        .count();
    let rename = |(name, mut tensor): (String, Tensor)| {
        let mut name = name.clone();
        for i in 0..levels {
            name = name.replace(
                &format!("decoder.up_blocks.{i}."),
                &format!("decoder.up.{}.", levels - 1 - i),
            );
        }
        for (from, to) in [
            ("down_blocks.", "down."),
            (".resnets.", ".block."),
            (".downsamplers.0", ".downsample"),
            (".upsamplers.0", ".upsample"),
            ("mid_block.block.0", "mid.block_1"),
            ("mid_block.block.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
            ("group_norm", "norm"),
            ("attn_1.to_q", "attn_1.q"),
            ("attn_1.to_k", "attn_1.k"),
            ("attn_1.to_v", "attn_1.v"),
            ("attn_1.to_out.0", "attn_1.proj_out"),
        ] {
            name = name.replace(from, to);
        }
        // Its attention was made of convolutions of 1 x 1.
        if name.contains("attn_1") && tensor.shape.len() == 2 {
            tensor.shape.extend([1, 1]);
        }
        (name, tensor)
    };
    tensors.into_iter().map(rename).collect()
}
