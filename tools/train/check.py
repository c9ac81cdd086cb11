"""Whether the pieces fit, by number, without any training: seconds."""

from pathlib import Path

import torch

from . import captions, models, tokenizer
from .base import begin_with
from .checkpoints import CHECKPOINTS, style_number, subjects_of
from .common import STYLES, device
from .render import pack, prepared
from .sample import denoise, student_scheduler
from .scores import ground_of, hue_of
from .students import TIMES, WAY, Lora, wanted_v


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
    """Stands for a student that has learned all: from wherever it is asked, it says the v that leads to `end`."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, x, t, context, class_labels=None):
        assert int(t) in TIMES, t
        alphas, sigmas = models.schedule(device())
        return type("Output", (), {"sample": wanted_v(x, self.end, alphas[t], sigmas[t])})


def stepped():
    """The scheduler of students asks at timesteps that they learn, and ends where they say."""
    for steps in (1, 2, 4, 8):
        noise, end = torch.randn(2, 1, *models.LATENTS, device=device())
        generators = [torch.Generator().manual_seed(1)]
        found = denoise(Told(end), torch.zeros(1, 1, 1, device=device()), None, noise, student_scheduler(), steps, 1, generators=generators)
        near(found, end, 1e-3, f"{steps} steps of a student")
    assert set(TIMES) <= set(WAY)


@torch.no_grad()
def laid():
    """The LoRA's file, read as its format says, changes a UNet as the LoRA itself does."""
    unet = models.unet()
    lora = Lora(unet)
    for up in lora.up:
        torch.nn.init.normal_(up, std=0.05)
    file, weights = lora.tensors(), dict(unet.state_dict())
    for name, wanted in lora.over(weights).items():
        module = name.removesuffix(".weight")
        if (down := file.get(f"unet.{module}.lora_A.weight")) is not None:
            up = file[f"unet.{module}.lora_B.weight"]
            weights[name] = weights[name] + torch.einsum("or,r...->o...", up.flatten(1).float(), down.float())
        assert (weights[name] - wanted).abs().max() < 5e-3, name
    assert len(file) == 2 * len(lora.shapes)


@torch.no_grad()
def begun():
    """What begins with a shipped checkpoint gives, for words that both know, what that one gives."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    start = Path(__file__).resolve().parents[2] / "www/checkpoints/soft"
    words = tokenizer.load()
    base, text = models.unet(classes=len(STYLES)).eval(), models.text_encoder(words).eval()
    begin_with(start, words, base, text)
    base.class_embedding.weight.zero_()
    its_unet = UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32).eval()
    its_text = CLIPTextModel.from_pretrained(start, subfolder="text_encoder", torch_dtype=torch.float32).eval()
    its_words = CLIPTokenizer.from_pretrained(start / "tokenizer")
    asked = "red cat on blue"
    mine, theirs = (model(w(asked, return_tensors="pt").input_ids).last_hidden_state for model, w in ((text, words), (its_text, its_words)))
    near(mine, theirs, 1e-4, "text encoder begun with another's")
    x, t = torch.randn(1, *models.LATENTS), torch.tensor([500])
    near(base(x, t, theirs, class_labels=torch.tensor([2])).sample, its_unet(x, t, theirs).sample, 1e-4, "UNet begun with another's")


def scenes():
    subjects, renderer = prepared()
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
    laid()
    begun()
    scenes()
    words = tokenizer.load()
    assert words("two blue foxes").input_ids[-1] == words.eos_token_id
    print("size of a UNet", models.count(models.unet()), "text encoder", models.count(models.text_encoder(words)), "VAE", models.count(models.vae()))
