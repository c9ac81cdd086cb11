"""The pictures that diffusers draws from the shipped checkpoints: tests/golden/reference/<style>-<prompt>-seed<n>.png.

Weights are f16, arithmetic f32, on the CPU: 128 x 128, 20 steps of the checkpoint's own scheduler, guidance 3. Says how far
each picture is from the one that was there, and keeps that one where no byte is off by more than 1, as another CPU may draw it.
"""

import warnings

import numpy as np
import torch
from common import CHECKPOINTS, GOLDEN
from diffusers import StableDiffusionPipeline
from PIL import Image

HERE = GOLDEN / "reference"
STYLES = ["soft", "flat", "3d", "ink"]
PROMPTS = ["fox", "rocket", "birthday cake"]  # prompt i is drawn with seed i

warnings.filterwarnings("ignore")


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        pipe = StableDiffusionPipeline.from_pretrained(CHECKPOINTS / style, dtype=torch.float32, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        for seed, prompt in enumerate(PROMPTS):
            picture = pipe(
                prompt, width=128, height=128, num_inference_steps=20, guidance_scale=3.0,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]  # fmt: skip
            path = HERE / f"{style}-{prompt.replace(' ', '-')}-seed{seed}.png"
            if path.exists():
                far = np.abs(np.asarray(picture, int) - np.asarray(Image.open(path).convert("RGB"), int))
                print(f"{path.name}: off by at most {far.max()}, by {far.mean():.4f} in the mean")
                if far.max() <= 1:
                    continue
            else:
                print(f"{path.name}: new")
            picture.save(path)


if __name__ == "__main__":
    main()
