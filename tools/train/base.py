"""The base: one UNet for all styles, told the style by class, and the text encoder, trained together on encoded scenes.

v-prediction over Stable Diffusion's schedule; 10 % of captions are empty. Errors of v count alike at all times, but less where the signal
is more than five times the noise: min-SNR (arXiv 2303.09556) gives the noisiest times a hundredth of that, and those are where the
caption tells most, and where students of one step begin.
"""

from pathlib import Path

import torch

from . import models, tokenizer
from .common import STYLES, Clock, Meter, Trainer, autocast, device, home, on_gpu, say, write_atomic
from .latents import Pool
from .render import prepared, sheet
from .sample import pictures
from .vae import load_vae

EMPTY = 0.1
LOOKS = 5
LOOK = ["fox", "rocket", "birthday cake", "octopus on yellow", "blue cat", "two strawberries", "cat and rocket", "small ghost at the left"]


def diffusion_loss(unet, context, latents, g, alphas, sigmas, classes=None):
    count = len(latents)
    # One time in each of `count` equal parts.
    t = ((torch.arange(count) + torch.rand(count, generator=g)) / count * 1000).long().clamp(0, 999).to(latents.device)
    seed = torch.randint(2**62, (1,), generator=g).item()
    drawn = torch.randn(latents.shape, generator=torch.Generator(latents.device).manual_seed(seed), device=latents.device)
    a, s = alphas[t][:, None, None, None], sigmas[t][:, None, None, None]
    noisy, v = a * latents + s * drawn, a * drawn - s * latents
    with autocast():
        made = unet(noisy, t, context, class_labels=classes).sample
    error = (made.float() - v).square().mean((1, 2, 3))
    ratio = (alphas[t] / sigmas[t]).square()
    return (error * (5 / ratio).clamp_max(1)).mean()


class Setting:
    """What base, styles and students have in common."""

    def __init__(self):
        self.where = device()
        self.subjects, self.renderer = prepared()
        self.vae = load_vae().to(self.where, memory_format=torch.channels_last)
        self.tokenizer = tokenizer.load()
        self.alphas, self.sigmas = models.schedule(self.where)
        self.empty = tokenizer.encode(self.tokenizer, [""]).to(self.where)
        self._judge = None

    def judge(self):
        if self._judge is None and (home() / "embedding/model.pt").exists():
            from .embedding import Judge

            self._judge = Judge(self.renderer)
        return self._judge

    def without_some(self, ids, g):
        gone = (torch.rand(len(ids), 1, generator=g) < EMPTY).to(ids.device)
        return torch.where(gone, self.empty, ids)

    def quick_score(self, parts, styles, count, base=False, only=None, **drawing):
        """Retrieval over `count` subjects, one seed each: a point of the curve."""
        judge = self.judge()
        if judge is None:
            return {}
        chosen = only or list(range(len(self.subjects)))
        chosen = chosen[:: max(1, len(chosen) // count)][:count]
        prompts = [self.subjects[i]["name"] for _ in styles for i in chosen]
        style = [s for s in styles for _ in chosen]
        made = pictures(parts, prompts, list(range(len(prompts))), style if base else None, **drawing)
        top1, top5 = judge.ranks(made, torch.tensor(style), torch.tensor(chosen * len(styles)))
        return {"top1": top1, "top5": top5, "of": len(prompts)}


@torch.no_grad()
def begin_with(start, tokenizer, unet, text):
    """Weights of a checkpoint exported before, as far as they fit: it had no classes, and may have had other words."""
    import json

    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    its = UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32).state_dict()
    missing, unexpected = unet.load_state_dict(its, strict=False)
    assert missing == ["class_embedding.weight"] and not unexpected, (missing, unexpected)
    unet.class_embedding.weight.mul_(0.02)
    its = CLIPTextModel.from_pretrained(start, subfolder="text_encoder", torch_dtype=torch.float32).state_dict()
    words = json.loads((Path(start) / "tokenizer/vocab.json").read_text())
    known = [(mine, words[t]) for t, mine in tokenizer.get_vocab().items() if t in words]
    for name, weight in text.state_dict().items():
        if name.endswith("token_embedding.weight"):
            mine, theirs = torch.tensor(known).T
            weight[mine] = its[name][theirs]
        elif name.endswith("position_embedding.weight"):
            rows = min(len(weight), len(its[name]))
            weight[:rows] = its[name][:rows]
        else:
            weight.copy_(its[name])
    say("base", begins_with=str(start), words=len(known))


def run(minutes, batch=None, start=None):
    batch = batch or (1024 if on_gpu() else 64)
    s = Setting()
    unet = models.unet(classes=len(STYLES))
    text = models.text_encoder(s.tokenizer)
    if start and not (home() / "base/model.pt").exists():
        begin_with(start, s.tokenizer, unet, text)
    unet, text = unet.to(s.where), text.to(s.where)
    fast = models.trained(unet, batch, len(STYLES))
    lr, horizon = (2e-3, 3_000_000) if on_gpu() else (1.2e-3, 400_000)
    trainer = Trainer("base", {"unet": unet, "text_encoder": text}, lr, horizon, warmup=batch * 100, muon=True)
    clock = Clock(minutes)
    trainer.save()  # from now on the encoder stays as it is
    pool = Pool("all", s.subjects, s.renderer, s.vae)
    parts = {"unet": unet, "text_encoder": text, "tokenizer": s.tokenizer, "vae": s.vae}
    meter = Meter(trainer, clock, 30 if on_gpu() else 120)

    def finish(look):
        trainer.save()
        trainer.publish()
        clock.saved_now()
        with trainer.ema.applied():
            unet.eval(), text.eval()
            if look:
                score = s.quick_score(parts, list(range(4)), 48 if on_gpu() else 16, base=True)
                made = pictures(parts, LOOK * 4, [7] * 4 * len(LOOK), [i for i in range(4) for _ in LOOK])
                for name in (f"sheet-{trainer.samples:09}.png", "sheet.png"):
                    write_atomic(home() / "base" / name, lambda p: sheet(made, len(LOOK)).save(p, "PNG"))
                say("base", samples=trainer.samples, **score)
            unet.train(), text.train()

    while not clock.over():
        pool.grow(trainer.samples)
        if clock.over():
            break
        g = trainer.generator()
        latents, ids, style = pool.batch(batch, g)
        with autocast():
            context = text(s.without_some(ids, g)).last_hidden_state
        loss = diffusion_loss(fast, context, latents, g, s.alphas, s.sigmas, style)
        trainer.step(loss, batch)
        meter.add(loss, shards=pool.made, on_shards=pool.seconds)
        if clock.due("look", max(30, minutes * 60 / LOOKS)):
            finish(True)
        elif clock.save_due():
            finish(False)
    pool.close()
    finish(on_gpu() or minutes > 5)


def load_base():
    """Averaged weights of UNet and text encoder, and after how many samples."""
    return torch.load(home() / "base/model.pt", map_location=device(), weights_only=True)
