"""Whether the pieces fit, by number, without any training: seconds."""

import torch

from . import captions, models, tokenizer
from .checkpoints import CHECKPOINTS, STUDENTS, style_number, subjects_of
from .common import STYLES, device
from .drawings import load
from .render import Renderer, pack
from .sample import denoise, student_scheduler
from .scores import ground_of, hue_of
from .students import TIMES, wanted_v


def near(a, b, most, what):
    off = (a - b).abs().max().item()
    print(f"{what}: off by {off:.2g}")
    assert off <= most, what


@torch.no_grad()
def folded():
    """A style's UNet gives what the base gives for that class."""
    base = models.unet(classes=len(STYLES)).eval()
    x, context, t = torch.randn(2, *models.LATENTS), torch.randn(2, tokenizer.TOKENS, 192), torch.tensor([3, 800])
    for style in STYLES:
        one = models.unet_of_style(base.state_dict(), style).eval()
        label = torch.full((2,), STYLES.index(style))
        near(base(x, t, context, class_labels=label).sample, one(x, t, context).sample, 1e-4, f"base as {style}")


class Told(torch.nn.Module):
    """Stands for a student that has learned all: it says the v that leads to the next point."""

    def __init__(self, points, times, alphas, sigmas):
        super().__init__()
        self.points, self.times, self.alphas, self.sigmas = points, times, alphas, sigmas
        self.at = 0

    def forward(self, x, t, context, class_labels=None):
        assert int(t) == self.times[self.at], (t, self.times)
        i = self.at
        v = wanted_v(x, self.points[i + 1], self.alphas[i], self.sigmas[i], self.alphas[i + 1], self.sigmas[i + 1])
        self.at += 1
        return type("Output", (), {"sample": v})


def stepped():
    """The scheduler that students are shipped with goes exactly the way they learn."""
    alphas, sigmas = models.schedule(device())
    for steps in STUDENTS:
        times = TIMES[: max(1, steps)] if steps > 1 else TIMES[:1]
        points = torch.randn(len(times) + 1, 1, *models.LATENTS, device=device())
        a = torch.cat([alphas[times], torch.ones(1, device=device())])
        s = torch.cat([sigmas[times], torch.zeros(1, device=device())])
        told = Told(points, times, a, s)
        # Euler's latents are larger by the root of sigma squared plus one; `scale_model_input` takes that off again.
        end = denoise(told, torch.zeros(1, 1, 1, device=device()), None, points[0], student_scheduler(), steps, 1)
        near(end, points[-1], 1e-3, f"{steps} steps of a student")


def scenes():
    subjects, drawings = load()
    renderer = Renderer(drawings, device())
    drawn = captions.Writer(subjects).scenes(512, seed=9)
    made = renderer.picture(pack(drawn))
    wanted = torch.tensor([s["ground"] for s in drawn])
    right = (ground_of(made).cpu() == wanted).float().mean().item()
    plain = [s for s in drawn if len(s["slots"]) == 1 and s["slots"][0][5] >= 0]
    for s in plain:
        s["ground"] = 0
    hue = (hue_of(renderer.picture(pack(plain))).cpu() == torch.tensor([s["slots"][0][5] for s in plain])).float().mean().item()
    print(f"{len(subjects)} subjects; grounds told right {right:.3f}, subjects' colours {hue:.3f} of {len(plain)}")
    assert right > 0.95 and hue > 0.9
    for name in CHECKPOINTS:
        assert 0 <= style_number(name) < len(STYLES)
        print(name, len(subjects_of(name, subjects) or subjects), "subjects")


def run():
    folded()
    stepped()
    scenes()
    words = tokenizer.load()
    assert words("two blue foxes").input_ids[-1] == words.eos_token_id
    print("size of a UNet", models.count(models.unet()), "text encoder", models.count(models.text_encoder(words)), "VAE", models.count(models.vae()))
