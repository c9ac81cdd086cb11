"""Whole pipelines over tiny random checkpoints that differ in config, and the pictures that diffusers draws with them.

tests/golden/pipelines/<case>/: a checkpoint in diffusers layout; case.json, what was asked; expected.safetensors:
`picture` u8 [height, width, 3], `latents` f32 [steps, height, width, channels] after each step,
`prompt_embeds` and, where guidance is above 1, `negative_prompt_embeds` f32 [1, tokens, channels], for SDXL with
`pooled_prompt_embeds` and `negative_pooled_prompt_embeds`.
"""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import GOLDEN, fresh, generator, liven, nhwc, write, write_json
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# Advice about configs that are as they are meant.
warnings.filterwarnings("ignore", category=FutureWarning)

HERE = GOLDEN / "pipelines"
TOKENIZER = Path(__file__).resolve().parent / "words"
HALF, FULL = torch.float16, torch.float32
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
WORDS = ["fox", "red apple", "octopus on yellow", "crown on blue", "rocket", "evergreen tree", "grinning face", ""]


def tokenizer(folder, files, length, pad="<|endoftext|>"):
    """The tokenizer of words/, with only some of its files, another length or another padding."""
    fresh(folder)
    for name in files:
        shutil.copyfile(TOKENIZER / name, folder / name)
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": length, "pad_token": pad})
    return CLIPTokenizer.from_pretrained(folder)


def small_tokenizer(folder, merges, length, pad="<|endoftext|>"):
    """A tokenizer with that one's first merges only: a vocabulary of 512 bytes, the merges and two tokens."""
    fresh(folder)
    lines = (TOKENIZER / "merges.txt").read_text().split("\n")[: merges + 1]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    vocabulary = sorted(json.loads((TOKENIZER / "vocab.json").read_text()).items(), key=lambda item: item[1])
    words = [word for word, _ in vocabulary[: 512 + merges]] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}) + "\n")
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": length, "pad_token": pad})
    return CLIPTokenizer.from_pretrained(folder)


def small_text_encoder(case, merges, tokens, cls=CLIPTextModel, part="text_encoder", **config):
    size = 512 + merges + 2
    config = CLIPTextConfig(
        vocab_size=size, max_position_embeddings=tokens, bos_token_id=size - 2,
        **{"eos_token_id": size - 1, "pad_token_id": size - 1, "projection_dim": config["hidden_size"], **config},
    )  # fmt: skip
    return liven(cls(config), f"{case} {part}")


def text_encoder(case, tokens, **config):
    config = CLIPTextConfig(
        vocab_size=2247, max_position_embeddings=tokens, projection_dim=config["hidden_size"], bos_token_id=2245,
        eos_token_id=2246, **{"pad_token_id": 2246, **config},
    )  # fmt: skip
    return liven(CLIPTextModel(config), f"{case} text_encoder")


def unet(case, in_channels=4, **config):
    """A random UNet whose input reaches the last block less mixed than chance has it, for the last layer to find it there."""
    model = liven(UNet2DConditionModel(in_channels=in_channels, out_channels=4, **config), f"{case} unet")
    conv_in, last = model.conv_in.weight, model.up_blocks[-1].resnets[-1]
    conv_in[:, :, 1, 1] = torch.randn(conv_in.shape[:2], generator=generator(f"{case} conv_in"))
    last.conv_shortcut.weight[:, -conv_in.shape[0] :] *= 4
    if config.get("time_cond_proj_dim"):
        # Beside the time's, the guidance scale's part would hardly be heard.
        model.time_embedding.cond_proj.weight *= 6
    return model


def vae_kl(case, **config):
    n = len(config["block_out_channels"])
    types = {"down_block_types": ["DownEncoderBlock2D"] * n, "up_block_types": ["UpDecoderBlock2D"] * n}
    return liven(AutoencoderKL(latent_channels=4, **types, **config), f"{case} vae")


def vae_tiny(case, width, encoder, decoder, **config):
    return liven(
        AutoencoderTiny(
            encoder_block_out_channels=[width] * len(encoder), decoder_block_out_channels=[width] * len(decoder),
            num_encoder_blocks=encoder, num_decoder_blocks=decoder, **config,
        ),
        f"{case} vae", gain=1.1,
    )  # fmt: skip


