"""Each style of its own: the base's UNet for that style, trained on with that style's drawings. The text encoder stays as it is,
so that all have the same. The subject specialist is trained on with its subjects alone."""

import time

import torch

from . import models
from .base import Setting, diffusion_loss, load_base
from .checkpoints import CHECKPOINTS, prompts_of, style_number, subjects_of
from .common import Clock, Meter, Trainer, device, home, on_gpu, say, stop_asked, write_atomic
from .latents import Pool
from .render import sheet
from .sample import pictures


def run(minutes, only=None):
    names = only or list(CHECKPOINTS)
    setting = Setting()
    end = time.time() + 60 * minutes
    for i, name in enumerate(names):
        if not stop_asked():
            train(setting, name, (end - time.time()) / 60 / (len(names) - i))


def text_encoder(setting, base):
    text = models.text_encoder(setting.tokenizer).to(device())
    text.load_state_dict(base["text_encoder"])
    return text.eval().requires_grad_(False)


def load_style(setting, name):
    """The parts of a style: as trained on, else as the base has it; with its name, and the version of its weights."""
    base = load_base()
    path = home() / "styles" / name / "model.pt"
    unet = models.unet_of_style(base["unet"], CHECKPOINTS[name]["style"])
    version = f"{base['samples']}"
    if path.exists():
        own = torch.load(path, map_location=device(), weights_only=True)
        if own["extra"]["base"] == base["samples"]:
            unet.load_state_dict(own["unet"])
            version += f"-{own['samples']}"
        else:
            say(f"styles/{name}", left_out="the base has gone on since", base=base["samples"], trained_from=own["extra"]["base"])
    unet = unet.to(device()).eval().requires_grad_(False)
    parts = {"unet": unet, "text_encoder": text_encoder(setting, base), "tokenizer": setting.tokenizer, "vae": setting.vae}
    return {**parts, "name": name, "version": version}


def train(s, name, minutes):
    stage = f"styles/{name}"
    base = load_base()
    unet = models.unet_of_style(base["unet"], CHECKPOINTS[name]["style"]).to(s.where)
    text = text_encoder(s, base)
    batch = 1024 if on_gpu() else 64
    fast = models.trained(unet, batch)

    def trainer_of():
        lr, horizon = (8e-4, 1_000_000) if on_gpu() else (5e-4, 100_000)
        return Trainer(stage, {"unet": unet}, lr, horizon, warmup=batch * 50, muon=True)

    trainer = trainer_of()
    if trainer.samples and trainer.extra.get("base") != base["samples"]:
        say(stage, base_went_on_to=base["samples"], begins_anew=True)
        for file in [*(home() / stage).glob("*.pt"), home() / stage / "spent.json"]:
            file.unlink(missing_ok=True)
        trainer.lock.close()
        unet.load_state_dict(models.unet_of_style(base["unet"], CHECKPOINTS[name]["style"]).state_dict())
        trainer = trainer_of()
    trainer.extra["base"] = base["samples"]
    only = subjects_of(name, s.subjects)
    pool = Pool(name, s.subjects, s.renderer, s.vae, style_number(name), only)
    parts = {"unet": unet, "text_encoder": text, "tokenizer": s.tokenizer, "vae": s.vae}
    clock = Clock(minutes)
    meter = Meter(trainer, clock, 10 if on_gpu() else 120)

    def finish(look):
        trainer.save()
        trainer.publish()
        with trainer.ema.applied():
            unet.eval()
            if look:
                score = s.quick_score(parts, [style_number(name)], 128 if on_gpu() else 32, only=only)
                words = prompts_of(name)
                made = pictures(parts, words * 2, [7] * len(words) + [8] * len(words))
                write_atomic(home() / stage / "sheet.png", lambda p: sheet(made, len(words)).save(p, "PNG"))
                say(stage, samples=trainer.samples, **score)
            unet.train()

    while not clock.over():
        pool.grow(trainer.samples)
        if clock.over():
            break
        g = trainer.generator()
        latents, ids, _ = pool.batch(batch, g)
        with torch.no_grad():
            context = text(s.without_some(ids, g)).last_hidden_state
        loss = diffusion_loss(fast, context, latents, g, s.alphas, s.sigmas)
        trainer.step(loss, batch)
        meter.add(loss, shards=pool.made)
        if clock.save_due():
            finish(False)
    pool.close()
    finish(on_gpu() or minutes > 2)
