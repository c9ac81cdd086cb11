"""Every trained stage for a few steps, with tiny networks and 24 subjects, in a folder of its own beside the state: whether all of
it runs, is continued, scored and exported. About a minute of one core."""

import gc
import json
import multiprocessing
import os
import random
import shutil
import sys
import time

from . import base, bundle, checkpoints, common, embedding, export, latents, models, sample, scores, students, styles, vae

NAMES = """fox rocket octopus cat strawberry ghost owl banana crown frog bear balloon umbrella pizza robot penguin whale panda house sun
bicycle guitar spider zebra""".split()


class FewSteps(common.Clock):
    left = 0

    def __init__(self, minutes):
        super().__init__(minutes)
        self.left = 3

    def over(self):
        self.left -= 1
        return self.left < 0

    def due(self, name, seconds):
        return name == "log"


class EveryStep(common.Clock):
    """Never over, and saves with each step."""

    def over(self):
        return common.stop_asked()

    def save_due(self):
        return True

    def due(self, name, seconds):
        return False


def endless(home, stage):
    """What `killed` kills."""
    os.environ["TINTYPE_TRAIN"] = home
    smaller()
    sys.modules[f"{__package__}.{stage}"].Clock = EveryStep
    STAGES[stage]()


def killed(stage):
    """A stage that is killed while it trains and saves goes on from what it had saved."""
    gc.collect()
    samples = lambda: common.read_json(common.home() / stage / "spent.json")["samples"]
    before = samples()
    child = multiprocessing.get_context("spawn").Process(target=endless, args=(str(common.home()), stage))
    child.start()
    seen = set()
    while len(seen) < 4:
        assert child.is_alive(), f"{stage} ended by itself"
        seen.add(samples())
        time.sleep(0.01)
    child.kill()
    child.join()
    at = samples()
    STAGES[stage]()
    assert samples() > at > before, (before, at, samples())
    print(f"{stage}: killed at {at} samples, went on to {samples()}")


STAGES = {"base": lambda: base.run(9, batch=4), "students": lambda: students.run(9)}


def tiny_unet(classes=None):
    return models.UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192, attention_head_dim=4, norm_num_groups=8, num_class_embeds=classes,
    )  # fmt: skip


def smaller():
    for module in (vae, embedding, base, styles, students):
        module.Clock = FewSteps
    models.unet = tiny_unet
    students.RANK = 4
    plain_vae = models.vae
    models.vae = lambda decoder=48: plain_vae(8, 8)
    pool, way, asked = latents.Pool.__init__, students.Trajectories.__init__, scores.Questions.__init__

    def small_pool(self, *args, **more):
        pool(self, *args, **more)
        self.size = 8

    def small_way(self, *args):
        way(self, *args)
        self.size = 4

    def few_questions(self, s, name, subjects, seeds):
        asked(self, s, name, subjects, seeds)
        self.grounds, self.hues = self.grounds[:2], self.hues[:2]

    latents.Pool.__init__, students.Trajectories.__init__, scores.Questions.__init__ = small_pool, small_way, few_questions
    quick = base.Setting.quick_score
    base.Setting.quick_score = lambda self, parts, which, count, **more: quick(self, parts, which[:1], 2, **more)
    for module in (styles, students, scores, export):
        module.prompts_of = lambda name: ["fox", "owl on blue"]
    scores.unseen_prompts = lambda: ["blue fox", "cat and rocket"]
    few = scores.chosen
    scores.chosen = lambda s, name, count: few(s, name, count)[:4]
    some = random.Random.sample
    random.Random.sample = lambda self, of, k: some(self, of, min(k, len(of)))
    base.LOOK = base.LOOK[:2]
    for module in (styles, students, scores, export):
        module.CHECKPOINTS = {k: checkpoints.CHECKPOINTS[k] for k in ("soft", "animals")}


def run():
    whole = common.home()
    home = whole / "smoke"
    shutil.rmtree(home, ignore_errors=True)
    for folder in ("drawings", "captions", "tokenizer"):
        shutil.copytree(whole / folder, home / folder)
    os.environ["TINTYPE_TRAIN"] = str(home)
    subjects = common.read_json(home / "drawings/subjects.json")
    common.write_json(home / "drawings/subjects.json", [s for s in subjects if s["name"] in NAMES])
    smaller()
    vae.run(9)
    embedding.run(9)
    base.run(9, batch=4)
    went_on = common.read_json(home / "base/spent.json")["samples"]
    base.run(9, batch=4)
    assert common.read_json(home / "base/spent.json")["samples"] == 2 * went_on
    killed("base")
    vae.run(9)  # the decoder alone, now that there is a base
    styles.run(9)
    base.run(9, batch=4)
    styles.run(9, only=["soft"])  # begins anew, the base having gone on
    students.run(9)
    killed("students")
    scores.run(4, 1)
    export.run(home / "out")
    bundle.pack(home / "packed", piece=15)
    bundle.unpack(home / "packed")
    assert not (home / "base/state.pt").exists()
    base.run(9, batch=4)  # without the optimizer's state
    bundle.status()
    for steps in (20, 4, 1):
        same_as_pipeline(home / "out", "soft", steps)
    catalogue = json.loads((home / "out/checkpoints.json").read_text())["checkpoints"]
    assert [c["id"] for c in catalogue] == ["soft", "soft-4", "soft-1", "animals", "animals-4", "animals-1"]
    print("all stages run")


def same_as_pipeline(out, name, steps):
    """What is exported draws, in the pipeline of diffusers, what the scores looked at."""
    import numpy as np
    import torch
    from diffusers import LCMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(out / name, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    guidance = sample.GUIDANCE
    if steps < sample.STEPS:
        pipeline.load_lora_weights(out, weight_name=export.LORA)
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        guidance = 1
    setting = base.Setting()
    parts = students.load_student(setting, name) if guidance == 1 else styles.load_style(setting, name)
    prompt = "owl on blue"
    how = {"steps": steps, "guidance": guidance, "scheduler": sample.student_scheduler() if guidance == 1 else None}
    mine = sample.pictures(parts, [prompt], [5], **how)
    its = pipeline(
        prompt, num_inference_steps=steps, guidance_scale=guidance, generator=torch.Generator().manual_seed(5), output_type="np",
        height=128, width=128,
    ).images[0]  # fmt: skip
    off = np.abs(mine[0].permute(1, 2, 0).cpu().numpy() - its).max()
    print(f"exported, by the pipeline in {steps} steps: off by {off:.2g}")
    assert off < 0.05