def conditions(pipe, words, size, scale):
    """The hidden states of texts, and what else a UNet reads: SDXL's vectors and sizes, LCM's guidance scale."""
    xl = hasattr(pipe, "text_encoder_2")
    options = dict(device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    texts = [pipe.encode_prompt(word, **options) for word in words]
    text, kwargs = torch.cat([t[0] for t in texts]), {}
    if xl:
        sizes = torch.tensor([[*size, 0, 0, *size]] * len(words), dtype=FULL)
        kwargs["added_cond_kwargs"] = {"text_embeds": torch.cat([t[2] for t in texts]), "time_ids": sizes}
    if dim := pipe.unet.config.time_cond_proj_dim:
        w = torch.full((len(words),), scale - 1.0)
        kwargs["timestep_cond"] = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, dim)
    return text, kwargs


def fit_last_layer(pipe, case, timesteps, size, scale):
    """Fits `conv_out` by least squares, so that the UNet takes noise off random smooth latents.

    With the random layer a picture would be the sum of the steps' outputs, larger from step to step.
    """
    g = generator(f"{case} fit")
    scheduler, conv, n = pipe.scheduler, pipe.unet.conv_out, 96
    clean = F.interpolate(torch.randn(n, 4, 4, 4, generator=g), size, mode="bicubic") * 1.3
    noise = torch.randn(clean.shape, generator=g)
    steps = timesteps[torch.randint(len(timesteps), (n,), generator=g)].long()
    noisy = DDPMScheduler(**BETAS).add_noise(clean, noise, steps)
    alpha = DDPMScheduler(**BETAS).alphas_cumprod[steps].reshape(-1, 1, 1, 1)
    v = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
    target = noise if scheduler.config.prediction_type == "epsilon" else v

    given = noisy
    if pipe.unet.config.in_channels > 4:
        # One that paints into pictures is told where, and what stays.
        mask = (F.interpolate(torch.randn(n, 1, 2, 2, generator=g), size, mode="bicubic") > 0).float()
        given = torch.cat([noisy, mask, clean * (1 - mask)], 1)
    words = [WORDS[i % len(WORDS)] for i in range(n)]
    text, kwargs = conditions(pipe, words, [side * pipe.vae_scale_factor for side in size], scale)
    features = []
    handle = conv.register_forward_pre_hook(lambda _m, inputs: features.append(inputs[0].clone()))
    random = pipe.unet(given, steps, text, **kwargs).sample
    handle.remove()
    x = F.unfold(features[0], 3, padding=1).permute(0, 2, 1).flatten(0, 1).double()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    # The random layer stays in at a small scale: it keeps text and place visible that the fit would smooth away.
    conv.weight *= 0.3
    conv.bias *= 0.3
    y = nhwc(target - 0.3 * random).flatten(0, 2).double()
    gram = x.T @ x
    solution = torch.linalg.solve(gram + 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ y).T
    # Through f16, which hides another machine's last bits of the solution.
    conv.weight.copy_((conv.weight + solution[:, :-1].reshape(conv.weight.shape)).half())
    conv.bias.copy_((conv.bias + solution[:, -1]).half())
    fitted = pipe.unet(given, steps, text, **kwargs).sample
    print(f"  error of the UNet {((fitted - target) ** 2).mean() ** 0.5:.2f} of {target.std():.2f}")


def spread_picture(pipe, latents):
    """Sets the last layer of the VAE so that most of the picture lies inside the range of a byte, channel by channel."""
    vae = pipe.vae
    conv = vae.decoder.layers[-1] if isinstance(vae, AutoencoderTiny) else vae.decoder.conv_out
    half = 0.5 if isinstance(vae, AutoencoderTiny) else 1.0  # of the range of what the layer gives
    middle = 0.5 if isinstance(vae, AutoencoderTiny) else 0.0
    image = []
    handle = conv.register_forward_hook(lambda _m, _i, output: image.append(output.clone()))
    latents = latents / vae.config.scaling_factor
    if getattr(vae.config, "latents_mean", None):
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in [vae.config.latents_mean, vae.config.latents_std])
        latents = latents * std + mean
    vae.decode(latents)
    handle.remove()
    std, mean = torch.std_mean(image[0], (0, 2, 3))
    scale = 0.42 * half / std
    conv.weight.copy_((conv.weight * scale.reshape(-1, 1, 1, 1)).half())
    conv.bias.copy_(((conv.bias - mean) * scale + middle).half())


