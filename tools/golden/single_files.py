"""Which tensors single files of published checkpoints have: names and shapes, no weights.

tests/golden/single-files.json.gz: for each checkpoint its tensors in the naming of LDM, `name: shape`. The names are built up here as the original code builds its modules (openaimodel.py,
model.py and OpenCLIP's), and diffusers' own conversion must make of them the state dict of its models.

tests/golden/single-file.safetensors: the pipeline sd1-ddim as such a file, with its weights.
"""

import gzip
import io
import json

import torch
from common import GOLDEN, write
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from published import CHECKPOINTS, text
from safetensors.torch import load_file

NAMES = [
    "stable-diffusion-v1-5", "stable-diffusion-inpainting", "stable-diffusion-2-1-base", "stable-diffusion-2-inpainting",
    "LCM_Dreamshaper_v7", "bk-sdm-base", "bk-sdm-small", "bk-sdm-tiny", "sdxs-512-dreamshaper", "stable-diffusion-xl-base-1.0",
    "stable-diffusion-xl-1.0-inpainting-0.1", "lcm-sdxl", "ssd-1b", "segmind-vega", "koala-700m", "koala-1b",
]  # fmt: skip
# The text encoder of this one is OpenCLIP's in single files, whose last layer diffusers leaves out.
VIT_H = 24


def linear(out, name, o, i, bias=True):
    out[f"{name}.weight"] = [o, i]
    if bias:
        out[f"{name}.bias"] = [o]


def conv(out, name, o, i, k=3):
    out[f"{name}.weight"] = [o, i, k, k]
    out[f"{name}.bias"] = [o]


def norm(out, name, c):
    out[f"{name}.weight"] = [c]
    out[f"{name}.bias"] = [c]


def res_block(out, name, i, o, time):
    norm(out, f"{name}.in_layers.0", i)
    conv(out, f"{name}.in_layers.2", o, i)
    linear(out, f"{name}.emb_layers.1", o, time)
    norm(out, f"{name}.out_layers.0", o)
    conv(out, f"{name}.out_layers.3", o, o)
    if i != o:
        conv(out, f"{name}.skip_connection", o, i, 1)


def transformer(out, name, c, depth, context, use_linear):
    norm(out, f"{name}.norm", c)
    for proj in ["proj_in", "proj_out"]:
        linear(out, f"{name}.{proj}", c, c) if use_linear else conv(out, f"{name}.{proj}", c, c, 1)
    for d in range(depth):
        b = f"{name}.transformer_blocks.{d}"
        for attn, dim in [("attn1", c), ("attn2", context)]:
            linear(out, f"{b}.{attn}.to_q", c, c, False)
            linear(out, f"{b}.{attn}.to_k", c, dim, False)
            linear(out, f"{b}.{attn}.to_v", c, dim, False)
            linear(out, f"{b}.{attn}.to_out.0", c, c)
        linear(out, f"{b}.ff.net.0.proj", c * 8, c)
        linear(out, f"{b}.ff.net.2", c, c * 4)
        for n in ["norm1", "norm2", "norm3"]:
            norm(out, f"{b}.{n}", c)


def each(value, layers):
    return value if isinstance(value, list) else [value] * layers


def unet(config):
    """UNetModel of openaimodel.py."""
    out, channels = {}, config["block_out_channels"]
    n, base, time = len(channels), channels[0], channels[0] * 4
    layers, context = config["layers_per_block"], config["cross_attention_dim"]
    depths = config.get("transformer_layers_per_block", 1)
    depths = depths if isinstance(depths, list) else [depths] * n
    ups = config.get("reverse_transformer_layers_per_block") or depths[::-1]
    down_attends = [t.startswith("Cross") for t in config["down_block_types"]]
    up_attends = [t.startswith("Cross") for t in config["up_block_types"]]
    use_linear = config.get("use_linear_projection", False)

    def attention(name, c, depth):
        transformer(out, name, c, depth, context, use_linear)

    linear(out, "time_embed.0", time, base)
    linear(out, "time_embed.2", time, time)
    if config.get("time_cond_proj_dim"):
        linear(out, "time_embed.cond_proj", base, config["time_cond_proj_dim"], False)
    if config.get("addition_embed_type"):
        linear(out, "label_emb.0.0", time, config["projection_class_embeddings_input_dim"])
        linear(out, "label_emb.0.2", time, time)
    conv(out, "input_blocks.0.0", base, config["in_channels"])
    skips, at, c = [base], 1, base
    for level, width in enumerate(channels):
        for depth in each(depths[level], layers):
            res_block(out, f"input_blocks.{at}.0", c, width, time)
            c = width
            if down_attends[level]:
                attention(f"input_blocks.{at}.1", c, depth)
            skips.append(c)
            at += 1
        if level + 1 < n:
            conv(out, f"input_blocks.{at}.0.op", c, c)
            skips.append(c)
            at += 1
    middle = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if middle:
        res_block(out, "middle_block.0", c, c, time)
    if middle == "UNetMidBlock2DCrossAttn":
        attention("middle_block.1", c, each(depths[-1], 1)[0])
        res_block(out, "middle_block.2", c, c, time)
    at = 0
    for level, width in enumerate(channels[::-1]):
        for layer, depth in enumerate(each(ups[level], layers + 1)):
            res_block(out, f"output_blocks.{at}.0", c + skips.pop(), width, time)
            c, part = width, 1
            if up_attends[level]:
                attention(f"output_blocks.{at}.1", c, depth)
                part = 2
            if layer == layers and level + 1 < n:
                conv(out, f"output_blocks.{at}.{part}.conv", c, c)
            at += 1
    norm(out, "out.0", base)
    conv(out, "out.2", config["out_channels"], base)
    return out


