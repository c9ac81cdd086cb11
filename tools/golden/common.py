"""What the scripts of this folder share: repeatable lively weights, channels-last tensors, writers."""

import json
import logging
import shutil
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHECKPOINTS = ROOT / "www" / "checkpoints"

# Remarks on casts and progress bars, none of which says anything of the result.
logging.disable(logging.WARNING)

# One thread: the order of additions, thus the last bit, does not depend on the machine's number of cores.
torch.set_num_threads(1)
torch.set_grad_enabled(False)


def generator(name):
    """A generator of its own for each named thing, so that adding a case changes no other."""
    return torch.Generator("cpu").manual_seed(zlib.crc32(name.encode()))


def fresh(folder):
    """`folder`, emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def nhwc(x):
    """[batch, channels, height, width] to [batch, height, width, channels]."""
    return x.permute(0, 2, 3, 1)


def write(path, tensors, metadata=None):
    """Writes tensors; `metadata` is one (key, value as JSON), for safetensors keeps several in no fixed order."""
    tensors = {name: torch.as_tensor(t).contiguous().clone() for name, t in tensors.items()}
    header = {metadata[0]: json.dumps(metadata[1])} if metadata else None
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=header)
    path.chmod(0o644)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def liven(module, name, gain=1.0):
    """Fills a module with random weights under which every part of it shows in its output.

    Norms get scales away from 1 and shifts away from 0, biases are as large as what they are added to, queries and keys
    are sharp enough that attention is not a plain mean. Sums over the inputs keep a variance of about `gain`².
    """
    g = generator(name)
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    for path, owner in module.named_modules():
        for key, p in owner.named_parameters(recurse=False):
            noise = torch.randn(p.shape, generator=g)
            if isinstance(owner, norms):
                value = noise * 0.25 + (1.0 if key == "weight" else 0.0)
            elif isinstance(owner, torch.nn.Embedding):
                value = noise * 0.5
            elif key == "bias":
                value = noise * 0.2
            else:
                sharp = 2.0 if path.endswith(("to_q", "to_k", "q_proj", "k_proj")) else 1.0
                value = noise * (gain * sharp / p[0].numel() ** 0.5)
            p.copy_(value)
    return module.eval()


def as_stored(module, dtype):
    """Rounds the weights to `dtype` and goes on in f32: what an f16 file gives where arithmetic is f32."""
    return module.to(dtype).float()
