"""A UNet of real size (52 million parameters, latents of 32 x 32), of which only what comes out is kept: weights and inputs are
torch's random numbers of the crc32 of each tensor's name, which the test draws too.

tests/golden/models/unet-large/: config.json, and io.safetensors with `output` [batch, height, width, channels].
"""

import math

import torch
from common import GOLDEN, fresh, generator, nhwc, write, write_json
from diffusers import UNet2DConditionModel

CONFIG = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [128, 256, 512],
    "layers_per_block": 1,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}


def drawn(name, shape):
    return torch.randn(math.prod(shape), generator=generator(name)).reshape(shape)


def weight(name, shape):
    if len(shape) == 1:
        return drawn(name, shape) * 0.25 + 1 if name.endswith("weight") else drawn(name, shape) * 0.2
    return drawn(name, shape) * (1 / math.sqrt(math.prod(shape[1:])))


if __name__ == "__main__":
    model = UNet2DConditionModel(**CONFIG).eval()
    model.load_state_dict({name: weight(name, tensor.shape) for name, tensor in model.state_dict().items()})
    print(sum(p.numel() for p in model.parameters()), "parameters")
    output = model(drawn("sample", (1, 4, 32, 32)), torch.tensor([501.0]), drawn("text", (1, 77, 768))).sample
    folder = fresh(GOLDEN / "models" / "unet-large")
    write_json(folder / "config.json", CONFIG)
    write(folder / "io.safetensors", {"output": nhwc(output)})