def vae_block(out, name, i, o):
    norm(out, f"{name}.norm1", i)
    conv(out, f"{name}.conv1", o, i)
    norm(out, f"{name}.norm2", o)
    conv(out, f"{name}.conv2", o, o)
    if i != o:
        conv(out, f"{name}.nin_shortcut", o, i, 1)


def vae_middle(out, name, c):
    vae_block(out, f"{name}.block_1", c, c)
    norm(out, f"{name}.attn_1.norm", c)
    for part in ["q", "k", "v", "proj_out"]:
        conv(out, f"{name}.attn_1.{part}", c, c, 1)
    vae_block(out, f"{name}.block_2", c, c)


def vae(config):
    """AutoencoderKL of model.py."""
    out, channels, z = {}, config["block_out_channels"], config["latent_channels"]
    layers = config["layers_per_block"]
    conv(out, "encoder.conv_in", channels[0], 3)
    c = channels[0]
    for level, width in enumerate(channels):
        for block in range(layers):
            vae_block(out, f"encoder.down.{level}.block.{block}", c, width)
            c = width
        if level + 1 < len(channels):
            conv(out, f"encoder.down.{level}.downsample.conv", c, c)
    vae_middle(out, "encoder.mid", c)
    norm(out, "encoder.norm_out", c)
    conv(out, "encoder.conv_out", 2 * z, c)
    conv(out, "decoder.conv_in", c, z)
    vae_middle(out, "decoder.mid", c)
    for level in reversed(range(len(channels))):
        for block in range(layers + 1):
            vae_block(out, f"decoder.up.{level}.block.{block}", c, channels[level])
            c = channels[level]
        if level > 0:
            conv(out, f"decoder.up.{level}.upsample.conv", c, c)
    norm(out, "decoder.norm_out", c)
    conv(out, "decoder.conv_out", 3, c)
    conv(out, "quant_conv", 2 * z, 2 * z, 1)
    conv(out, "post_quant_conv", z, z, 1)
    return out


def open_clip(config, layers):
    out, c = {}, config["hidden_size"]
    out["positional_embedding"] = [config["max_position_embeddings"], c]
    out["token_embedding.weight"] = [config["vocab_size"], c]
    for i in range(layers):
        b = f"transformer.resblocks.{i}"
        out[f"{b}.attn.in_proj_weight"] = [3 * c, c]
        out[f"{b}.attn.in_proj_bias"] = [3 * c]
        linear(out, f"{b}.attn.out_proj", c, c)
        linear(out, f"{b}.mlp.c_fc", config["intermediate_size"], c)
        linear(out, f"{b}.mlp.c_proj", c, config["intermediate_size"])
        norm(out, f"{b}.ln_1", c)
        norm(out, f"{b}.ln_2", c)
    norm(out, "ln_final", c)
    out["text_projection"] = [c, c]
    out["logit_scale"] = []
    return out


