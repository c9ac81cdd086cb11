"""Tiny random models, each with its inputs, its output and what some of its modules gave on the way.

tests/golden/models/<case>/: config.json, a safetensors file (as `save_pretrained` writes them) and io.safetensors:
inputs under diffusers' names, `output`, and `at.<module>` for the way between. Activations are f32, [batch, height,
width, channels] or [batch, tokens, channels]. Latents of autoencoders are as a sampler has them: times `scaling_factor`.
"""

import copy

import torch
from common import GOLDEN, as_stored, fresh, generator, liven, nhwc, write
from diffusers import AutoencoderKL, AutoencoderTiny, LatentConsistencyModelPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = GOLDEN / "models"
HALF, FULL = torch.float16, torch.float32


def save(module, case, dtype):
    """Writes the module in `dtype`, and gives it back as the f32 module that reads those weights."""
    folder = fresh(HERE / case)
    module.to(dtype).save_pretrained(folder)
    return as_stored(module, dtype)


def watch(module, names):
    """Collects what the named submodules give, channels last."""
    seen = {}

    def hook(name):
        def keep(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            if output.dtype == torch.float32:
                seen[f"at.{name}"] = (nhwc(output) if output.dim() == 4 else output).clone()

        return keep

    for name in names:
        module.get_submodule(name).register_forward_hook(hook(name))
    return seen


def clip(case, dtype, tokens, ids, watched, **config):
    config = CLIPTextConfig(max_position_embeddings=tokens, projection_dim=config["hidden_size"], **config)
    model = save(liven(CLIPTextModel(config), case), case, dtype)
    seen = watch(model, watched)
    ids = torch.tensor([row + [config.pad_token_id] * (tokens - len(row)) for row in ids])
    output = model(ids).last_hidden_state
    exact = copy.deepcopy(model).double()(ids).last_hidden_state
    write(HERE / case / "io.safetensors", {"input_ids": ids.to(torch.uint32), "output": output, **seen})
    report(case, output, exact)


def clip_xl(case, cls, dtype, tokens, ids, watched, **config):
    """As SDXL reads them: the hidden states before the last layer and, of the class that has it, the vector for the whole text."""
    config = CLIPTextConfig(max_position_embeddings=tokens, **config)
    model = save(liven(cls(config), case), case, dtype)
    if cls is CLIPTextModelWithProjection:
        # Saving nests the text model, which readers undo.
        watched = [f"text_model.{name}" for name in watched]
    seen = {key.replace("text_model.", ""): value for key, value in watch(model, watched).items()}
    ids = torch.tensor([row + [config.pad_token_id] * (tokens - len(row)) for row in ids])
    given = model(ids, output_hidden_states=True)
    exact = copy.deepcopy(model).double()(ids, output_hidden_states=True)
    tensors = {"input_ids": ids.to(torch.uint32), "output": given.hidden_states[-2], **seen}
    if cls is CLIPTextModelWithProjection:
        tensors["text_embeds"] = given.text_embeds
        assert (given.text_embeds[0] - given.text_embeds[1]).abs().max() > 0.5, "texts of one vector would hide where it is taken"
        report(case, given.text_embeds, exact.text_embeds)
    write(HERE / case / "io.safetensors", tensors)
    report(case, given.hidden_states[-2], exact.hidden_states[-2])


def conditions(model, g):
    """What a UNet reads besides latents, timestep and text: SDXL's vector and sizes, and the embedded guidance scale of LCM."""
    inputs, kwargs = {}, {}
    if model.config.time_cond_proj_dim:
        w = torch.tensor([6.5])
        embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        inputs["timestep_cond"] = kwargs["timestep_cond"] = embed(None, w, model.config.time_cond_proj_dim)
    if model.config.addition_embed_type:
        sizes = torch.tensor([[1024.0, 896, 0, 16, 512, 768]])
        text = model.config.projection_class_embeddings_input_dim - 6 * model.config.addition_time_embed_dim
        inputs |= {"text_embeds": torch.randn(1, text, generator=g), "time_ids": sizes}
        kwargs["added_cond_kwargs"] = {key: inputs[key] for key in ["text_embeds", "time_ids"]}
    return inputs, kwargs


def double(value):
    return {key: double(v) for key, v in value.items()} if isinstance(value, dict) else value.double()


def unet(case, dtype, timestep, latents, tokens, watched, batch=2, **config):
    model = UNet2DConditionModel(in_channels=4, out_channels=4, sample_size=max(latents), **config)
    model = save(liven(model, case), case, dtype)
    seen = watch(model, watched)
    g = generator(f"{case} input")
    sample = torch.randn(batch, 4, *latents, generator=g)
    text = torch.randn(batch, tokens, config["cross_attention_dim"], generator=g)
    timestep = torch.tensor(timestep)
    inputs, kwargs = conditions(model, g)
    output = model(sample, timestep, text, **kwargs).sample
    exact = copy.deepcopy(model).double()(sample.double(), timestep.double(), text.double(), **double(kwargs)).sample
    tensors = {"sample": nhwc(sample), "timestep": timestep.reshape(1), "encoder_hidden_states": text, **inputs}
    write(HERE / case / "io.safetensors", {**tensors, "output": nhwc(output), **seen})
    report(case, output, exact)


def kl(case, dtype, batch, latents, watched, loud=1.0, **config):
    blocks = len(config["block_out_channels"])
    types = {"down_block_types": ["DownEncoderBlock2D"] * blocks, "up_block_types": ["UpDecoderBlock2D"] * blocks}
    model = liven(AutoencoderKL(latent_channels=4, **types, **config), case)
    model.decoder.conv_in.weight *= loud
    model = save(model, case, dtype)
    seen = watch(model, watched)
    g = generator(f"{case} input")
    z = torch.randn(batch, 4, *latents, generator=g) * model.config.scaling_factor
    image = torch.rand(batch, 3, *(n * 2 ** (blocks - 1) for n in latents), generator=g) * 2 - 1
    output, moments = model.decode(z / model.config.scaling_factor).sample, model.encode(image).latent_dist.parameters
    double = copy.deepcopy(model).double()
    exact = double.decode(z.double() / model.config.scaling_factor).sample
    exact_moments = double.encode(image.double()).latent_dist.parameters
    if loud > 1:
        assert max(x.abs().max() for x in seen.values()) > 65504
        assert not copy.deepcopy(model).half().decode((z / model.config.scaling_factor).half()).sample.isfinite().all()
    tensors = {"latents": nhwc(z), "output": nhwc(output), "image": nhwc(image), "moments": nhwc(moments)}
    write(HERE / case / "io.safetensors", {**tensors, **seen})
    report(case, output, exact)
    report(case, moments, exact_moments)


def tiny(case, dtype, batch, latents, watched, **config):
    model = save(liven(AutoencoderTiny(**config), case, gain=1.1), case, dtype)
    seen = watch(model, watched)
    g = generator(f"{case} input")
    factor = 2 ** (len(config["decoder_block_out_channels"]) - 1)
    z = torch.randn(batch, 4, *latents, generator=g) * 2
    image = torch.rand(batch, 3, *(n * factor for n in latents), generator=g) * 2 - 1
    scale = model.config.scaling_factor
    output, encoded = model.decode(z / scale).sample, model.encode(image).latents * scale
    double = copy.deepcopy(model).double()
    exact, exact_encoded = double.decode(z.double() / scale).sample, double.encode(image.double()).latents * scale
    tensors = {"latents": nhwc(z), "output": nhwc(output), "image": nhwc(image), "encoded": nhwc(encoded)}
    write(HERE / case / "io.safetensors", {**tensors, **seen})
    report(case, output, exact)
    report(case, encoded, exact_encoded)


def report(case, output, exact):
    """Refuses a model in which rounding alone makes a difference that tests would see: norms over few channels may do that."""
    rounding = ((output - exact).abs().max() / exact.abs().max()).item()
    assert rounding < 1e-5, (case, rounding)
    size = sum(f.stat().st_size for f in (HERE / case).iterdir())
    print(f"{case}: {tuple(output.shape)} std {output.std():.2f} max {output.abs().max():.2f}, {size // 1024} KiB, rounding {rounding:.1e}")


def main():
    clip(
        "clip-quick-gelu", FULL, 77, [[62, 5, 17, 17, 40, 3, 63], [62, 63]],
        ["embeddings", "encoder.layers.0.self_attn", "encoder.layers.0", "encoder.layers.1"],
        vocab_size=64, hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=2,
        hidden_act="quick_gelu", bos_token_id=62, eos_token_id=63, pad_token_id=63,
    )  # fmt: skip
    clip(
        # As in SD 2.x: gelu, and padding that is not the end token.
        "clip-gelu", HALF, 16, [[47, 5, 17, 9, 48], [47, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 48]],
        ["embeddings", "encoder.layers.0.self_attn", "encoder.layers.0.mlp", "encoder.layers.2"],
        vocab_size=49, hidden_size=30, intermediate_size=70, num_hidden_layers=3, num_attention_heads=5,
        hidden_act="gelu", layer_norm_eps=1e-2, bos_token_id=47, eos_token_id=48, pad_token_id=0,
    )  # fmt: skip
    unet(
        "unet-sd1", HALF, 981.0, (8, 8), 16,
        ["time_embedding.linear_2", "conv_in", "down_blocks.0.resnets.0", "down_blocks.0.attentions.0", "mid_block", "conv_norm_out"],
        block_out_channels=(8, 16), norm_num_groups=8, layers_per_block=1, cross_attention_dim=24,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet(
        "unet-sd2", HALF, 501.0, (6, 10), 7,
        ["time_embedding.linear_2", "down_blocks.0.attentions.0", "down_blocks.1.attentions.1", "mid_block", "up_blocks.0"],
        block_out_channels=(8, 12), norm_num_groups=4, layers_per_block=2, cross_attention_dim=12,
        attention_head_dim=[1, 4], use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet(
        # As SDXS is cut down: no middle. Three levels of 10x6 go up again to sizes that are not twice as large.
        "unet-no-mid", FULL, 333.25, (10, 6), 5,
        ["time_embedding.linear_2", "down_blocks.0", "down_blocks.2", "up_blocks.0", "up_blocks.1"],
        block_out_channels=(4, 8, 8), norm_num_groups=4, layers_per_block=1, cross_attention_dim=10,
        attention_head_dim=2, mid_block_type=None, norm_eps=1e-2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet(
        "unet-deep", HALF, 0.0, (9, 5), 16,
        ["time_embedding.linear_2", "down_blocks.0.attentions.0", "down_blocks.1", "mid_block", "up_blocks.1"],
        block_out_channels=(8, 8, 12), norm_num_groups=2, layers_per_block=1, transformer_layers_per_block=2,
        cross_attention_dim=20, attention_head_dim=[2, 4, 4], use_linear_projection=False,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    clip_xl(
        # SDXL's first: no projection, and the padding is the end token.
        "clip-penultimate", CLIPTextModel, FULL, 12, [[47, 5, 17, 9, 48], [47, 30, 31, 32, 33, 34, 35, 36, 48]],
        ["embeddings", "encoder.layers.0", "encoder.layers.1"],
        vocab_size=49, hidden_size=20, intermediate_size=44, num_hidden_layers=3, num_attention_heads=2,
        hidden_act="quick_gelu", bos_token_id=47, eos_token_id=48, pad_token_id=48,
    )  # fmt: skip
    clip_xl(
        # SDXL's second: its config has the end token that no tokenizer gives, so the highest is taken, the first of several.
        "clip-projection", CLIPTextModelWithProjection, HALF, 10, [[47, 5, 17, 9, 48], [47, 30, 31, 2, 33, 48, 12, 48]],
        ["embeddings", "encoder.layers.0", "encoder.layers.2", "final_layer_norm"],
        vocab_size=49, hidden_size=24, intermediate_size=52, num_hidden_layers=3, num_attention_heads=4,
        hidden_act="gelu", projection_dim=18, bos_token_id=47, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    clip_xl(
        # A config that tells the end token, which is not the highest: the first one counts.
        "clip-projection-end", CLIPTextModelWithProjection, FULL, 8, [[40, 5, 48, 41], [40, 30, 48, 2, 33, 48, 41, 41]],
        ["embeddings", "encoder.layers.0", "encoder.layers.1", "final_layer_norm"],
        vocab_size=49, hidden_size=16, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2,
        hidden_act="quick_gelu", projection_dim=20, bos_token_id=40, eos_token_id=41, pad_token_id=41,
    )  # fmt: skip
    unet(
        "unet-xl", HALF, 801.0, (8, 6), 9,
        ["time_embedding.linear_2", "add_embedding", "down_blocks.0", "down_blocks.1.attentions.0", "mid_block", "up_blocks.0"],
        batch=1, block_out_channels=(8, 8, 12), norm_num_groups=2, layers_per_block=1, cross_attention_dim=22,
        attention_head_dim=[1, 2, 3], use_linear_projection=True, transformer_layers_per_block=[1, 1, 3],
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + 18,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet(
        # As SSD-1B is cut down: transformers by layer, of no block too, and none in the middle. Told the guidance scale besides.
        "unet-ssd", HALF, 333.0, (6, 8), 5,
        ["time_embedding.linear_2", "add_embedding", "down_blocks.1", "down_blocks.2.attentions.0", "mid_block", "up_blocks.0", "up_blocks.1"],
        batch=1, block_out_channels=(8, 8, 12), norm_num_groups=2, layers_per_block=2, cross_attention_dim=10,
        attention_head_dim=[1, 2, 2], use_linear_projection=True, mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=[1, [1, 0], [2, 1]], reverse_transformer_layers_per_block=[[1, 0, 2], [0, 1, 1], 1],
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=24 + 7, time_cond_proj_dim=10,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet(
        "unet-lcm", FULL, 759.0, (6, 6), 6, ["time_embedding.cond_proj", "time_embedding.linear_2", "down_blocks.0", "mid_block"],
        block_out_channels=(8, 16), norm_num_groups=8, layers_per_block=1, cross_attention_dim=12,
        attention_head_dim=2, time_cond_proj_dim=24,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    kl(
        "vae-kl", FULL, 1, (5, 3),
        ["post_quant_conv", "decoder.mid_block.attentions.0", "decoder.mid_block", "decoder.up_blocks.0", "encoder.down_blocks.0", "encoder.mid_block"],
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, use_quant_conv=True, use_post_quant_conv=True,
    )  # fmt: skip
    kl(
        "vae-kl-deep", HALF, 2, (3, 4), ["decoder.conv_in", "decoder.mid_block", "decoder.up_blocks.1", "encoder.down_blocks.1", "encoder.conv_out"],
        block_out_channels=(8, 8, 16), layers_per_block=2, norm_num_groups=8, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    kl(
        # As SDXL's: what lies between is beyond f16, in which the weights are.
        "vae-kl-loud", HALF, 1, (4, 4), ["decoder.conv_in", "decoder.mid_block", "decoder.up_blocks.0"], loud=8e4,
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=0.13025, force_upcast=True,
    )  # fmt: skip
    tiny(
        "vae-tiny", FULL, 1, (5, 3), ["decoder.layers.0", "decoder.layers.2", "encoder.layers.2"],
        encoder_block_out_channels=(12, 12, 12), decoder_block_out_channels=(12, 12, 12), num_encoder_blocks=(1, 2, 1),
        num_decoder_blocks=(2, 1, 1), scaling_factor=1.25,
    )  # fmt: skip
    tiny(
        "vae-tiny-deep", HALF, 2, (2, 3), ["decoder.layers.0", "decoder.layers.7", "encoder.layers.2"],
        encoder_block_out_channels=(10, 10, 10, 10), decoder_block_out_channels=(18, 18, 18, 18),
        num_encoder_blocks=(1, 1, 2, 1), num_decoder_blocks=(2, 1, 1, 1),
    )  # fmt: skip


if __name__ == "__main__":
    main()
