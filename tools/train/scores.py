"""Scores of every checkpoint and student, with sheets to look at, and a table for README.md.

Retrieval: a picture of a subject counts as right if, of all drawings of the style, its own is nearest (or among the five nearest)
in the embedding. Ground: the colour at the rim is nearest to the one asked for. Subject colour: the hue that most of what isn't
ground has is nearest to the one asked for. The row `drawings` is what the drawings themselves get after the VAE: a ceiling.
"""

import hashlib
import random

import torch

from .base import Setting
from .captions import GROUNDS, HUES, unseen_prompts
from .checkpoints import CHECKPOINTS, STUDENTS, prompts_of, style_number, subjects_of
from .common import home, read_json, say, stop_asked, write_atomic, write_json
from .render import pack, sheet, to_hsv
from .sample import GUIDANCE, STEPS, pictures, student_scheduler
from .students import load_student
from .styles import load_style


def chosen(s, name, count):
    """The subjects that are scored: the same ones each time, in no order."""
    of = subjects_of(name, s.subjects) or range(len(s.subjects))
    return sorted(of, key=lambda i: hashlib.sha256(s.subjects[i]["key"].encode()).digest())[:count]


def ground_of(made):
    """Number of the ground's colour, by the rim's median."""
    rim = torch.cat([made[:, :, :3].flatten(2), made[:, :, -3:].flatten(2), made[..., :3].flatten(2), made[..., -3:].flatten(2)], 2)
    colour = rim.median(2).values
    known = torch.tensor(list(GROUNDS.values()), device=made.device) / 255
    return (colour[:, None] - known).square().sum(2).argmin(1)


def hue_of(made):
    """Number of the subject's hue, on a white ground."""
    hue, saturation, value = to_hsv(made)
    weight = (saturation > 0.25) * (value > 0.2) * saturation * value
    known = torch.tensor([float(h) for h in HUES.values()], device=made.device)
    away = ((hue[:, None] - known[:, None, None] + 180) % 360 - 180).abs()
    nearest = away.argmin(1)
    votes = torch.stack([(weight * (nearest == k)).sum((1, 2)) for k in range(len(known))], 1)
    return torch.where(votes.sum(1) > 20, votes.argmax(1), -1)  # where nothing has a hue there is no answer


class Questions:
    """What one checkpoint is asked: prompts, and how each answer is judged."""

    def __init__(self, s, name, subjects, seeds):
        self.s, self.name = s, name
        self.style = style_number(name)
        ids = chosen(s, name, subjects)
        self.wanted = [i for i in ids for _ in range(seeds)]
        self.seeds = [1000 + k for _ in ids for k in range(seeds)]
        r = random.Random(5)
        self.grounds = [(i, g) for g in range(len(GROUNDS)) for i in r.sample(ids, 12)]
        self.hues = [(i, h) for h in range(len(HUES)) for i in r.sample(ids, 12)]

    def answers(self, draw):
        """The three figures, from `draw(prompts, seeds, slots and grounds)`."""
        title = [self.s.subjects[i]["name"] for i in range(len(self.s.subjects))]
        plain = draw([title[i] for i in self.wanted], self.seeds, [((i, -1), 0) for i in self.wanted])
        style = torch.full((len(plain),), self.style)
        top1, top5 = self.s.judge().ranks(plain, style, torch.tensor(self.wanted))
        grounds = [f"{title[i]} on {list(GROUNDS)[g]}" for i, g in self.grounds]
        made = draw(grounds, list(range(len(grounds))), [((i, -1), g) for i, g in self.grounds])
        ground = (ground_of(made).cpu() == torch.tensor([g for _, g in self.grounds])).float().mean().item()
        hues = [f"{list(HUES)[h]} {title[i]}" for i, h in self.hues]
        made = draw(hues, list(range(len(hues))), [((i, h), 0) for i, h in self.hues])
        hue = (hue_of(made).cpu() == torch.tensor([h for _, h in self.hues])).float().mean().item()
        return {"top1": top1, "top5": top5, "ground": ground, "hue": hue, "subjects": len(set(self.wanted)), "pictures": len(plain)}

    @torch.no_grad()
    def drawn(self, _prompts, _seeds, wanted):
        """The drawings themselves, through the VAE."""
        distinct = list(dict.fromkeys(wanted))
        scenes = [{"slots": [(i, 0, 0, 0.87, False, h)], "style": self.style, "ground": g} for (i, h), g in distinct]
        made = []
        for start in range(0, len(scenes), 64):
            seen = self.s.renderer.picture(pack(scenes[start : start + 64]))
            made.append((self.s.vae.decoder(self.s.vae.encoder(seen * 2 - 1)) / 2 + 0.5).clamp(0, 1))
        return torch.cat(made)[[distinct.index(w) for w in wanted]]


def run(subjects=240, seeds=4, only=None):
    s = Setting()
    out = home() / "scores"
    scores = read_json(out / "scores.json") if (out / "scores.json").exists() else {}
    keep = lambda image, name: write_atomic(out / name, lambda p: image.save(p, "PNG"))
    for name in only or CHECKPOINTS:
        teacher = load_style(s, name)
        questions = Questions(s, name, subjects, seeds)
        rows = {"drawings": (None, {}), str(STEPS): (teacher, {"steps": STEPS, "guidance": GUIDANCE})}
        if student := load_student(s, name):
            for steps in STUDENTS:
                rows[str(steps)] = (student, {"steps": steps, "guidance": 1, "scheduler": student_scheduler()})
        compared = []
        for row, (parts, how) in rows.items():
            if stop_asked():
                return say("scores", ended="stopped")
            draw = (lambda p, k, _: pictures(parts, p, k, **how)) if parts else questions.drawn
            scores.setdefault(name, {})[row] = questions.answers(draw)
            say("scores", checkpoint=name, steps=row, **scores[name][row])
            if parts:
                words = prompts_of(name)
                compared.append(pictures(parts, words, [7] * len(words), **how))
        write_json(out / "scores.json", scores)
        keep(sheet(torch.cat(compared), len(prompts_of(name))), f"{name}-steps.png")
        if "subgroups" not in CHECKPOINTS[name]:
            words = unseen_prompts()
            keep(sheet(pictures(teacher, words, [11] * len(words)), 10), f"{name}-unseen.png")
        ids = chosen(s, name, 10_000)[-30:]
        words = [s.subjects[i]["name"] for i in ids]
        keep(sheet(pictures(teacher, words, [3] * len(words)), 6), f"{name}-name-these.png")
        write_json(out / f"{name}-name-these.json", words)
    write_atomic(out / "table.md", lambda p: p.write_text(table(scores)))
    print(table(scores))


def table(scores):
    lines = ["| Checkpoint | Steps | Top 1 | Top 5 | Ground | Subject's colour |", "| --- | --- | --- | --- | --- | --- |"]
    for name, rows in scores.items():
        for row, v in rows.items():
            lines.append(f"| {name} | {row} | " + " | ".join(f"{100 * v[k]:.1f} %" for k in ("top1", "top5", "ground", "hue")) + " |")
    return "\n".join(lines) + "\n"
