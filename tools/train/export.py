"""Folders of diffusers as www/checkpoints has them, f16, with cards, credits and the catalogue; and the students, likewise."""

import hashlib
import json
import shutil
from pathlib import Path

import torch

from .base import Setting
from .checkpoints import CHECKPOINTS, STUDENTS, prompts_of
from .common import home, say, write_json
from .render import sheet
from .sample import GUIDANCE, STEPS, pictures, student_scheduler, teacher_scheduler
from .students import load_student
from .styles import load_style

FILES = [
    "model_index.json", "text_encoder/config.json", "text_encoder/model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json", "tokenizer/merges.txt", "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
]  # fmt: skip


def write_folder(folder, parts, scheduler):
    from diffusers import StableDiffusionPipeline

    half = {k: m.half() for k, m in parts.items() if k != "tokenizer"}
    for part in half.values():
        for parameter in part.parameters():
            assert torch.isfinite(parameter).all()
    pipeline = StableDiffusionPipeline(
        **half, tokenizer=parts["tokenizer"], scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # which transformers no longer writes
        shutil.copy(home() / "tokenizer" / name, folder / "tokenizer" / name)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "_name_or_path"}, indent=2) + "\n")
    for config in folder.glob("*/config.json"):
        kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
        config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def entry(folder, name, steps, guidance):
    of = CHECKPOINTS[name]
    ident = folder.name
    files = {}
    for file in FILES:
        data = (folder / file).read_bytes()
        files[file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    few = {1: ", in one step", 4: ", in four steps"}.get(steps, "")
    return {
        "id": ident,
        "name": of["name"] + {1: " in one", 4: " in four"}.get(steps, ""),
        "url": f"{ident}/",
        "description": of["description"] + few,
        "style": of["style"],
        "license": of["license"],
        "credits": of["credits"],
        "image": f"{ident}/card.png",
        "prompts": prompts_of(name)[:6],
        "defaults": {"width": 128, "height": 128, "steps": steps, "guidanceScale": float(guidance)},
        "files": files,
    }


def run(out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    s = Setting()
    entries = []
    for name in CHECKPOINTS:
        words = prompts_of(name)[:4]
        makes = [(name, load_style(s, name), STEPS, GUIDANCE, teacher_scheduler())]
        for steps in STUDENTS:
            student = load_student(s, name, steps)
            if student:
                makes.append((f"{name}-{steps}", student, steps, 1, student_scheduler()))
        for ident, parts, steps, guidance, scheduler in makes:
            made = pictures(parts, words, [7] * len(words), steps=steps, guidance=guidance, scheduler=scheduler)
            copied = {k: v if k == "tokenizer" else type(v)(v.config) if k == "text_encoder" else type(v).from_config(v.config) for k, v in parts.items()}
            for k, v in parts.items():
                if k != "tokenizer":
                    copied[k].load_state_dict(v.state_dict())
            write_folder(out / ident, copied, scheduler)
            sheet(made, 2).save(out / ident / "card.png")
            entries.append(entry(out / ident, name, steps, guidance))
            say("export", folder=ident, bytes=sum(f["size"] for f in entries[-1]["files"].values()))
    write_json(out / "checkpoints.json", {"checkpoints": entries})
    credits_of(out)


def credits_of(out):
    """LICENSES.md and the licences' texts, as www/checkpoints has them."""
    here = Path(__file__).resolve().parents[2] / "www/checkpoints"
    if here.exists():
        shutil.copy(here / "LICENSES.md", out / "LICENSES.md")
        shutil.copytree(here / "licenses", out / "licenses", dirs_exist_ok=True)
