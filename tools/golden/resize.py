"""Writes tests/golden/resize.safetensors: a picture, what PIL makes of it in other sizes, and where it is rather white.

`picture` u8 [height, width, 3]; `<width>x<height>`, as `VaeImageProcessor` resizes it; `white` u8 [height, width], as its
mask processor reads it.
"""

import numpy as np
import torch
from common import GOLDEN, write
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

SIZES = [(37, 23), (64, 48), (16, 8), (37, 9), (8, 23), (74, 46), (1, 1), (30, 40)]


def main():
    rng = np.random.default_rng(0)
    # Edges and noise: what rings, and what is cut off at both ends of a byte.
    pixels = rng.integers(0, 256, (23, 37, 3), dtype=np.uint8)
    pixels[5:15, 8:20] = 255
    pixels[10:20, 15:30] = 0
    picture = Image.fromarray(pixels)
    tensors = {"picture": pixels}
    processor = VaeImageProcessor(vae_scale_factor=1)
    for width, height in SIZES:
        tensors[f"{width}x{height}"] = np.array(processor.resize(picture, height, width))
    mask = VaeImageProcessor(vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    tensors["white"] = mask.preprocess(picture)[0, 0].to(torch.uint8)
    # Each level of grey too, of which one is the first that counts as white.
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    tensors["ramp_white"] = mask.preprocess(Image.fromarray(ramp))[0, 0].to(torch.uint8)
    write(GOLDEN / "resize.safetensors", tensors)


if __name__ == "__main__":
    main()