def draw(pipe, case, **changes):
    """Runs the pipeline: the latents after each step and the picture."""
    asked = {**case, **changes}
    steps, negative = [], {"negative_prompt": asked["negative_prompt"] or None}
    if isinstance(pipe, LatentConsistencyModelPipeline):
        assert not negative.pop("negative_prompt")

    def keep(_pipe, _step, _time, given):
        steps.append(nhwc(given["latents"])[0].clone())
        return {}

    picture = pipe(
        asked["prompt"], width=asked["width"], height=asked["height"], num_inference_steps=asked["steps"],
        guidance_scale=asked["guidance_scale"], callback_on_step_end=keep,
        generator=torch.Generator("cpu").manual_seed(asked["seed"]), **negative,
    ).images[0]  # fmt: skip
    return torch.stack(steps), np.array(picture)


def pipeline(name, case, parts, files, prefix=False, published=None, cls=StableDiffusionPipeline, **settings):
    """Builds the checkpoint, writes it, reads it again in f32 and draws; `files` are the dtypes its components are kept in."""
    print(name)
    if cls is not StableDiffusionXLPipeline:
        settings |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = cls(**parts, **settings)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.set_timesteps(case["steps"])
    timesteps = pipe.scheduler.timesteps.clone()
    factor = pipe.vae_scale_factor
    size = (case["height"] // factor, case["width"] // factor)
    fit_last_layer(pipe, name, timesteps, size, case["guidance_scale"])
    latents, _ = draw(pipe, case)
    spread_picture(pipe, latents[-1:].permute(0, 3, 1, 2))

    folder = HERE / name
    kept = {file: file.read_bytes() for file in folder.glob("tokenizer*/*")}
    for part, dtype in files.items():
        getattr(pipe, part).to(dtype)
    pipe.save_pretrained(folder)
    # The tokenizer's files as they came: saving writes its own form of them.
    for place in {file.parent for file in kept}:
        fresh(place)
    for file, content in kept.items():
        file.write_bytes(content)
    if prefix:
        older_names(folder / "text_encoder" / "model.safetensors")
    if published:
        # As a file may have it: saving writes what the pipeline made of it.
        config = folder / "scheduler" / "scheduler_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **published}, indent=2, sort_keys=True) + "\n")

    pipe = cls.from_pretrained(folder, dtype=FULL, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    latents, picture = draw(pipe, case)
    guided = case["guidance_scale"] > 1 and not pipe.unet.config.time_cond_proj_dim
    embeds = pipe.encode_prompt(
        case["prompt"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=guided,
        negative_prompt=case["negative_prompt"] or None,
    )  # fmt: skip
    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    embeds = {name: embed for name, embed in zip(names, embeds) if embed is not None and (guided or "neg" not in name)}
    tensors = {"picture": picture, "latents": latents, **embeds}
    write(folder / "expected.safetensors", tensors)
    write_json(folder / "case.json", case)
    check(pipe, case, latents, picture, folder)


def older_names(path):
    """Renames the text encoder's tensors to what transformers 4 wrote, which most checkpoints have, its position ids included."""
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(path).items()}
    tokens = len(tensors["text_model.embeddings.position_embedding.weight"])
    tensors["text_model.embeddings.position_ids"] = torch.arange(tokens).reshape(1, -1)
    save_file(tensors, path, metadata={"format": "pt"})


def check(pipe, case, latents, picture, folder):
    """A picture that would hide an error is of no use: refuses one that is flat, clipped, or deaf to its prompt or seed."""
    clipped = ((picture == 0) | (picture == 255)).mean()
    spread = picture.astype(float).std((0, 1)).min()
    far = {}
    changes = {"prompt": "octopus on yellow", "seed": 7, "guidance_scale": 3.3, "steps": case["steps"] + 1}
    for key, value in changes.items():
        _, other = draw(pipe, case, **{key: value})
        far[key] = float(np.abs(other.astype(float) - picture).mean())
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) // 1024
    other = ", ".join(f"{key} {value:.1f}" for key, value in far.items())
    print(f"  {picture.shape}, latents std {latents[-1].std():.2f} max {latents.abs().max():.1f}, picture {picture.min()} to")
    print(f"  {picture.max()}, std {spread:.0f}, clipped {clipped:.1%}; mean difference under another {other}; {size} KiB")
    assert spread > 30 and clipped < 0.06 and min(far.values()) > 1.0, folder.name


def main():
    both = ["vocab.json", "merges.txt"]

    name = "sd1-ddim"
    pipeline(
        name,
        dict(prompt="a red apple on white", negative_prompt="", width=64, height=64, steps=5, guidance_scale=4.0, seed=0),
        dict(
            tokenizer=tokenizer(HERE / name / "tokenizer", both, 77),
            text_encoder=text_encoder(
                name, 77, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
                hidden_act="quick_gelu",
            ),
            unet=unet(
                name, sample_size=16, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1,
                cross_attention_dim=16, attention_head_dim=2,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            ),
            vae=vae_kl(
                name, block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.18215,
                sample_size=64,
            ),
            scheduler=DDIMScheduler(**BETAS, clip_sample=True, set_alpha_to_one=False, steps_offset=1),
        ),
        dict(text_encoder=HALF, unet=FULL, vae=FULL), prefix=True,
        published=dict(clip_sample=True, steps_offset=0),
    )  # fmt: skip

    name = "sd2-euler"
    pipeline(
        name,
        dict(prompt="rocket, blue", negative_prompt="", width=32, height=32, steps=6, guidance_scale=3.0, seed=33),
        dict(
            # SD 2.x pads with the token of "!".
            tokenizer=tokenizer(HERE / name / "tokenizer", both, 16, pad="!"),
            text_encoder=text_encoder(
                name, 16, hidden_size=12, intermediate_size=28, num_hidden_layers=3, num_attention_heads=3,
                hidden_act="gelu", pad_token_id=0,
            ),
            unet=unet(
                name, sample_size=16, block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=1,
                cross_attention_dim=12, attention_head_dim=[1, 4], use_linear_projection=True,
                down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            ),
            vae=vae_kl(
                name, block_out_channels=(4, 8), layers_per_block=2, norm_num_groups=4, scaling_factor=0.4,
                sample_size=32,
            ),
            scheduler=EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction", timestep_spacing="linspace"),
        ),
        dict(text_encoder=FULL, unet=FULL, vae=FULL),
    )  # fmt: skip

    name = "dpm-karras"
    pipeline(
        name,
        dict(prompt="fox", negative_prompt="", width=64, height=64, steps=7, guidance_scale=2.5, seed=123456789012),
        dict(
            tokenizer=tokenizer(HERE / name / "tokenizer", ["tokenizer.json"], 16),
            text_encoder=text_encoder(
                name, 16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                hidden_act="quick_gelu",
            ),
            unet=unet(
                name, sample_size=8, block_out_channels=(8, 16), norm_num_groups=8, layers_per_block=1,
                cross_attention_dim=16, attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            vae=vae_tiny(name, 10, (1, 1, 1, 1), (1, 1, 1, 1), scaling_factor=4.0),
            scheduler=DPMSolverMultistepScheduler(
                **BETAS, algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=True, steps_offset=1
            ),
        ),
        dict(text_encoder=HALF, unet=HALF, vae=HALF),
    )  # fmt: skip

    name = "ddpm"
    pipeline(
        name,
        dict(prompt="evergreen tree", negative_prompt="", width=40, height=40, steps=5, guidance_scale=1.0, seed=2),
        dict(
            tokenizer=tokenizer(HERE / name / "tokenizer", both, 16),
            text_encoder=text_encoder(
                name, 16, hidden_size=12, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                hidden_act="quick_gelu",
            ),
            unet=unet(
                name, sample_size=20, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1,
                transformer_layers_per_block=2, cross_attention_dim=12, attention_head_dim=2,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            vae=vae_kl(
                name, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=8, use_quant_conv=False,
                use_post_quant_conv=False, sample_size=40,
            ),
            scheduler=DDPMScheduler(**BETAS, clip_sample=False, timestep_spacing="leading", steps_offset=1),
        ),
        dict(text_encoder=HALF, unet=FULL, vae=HALF),
    )  # fmt: skip

    name = "one-step"
    pipeline(
        name,
        dict(prompt="grinning face", negative_prompt="", width=64, height=64, steps=1, guidance_scale=1.0, seed=4),
        dict(
            tokenizer=tokenizer(HERE / name / "tokenizer", ["tokenizer.json"], 16),
            text_encoder=text_encoder(
                name, 16, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=3,
                hidden_act="gelu",
            ),
            unet=unet(
                name, sample_size=16, block_out_channels=(8, 8, 16), norm_num_groups=8, layers_per_block=1,
                cross_attention_dim=12, attention_head_dim=2, mid_block_type=None,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            vae=vae_tiny(name, 10, (1, 1, 1), (1, 1, 1), scaling_factor=5.25),
            scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing"),
        ),
        dict(text_encoder=HALF, unet=HALF, vae=FULL),
    )  # fmt: skip

    name = "odd-sizes"
    pipeline(
        name,
        dict(
            prompt="Crown, with a JEWEL on it!", negative_prompt="octopus (yellow) 3", width=40, height=72, steps=4,
            guidance_scale=2.0, seed=5,
        ),
        dict(
            tokenizer=tokenizer(HERE / name / "tokenizer", both, 16),
            text_encoder=text_encoder(
                name, 16, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
                hidden_act="quick_gelu",
            ),
            unet=unet(
                name, sample_size=8, block_out_channels=(4, 8, 8), norm_num_groups=4, layers_per_block=2,
                cross_attention_dim=12, attention_head_dim=2,
                down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            ),
            vae=vae_kl(
                name, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2, scaling_factor=0.18215,
                sample_size=64,
            ),
            scheduler=DPMSolverMultistepScheduler(**BETAS, algorithm_type="dpmsolver++", solver_order=2, steps_offset=1),
        ),
        dict(text_encoder=FULL, unet=HALF, vae=FULL),
    )  # fmt: skip

    xl(both)


def xl(both):
    # SDXL: two text encoders of different width, and an empty negative prompt that is zeros.
    name, merges = "sdxl", 240
    pipeline(
        name,
        dict(prompt="a red apple on white", negative_prompt="", width=48, height=64, steps=5, guidance_scale=4.0, seed=11),
        dict(
            tokenizer=small_tokenizer(HERE / name / "tokenizer", merges, 16),
            tokenizer_2=small_tokenizer(HERE / name / "tokenizer_2", merges, 16, pad="!"),
            text_encoder=small_text_encoder(
                name, merges, 16, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                hidden_act="quick_gelu",
            ),
            text_encoder_2=small_text_encoder(
                name, merges, 16, cls=CLIPTextModelWithProjection, part="text_encoder_2", hidden_size=16, intermediate_size=32,
                num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu", projection_dim=14, eos_token_id=2, pad_token_id=0,
            ),
            unet=unet(
                name, sample_size=16, block_out_channels=(4, 8, 8), norm_num_groups=4, layers_per_block=1,
                cross_attention_dim=28, attention_head_dim=[1, 2, 2], transformer_layers_per_block=[1, 1, 2],
                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=6,
                projection_class_embeddings_input_dim=36 + 14,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            vae=vae_kl(
                name, block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.13025,
                sample_size=64, force_upcast=True,
            ),
            scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        ),
        dict(text_encoder=HALF, text_encoder_2=HALF, unet=HALF, vae=HALF), cls=StableDiffusionXLPipeline,
    )  # fmt: skip

    # diffusers lets the first text encoder be none. Empty negative prompts are texts here, and latents have mean and deviation.
    # DDIM clips, for SDXL's pipeline leaves a scheduler's config as it is.
    name = "sdxl-one-encoder"
    pipeline(
        name,
        dict(prompt="rocket, blue", negative_prompt="fox", width=64, height=64, steps=4, guidance_scale=2.5, seed=12),
        dict(
            tokenizer=None, text_encoder=None,
            tokenizer_2=small_tokenizer(HERE / name / "tokenizer_2", merges, 12),
            text_encoder_2=small_text_encoder(
                name, merges, 12, cls=CLIPTextModelWithProjection, part="text_encoder_2", hidden_size=18, intermediate_size=30,
                num_hidden_layers=3, num_attention_heads=3, hidden_act="gelu", projection_dim=10,
            ),
            unet=unet(
                name, sample_size=16, block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=2,
                cross_attention_dim=18, attention_head_dim=[1, 2], transformer_layers_per_block=[1, [2, 0]],
                reverse_transformer_layers_per_block=[[1, 0, 1], 1], mid_block_type="UNetMidBlock2D",
                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=48 + 10,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            vae=vae_kl(
                name, block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.5,
                sample_size=64, latents_mean=[-1.6574, 1.886, -1.383, 2.5155], latents_std=[8.4927, 5.9022, 6.5498, 5.2299],
            ),
            scheduler=DDIMScheduler(**BETAS, clip_sample=True, clip_sample_range=1.5, set_alpha_to_one=False, steps_offset=1),
        ),
        dict(text_encoder_2=FULL, unet=FULL, vae=HALF), cls=StableDiffusionXLPipeline, force_zeros_for_empty_prompt=False,
    )  # fmt: skip

    # As SDXL-Turbo is used: no guidance, few steps with fresh noise.
    name = "sdxl-turbo"
    pipeline(
        name,
        dict(prompt="fox", negative_prompt="", width=64, height=40, steps=2, guidance_scale=0.0, seed=13),
        dict(
            tokenizer=small_tokenizer(HERE / name / "tokenizer", merges, 10),
            tokenizer_2=small_tokenizer(HERE / name / "tokenizer_2", merges, 10, pad="!"),
            text_encoder=small_text_encoder(
                name, merges, 10, hidden_size=8, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
                hidden_act="quick_gelu",
            ),
            text_encoder_2=small_text_encoder(
                name, merges, 10, cls=CLIPTextModelWithProjection, part="text_encoder_2", hidden_size=10, intermediate_size=24,
                num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu", projection_dim=12, eos_token_id=2, pad_token_id=0,
            ),
            unet=unet(
                name, sample_size=16, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
                cross_attention_dim=18, attention_head_dim=[1, 2], transformer_layers_per_block=[1, 2],
                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=6,
                projection_class_embeddings_input_dim=36 + 12,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            vae=vae_tiny(name, 10, (1, 1, 1, 1), (1, 1, 1, 1), scaling_factor=4.0),
            scheduler=EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="trailing"),
        ),
        dict(text_encoder=HALF, text_encoder_2=HALF, unet=HALF, vae=HALF), cls=StableDiffusionXLPipeline,
    )  # fmt: skip

    # A UNet that was distilled to be told the guidance scale, in the plain pipeline with a plain scheduler, and in its own.
    for name, cls, scheduler in [
        ("lcm-euler", StableDiffusionPipeline, EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")),
        ("lcm", LatentConsistencyModelPipeline, LCMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True)),
    ]:
        pipeline(
            name,
            dict(prompt="crown on blue", negative_prompt="", width=64, height=48, steps=4, guidance_scale=8.5, seed=14),
            dict(
                tokenizer=small_tokenizer(HERE / name / "tokenizer", merges, 16),
                text_encoder=small_text_encoder(
                    name, merges, 16, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                    hidden_act="quick_gelu",
                ),
                unet=unet(
                    name, sample_size=16, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1,
                    cross_attention_dim=12, attention_head_dim=2, time_cond_proj_dim=16,
                    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                ),
                vae=vae_kl(
                    name, block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.18215,
                    sample_size=64,
                ),
                scheduler=scheduler,
            ),
            dict(text_encoder=HALF, unet=FULL, vae=HALF), cls=cls,
        )  # fmt: skip


if __name__ == "__main__":
    main()
