"""What diffusers draws with a LoRA over a checkpoint and the scheduler, steps and guidance scale that LoRAs of its name are published with.

tests/golden/distilled/expected.safetensors: `<file's name>` u8 [height, width, 3]. The LoRAs are those of lora.py: their names are what counts.
"""

import json
import warnings

import torch
from common import GOLDEN, fresh, write
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, LCMScheduler, TCDScheduler
from lora import SD1, XL, load
from pipelines import draw

warnings.filterwarnings("ignore")

HERE = GOLDEN / "distilled"
TRAILING = dict(timestep_spacing="trailing")
# The LoRA's name: checkpoint, scheduler with its settings, steps, guidance scale, what else the pipeline is passed.
CASES = {
    "lcm-lora-sdv1-5": (SD1, (LCMScheduler, {}), 4, 1.0, {}),
    "lcm-lora-sdxl": (XL, (LCMScheduler, {}), 4, 1.0, {}),
    "sdxl_lightning_2step_lora": (XL, (EulerDiscreteScheduler, TRAILING), 2, 0.0, {}),
    "sdxl_lightning_4step_lora": (XL, (EulerDiscreteScheduler, TRAILING), 4, 0.0, {}),
    "Hyper-SD15-8steps-CFG-lora": (SD1, (DDIMScheduler, TRAILING), 8, 5.0, {}),
    "Hyper-SD15-4steps-lora": (SD1, (DDIMScheduler, TRAILING), 4, 0.0, {}),
    "Hyper-SDXL-1step-lora": (XL, (TCDScheduler, {}), 1, 0.0, dict(eta=1.0)),
    "TCD-SDXL-LoRA": (XL, (TCDScheduler, {}), 4, 0.0, dict(eta=0.3)),
    "dmd2_sdxl_4step_lora": (XL, (LCMScheduler, {}), 4, 0.0, dict(timesteps=[999, 749, 499, 249])),
    "sd_xl_turbo_lora_v1": (XL, (EulerAncestralDiscreteScheduler, TRAILING), 4, 0.0, {}),
}
FILES = {SD1: "locon.safetensors", XL: "sdxl.safetensors"}


class Passing:
    """A pipeline whose calls are passed something more."""

    def __init__(self, pipe, more):
        self.__dict__.update(pipe=pipe, more=more)

    def __getattr__(self, name):
        return getattr(self.pipe, name)

    def __call__(self, *args, **kwargs):
        return self.pipe(*args, **kwargs, **self.more)


def main():
    fresh(HERE)
    expected = {}
    for name, (base, (scheduler, settings), steps, guidance, more) in CASES.items():
        pipe = load(base)
        pipe.load_lora_weights(GOLDEN / "lora", weight_name=FILES[base])
        asked = json.loads((GOLDEN / "pipelines" / base / "case.json").read_text())
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **settings)
        _, picture = draw(Passing(pipe, more), {**asked, "steps": steps, "guidance_scale": guidance})
        clipped, spread = ((picture == 0) | (picture == 255)).mean(), picture.astype(float).std((0, 1)).min()
        print(f"{name}: {picture.shape}, clipped {clipped:.1%}, std {spread:.0f}")
        assert spread > 15 and clipped < 0.4, name
        expected[name] = torch.from_numpy(picture)
    # No LoRA, a sampler of another name: what the pipeline passes to its steps where nothing is said.
    pipe = load(XL)
    pipe.scheduler = TCDScheduler.from_config(pipe.scheduler.config)
    asked = json.loads((GOLDEN / "pipelines" / XL / "case.json").read_text())
    expected["tcd"] = torch.from_numpy(draw(pipe, asked)[1])
    write(HERE / "expected.safetensors", expected)


if __name__ == "__main__":
    main()
