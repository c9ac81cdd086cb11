"""The pictures that diffusers draws from the shipped checkpoints: tests/golden/reference/<id>-<prompt>-seed<n>.png, by the ids
of the catalogue.

Weights are f16, arithmetic f32, on the CPU: 128 x 128, 20 steps of the checkpoint's own scheduler, guidance 3; with the LoRA for
few steps LCMScheduler and no guidance. Says how far each picture is from the one that was there, and keeps that one where no byte
is off by more than 1, as another CPU may draw it.
"""

import json
import warnings

import numpy as np
import torch
from common import CHECKPOINTS, GOLDEN
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image

HERE = GOLDEN / "reference"
PROMPTS = ["fox", "rocket", "birthday cake"]  # prompt i is drawn with seed i
FEW = ["fox"]  # by those that have a LoRA

warnings.filterwarnings("ignore")


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    for entry in json.loads((CHECKPOINTS / "checkpoints.json").read_text())["checkpoints"]:
        pipe = StableDiffusionPipeline.from_pretrained(CHECKPOINTS / entry["url"], dtype=torch.float32, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        loras = entry.get("loras", [])
        for i, lora in enumerate(loras):
            pipe.load_lora_weights(CHECKPOINTS, weight_name=lora["source"], adapter_name=f"a{i}")
        if loras:
            pipe.set_adapters([f"a{i}" for i in range(len(loras))], [lora["scale"] for lora in loras])
            pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
        steps, guidance = entry["defaults"]["steps"], entry["defaults"]["guidanceScale"]
        for seed, prompt in enumerate(FEW if loras else PROMPTS):
            picture = pipe(
                prompt, width=128, height=128, num_inference_steps=steps, guidance_scale=guidance,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]  # fmt: skip
            path = HERE / f"{entry['id']}-{prompt.replace(' ', '-')}-seed{seed}.png"
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
