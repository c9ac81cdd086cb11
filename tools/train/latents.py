"""A pool of scenes that are encoded already, so that a step of training costs the UNet alone. It grows with the samples seen
(each scene serves about `REUSE` times) and, once full, gives its oldest shard for a new one."""

import functools
import hashlib
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from . import tokenizer as tokens
from .captions import Writer
from .common import autocast, device, home, on_gpu, stop_asked, write_atomic
from .render import pack

REUSE = 16


def written(subjects, only, count, seed, style):
    """Scenes as tensors, with their captions' tokens."""
    scenes = Writer(subjects, only).scenes(count, seed, style)
    return pack(scenes), tokens.encode(tokens.load(), [s["caption"] for s in scenes]).to(torch.int16)


@functools.cache
def workers():
    """Processes that write scenes ahead, where a GPU would wait for them."""
    # Ctrl-C reaches them too, and is for the training alone.
    return ProcessPoolExecutor(6, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))


class Pool:
    def __init__(self, name, subjects, renderer, vae, style=None, only=None):
        self.name, self.subjects, self.renderer, self.vae = name, subjects, renderer, vae
        self.style, self.only = style, only
        self.size = 8192 if on_gpu() else 256
        self.first, self.most = (6 if style is None else 2, 64) if on_gpu() else (2, 400)
        self.shards = []
        self.made = 0
        self.seconds = 0.0  # spent on making shards, or on reading them
        weights = hashlib.sha256()
        for p in vae.encoder.parameters():
            weights.update(p.detach().cpu().numpy().tobytes())
        self.folder = home() / "latents" / weights.hexdigest()[:12]
        self.ahead = []
        self.workers = workers() if on_gpu() else None

    def _written(self, number):
        arguments = (self.subjects, self.only, self.size, f"{self.name} {number}", self.style)
        if not self.workers:
            return written(*arguments)
        while len(self.ahead) < 6:
            later = number + len(self.ahead)
            self.ahead.append(self.workers.submit(written, *arguments[:3], f"{self.name} {later}", self.style))
        return self.ahead.pop(0).result()

    def _shard(self, number):
        path = self.folder / f"{self.name.replace('/', '-')}-{number}.npz"
        if path.exists() and not on_gpu():  # a GPU makes larger ones, and keeps none
            kept = np.load(path)
            return {k: torch.from_numpy(kept[k]).to(device()) for k in ("latents", "tokens", "style")}
        packed, ids = self._written(number)
        latents = []
        scale = self.vae.config.scaling_factor
        for start in range(0, self.size, 256 if on_gpu() else 32):
            if stop_asked():
                return None
            part = {k: v[start : start + (256 if on_gpu() else 32)] for k, v in packed.items()}
            pictures = self.renderer.picture(part).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), autocast():
                made = self.vae.encoder(pictures * 2 - 1)
            latents.append((made.float() * scale).half())
        shard = {"latents": torch.cat(latents), "tokens": ids.to(device()), "style": packed["style"].to(device(), torch.uint8)}
        if not on_gpu():

            def write(beside):
                with open(beside, "wb") as file:
                    np.savez(file, **{k: v.numpy() for k, v in shard.items()})

            write_atomic(path, write)
        return shard

    def grow(self, samples):
        """As many shards as there should be after so many samples."""
        want = self.first + int(samples / (REUSE * self.size))
        self.made = max(self.made, want - self.most, 0)
        while self.made < want and not stop_asked():
            began = time.time()
            shard = self._shard(self.made)
            self.seconds += time.time() - began
            if shard is None:
                return
            self.made += 1
            self.shards = [*self.shards, shard][-self.most :]

    def batch(self, count, g):
        """Latents [count, 4, 16, 16] in f32, tokens, styles."""
        which = torch.randint(len(self.shards), (16,), generator=g).tolist()
        parts = []
        for w in which:
            at = torch.randint(self.size, (-(-count // 16),), generator=g).to(device())
            parts.append({k: v[at] for k, v in self.shards[w].items()})
        joined = {k: torch.cat([p[k] for p in parts])[:count] for k in parts[0]}
        return joined["latents"].float(), joined["tokens"].long(), joined["style"].long()

    def close(self):
        for later in self.ahead:
            later.cancel()
