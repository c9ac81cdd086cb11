//! What a single file is, by the names and shapes of its tensors alone.

use crate::checkpoint::safetensors::Header;
use crate::checkpoint::vae::PREFIXES;

/// A kind of checkpoint that is read from a single file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One text encoder, OpenAI's CLIP.
    Sd1,
    /// One text encoder, OpenCLIP.
    Sd2,
    /// Both.
    Sdxl,
}

/// What is known of a single file before its tensors are looked at one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Its kind.
    pub family: Family,
    /// What its UNet predicts, if the file says so.
    pub prediction_type: Option<&'static str>,
    /// It was trained on betas that end without any signal.
    pub zero_snr: bool,
    /// It has an autoencoder.
    pub has_vae: bool,
}

/// What a name looks like.
enum Sign {
    /// It is this, or this is below `model.diffusion_model.`.
    Name(&'static str),
    /// It begins so, or what is below `model.diffusion_model.` does.
    Start(&'static str),
    /// This is somewhere in it.
    Part(&'static str),
}
use Sign::{Name, Part, Start};

const UNET: &str = "model.diffusion_model.";

/// What is known and not read as a checkpoint, from the special to the general. Names of one line are all there.
const OTHERS: &[(&[Sign], &str)] = &[
    (&[Part(".lora_down.")], "a LoRA"),
    (&[Part(".lora_up.")], "a LoRA"),
    (&[Part(".lora_A.")], "a LoRA"),
    (&[Part(".lora.down.")], "a LoRA"),
    (&[Part("_lora.down.")], "a LoRA"),
    (&[Part(".hada_w1_a")], "a LoRA (LoHa)"),
    (&[Part(".lokr_w1")], "a LoRA (LoKr)"),
    (&[Start("control_model.")], "a ControlNet"),
    (&[Start("controlnet_cond_embedding.")], "a ControlNet"),
    (&[Start("input_hint_block.")], "a ControlNet"),
    (&[Start("controlnet_blocks.")], "a ControlNet"),
    (&[Part("motion_modules.")], "an AnimateDiff motion module"),
    (&[Start("ip_adapter.")], "an IP-Adapter"),
    (&[Start("image_proj.")], "an IP-Adapter"),
    (&[Name("emb_params")], "a textual inversion"),
    (&[Start("string_to_param")], "a textual inversion"),
    (&[Name("clip_l"), Name("clip_g")], "a textual inversion of SDXL"),
    // Whole checkpoints and diffusion models of other families.
    (&[Start("joint_blocks.")], "Stable Diffusion 3"),
    (&[Start("distilled_guidance_layer.")], "Chroma"),
    (&[Start("single_stream_modulation.")], "FLUX.2"),
    (&[Start("early_stream_modulations.")], "FLUX.3"),
    (&[Start("txt_in.individual_token_refiner.")], "HunyuanVideo"),
    (&[Start("double_blocks.0.img_attn.")], "FLUX.1"),
    (&[Start("double_layers.0.attn.")], "AuraFlow"),
    (&[Start("double_stream_blocks.")], "HiDream"),
    (&[Start("cap_embedder.")], "Lumina 2"),
    (&[Start("patchify_proj.")], "LTX-Video"),
    (&[Start("blocks.0.attn.qkv_x.")], "Mochi"),
    (&[Start("blocks.0.cross_attn.q_linear.")], "Sana or PixArt"),
    (&[Start("blocks.0.cross_attn.kv_linear.")], "Sana or PixArt"),
    (&[Name("head.modulation")], "Wan"),
    (&[Start("net.blocks.")], "Cosmos"),
    (&[Start("transformer_blocks.0.img_mod.")], "Qwen-Image"),
    (&[Start("txt_in.text_norm.")], "Qwen-Image"),
    (&[Name("clip_txt_mapper.weight")], "Stable Cascade"),
    (&[Name("down_blocks.1.0.channelwise.0.weight")], "Stable Cascade"),
    (&[Start("temporal_")], "a video model"),
    (&[Part(".time_stack.")], "Stable Video Diffusion"),
    (&[Name("edm_mean")], "Playground 2.5"),
    (&[Start("cond_stage_model.roberta.")], "AltDiffusion"),
    (&[Start("conditioner.embedders.0.model.")], "the SDXL refiner"),
    (&[Start("conditioner.embedders.0.open_clip.")], "Stable Video Diffusion"),
];

/// Weights in forms that are numbers only together with others.
const QUANTISED: &[(Sign, &str)] = &[
    (Part("scaled_fp8"), "scaled 8-bit floats"),
    (Part(".scale_weight"), "scaled 8-bit floats"),
    (Part(".weight_scale"), "scaled 8-bit floats"),
    (Part(".comfy_quant"), "quantised weights"),
    (Part(".absmax"), "weights quantised by bitsandbytes"),
    (Part(".quant_map"), "weights quantised by bitsandbytes"),
    (Part(".qweight"), "weights quantised by GPTQ or AWQ"),
];

/// Parts of a checkpoint that are a file by themselves.
const PARTS: &[(&[Sign], &str)] = &[
    (
        &[Start("input_blocks.0.0."), Start("output_blocks.0.0.")],
        "a UNet alone",
    ),
    (
        &[Start("conv_in."), Start("time_embedding."), Start("up_blocks.0.")],
        "a UNet alone, in diffusers' names",
    ),
    (
        &[Start("decoder.conv_in."), Start("decoder.mid")],
        "an autoencoder alone",
    ),
    (&[Start("decoder.layers.0.")], "a tiny autoencoder (TAESD) alone"),
    (&[Start("taesd_")], "a tiny autoencoder (TAESD) alone"),
    (
        &[Name("1.weight"), Name("3.conv.0.weight")],
        "a tiny autoencoder (TAESD) alone",
    ),
    (
        &[Name("0.weight"), Name("1.conv.0.weight")],
        "a tiny autoencoder (TAESD) alone",
    ),
    (&[Start("encoder.block.0.layer.0.")], "a T5 text encoder alone"),
    (&[Start("vision_model.")], "a CLIP image encoder"),
    (&[Start("text_model.encoder.layers.0.")], "a text encoder alone"),
    (&[Start("encoder.layers.0.self_attn.")], "a text encoder alone"),
    (&[Start("transformer.resblocks.0.")], "a text encoder alone"),
    (&[Start("visual.")], "a CLIP image encoder"),
];

const WITHOUT_UNET: &str = "parts of a checkpoint without a UNet";

/// What else than a checkpoint is of use: a person who brings one is told what for.
const KINDS: &[(&str, &str)] = &[
    ("a LoRA", "lora"),
    ("a LoRA (LoHa)", "lora"),
    ("a LoRA (LoKr)", "lora"),
    ("an autoencoder alone", "vae"),
    ("a tiny autoencoder (TAESD) alone", "vae"),
];

/// Widths of text that attention reads, each of one family.
const TEXT_WIDTHS: &[(usize, &str)] = &[(768, "SD 1.x"), (1024, "SD 2.x"), (2048, "SDXL")];

impl Sign {
    fn fits(&self, name: &str) -> bool {
        let below = name.strip_prefix(UNET).unwrap_or(name);
        match self {
            Name(known) => name == *known || below == *known,
            Start(start) => name.starts_with(start) || below.starts_with(start),
            Part(part) => name.contains(part),
        }
    }
}

/// Says what a file is: a checkpoint that is read, or in words what else.
pub fn recognise(header: &Header) -> Result<Recognised, String> {
    let names = || header.tensors().iter().map(|tensor| tensor.name.as_str());
    let all = |signs: &[Sign]| signs.iter().all(|sign| names().any(|name| sign.fits(name)));
    let find = |table: &'static [(&[Sign], &'static str)]| table.iter().find(|(signs, _)| all(signs));
    if let Some((_, what)) = find(OTHERS) {
        return Err((*what).into());
    }
    if let Some((_, what)) = QUANTISED.iter().find(|(sign, _)| names().any(|name| sign.fits(name))) {
        return Err((*what).into());
    }
    let below = |prefix: &str| names().any(|name| name.starts_with(prefix));
    if !below("model.diffusion_model.input_blocks.") {
        let part = find(PARTS).map(|(_, what)| *what);
        let mut lone = PREFIXES.into_iter().chain(["cond_stage_model.", "conditioner."]);
        return Err(match part {
            Some(what) => what.into(),
            None if lone.any(below) => WITHOUT_UNET.into(),
            None => "a file of unknown tensors".into(),
        });
    }
    let family = if below("conditioner.embedders.1.model.") {
        Family::Sdxl
    } else if below("cond_stage_model.model.") {
        Family::Sd2
    } else if below("cond_stage_model.transformer.") {
        Family::Sd1
    } else {
        return Err("a UNet without a text encoder".into());
    };
    // What a UNet reads besides latents.
    let conv_in = header.get("model.diffusion_model.input_blocks.0.0.weight");
    match conv_in.and_then(|tensor| tensor.shape.get(1)) {
        Some(5) => return Err("a checkpoint that reads a depth map".into()),
        Some(7) => return Err("an upscaler".into()),
        Some(8) => return Err("InstructPix2Pix".into()),
        _ => {}
    }
    let inpaints = conv_in.is_some_and(|tensor| tensor.shape.get(1) == Some(&9));
    let (prediction_type, zero_snr) = prediction(header, family);
    // All of SD 2.x that inpaint are of 512 pixels.
    let prediction_type = prediction_type.or((family == Family::Sd2 && inpaints).then_some("epsilon"));
    Ok(Recognised {
        family,
        prediction_type,
        zero_snr,
        has_vae: PREFIXES.into_iter().any(below),
    })
}

/// `checkpoint`, `lora` or `vae`, if it is one of them.
pub fn kind(header: &Header) -> Option<&'static str> {
    match recognise(header) {
        Ok(_) => Some("checkpoint"),
        Err(what) if what == WITHOUT_UNET => has_decoder(header).then_some("vae"),
        Err(what) => KINDS.iter().find(|(known, _)| *known == what).map(|(_, kind)| *kind),
    }
}

