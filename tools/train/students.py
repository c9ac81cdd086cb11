"""Fewer steps: one LoRA that makes every checkpoint draw in four steps, in one, in two or in eight, without guidance.

Consistency distillation (arXiv 2303.01469, 2310.04378) of trajectories, with no adversary. Each teacher draws with guidance; what it
passes through at the eight timesteps of `LCMScheduler`, and where it arrives, is kept. From each of these points the student learns
to say where the way ends. Its addition to the weights is of low rank and the same for all teachers, which take turns: the short time
there is goes to one small network rather than to ten, and what ships is one file. At the first timestep the answer for one step and for
four is the same, so one student can be both.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call

from . import models
from .base import Setting
from .captions import Writer
from .checkpoints import CHECKPOINTS, STUDENTS, prompts_of, style_number, subjects_of
from .common import Clock, Meter, Trainer, autocast, device, home, on_gpu, say, stop_asked, write_atomic
from .render import sheet
from .sample import GUIDANCE, denoise, pictures, student_scheduler, teacher_scheduler
from .styles import load_style
from .tokenizer import encode

# Where `LCMScheduler` goes in eight steps; its four, two and one are among them.
TIMES = [999, 879, 759, 639, 499, 379, 259, 139]
# How often each is learned from: the first is the hardest, and all begin with it.
CHANCES = [4.0, 1, 2, 1, 2, 1, 2, 1]
# The teacher's steps, of which these are some.
WAY = [999, 939, 879, 819, 759, 699, 639, 569, 499, 439, 379, 319, 259, 199, 139, 79, 39]
# Between its steps `LCMScheduler` goes to where no way of a teacher's leads: the answer so far with other noise. The share of points
# after the first that are made so; without them four steps come out paler than one.
NOISED_ANEW = 0.5
USES = 24
RANK = 48


class Lora(nn.Module):
    """What is added to a UNet's matrices and convolutions: products of rank `RANK`."""

    def __init__(self, unet):
        super().__init__()
        self.teachers = {}  # the versions it learned from, where that is known
        layers = {n: m for n, m in unet.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        self.shapes = {n: m.weight.shape for n, m in layers.items()}
        ranks = [min(RANK, s[0], s[1:].numel()) for s in self.shapes.values()]
        self.down = nn.ParameterList(torch.randn(r, s[1:].numel()) / s[1:].numel() ** 0.5 for r, s in zip(ranks, self.shapes.values()))
        self.up = nn.ParameterList(torch.zeros(s[0], r) for r, s in zip(ranks, self.shapes.values()))

    def over(self, weights):
        """A UNet's weights with this added."""
        added = {
            f"{n}.weight": weights[f"{n}.weight"] + (up @ down).view(shape)
            for (n, shape), down, up in zip(self.shapes.items(), self.down, self.up)
        }
        return {**weights, **added}

    def tensors(self):
        """As diffusers names them in a file of its own."""
        named = {}
        for (name, shape), down, up in zip(self.shapes.items(), self.down, self.up):
            kernel = shape[2:]
            named[f"unet.{name}.lora_A.weight"] = down.detach().view(-1, *shape[1:]).half().contiguous()
            named[f"unet.{name}.lora_B.weight"] = up.detach().view(*up.shape, *(1 for _ in kernel)).half().contiguous()
        return named


class Trajectories:
    """Of one teacher: tokens' ids [N, tokens] and points [N, 9, 4, 16, 16]. They grow with what the student has seen."""

    def __init__(self, s, name, teacher):
        self.s, self.name, self.teacher = s, name, teacher
        self.size, self.first, self.most = (4096, 1, 8) if on_gpu() else (128, 1, 128)
        self.writer = Writer(s.subjects, subjects_of(name, s.subjects))
        self.chunks = []

    @torch.no_grad()
    def _made(self, number):
        path = home() / "trajectories" / f"{self.name}-{self.teacher['version']}-{number}.pt"
        if path.exists() and not on_gpu():  # a GPU makes more at once, and keeps none
            return torch.load(path, weights_only=True)
        scenes = self.writer.scenes(self.size, f"student {self.name} {number}", style_number(self.name))
        ids = encode(self.s.tokenizer, [c["caption"] for c in scenes]).to(device())
        g = torch.Generator().manual_seed(number)
        points = []
        empty = self.teacher["text_encoder"](self.s.empty).last_hidden_state
        part = 2048 if on_gpu() else 64
        for start in range(0, self.size, part):
            if stop_asked():
                return None
            context = self.teacher["text_encoder"](ids[start : start + part]).last_hidden_state
            latents = torch.randn(len(context), *models.LATENTS, generator=g).to(device())
            kept = []
            last = denoise(
                self.teacher["unet"], context, empty, latents, teacher_scheduler(), WAY, GUIDANCE,
                keep=lambda i, x: kept.append(x) if WAY[i] in TIMES else None,
            )  # fmt: skip
            points.append(torch.stack([*kept, last], 1).half())
        chunk = {"ids": ids.to(torch.int16), "points": torch.cat(points)}
        if not on_gpu():
            write_atomic(path, lambda p: torch.save(chunk, p))
        return chunk

    def grow(self, samples):
        want = min(self.most, self.first + int(samples / (USES * self.size)))
        while len(self.chunks) < want and not stop_asked():
            chunk = self._made(len(self.chunks))
            if chunk is None:
                return
            self.chunks.append(chunk)

    def batch(self, count, g):
        which = torch.randint(len(self.chunks), (8,), generator=g).tolist()
        parts = []
        for w in which:
            at = torch.randint(self.size, (-(-count // 8),), generator=g).to(device())
            parts.append({k: v[at] for k, v in self.chunks[w].items()})
        return torch.cat([p["ids"] for p in parts])[:count].long(), torch.cat([p["points"] for p in parts])[:count].float()


def wanted_v(start, end, a, s):
    """The v that says of `start` that its way ends at `end`."""
    return (a * start - end) / s


def run(minutes):
    clock = Clock(minutes)
    s = Setting()
    unet = models.unet().to(s.where)
    teachers = {name: load_style(s, name) for name in CHECKPOINTS}
    weights = {name: dict(t["unet"].state_dict()) for name, t in teachers.items()}
    lora = Lora(unet).to(s.where)
    batch = 1024 if on_gpu() else 64
    trainer = Trainer(
        "students", {"lora": lora}, 2e-3 if on_gpu() else 1e-3, horizon=2_000_000 if on_gpu() else 100_000, warmup=batch * 30, weight_decay=0
    )
    ways = {name: Trajectories(s, name, teacher) for name, teacher in teachers.items()}
    alphas, sigmas = s.alphas[TIMES], s.sigmas[TIMES]
    times = torch.tensor(TIMES, device=s.where)
    trainer.extra["teachers"] = {name: teacher["version"] for name, teacher in teachers.items()}
    meter = Meter(trainer, clock, 10 if on_gpu() else 120)

    def finish(look):
        trainer.save()
        trainer.publish()
        if look:
            with trainer.ema.applied():
                shown, score = [], {}
                for name, teacher in teachers.items():
                    parts = with_lora(lora, teacher)
                    words = prompts_of(name)
                    shown.append(pictures(teacher, words, [7] * len(words)))
                    for steps in STUDENTS:
                        drawing = {"steps": steps, "guidance": 1, "scheduler": student_scheduler()}
                        shown.append(pictures(parts, words, [7] * len(words), **drawing))
                        only, count = subjects_of(name, s.subjects), 128 if on_gpu() else 16
                        found = s.quick_score(parts, [style_number(name)], count, only=only, **drawing)
                        score |= {f"{k}_in_{steps}": score.get(f"{k}_in_{steps}", 0) + v / len(teachers) for k, v in found.items() if k != "of"}
            write_atomic(home() / "students/sheet.png", lambda p: sheet(torch.cat(shown), len(words)).save(p, "PNG"))
            say("students", samples=trainer.samples, **score)

    while not clock.over():
        for way in ways.values():
            way.grow(trainer.samples / len(ways))
        if clock.over():
            break
        g = trainer.generator()
        name = list(ways)[trainer.steps % len(ways)]
        ids, points = ways[name].batch(batch, g)
        with torch.no_grad():
            context = teachers[name]["text_encoder"](ids).last_hidden_state
        at = torch.multinomial(torch.tensor(CHANCES), len(ids), replacement=True, generator=g).to(s.where)
        start, end = points[torch.arange(len(ids), device=s.where), at], points[:, -1]
        a, sigma = alphas[at][:, None, None, None], sigmas[at][:, None, None, None]
        anew = torch.rand(len(ids), generator=g).to(s.where) < NOISED_ANEW * (at > 0)
        noise = torch.randn(end.shape, generator=g).to(s.where)
        start = torch.where(anew[:, None, None, None], a * end + sigma * noise, start)
        target = wanted_v(start, end, a, sigma)
        merged = lora.over(weights[name])
        with autocast():
            v = functional_call(unet, merged, (start, times[at], context)).sample
        # Between L1 and squares: fewer blurred shapes than by squares alone.
        loss = F.huber_loss(v.float(), target, delta=0.3) * 3
        trainer.step(loss, batch)
        meter.add(loss, trajectories=sum(len(way.chunks) * way.size for way in ways.values()))
        if clock.save_due():
            finish(False)
    if all(way.chunks for way in ways.values()):
        finish(on_gpu() or minutes > 5)


@torch.no_grad()
def with_lora(lora, teacher):
    """A checkpoint's parts, the UNet with the LoRA in it. Says so where that learned from another version of the checkpoint."""
    name, version = teacher["name"], teacher["version"]
    if (known := lora.teachers.get(name, version)) != version:
        say("students", lora_of=name, learned_from=known, laid_over=version)
    own = models.unet().to(device())
    own.load_state_dict(lora.over(dict(teacher["unet"].state_dict())))
    return {**teacher, "unet": own.eval().requires_grad_(False)}


def load_lora():
    """None where there is none yet."""
    path = home() / "students/model.pt"
    if not path.exists():
        return None
    lora = Lora(models.unet()).to(device())
    kept = torch.load(path, map_location=device(), weights_only=True)
    lora.load_state_dict(kept["lora"])
    lora.teachers = kept["extra"].get("teachers", {})
    return lora.requires_grad_(False)


def load_student(setting, name):
    """A checkpoint with the LoRA in it; None where there is none yet."""
    lora = load_lora()
    return with_lora(lora, load_style(setting, name)) if lora else None
