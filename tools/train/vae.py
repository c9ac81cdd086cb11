"""The VAE that all styles share: AutoencoderTiny on scenes in every style.

Its loss holds to edges (L1, differences of neighbours), to colour (averages over 8 x 8, and the same less its grey; L1 alone loses
all colour at first), and keeps latents near mean 0 and variance 1. Noise on the latents while training makes the decoder
bear what a UNet leaves. Once a base has been started on its latents the encoder stays as it is: then only the decoder learns.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from . import models
from .captions import Writer
from .common import Clock, Meter, Trainer, autocast, device, home, on_gpu, say, write_atomic
from .render import pack, prepared, sheet

NOISE = 0.05


def edges(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_of(made, wanted):
    """Both in -1..1."""
    off = made - wanted
    value = off.abs().mean() + 2 * off.square().mean()
    value = value + 0.5 * sum((a - b).abs().mean() for a, b in zip(edges(made), edges(wanted)))
    wide = F.avg_pool2d(off, 8)
    value = value + 5 * wide.square().mean() + 10 * (wide - wide.mean(1, keepdim=True)).square().mean()
    return value


def crops(pictures, packed, g):
    """Quarters of the pictures around what is drawn: as much to learn for a quarter of the time."""
    count = len(pictures)
    x, y = (packed["place"][:, 0, :2] * 128 + 64).unbind(1)
    shift = torch.rand(2, count, generator=g) * 72 - 36
    left = (x + shift[0] - 32).clamp(0, 64).long() // 8 * 8
    top = (y + shift[1] - 32).clamp(0, 64).long() // 8 * 8
    return torch.stack([p[:, t : t + 64, l : l + 64] for p, t, l in zip(pictures, top, left)])


def psnr(vae, pictures):
    with torch.no_grad():
        made = torch.cat([vae.decoder(vae.encoder(p * 2 - 1)) for p in pictures.split(64)])
    made = (made / 2 + 0.5).clamp(0, 1)
    return -10 * torch.log10((made - pictures).square().mean((1, 2, 3))).mean().item(), made


def run(minutes, width=48, start=None, lr=1e-3):
    where = device()
    folder = home() / "vae"
    subjects, renderer = prepared()
    writer = Writer(subjects)
    if start:
        from diffusers import AutoencoderTiny

        vae = AutoencoderTiny.from_pretrained(Path(start) / "vae", torch_dtype=torch.float32)
    else:
        vae = models.vae(decoder=width)
    vae = vae.to(where, memory_format=torch.channels_last)
    frozen = any((home() / "base" / name).exists() for name in ("state.pt", "model.pt"))
    vae.encoder.requires_grad_(not frozen)
    trainer = Trainer("vae-decoder" if frozen else "vae", {"vae": vae}, lr, horizon=1_000_000 if on_gpu() else 100_000, warmup=3_000)
    if frozen and not trainer.samples:  # the decoder by itself begins where the whole ended
        vae.load_state_dict(load_vae().state_dict())
        trainer.ema = type(trainer.ema)([vae])
    clock = Clock(minutes)
    test = writer.scenes(256 if on_gpu() else 48, seed=2)
    test = renderer.picture(pack(test)).contiguous(memory_format=torch.channels_last)
    batch = 128 if on_gpu() else 16
    meter = Meter(trainer, clock, 60)

    def finish():
        trainer.save()
        trainer.publish()
        with trainer.ema.applied():
            quality, made = psnr(vae, test)
            with torch.no_grad():
                latents = torch.cat([vae.encoder(p * 2 - 1) for p in test.split(64)])
            if frozen:
                vae.register_to_config(scaling_factor=load_vae().config.scaling_factor)
            else:
                vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
            vae.save_pretrained(folder / "model.part")
        shown = torch.stack([test[:24], made[:24]], 1).flatten(0, 1)
        write_atomic(folder / "check.png", lambda p: sheet(shown, 8).save(p, "PNG"))
        for file in (folder / "model.part").iterdir():
            (folder / "model").mkdir(exist_ok=True)
            file.rename(folder / "model" / file.name)
        (folder / "model.part").rmdir()
        channels = latents.transpose(0, 1).flatten(1)
        say(
            "vae", samples=trainer.samples, psnr=quality,
            mean=[round(v, 3) for v in channels.mean(1).tolist()], std=[round(v, 3) for v in channels.std(1).tolist()],
        )  # fmt: skip

    while not clock.over():
        g = trainer.generator()
        packed = pack(writer.scenes(batch, seed=f"vae {trainer.steps}"))
        with torch.no_grad():
            wanted = renderer.picture(packed)
            if not on_gpu():
                wanted = crops(wanted, packed, g)
            wanted = (wanted * 2 - 1).contiguous(memory_format=torch.channels_last)
        with autocast():
            latents = vae.encoder(wanted)
        latents = latents.float()
        spread = latents.mean((0, 2, 3)).square().mean() + (latents.var((0, 2, 3)) - 1).square().mean()
        noise = torch.randn(latents.shape, generator=g).to(where) * NOISE
        with autocast():
            made = vae.decoder(latents + noise)
        loss = loss_of(made.float(), wanted) + 0.01 * spread
        trainer.step(loss, batch)
        meter.add(loss)
        if clock.save_due():
            finish()
    finish()


def load_vae():
    """The VAE as it is by now, with the weights' average."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny.from_pretrained(home() / "vae/model").eval().requires_grad_(False)