/// Whether what a checkpoint's file has of an autoencoder makes pictures.
fn has_decoder(header: &Header) -> bool {
    let below = |name: &str| {
        PREFIXES
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .is_some_and(|name| name.starts_with("decoder."))
    };
    header.tensors().iter().any(|tensor| below(&tensor.name))
}

/// The family that a LoRA is for, where it changes what reads the text.
pub fn lora_family(header: &Header) -> Option<&'static str> {
    let is_input = |name: &str| {
        ["lora_down", "lora_A", "lora.down", "hada_w1_b"]
            .iter()
            .any(|part| name.contains(part))
    };
    let mut keys = header.tensors().iter();
    let key = keys.find(|t| t.name.contains("attn2") && t.name.contains("to_k") && is_input(&t.name))?;
    let width = key.shape.get(1)?;
    let known = TEXT_WIDTHS.iter().find(|(known, _)| known == width);
    known.map(|(_, family)| *family)
}

/// What a UNet predicts is nowhere in its tensors. Some files have marks, others remarks.
fn prediction(header: &Header, family: Family) -> (Option<&'static str>, bool) {
    let marked = |mark: &str| header.get(mark).is_some();
    let remark = |key: &str| header.metadata(key).unwrap_or_default().to_lowercase();
    let (said, architecture) = (remark("modelspec.prediction_type"), remark("modelspec.architecture"));
    let by_remark = match (said.as_str(), architecture.as_str()) {
        ("v" | "v_prediction" | "v-prediction" | "v_pred", _) => Some("v_prediction"),
        ("epsilon" | "eps", _) => Some("epsilon"),
        (_, a) if family == Family::Sd2 && a.contains("768-v") => Some("v_prediction"),
        (_, a) if family == Family::Sd2 && a.contains("v2-512") => Some("epsilon"),
        _ => None,
    };
    let by_mark = marked("v_pred").then_some("v_prediction");
    (by_mark.or(by_remark), marked("ztsnr"))
}
