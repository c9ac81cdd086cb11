"""Students of each checkpoint, for four steps and for one, by distilling trajectories; no adversary.

The teacher draws with guidance; what it passes through at timesteps 999, 749, 499, 249 and the end is kept. A student learns to go
from each of these points to the next in one step of Euler's (from the first to the last, the student for one step). What it
is asked with the same prompt and seed thus comes near the teacher's picture, and it needs no guidance: that is built in.
"""

import time

import torch
import torch.nn.functional as F

from . import models
from .base import Setting
from .captions import Writer
from .checkpoints import CHECKPOINTS, STUDENTS, prompts_of, style_number, subjects_of
from .common import Clock, Trainer, autocast, device, home, on_gpu, say, stop_asked, write_atomic
from .render import sheet
from .sample import GUIDANCE, STEPS, denoise, pictures, student_scheduler, teacher_scheduler
from .styles import load_style
from .tokenizer import encode

TIMES = [999, 749, 499, 249]
USES = 24


def run(minutes, only=None):
    names = only or list(CHECKPOINTS)
    setting = Setting()
    end = time.time() + 60 * minutes
    for i, name in enumerate(names):
        if not stop_asked():
            train(setting, name, (end - time.time()) / 60 / (len(names) - i))


class Trajectories:
    """Of one teacher: tokens' ids [N, tokens] and points [N, 5, 4, 16, 16]. They grow with what the students have seen."""

    def __init__(self, s, name, teacher, samples_of_teacher):
        self.s, self.name, self.teacher, self.version = s, name, teacher, samples_of_teacher
        self.size, self.first, self.most = (4096, 2, 24) if on_gpu() else (128, 1, 512)
        self.writer = Writer(s.subjects, subjects_of(name, s.subjects))
        self.chunks = []

    @torch.no_grad()
    def _made(self, number):
        path = home() / "trajectories" / f"{self.name}-{self.version}-{number}.pt"
        if path.exists():
            return torch.load(path, weights_only=True)
        scenes = self.writer.scenes(self.size, f"student {self.name} {number}", style_number(self.name))
        ids = encode(self.s.tokenizer, [c["caption"] for c in scenes]).to(device())
        g = torch.Generator().manual_seed(number)
        points = []
        empty = self.teacher["text_encoder"](self.s.empty).last_hidden_state
        part = 1024 if on_gpu() else 32
        for start in range(0, self.size, part):
            if stop_asked():
                return None
            context = self.teacher["text_encoder"](ids[start : start + part]).last_hidden_state
            latents = torch.randn(len(context), *models.LATENTS, generator=g).to(device())
            kept = []
            every = STEPS // len(TIMES)
            last = denoise(
                self.teacher["unet"], context, empty, latents, teacher_scheduler(timestep_spacing="trailing"), STEPS, GUIDANCE,
                keep=lambda i, x: kept.append(x) if i % every == 0 else None,
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


def wanted_v(start, end, a, s, a_end, s_end):
    """The v with which one step of Euler's (or DDIM's) goes from `start` to `end`."""
    return (end - (a_end * a + s_end * s) * start) / (s_end * a - a_end * s)


def train(s, name, minutes):
    teacher = load_style(s, name)
    path = home() / "styles" / name / "model.pt"
    version = torch.load(path, map_location="cpu", weights_only=True)["samples"] if path.exists() else 0
    trajectories = Trajectories(s, name, teacher, version)
    end = time.time() + 60 * minutes
    for i, steps in enumerate(STUDENTS):
        if not stop_asked():
            one(s, name, steps, teacher, trajectories, (end - time.time()) / 60 / (len(STUDENTS) - i))


def one(s, name, steps, teacher, trajectories, minutes):
    stage = f"students/{name}-{steps}"
    unet = models.unet().to(s.where)
    unet.load_state_dict(teacher["unet"].state_dict())
    batch = 512 if on_gpu() else 64
    trainer = Trainer(stage, {"unet": unet}, 1e-3 if on_gpu() else 5e-4, horizon=500_000 if on_gpu() else 50_000, warmup=batch * 30)
    alphas = torch.cat([s.alphas[TIMES], torch.ones(1, device=s.where)])
    sigmas = torch.cat([s.sigmas[TIMES], torch.zeros(1, device=s.where)])
    times = torch.tensor(TIMES, device=s.where)
    parts = {**teacher, "unet": unet}
    clock = Clock(minutes)
    losses, began, seen = [], time.time(), trainer.samples

    def finish(look):
        trainer.save()
        trainer.publish()
        with trainer.ema.applied():
            unet.eval()
            if look:
                drawing = {"steps": steps, "guidance": 1, "scheduler": student_scheduler()}
                only = subjects_of(name, s.subjects)
                score = s.quick_score(parts, [style_number(name)], 128 if on_gpu() else 32, only=only, **drawing)
                words = prompts_of(name)
                made = torch.cat([pictures(teacher, words, [7] * len(words)), pictures(parts, words, [7] * len(words), **drawing)])
                write_atomic(home() / stage / "sheet.png", lambda p: sheet(made, len(words)).save(p, "PNG"))
                say(stage, samples=trainer.samples, **score)
            unet.train()

    while not clock.over():
        trajectories.grow(trainer.samples)
        if clock.over():
            break
        g = trainer.generator()
        ids, points = trajectories.batch(batch, g)
        with torch.no_grad():
            context = teacher["text_encoder"](ids).last_hidden_state
        at = torch.randint(len(TIMES), (len(ids),), generator=g) if steps > 1 else torch.zeros(len(ids), dtype=torch.long)
        to = at + 1 if steps > 1 else torch.full_like(at, len(TIMES))
        at, to = at.to(s.where), to.to(s.where)
        row = torch.arange(len(ids), device=s.where)
        start, goal = points[row, at], points[row, to]
        known = [c[i][:, None, None, None] for i in (at, to) for c in (alphas, sigmas)]
        target = wanted_v(start, goal, *known)
        with autocast():
            v = unet(start, times[at], context).sample
        # Between L1 and squares: fewer blurred shapes than by squares alone.
        loss = F.huber_loss(v.float(), target, delta=0.3) * 3
        trainer.step(loss, batch)
        losses.append(loss.detach())
        if clock.due("log", 10 if on_gpu() else 120):
            say(
                stage, samples=trainer.samples, loss=torch.stack(losses).mean().item(), lr=trainer.rate(),
                per_second=(trainer.samples - seen) / (time.time() - began), trajectories=len(trajectories.chunks) * trajectories.size,
            )  # fmt: skip
            losses, began, seen = [], time.time(), trainer.samples
        if clock.save_due():
            finish(False)
    if trajectories.chunks:
        finish(on_gpu() or minutes > 5)


def load_student(setting, name, steps):
    """None where there is none yet."""
    path = home() / f"students/{name}-{steps}/model.pt"
    if not path.exists():
        return None
    parts = load_style(setting, name)
    parts["unet"].load_state_dict(torch.load(path, map_location=device(), weights_only=True)["unet"])
    return parts
