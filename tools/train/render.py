"""Scenes to pictures, on whichever device, many at once: placed, mirrored, turned in hue, laid over a ground."""

import functools
import math

import torch
import torch.nn.functional as F

from .captions import GROUNDS, HUES, SLOTS
from .common import SIZE, STYLES, device


def pack(scenes):
    """Numbers of scenes as tensors."""
    none = (-1, 0.0, 0.0, 0.0, False, -1)
    slots = [[*s["slots"], *[none] * (SLOTS - len(s["slots"]))] for s in scenes]
    index, x, y, size, flip, hue = torch.tensor(slots, dtype=torch.float32).unbind(2)
    place = torch.stack([x, y, size], 2)
    index, flip, hue = index.long(), flip.bool(), hue.long()
    style = torch.tensor([s["style"] for s in scenes])
    ground = torch.tensor([s["ground"] for s in scenes])
    return {"index": index, "place": place, "flip": flip, "hue": hue, "style": style, "ground": ground}


def to_hsv(rgb):
    """[..., 3, H, W] in 0..1 to hue in degrees, saturation, value."""
    high, which = rgb.max(-3)
    low = rgb.min(-3).values
    span = (high - low).clamp_min(1e-6)
    r, g, b = rgb.unbind(-3)
    hue = torch.where(which == 0, (g - b) / span % 6, torch.where(which == 1, (b - r) / span + 2, (r - g) / span + 4)) * 60
    return hue, (high - low) / high.clamp_min(1e-6), high


def from_hsv(hue, saturation, value):
    def channel(n):
        k = (n + hue / 60) % 6
        return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], -3)


class Renderer:
    """The drawings on a device; `picture` of packed scenes in 0..1, [N, 3, 128, 128]."""

    def __init__(self, drawings, device):
        self.device = device
        styles, subjects = drawings.shape[:2]
        self.subjects = subjects
        flat = torch.from_numpy(drawings.reshape(-1, SIZE, SIZE, 4)).permute(0, 3, 1, 2)
        self.large = flat.contiguous().to(device)
        small = [self._halve(part.float() / 255) for part in flat.split(256)]
        self.small = (torch.cat(small) * 255 + 0.5).to(torch.uint8).to(device)
        self.grounds = torch.tensor(list(GROUNDS.values()), device=device) / 255
        self.hues = torch.tensor([float(h) for h in HUES.values()], device=device)
        tints = [self._own_hue(part.float() / 255) for part in self.small.split(256)]
        self.own_hue, self.coloured = (torch.cat(t) for t in zip(*tints))

    @staticmethod
    def _halve(rgba):
        light = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
        light = F.avg_pool2d(light, 2)
        return torch.cat([light[:, :3] / light[:, 3:].clamp_min(1e-3), light[:, 3:]], 1).clamp(0, 1)

    @staticmethod
    def _own_hue(rgba):
        """The hue that most of a drawing has, and whether it has one at all."""
        hue, saturation, value = to_hsv(rgba[:, :3])
        alpha = rgba[:, 3]
        vivid = alpha * (saturation > 0.25) * (value > 0.2)
        weight = vivid * saturation * value
        bins = torch.zeros(len(rgba), 36, device=rgba.device)
        bins.scatter_add_(1, (hue.flatten(1) / 10).long().clamp(0, 35), weight.flatten(1))
        smooth = bins + bins.roll(1, 1) + bins.roll(-1, 1)
        return smooth.argmax(1) * 10.0 + 5, vivid.sum((1, 2)) / alpha.sum((1, 2)).clamp_min(1) > 0.35

    def turn(self, rgba, own, coloured, target, inked):
        """The drawing with its hue turned: its other hues stay a third as far away. What has no hue gets a tint, ink the colour."""
        hue, saturation, value = to_hsv(rgba[:, :3])
        away = (hue - own[:, None, None] + 180) % 360 - 180
        away = torch.where(coloured[:, None, None], away * 0.35, 0.0)
        tinted = torch.where(coloured[:, None, None], saturation, torch.maximum(saturation, torch.full_like(saturation, 0.6)))
        ink = inked[:, None, None]
        tinted = torch.where(ink, 0.85, tinted)
        bright = torch.where(ink, 0.85, value)
        turned = from_hsv((target[:, None, None] + torch.where(ink, 0.0, away)) % 360, tinted, bright)
        return torch.cat([turned, rgba[:, 3:]], 1)

    def picture(self, packed):
        p = {k: v.to(self.device) for k, v in packed.items()}
        count = len(p["style"])
        out = self.grounds[p["ground"]][:, :, None, None].expand(-1, -1, SIZE, SIZE).clone()
        ink = STYLES.index("ink")
        for k in range(SLOTS):
            here = (p["index"][:, k] >= 0).nonzero()[:, 0]
            if not len(here):
                break
            which = p["style"][here] * self.subjects + p["index"][here, k]
            x, y, size = p["place"][here, k].unbind(1)
            small = size < 0.6
            for atlas, part in ((self.large, ~small), (self.small, small)):
                at = part.nonzero()[:, 0]
                if not len(at):
                    continue
                rgba = atlas[which[at]].float() / 255
                scene = here[at]
                inked = p["style"][scene] == ink
                # Black ink can't be seen on black.
                dark = inked & (p["ground"][scene] == list(GROUNDS).index("black"))
                rgba[:, :3] = torch.where(dark[:, None, None, None], 1.0, rgba[:, :3])
                hue = p["hue"][scene, k]
                turned = (hue >= 0).nonzero()[:, 0]
                if len(turned):
                    w = which[at][turned]
                    rgba[turned] = self.turn(
                        rgba[turned], self.own_hue[w], self.coloured[w], self.hues[hue[turned]], inked[turned]
                    )
                light = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
                sign = torch.where(p["flip"][scene, k], -1.0, 1.0)
                s = size[at]
                zero = torch.zeros_like(s)
                theta = torch.stack(
                    [torch.stack([sign / s, zero, -2 * x[at] * sign / s], 1), torch.stack([zero, 1 / s, -2 * y[at] / s], 1)], 1
                )
                grid = F.affine_grid(theta, (len(at), 4, SIZE, SIZE), align_corners=False)
                placed = F.grid_sample(light, grid, mode="bilinear", align_corners=False)
                out[scene] = out[scene] * (1 - placed[:, 3:]) + placed[:, :3]
        assert len(out) == count
        return out.clamp(0, 1)


@functools.cache
def prepared():
    """Subjects, and their drawings on the device: for all stages of a run."""
    from .drawings import load

    subjects, drawings = load()
    return subjects, Renderer(drawings, device())


def sheet(pictures, columns, gap=4):
    """Pictures in 0..1 as one PIL image, row by row."""
    from PIL import Image

    pictures = (pictures.detach().float().cpu().clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    n, h, w, _ = pictures.shape
    rows = math.ceil(n / columns)
    whole = Image.new("RGB", (columns * (w + gap) - gap, rows * (h + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        whole.paste(Image.fromarray(picture), (i % columns * (w + gap), i // columns * (h + gap)))
    return whole
