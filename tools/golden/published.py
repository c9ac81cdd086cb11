"""Configs of published checkpoints, and which tensors diffusers and transformers make of them. No weights.

tests/golden/published.json: for each checkpoint the keys of its configs that matter, what it should draw with by default,
and for each component a digest over the sorted lines `name [shape]` of its state dict with the number of parameters.
The configs were written down from knowledge of the repositories, which could not be read here: keys without effect are left out, and
the numbers of parameters, where known, speak for the rest. SDXS's have no such check.
"""

import hashlib
import json

import torch
from common import GOLDEN
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

CROSS, DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, UP = "CrossAttnUpBlock2D", "UpBlock2D"

CLIP_L = dict(
    architectures=["CLIPTextModel"], vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
    num_attention_heads=12, hidden_act="quick_gelu", max_position_embeddings=77, projection_dim=768, bos_token_id=0,
    eos_token_id=2, pad_token_id=1,
)  # fmt: skip
# Penultimate by its number of layers.
CLIP_H = {**CLIP_L, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 512}
CLIP_G = {**CLIP_L, "architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}

SD1 = dict(
    sample_size=64, in_channels=4, out_channels=4, block_out_channels=[320, 640, 1280, 1280], layers_per_block=2,
    attention_head_dim=8, cross_attention_dim=768, down_block_types=[CROSS, CROSS, CROSS, DOWN],
    up_block_types=[UP, CROSS_UP, CROSS_UP, CROSS_UP], act_fn="silu", center_input_sample=False, downsample_padding=1,
    flip_sin_to_cos=True, freq_shift=0, mid_block_scale_factor=1, norm_eps=1e-05, norm_num_groups=32,
)  # fmt: skip
SD2 = {**SD1, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True, "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False, "upcast_attention": False}
BK_SMALL = {**SD1, "layers_per_block": 1, "mid_block_type": None}
BK_TINY = {**BK_SMALL, "block_out_channels": [320, 640, 1280], "down_block_types": [CROSS] * 3, "up_block_types": [CROSS_UP] * 3}
SDXS = {**BK_TINY, "down_block_types": [DOWN, CROSS, CROSS], "up_block_types": [CROSS_UP, CROSS_UP, UP], "mid_block_only_cross_attention": None}
SDXL = {
    **SD1, "sample_size": 128, "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048, "down_block_types": [DOWN, CROSS, CROSS], "up_block_types": [CROSS_UP, CROSS_UP, UP],
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "attention_type": "default", "mid_block_type": "UNetMidBlock2DCrossAttn", "time_cond_proj_dim": None, "upcast_attention": None,
}  # fmt: skip
# Cut down layer by layer, without attention in the middle.
SSD_1B = {**SDXL, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [2, 2], [4, 4]], "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1]}
VEGA = {**SSD_1B, "transformer_layers_per_block": [1, [1, 1], [2, 2]], "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1]}
KOALA = {**SDXL, "layers_per_block": 1}

KL = dict(
    _class_name="AutoencoderKL", in_channels=3, out_channels=3, latent_channels=4, block_out_channels=[128, 256, 512, 512],
    layers_per_block=2, norm_num_groups=32, act_fn="silu", sample_size=512, down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4,
)  # fmt: skip
KL_XL = {**KL, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True, "latents_mean": None, "latents_std": None}
TINY = dict(
    _class_name="AutoencoderTiny", in_channels=3, out_channels=3, latent_channels=4, encoder_block_out_channels=[64] * 4,
    decoder_block_out_channels=[64] * 4, num_encoder_blocks=[1, 3, 3, 3], num_decoder_blocks=[3, 3, 3, 1], act_fn="relu",
    latent_magnitude=3, latent_shift=0.5, upsampling_scaling_factor=2, scaling_factor=1.0, force_upcast=False, block_out_channels=[64] * 4,
)  # fmt: skip

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
PNDM = dict(_class_name="PNDMScheduler", skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False, **BETAS)
# With keys of the scheduler that it was made of.
DDIM_V = {**PNDM, "_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction"}
EULER = dict(_class_name="EulerDiscreteScheduler", timestep_spacing="leading", steps_offset=1, prediction_type="epsilon", use_karras_sigmas=False, **BETAS)
TRAILING = {**EULER, "timestep_spacing": "trailing"}
ANCESTRAL = {**TRAILING, "_class_name": "EulerAncestralDiscreteScheduler"}
ZERO_SNR = {**TRAILING, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
LCM = dict(_class_name="LCMScheduler", original_inference_steps=50, timestep_scaling=10.0, clip_sample=False, set_alpha_to_one=True, **BETAS)
DEIS = dict(_class_name="DEISMultistepScheduler", timestep_spacing="trailing", **BETAS)
ONE, TWO, ONLY_H = [CLIP_L], [CLIP_L, CLIP_G], [CLIP_H]

# name: text encoders, UNet, VAE, scheduler; family, steps, guidance scale, side of a picture; millions of the UNet's parameters
CHECKPOINTS = {
    "stable-diffusion-v1-5": (ONE, SD1, KL, PNDM, "SD 1.x", 20, 7.5, 512, 859.5),
    "stable-diffusion-inpainting": (ONE, {**SD1, "in_channels": 9}, KL, PNDM, "SD 1.x inpainting", 20, 7.5, 512, 859.5),
    "stable-diffusion-2-1-base": (ONLY_H, SD2, KL, {**PNDM, "prediction_type": "epsilon"}, "SD 2.x", 20, 7.5, 512, 865.9),
    "stable-diffusion-2-1": (ONLY_H, {**SD2, "sample_size": 96, "upcast_attention": True}, KL, DDIM_V, "SD 2.x", 20, 7.5, 768, 865.9),
    "stable-diffusion-2-inpainting": (ONLY_H, {**SD2, "in_channels": 9}, KL, PNDM, "SD 2.x inpainting", 20, 7.5, 512, 865.9),
    "sd-turbo": (ONLY_H, SD2, KL, TRAILING, "SD Turbo", 1, 0.0, 512, 865.9),
    "LCM_Dreamshaper_v7": (ONE, {**SD1, "sample_size": 96, "time_cond_proj_dim": 256}, KL, LCM, "LCM", 4, 8.5, 768, 859.6),
    "bk-sdm-base": (ONE, {**SD1, "layers_per_block": 1}, KL, PNDM, "BK-SDM", 20, 7.5, 512, 579.4),
    "bk-sdm-small": (ONE, BK_SMALL, KL, PNDM, "BK-SDM", 20, 7.5, 512, 482.3),
    "bk-sdm-tiny": (ONE, BK_TINY, KL, PNDM, "BK-SDM", 20, 7.5, 512, 323.4),
    "small-sd": (ONE, {**SD1, "layers_per_block": 1, "mid_block_only_cross_attention": None}, KL, PNDM, "BK-SDM", 20, 7.5, 512, 579.4),
    "tiny-sd": (ONE, {**BK_TINY, "mid_block_only_cross_attention": None}, KL, PNDM, "BK-SDM", 20, 7.5, 512, 323.4),
    "sdxs-512-0.9": (ONLY_H, {**SDXS, "attention_head_dim": [5, 10, 20], "cross_attention_dim": 1024, "use_linear_projection": True}, TINY, DEIS, "SDXS", 1, 0.0, 512, None),
    "sdxs-512-dreamshaper": (ONE, SDXS, TINY, DEIS, "SDXS", 1, 0.0, 512, None),
    "stable-diffusion-xl-base-1.0": (TWO, SDXL, KL_XL, EULER, "SDXL", 25, 5.0, 1024, 2567.5),
    "noobai-xl-vpred-1.0": (TWO, SDXL, KL_XL, ZERO_SNR, "SDXL", 25, 5.0, 1024, 2567.5),
    "stable-diffusion-xl-1.0-inpainting-0.1": (TWO, {**SDXL, "in_channels": 9}, KL_XL, EULER, "SDXL inpainting", 25, 7.5, 1024, 2567.5),
    "sdxl-turbo": (TWO, {**SDXL, "sample_size": 64}, KL_XL, ANCESTRAL, "SDXL Turbo", 1, 0.0, 512, 2567.5),
    "sdxl-lightning": (TWO, SDXL, KL_XL, TRAILING, "SDXL Lightning", 4, 0.0, 1024, 2567.5),
    "lcm-sdxl": (TWO, {**SDXL, "time_cond_proj_dim": 256}, KL_XL, LCM, "SDXL LCM", 4, 8.0, 1024, 2567.5),
    "ssd-1b": (TWO, SSD_1B, KL_XL, EULER, "SSD-1B", 25, 9.0, 1024, 1300),
    "segmind-vega": (TWO, VEGA, KL_XL, EULER, "Segmind Vega", 25, 9.0, 1024, 745),
    "koala-700m": (TWO, {**KOALA, "transformer_layers_per_block": [1, 2, 5], "mid_block_type": None}, KL_XL, EULER, "KOALA", 25, 3.5, 1024, 782),
    "koala-1b": (TWO, {**KOALA, "transformer_layers_per_block": [1, 2, 6]}, KL_XL, EULER, "KOALA", 25, 3.5, 1024, 1161),
}  # fmt: skip


def digest(module, prefixes=("",)):
    """The digest and the number of parameters of a state dict, under the names that the text model has by itself."""
    kept = {name: t for name, t in module.state_dict().items() if name.startswith(prefixes)}
    tensors = {name.removeprefix("text_model."): list(t.shape) for name, t in kept.items()}
    lines = "\n".join(f"{name} {shape}" for name, shape in sorted(tensors.items()))
    return {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "parameters": sum(torch.Size(s).numel() for s in tensors.values())}


def text(config):
    cls = CLIPTextModelWithProjection if "Projection" in config["architectures"][0] else CLIPTextModel
    return cls(CLIPTextConfig(**{key: value for key, value in config.items() if key != "architectures"}))


def vae(config):
    cls = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[config["_class_name"]]
    return cls.from_config(config)


def main():
    made, seen = [], {}

    def once(make, config, *options):
        key = json.dumps([config, options], sort_keys=True)
        if key not in seen:
            with torch.device("meta"):
                seen[key] = digest(make(config), *options)
        return seen[key]

    for name, (texts, unet, decoder, scheduler, family, steps, guidance, side, millions) in CHECKPOINTS.items():
        tensors = {
            "texts": [once(text, config) for config in texts],
            "unet": once(UNet2DConditionModel.from_config, unet),
            "decoder": once(vae, decoder, ("decoder.", "post_quant_conv.")),
            "encoder": once(vae, decoder, ("encoder.", "quant_conv.")),
        }
        count = tensors["unet"]["parameters"] / 1e6
        print(f"{name}: {count:.1f} million parameters of the UNet, known are {millions}")
        assert millions is None or abs(count - millions) / millions < 0.03, name
        defaults = {"family": family, "steps": steps, "guidance_scale": guidance, "side": side}
        made.append({"name": name, "texts": texts, "unet": unet, "vae": decoder, "scheduler": scheduler, **defaults, "tensors": tensors})
    lines = ",\n".join(json.dumps(entry) for entry in made)
    (GOLDEN / "published.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