def meta(shapes, prefix=""):
    return {f"{prefix}{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes(tensors):
    return {name: list(t.shape) for name, t in tensors.items()}


def inverted(made, convert):
    """The names that `convert` makes of these, each with the one it was."""
    converted = convert({name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(made.items())})
    names = list(made)
    return {new: names[int(t.flatten()[0])] for new, t in converted.items()}


def tiny(case):
    """The pipeline of a golden as a single file, by diffusers' own conversion."""
    folder = GOLDEN / "pipelines" / case
    tensors = {}
    for component, prefix, build, convert in [
        ("unet", "model.diffusion_model.", unet, convert_ldm_unet_checkpoint),
        ("vae", "first_stage_model.", vae, convert_ldm_vae_checkpoint),
    ]:
        config = json.loads((folder / component / "config.json").read_text())
        made = {f"{prefix}{name}": shape for name, shape in build(config).items()}
        names = inverted(made, lambda checkpoint: convert(checkpoint, config))
        for name, t in load_file(folder / component / "diffusion_pytorch_model.safetensors").items():
            tensors[names[name]] = t.reshape(made[names[name]])
    text_encoder = load_file(folder / "text_encoder" / "model.safetensors")
    tensors.update({f"cond_stage_model.transformer.{name}": t for name, t in text_encoder.items()})
    return tensors


def same(name, found, expected, squeeze=False):
    """Convolutions of 1 x 1 in a VAE's attention are linear layers now."""
    if squeeze:
        found = {k: (v[:2] if v[2:] == [1, 1] and "attentions" in k else v) for k, v in found.items()}
    assert found == expected, (name, sorted(set(found) ^ set(expected))[:8])


def main():
    seen, files = {}, {}
    for name in NAMES:
        texts, unet_config, vae_config, *_ = CHECKPOINTS[name]
        if vae_config["_class_name"] != "AutoencoderKL":
            vae_config = CHECKPOINTS["stable-diffusion-v1-5"][2]
        tensors = {}

        made = unet(unet_config)
        tensors.update({f"model.diffusion_model.{key}": shape for key, shape in made.items()})
        with torch.device("meta"):
            model = shapes(UNet2DConditionModel.from_config(unet_config).state_dict())
        # diffusers knows no middle of one block, no UNet without, and not what is told the guidance scale.
        if unet_config.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn":
            config = {"class_embed_type": None, "addition_embed_type": None, **unet_config}
            converted = shapes(convert_ldm_unet_checkpoint(meta(made, "model.diffusion_model."), config))
            if unet_config.get("time_cond_proj_dim"):
                converted["time_embedding.cond_proj.weight"] = made["time_embed.cond_proj.weight"]
            same(name, converted, model)
        assert len(made) == len(model), name

        key = json.dumps(vae_config, sort_keys=True)
        if key not in seen:
            made = vae(vae_config)
            with torch.device("meta"):
                model = shapes(AutoencoderKL.from_config(vae_config).state_dict())
            converted = shapes(convert_ldm_vae_checkpoint(meta(made, "first_stage_model."), vae_config))
            same(name, converted, model, squeeze=True)
            seen[key] = made
        tensors.update({f"first_stage_model.{key}": shape for key, shape in seen[key].items()})

        for i, config in enumerate(texts):
            if config["hidden_act"] == "gelu":
                layers = VIT_H if len(texts) == 1 else config["num_hidden_layers"]
                prefix = "cond_stage_model.model." if len(texts) == 1 else "conditioner.embedders.1.model."
                made = open_clip(config, layers)
                tensors.update({f"{prefix}{key}": shape for key, shape in made.items()})
                with torch.device("meta"):
                    encoder = text(config)
                converted = shapes(convert_open_clip_checkpoint(encoder, meta(made, prefix), prefix=prefix))
                model = {k.removeprefix("text_model."): v for k, v in shapes(encoder.state_dict()).items()}
                found = {k.removeprefix("text_model."): v for k, v in converted.items()}
                found = {k: v for k, v in found.items() if k in model or not k.startswith("text_projection")}
                same(name, found, model)
            else:
                prefix = "cond_stage_model.transformer." if len(texts) == 1 else "conditioner.embedders.0.transformer."
                with torch.device("meta"):
                    model = shapes(text(config).state_dict())
                names = {f"{prefix}text_model.{k.removeprefix('text_model.')}": v for k, v in model.items()}
                names[f"{prefix}text_model.embeddings.position_ids"] = [1, 77]
                tensors.update(names)
        if len(texts) == 1:
            # What training left in the first ones.
            for extra in ["betas", "alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "posterior_mean_coef1"]:
                tensors[extra] = [1000]
        files[name] = tensors
        print(f"{name}: {len(tensors)} tensors")
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as file:
        file.write((json.dumps(files, separators=(",", ":")) + "\n").encode())
    (GOLDEN / "single-files.json.gz").write_bytes(out.getvalue())
    print(len(out.getvalue()), "bytes")
    write(GOLDEN / "single-file.safetensors", tiny("sd1-ddim"))


if __name__ == "__main__":
    main()
