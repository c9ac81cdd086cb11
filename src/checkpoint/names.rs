//! What weights were called in files of older versions, and what diffusers and transformers call them now.

use std::borrow::Cow;

/// `(class, old, new)`: in weights of a component of this class, the part `old` of a name (parts lie between dots) is
/// now `new`; nothing, if that is empty.
const RENAMED: [(&str, &str, &str); 6] = [
    // transformers before 5 nested the text model in a module of its own, and with a projection it does so still.
    ("CLIPTextModel", "text_model", ""),
    ("CLIPTextModelWithProjection", "text_model", ""),
    // diffusers before 0.17 had its own attention block in the VAE.
    ("AutoencoderKL", "query", "to_q"),
    ("AutoencoderKL", "key", "to_k"),
    ("AutoencoderKL", "value", "to_v"),
    ("AutoencoderKL", "proj_attn", "to_out.0"),
];

/// The name that a weight of a component of `class` has now.
pub fn canonical<'a>(class: &str, name: &'a str) -> Cow<'a, str> {
    let renamed = |part: &str| {
        RENAMED
            .iter()
            .find(|(of, old, _)| *of == class && *old == part)
            .map(|(_, _, new)| *new)
    };
    if name.split('.').all(|part| renamed(part).is_none()) {
        return Cow::Borrowed(name);
    }
    let parts: Vec<_> = name
        .split('.')
        .map(|part| renamed(part).unwrap_or(part))
        .filter(|part| !part.is_empty())
        .collect();
    Cow::Owned(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn old_names_become_new_ones() {
        for (class, old, new) in [
            (
                "CLIPTextModel",
                "text_model.encoder.layers.0.layer_norm1.bias",
                "encoder.layers.0.layer_norm1.bias",
            ),
            (
                "CLIPTextModel",
                "encoder.layers.0.layer_norm1.bias",
                "encoder.layers.0.layer_norm1.bias",
            ),
            (
                "AutoencoderKL",
                "decoder.mid_block.attentions.0.query.weight",
                "decoder.mid_block.attentions.0.to_q.weight",
            ),
            (
                "AutoencoderKL",
                "encoder.mid_block.attentions.0.proj_attn.bias",
                "encoder.mid_block.attentions.0.to_out.0.bias",
            ),
            (
                "CLIPTextModelWithProjection",
                "text_projection.weight",
                "text_projection.weight",
            ),
            ("UNet2DConditionModel", "text_model.query", "text_model.query"),
        ] {
            assert_eq!(canonical(class, old), new);
        }
    }
}
