"""Tiny checkpoints whose autoencoders encode, and the pictures that diffusers draws with them over images.

tests/golden/pipelines/<checkpoint>/ as `pipelines.py` makes them, without a picture of their own; tests/golden/images/<case>.safetensors:
`image` u8 [height, width, 3] and `mask` u8 [height, width], where there is one; `picture` u8 [height, width, 3]; `latents` f32 [steps,
height, width, channels] after each step. Its metadata entry "case" says what was asked.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import GOLDEN, fresh, generator, nhwc, write
from diffusers import (
    AutoencoderTiny,
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from pipelines import (
    BETAS,
    FULL,
    HALF,
    HERE,
    fit_last_layer,
    small_text_encoder,
    small_tokenizer,
    spread_picture,
    unet,
    vae_kl,
    vae_tiny,
)
from transformers import CLIPTextModelWithProjection

IMAGES = GOLDEN / "images"
MERGES = 200
DOWN, UP, CROSS_DOWN, CROSS_UP = "DownBlock2D", "UpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def test_image(name, width, height):
    """Smooth colours with an edge in them."""
    pixels = F.interpolate(torch.randn(1, 3, 3, 4, generator=generator(f"{name} image")), (height, width), mode="bicubic")[0]
    pixels = (pixels * 70 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy().copy()
    pixels[height // 4 : height // 2, width // 3 :] = [230, 40, 90]
    return pixels


def test_mask(width, height):
    """A part that no latent's border bounds, with greys on both sides of the one that counts."""
    mask = np.zeros((height, width), np.uint8)
    mask[5 : height - 11, 9 : width - 6] = 255
    mask[5:, 9:17] = 127
    mask[height - 14 :, : width // 2] = 128
    return mask


def spread_latents(vae, image):
    """Sets the last layer of the encoder so that latents are as a sampler expects them: their means vary by one, once scaled, and
    what is drawn about these is a third of it."""
    if isinstance(vae, AutoencoderTiny):
        conv = vae.encoder.layers[-1]
    else:
        conv = vae.quant_conv if vae.quant_conv is not None else vae.encoder.conv_out
    seen = []
    handle = conv.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    vae.encode(image)
    handle.remove()
    std, mean = torch.std_mean(seen[0], (0, 2, 3))
    one = 1 / vae.config.scaling_factor
    scale, middle = one / std, torch.zeros_like(mean)
    if getattr(vae.config, "latents_mean", None):
        scale[:4] = torch.tensor(vae.config.latents_std) * one / std[:4]
        middle[:4] = torch.tensor(vae.config.latents_mean)
    # The logarithms of the variances.
    scale[4:], middle[4:] = 0.3 / std[4:], 2 * (0.3 * scale[:4] * std[:4]).mean().log()
    conv.weight.copy_((conv.weight * scale.reshape(-1, 1, 1, 1)).half())
    conv.bias.copy_(((conv.bias - mean) * scale + middle).half())


def floats(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def checkpoint(name, parts, files, cls):
    """Builds a checkpoint and writes it; gives the pipeline that reads it in f32."""
    settings = {} if hasattr(cls, "upcast_vae") else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = cls(**parts, **settings)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.set_timesteps(5)
    image = floats(test_image(name, 64, 64))
    spread_latents(pipe.vae, image)
    size = [64 // pipe.vae_scale_factor] * 2
    fit_last_layer(pipe, name, pipe.scheduler.timesteps.clone(), size, 3.0)
    masked = pipe.unet.config.in_channels > 4
    over = (AutoPipelineForInpainting if masked else AutoPipelineForImage2Image).from_pipe(pipe)
    over.set_progress_bar_config(disable=True)
    asked = dict(prompt="fox", negative_prompt="", steps=5, guidance_scale=2.5, strength=0.8, seed=1)
    latents, _ = draw(over, asked, test_image(name, 64, 64), test_mask(64, 64) if masked else None)
    spread_picture(pipe, latents[-1:].permute(0, 3, 1, 2))
    folder = HERE / name
    kept = {file: file.read_bytes() for file in folder.glob("tokenizer*/*")}
    for part, dtype in files.items():
        getattr(pipe, part).to(dtype)
    pipe.save_pretrained(folder)
    for place in {file.parent for file in kept}:
        fresh(place)
    for file, content in kept.items():
        file.write_bytes(content)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) // 1024
    print(f"{name}: {size} KiB")
    return cls.from_pretrained(folder, dtype=FULL, local_files_only=True)


def draw(pipe, asked, image, mask):
    """The latents after each step, and the picture."""
    steps, given = [], dict(image=Image.fromarray(image))
    if mask is not None:
        given |= dict(mask_image=Image.fromarray(mask), width=image.shape[1], height=image.shape[0])

    def keep(_pipe, _step, _time, given):
        steps.append(nhwc(given["latents"])[0].clone())
        return {}

    picture = pipe(
        asked["prompt"], negative_prompt=asked["negative_prompt"] or None, num_inference_steps=asked["steps"],
        guidance_scale=asked["guidance_scale"], strength=asked["strength"], callback_on_step_end=keep,
        generator=torch.Generator("cpu").manual_seed(asked["seed"]), **given,
    ).images[0]  # fmt: skip
    return torch.stack(steps), np.array(picture)


def case(name, whole, masked, sampler=None, width=64, height=64, negative_prompt="", **asked):
    """A picture drawn over an image, and whether it hears all that it should."""
    asked = dict(
        checkpoint=Path(whole.name_or_path).name, width=width, height=height, negative_prompt=negative_prompt,
        sampler=sampler and {PNDMScheduler: "PLMS"}.get(sampler, sampler.__name__), **asked,
    )  # fmt: skip
    kind = AutoPipelineForInpainting if masked else AutoPipelineForImage2Image
    pipe = kind.from_pipe(whole)
    own = pipe.scheduler
    plms = dict(skip_prk_steps=True) if sampler is PNDMScheduler else {}
    pipe.scheduler = (sampler or type(own)).from_config(own.config, **plms)
    pipe.set_progress_bar_config(disable=True)
    image, mask = test_image(name, width, height), test_mask(width, height) if masked else None
    latents, picture = draw(pipe, asked, image, mask)
    tensors = {"image": image, "picture": picture, "latents": latents}
    if masked:
        tensors["mask"] = mask
    write(IMAGES / f"{name}.safetensors", tensors, ("case", asked))
    check(name, pipe, asked, image, mask, picture, len(latents))


def check(name, pipe, asked, image, mask, picture, steps):
    clipped = ((picture == 0) | (picture == 255)).mean()
    spread = picture.astype(float).std((0, 1)).min()
    others = {
        "prompt": ({**asked, "prompt": "octopus on yellow"}, image, mask),
        "seed": ({**asked, "seed": asked["seed"] + 1}, image, mask),
        "strength": ({**asked, "strength": asked["strength"] - 0.26}, image, mask),
        "image": (asked, np.ascontiguousarray(255 - image), mask),
    }
    if mask is not None:
        others["mask"] = (asked, image, np.ascontiguousarray(mask[::-1]))
    far = {}
    for what, (asked, image, mask) in others.items():
        far[what] = float(np.abs(draw(pipe, asked, image, mask)[1].astype(float) - picture).mean())
    heard = ", ".join(f"{what} {value:.1f}" for what, value in far.items())
    print(f"{name}: {steps} steps, std {spread:.0f}, clipped {clipped:.1%}; mean difference under another {heard}")
    assert spread > 25 and clipped < 0.1 and min(far.values()) > 0.8, name


def sd(name, vae, scheduler, in_channels=4, cls=StableDiffusionPipeline):
    parts = dict(
        tokenizer=small_tokenizer(HERE / name / "tokenizer", MERGES, 12),
        text_encoder=small_text_encoder(
            name, MERGES, 12, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, hidden_act="quick_gelu",
        ),
        unet=unet(
            name, in_channels, sample_size=16, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1,
            cross_attention_dim=12, attention_head_dim=[1, 8] if in_channels > 4 else 2, down_block_types=(CROSS_DOWN, DOWN),
            up_block_types=(UP, CROSS_UP),
        ),
        vae=vae, scheduler=scheduler,
    )  # fmt: skip
    return checkpoint(name, parts, dict(text_encoder=HALF, unet=HALF, vae=FULL), cls)


def xl(name, scheduler, in_channels=4, cls=StableDiffusionXLPipeline, **vae):
    shape = dict(hidden_size=10, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2)
    second = dict(hidden_act="gelu", projection_dim=12, eos_token_id=2, pad_token_id=0)
    parts = dict(
        tokenizer=small_tokenizer(HERE / name / "tokenizer", MERGES, 10),
        tokenizer_2=small_tokenizer(HERE / name / "tokenizer_2", MERGES, 10, pad="!"),
        text_encoder=small_text_encoder(name, MERGES, 10, hidden_act="quick_gelu", **shape),
        text_encoder_2=small_text_encoder(
            name, MERGES, 10, cls=CLIPTextModelWithProjection, part="text_encoder_2", **second, **shape
        ),
        unet=unet(
            name, in_channels, sample_size=16, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1,
            cross_attention_dim=20, attention_head_dim=[1, 2], transformer_layers_per_block=[1, 2], use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=6, projection_class_embeddings_input_dim=36 + 12,
            down_block_types=(DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, UP),
        ),
        vae=vae_kl(name, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, sample_size=32, **vae),
        scheduler=scheduler,
    )  # fmt: skip
    return checkpoint(name, parts, dict(text_encoder=HALF, text_encoder_2=HALF, unet=HALF, vae=FULL), cls)


def kl(name, **config):
    return vae_kl(
        name, block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.18215, sample_size=64, **config
    )  # fmt: skip


def main():
    fresh(IMAGES)
    name = "sd1-image"
    pipe = sd(name, kl(name), DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1))
    asked = dict(prompt="a red apple on white", steps=5, guidance_scale=3.0, seed=41)
    case("image-ddim", pipe, False, **asked, strength=0.6)
    case("image-euler-a", pipe, False, EulerAncestralDiscreteScheduler, **asked, strength=0.8, width=48)
    case("image-heun", pipe, False, HeunDiscreteScheduler, **asked, strength=0.65)
    case("image-pndm", pipe, False, PNDMScheduler, **asked, strength=0.8)
    case("image-dpm", pipe, False, DPMSolverMultistepScheduler, **{**asked, "guidance_scale": 1.0}, strength=1.0)
    case("paint-ddim", pipe, True, **asked, strength=0.8, negative_prompt="fox")
    case("paint-max", pipe, True, EulerDiscreteScheduler, **asked, strength=1.0, width=48)
    case("paint-ddpm", pipe, True, DDPMScheduler, **asked, strength=0.8)
    case("paint-heun", pipe, True, HeunDiscreteScheduler, **asked, strength=0.7)

    # The tiny autoencoder draws nothing at random.
    name = "sd1-tiny-image"
    pipe = sd(name, vae_tiny(name, 8, (1, 1, 1), (1, 1, 1), scaling_factor=1.25), EulerDiscreteScheduler(**BETAS, steps_offset=1))
    asked = dict(prompt="fox", steps=4, guidance_scale=2.5, seed=42)
    case("image-tiny", pipe, False, **asked, strength=0.75)
    case("paint-tiny", pipe, True, EulerAncestralDiscreteScheduler, **asked, strength=0.75)

    # Of latents with a mean and a deviation, which SDXL's pipeline for images takes off and the one for masks does not.
    name = "sdxl-image"
    normal = dict(latents_mean=[-0.6, 0.9, -0.4, 1.1], latents_std=[1.5, 0.8, 1.2, 0.9])
    pipe = xl(name, EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1), scaling_factor=0.5, **normal)
    asked = dict(prompt="rocket, blue", steps=4, guidance_scale=2.0, seed=43, width=32, height=48)
    case("image-xl", pipe, False, **asked, strength=0.75)
    case("paint-xl", pipe, True, **asked, strength=0.75, negative_prompt="fox")

    name = "sd1-inpaint"
    # Eight heads a level, as single files are taken to have them.
    pndm = PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    pipe = sd(name, kl(name), pndm, 9, StableDiffusionInpaintPipeline)
    asked = dict(prompt="crown on blue", steps=5, guidance_scale=3.0, seed=44)
    case("inpaint-pndm", pipe, True, **asked, strength=1.0)
    case("inpaint-part", pipe, True, DDIMScheduler, **asked, strength=0.6, width=48)
    case("inpaint-euler-a", pipe, True, EulerAncestralDiscreteScheduler, **asked, strength=1.0, negative_prompt="fox")

    name = "sdxl-inpaint"
    euler = EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1)
    pipe = xl(name, euler, 9, StableDiffusionXLInpaintPipeline, scaling_factor=0.13025)
    asked = dict(prompt="evergreen tree", steps=4, guidance_scale=2.0, seed=45, width=48, height=32)
    case("inpaint-xl", pipe, True, **asked, strength=1.0)
    case("inpaint-xl-part", pipe, True, DEISMultistepScheduler, **asked, strength=0.75)


if __name__ == "__main__":
    main()
