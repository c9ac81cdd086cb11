"""The shapes of the models. All are of the SD family: CLIP's text encoder, UNet2DConditionModel, AutoencoderTiny."""

import os
import time

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

from .common import STYLES, autocast, on_gpu
from .tokenizer import TOKENS

LATENTS = (4, 16, 16)


def vae(decoder=48, encoder=32):
    return AutoencoderTiny(
        encoder_block_out_channels=(encoder,) * 4,
        decoder_block_out_channels=(decoder,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
        latent_channels=LATENTS[0],
    )


def text_encoder(tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=192,
            bos_token_id=tokenizer.convert_tokens_to_ids("<|startoftext|>"),
            eos_token_id=end,
            pad_token_id=end,
            attn_implementation=None if on_gpu() else "eager",
        )
    )


def unet(classes=None):
    """5.8 M parameters. The text is attended to at 8 x 8 and in the middle, which keeps it cheap without a GPU. There, so short
    sequences go back and forth three times faster by plain products than by torch's own attention: a quarter of the whole step."""
    model = UNet2DConditionModel(
        sample_size=LATENTS[1],
        in_channels=LATENTS[0],
        out_channels=LATENTS[0],
        block_out_channels=(64, 96, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=4,
        norm_num_groups=32,
        num_class_embeds=classes,
    )
    if not on_gpu():
        model.set_attn_processor(AttnProcessor())
    return model


def unet_of_style(base, style):
    """The base for one style, with no classes: a class's embedding is added to the time's, so it may as well be part of that
    one's last bias. The result is the same to the last bits."""
    weights = {k: v.clone() for k, v in base.items()}
    embedding = weights.pop("class_embedding.weight")
    weights["time_embedding.linear_2.bias"] += embedding[STYLES.index(style)]
    model = unet()
    model.load_state_dict(weights)
    return model


def trained(unet, batch, classes=None):
    """The UNet as it is trained: on a GPU in the layout of memory in which a step is quicker, and compiled if $TINTYPE_COMPILE is set."""
    if on_gpu():
        took = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            unet.to(memory_format=layout)
            took[layout] = step_seconds(unet, batch, classes)
        best = min(took, key=took.get)
        unet.to(memory_format=best)
        print({str(k): f"{batch / v:.0f} samples/s" for k, v in took.items()}, flush=True)
    return torch.compile(unet, dynamic=False) if os.environ.get("TINTYPE_COMPILE") else unet


def step_seconds(unet, batch, classes):
    """Of one step forward and back, the best of a few."""
    where = next(unet.parameters()).device
    x, text = torch.randn(batch, *LATENTS, device=where), torch.randn(batch, TOKENS, 192, device=where)
    t = torch.randint(1000, (batch,), device=where)
    label = None if classes is None else torch.randint(classes, (batch,), device=where)
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        with autocast():
            made = unet(x, t, text, class_labels=label).sample
        made.float().square().mean().backward()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    unet.zero_grad(set_to_none=True)
    return best


def count(module):
    return sum(p.numel() for p in module.parameters())


def schedule(device):
    """Stable Diffusion's: the roots of the cumulative products, [1000] each."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    return kept.sqrt().float().to(device), (1 - kept).sqrt().float().to(device)
