"""An embedding that tells drawings apart, trained on its own with shifts, warps, blur and noise: what the scores measure with."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .common import STYLES, Clock, Meter, Trainer, autocast, device, home, on_gpu, say
from .render import pack, prepared

WIDTH = 128


class Block(nn.Module):
    def __init__(self, narrow, wide):
        super().__init__()
        self.a = nn.Conv2d(narrow, wide, 3, 2, 1, bias=False)
        self.b = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(narrow, wide, 1, bias=False)
        self.na, self.nb = nn.GroupNorm(8, wide), nn.GroupNorm(8, wide)

    def forward(self, x):
        inner = self.nb(self.b(F.silu(self.na(self.a(x)))))
        return F.silu(inner + self.skip(F.avg_pool2d(x, 2)))


class Embedding(nn.Module):
    def __init__(self, subjects):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 1, 1)
        self.blocks = nn.Sequential(Block(24, 48), Block(48, 96), Block(96, 160), Block(160, 192))
        self.out = nn.Linear(192 * 16, WIDTH)
        self.centres = nn.Parameter(torch.randn(subjects, WIDTH))

    def forward(self, pictures):
        """Pictures of 128 x 128 in 0..1 to unit vectors."""
        x = F.avg_pool2d(pictures, 2) * 2 - 1
        return F.normalize(self.out(self.blocks(F.silu(self.stem(x))).flatten(1)), dim=1)

    def loss(self, vectors, which):
        cosines = vectors @ F.normalize(self.centres, dim=1).T
        cosines = cosines - 0.15 * F.one_hot(which, cosines.shape[1])
        return F.cross_entropy(cosines * 20, which)


def scenes(count, subjects, g):
    """One drawing each, about where and as large as a plain caption has it."""
    def u(low, high):
        return (torch.rand(count, generator=g) * (high - low) + low).tolist()

    index = torch.randint(subjects, (count,), generator=g).tolist()
    style = torch.randint(len(STYLES), (count,), generator=g).tolist()
    ground = (torch.rand(count, generator=g) * 24).long().tolist()
    hue = (torch.rand(count, generator=g) * 40).long().tolist()
    rows = zip(index, u(-0.05, 0.05), u(-0.05, 0.05), u(0.76, 0.96), hue, style, ground)
    return [
        {"slots": [(i, x, y, s, False, h if h < 8 else -1)], "style": st, "ground": gr if gr < 12 else 0}
        for i, x, y, s, h, st, gr in rows
    ]


def spoil(pictures, g):
    """Wavers, blurs and noises pictures, as an unsure network would."""
    count = len(pictures)
    where = pictures.device
    field = torch.randn(count, 2, 5, 5, generator=g).to(where) * 0.04 * torch.rand(count, 1, 1, 1, generator=g).to(where)
    field = F.interpolate(field, size=pictures.shape[-2:], mode="bicubic").permute(0, 2, 3, 1)
    still = torch.eye(2, 3, device=where).expand(count, 2, 3)
    grid = F.affine_grid(still, pictures.shape, align_corners=False) + field
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    blurred = F.interpolate(F.avg_pool2d(pictures, 4), scale_factor=4, mode="bilinear")
    share = torch.rand(count, 1, 1, 1, generator=g).to(where) * 0.9
    pictures = pictures * (1 - share) + blurred * share
    grain = F.interpolate(torch.randn(count, 3, 32, 32, generator=g).to(where), scale_factor=4, mode="bilinear")
    return (pictures + 0.08 * torch.rand(count, 1, 1, 1, generator=g).to(where) * grain).clamp(0, 1)


def run(minutes):
    subjects, renderer = prepared()
    model = Embedding(len(subjects)).to(device())
    trainer = Trainer("embedding", {"model": model}, 1.5e-3, horizon=400_000)
    clock = Clock(minutes)
    meter = Meter(trainer, clock, 60)
    batch = 512 if on_gpu() else 64
    right = tried = 0
    while not clock.over():
        g = trainer.generator()
        packed = pack(scenes(batch, len(subjects), g))
        pictures = spoil(renderer.picture(packed), g)
        which = packed["index"][:, 0].to(device())
        with autocast():
            vectors = model(pictures)
        vectors = vectors.float()
        loss = model.loss(vectors, which)
        trainer.step(loss, batch)
        meter.add(loss)
        if clock.save_due():
            trainer.save()
            trainer.publish()
    trainer.save()
    trainer.publish()
    with trainer.ema.applied(), torch.no_grad():
        g = torch.Generator().manual_seed(3)
        places = gallery(model, renderer)
        for _ in range(8 if on_gpu() else 4):
            packed = pack(scenes(128, len(subjects), g))
            found = nearest(model, places, spoil(renderer.picture(packed), g), packed["style"])
            right += (found[:, 0] == packed["index"][:, 0].to(device())).sum().item()
            tried += 128
    say("embedding", samples=trainer.samples, top1_of_spoiled=right / tried)


@torch.no_grad()
def gallery(model, renderer):
    """[style, subject, width]: each drawing as a plain caption has it."""
    vectors = []
    for style in range(len(STYLES)):
        for part in torch.arange(renderer.subjects).split(128):
            scenes = [{"slots": [(i, 0, 0, 0.87, False, -1)], "style": style, "ground": 0} for i in part.tolist()]
            vectors.append(model(renderer.picture(pack(scenes))))
    return torch.cat(vectors).view(len(STYLES), renderer.subjects, -1)


@torch.no_grad()
def nearest(model, places, pictures, style, count=5):
    """The subjects whose drawings in the style are nearest, the nearest first."""
    vectors = torch.cat([model(p) for p in pictures.split(128)])
    cosines = torch.einsum("nd,nsd->ns", vectors, places[style.to(places.device)])
    return cosines.topk(count, 1).indices


class Judge:
    """The trained embedding with its gallery."""

    def __init__(self, renderer):
        self.model = Embedding(renderer.subjects).to(device()).eval()
        kept = torch.load(home() / "embedding/model.pt", map_location=device(), weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.places = gallery(self.model, renderer)

    def ranks(self, pictures, style, wanted):
        """Shares of pictures whose subject is the nearest, and among the five nearest."""
        found = nearest(self.model, self.places, pictures, style)
        hit = found == wanted.to(found.device)[:, None]
        return hit[:, 0].float().mean().item(), hit.any(1).float().mean().item()
