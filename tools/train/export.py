"""Folders of diffusers as www/checkpoints has them, f16, with cards, credits and the catalogue; and the LoRA for fewer steps."""

import hashlib
import json
import shutil
import textwrap
from pathlib import Path

import torch
from safetensors.torch import save_file

from .base import Setting
from .checkpoints import CHECKPOINTS, STUDENTS, prompts_of, subjects_of
from .common import home, say, write_atomic, write_json
from .render import sheet
from .sample import GUIDANCE, STEPS, pictures, student_scheduler, teacher_scheduler
from .students import load_lora, with_lora
from .styles import load_style

# By this name whoever draws with it knows what it is, and draws well with nothing set: LCMScheduler, four steps, guidance 1.
LORA = "lcm-lora.safetensors"
# All have learned from all drawings: the UNets began as one, and the LoRA learned from every checkpoint.
LICENSES = " AND ".join(sorted({of["license"] for of in CHECKPOINTS.values()}))
CREDITS = "; ".join(dict.fromkeys(of["credits"] for of in CHECKPOINTS.values()))

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


def entry(out, name, steps=None):
    """A checkpoint's in the catalogue: as it is, or with the LoRA in so many steps."""
    of = CHECKPOINTS[name]
    files = {}
    for file in FILES:
        data = (out / name / file).read_bytes()
        files[file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ident = f"{name}-{steps}" if steps else name
    said = {
        "id": ident,
        "name": of["name"] + {None: "", 1: " in one step", 4: " in four steps"}[steps],
        "way": {1: "1 step"}.get(steps, f"{steps or STEPS} steps"),
        "url": f"{name}/",
        "description": of["description"] + ("; quicker and rougher" if steps else ""),
        "style": of["style"],
        "license": LICENSES,
        "credits": CREDITS,
        "image": f"{name}/card{f'-{steps}' if steps else ''}.png",
        "prompts": prompts_of(name)[:6],
        "defaults": {"width": 128, "height": 128, "steps": steps or STEPS, "guidanceScale": 1.0 if steps else GUIDANCE},
        "files": files,
    }
    if steps:
        said["of"] = name
        said["loras"] = [{"source": LORA, "scale": 1}]
    return said


def copied(part):
    """Another of the same weights, which may be made f16."""
    made = type(part)(part.config) if hasattr(part.config, "hidden_size") else type(part).from_config(part.config)
    made.load_state_dict(part.state_dict())
    return made


def run(out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    s = Setting()
    entries = []
    lora = load_lora()
    if lora:
        write_atomic(out / LORA, lambda p: save_file(lora.tensors(), p, {"format": "pt"}))
    for name in CHECKPOINTS:
        words = prompts_of(name)[:4]
        teacher = load_style(s, name)
        parts = {k: v if k == "tokenizer" else copied(v) for k, v in teacher.items() if k not in ("name", "version")}
        write_folder(out / name, parts, teacher_scheduler())
        sheet(pictures(teacher, words, [7] * len(words)), 2).save(out / name / "card.png")
        entries.append(entry(out, name))
        for steps in STUDENTS if lora else ():
            student = with_lora(lora, teacher)
            made = pictures(student, words, [7] * len(words), steps=steps, guidance=1, scheduler=student_scheduler())
            sheet(made, 2).save(out / name / f"card-{steps}.png")
            entries.append(entry(out, name, steps))
    write_json(out / "checkpoints.json", {"checkpoints": entries})
    beside(out, s.subjects)
    contents = {hashlib.sha256(p.read_bytes()).digest(): p.stat().st_size for p in out.rglob("*") if p.is_file()}
    say("export", folder=str(out), bytes=sum(contents.values()))


def beside(out, subjects):
    """What the weights are and know, who drew what they learned from, and the licences' texts."""
    shutil.copytree(Path(__file__).resolve().parent / "shipped", out, dirs_exist_ok=True)
    readme = out / "README.md"
    known = {"subjects": subjects, "animals": [subjects[i] for i in subjects_of("animals", subjects)]}
    text = readme.read_text()
    for word, those in known.items():
        text = text.replace(f"<number of {word}>", str(len(those)))
    text = text.replace("<names>", textwrap.fill(", ".join(s["name"] for s in subjects), 138, break_on_hyphens=False))
    readme.write_text(text)
    for path in out.rglob("*"):  # safetensors' own are for their owner alone, whom a web server may not be
        if path.is_file():
            path.chmod(0o644)
