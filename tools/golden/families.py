"""Tiny checkpoints of the families that were cut down or distilled, and the pictures that diffusers draws with them, as
`pipelines.py` makes its own: UNets without a middle or with uneven transformers, and the schedulers that they are published with."""

from diffusers import DEISMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionXLPipeline
from pipelines import BETAS, FULL, HALF, HERE, pipeline, small_text_encoder, small_tokenizer, unet, vae_kl, vae_tiny
from transformers import CLIPTextModelWithProjection

MERGES = 200
DOWN, UP, CROSS_DOWN, CROSS_UP = "DownBlock2D", "UpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
LEADING = EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1)
TRAILING = EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", steps_offset=1)
PNDM = PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)


def kl(name):
    return vae_kl(name, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.18215, sample_size=32)


def sd(name, asked, unet, vae, scheduler, second=False):
    """A checkpoint with one text encoder: ViT-L's kind, or that of SD 2.x."""
    kind = dict(hidden_act="gelu", pad_token_id=0) if second else dict(hidden_act="quick_gelu")
    parts = dict(
        tokenizer=small_tokenizer(HERE / name / "tokenizer", MERGES, 12, **(dict(pad="!") if second else {})),
        text_encoder=small_text_encoder(
            name, MERGES, 12, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **kind
        ),
        unet=unet, vae=vae, scheduler=scheduler,
    )  # fmt: skip
    pipeline(name, dict(negative_prompt="", **asked), parts, dict(text_encoder=HALF, unet=HALF, vae=FULL))


def xl(name, asked, scheduler, **config):
    """A checkpoint of SDXL's kind, whose coarser levels have transformers."""
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
            name, sample_size=16, block_out_channels=(4, 8, 8), norm_num_groups=4, cross_attention_dim=20,
            attention_head_dim=[1, 2, 2], use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=6, projection_class_embeddings_input_dim=36 + 12,
            down_block_types=(DOWN, CROSS_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, CROSS_UP, UP), **config,
        ),
        vae=vae_kl(
            name, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.13025, sample_size=32,
        ),
        scheduler=scheduler,
    )  # fmt: skip
    files = dict(text_encoder=HALF, text_encoder_2=HALF, unet=HALF, vae=FULL)
    pipeline(name, dict(negative_prompt="", **asked), parts, files, cls=StableDiffusionXLPipeline)


def cut(name, down, up, **config):
    """A UNet of one layer a level and three levels, without a middle."""
    return unet(
        name, sample_size=16, block_out_channels=(4, 8, 8), norm_num_groups=4, layers_per_block=1, cross_attention_dim=12,
        mid_block_type=None, down_block_types=down, up_block_types=up, **config,
    )  # fmt: skip


def main():
    name = "bk-sdm-tiny"
    asked = dict(prompt="a red apple on white", width=32, height=48, steps=5, guidance_scale=3.0, seed=21)
    sd(name, asked, cut(name, [CROSS_DOWN] * 3, [CROSS_UP] * 3, attention_head_dim=2), kl(name), PNDM)

    # SD 2.x for pictures of 512 pixels: epsilon, with linear projections.
    name = "sd2-base"
    asked = dict(prompt="rocket, blue", width=48, height=32, steps=4, guidance_scale=2.5, seed=22)
    whole = unet(
        name, sample_size=16, block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=2, cross_attention_dim=12,
        attention_head_dim=[1, 2], use_linear_projection=True, down_block_types=(CROSS_DOWN, DOWN),
        up_block_types=(UP, CROSS_UP),
    )  # fmt: skip
    sd(name, asked, whole, kl(name), PNDM, second=True)

    name = "sd-turbo"
    asked = dict(prompt="fox", width=32, height=32, steps=1, guidance_scale=0.0, seed=23)
    whole = unet(
        name, sample_size=16, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1, cross_attention_dim=12,
        attention_head_dim=[2, 4], use_linear_projection=True, down_block_types=(CROSS_DOWN, DOWN),
        up_block_types=(UP, CROSS_UP),
    )  # fmt: skip
    sd(name, asked, whole, kl(name), TRAILING, second=True)

    # As it is published: no attention at its finest level, a tiny autoencoder, and a solver that takes one step.
    name = "sdxs"
    asked = dict(prompt="crown on blue", width=64, height=32, steps=1, guidance_scale=0.0, seed=24)
    small = cut(name, [DOWN, CROSS_DOWN, CROSS_DOWN], [CROSS_UP, CROSS_UP, UP], attention_head_dim=[1, 2, 2], use_linear_projection=True)
    scheduler = DEISMultistepScheduler(**BETAS, timestep_spacing="trailing")
    sd(name, asked, small, vae_tiny(name, 8, (1, 1, 1), (1, 1, 1), scaling_factor=5.25), scheduler, second=True)

    asked = dict(prompt="grinning face", width=32, height=32, steps=2, guidance_scale=0.0, seed=25)
    xl("sdxl-lightning", asked, TRAILING, layers_per_block=1, transformer_layers_per_block=[1, 1, 2])

    # Two steps: this deep, more of them would carry a rounding of the first into the picture.
    asked = dict(prompt="evergreen tree", width=32, height=48, steps=2, guidance_scale=2.0, seed=31)
    xl(
        "ssd-1b", asked, LEADING, layers_per_block=2, mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=[1, [2, 2], [4, 4]], reverse_transformer_layers_per_block=[[4, 4, 5], [2, 1, 1], 1],
    )  # fmt: skip

    asked = dict(prompt="tree on blue", width=48, height=32, steps=3, guidance_scale=2.0, seed=27)
    xl(
        "segmind-vega", asked, LEADING, layers_per_block=2, mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=[1, [1, 1], [2, 2]], reverse_transformer_layers_per_block=[[2, 2, 2], [1, 1, 1], 1],
    )  # fmt: skip

    asked = dict(prompt="red apple", width=32, height=32, steps=3, guidance_scale=2.0, seed=28)
    xl("koala", asked, LEADING, layers_per_block=1, mid_block_type=None, transformer_layers_per_block=[1, 2, 3])


if __name__ == "__main__":
    main()
