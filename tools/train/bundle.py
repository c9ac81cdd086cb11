"""State as one file or as pieces, to go on with it on another machine; and where each stage stands."""

import io
import json
import zipfile
from pathlib import Path

from .common import home, read_json, say

STAGES = ["drawings", "captions", "tokenizer", "vae", "vae-decoder", "embedding", "base", "styles", "students", "scores"]
UNNEEDED = ("state.pt", "state.previous.pt", "spent.json", "lock")


def pack(file, only=None, piece=None):
    """Drawings, tokenizer and all models by now, without the optimizers' states, from which training goes on all the same.
    `only`: these folders alone. `piece`: cut into FILE.00, FILE.01... of so many MiB."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for stage in only or STAGES:
            for path in sorted((home() / stage).rglob("*")):
                if path.is_file() and path.suffix not in (".part", ".npz") and path.name not in UNNEEDED:
                    archive.write(path, path.relative_to(home()))
    data = made.getvalue()
    size = int((piece or 1 << 20) * 2**20)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    for older in Path(file).parent.glob(Path(file).name + ".[0-9][0-9]"):
        older.unlink()
    for i, part in enumerate(pieces):
        Path(file if piece is None else f"{file}.{i:02}").write_bytes(part)
    say("pack", file=str(file), bytes=len(data), pieces=len(pieces))


def unpack(file):
    file = Path(file)
    parts = [file] if file.exists() else sorted(file.parent.glob(file.name + ".[0-9][0-9]"))
    if not parts:
        raise SystemExit(f"{file}: there is no such file, nor {file.name}.00")
    with zipfile.ZipFile(io.BytesIO(b"".join(p.read_bytes() for p in parts))) as archive:
        for name in archive.namelist():
            if name.endswith("/model.pt"):  # training goes on from what comes, not from the state that was here
                for older in ("state.pt", "state.previous.pt", "spent.json"):
                    (home() / name).with_name(older).unlink(missing_ok=True)
        archive.extractall(home())
    say("unpack", file=str(file), pieces=len(parts))


def status():
    for log in sorted(home().rglob("log.jsonl")):
        if "smoke" in log.relative_to(home()).parts:
            continue
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        spent = log.with_name("spent.json")
        print(f"{log.parent.relative_to(home())}: {read_json(spent) if spent.exists() else ''}")
        for want in ("loss", "top5", "psnr", "top1_of_spoiled"):
            for line in [line for line in lines if want in line][-1:]:
                print("   ", {k: v for k, v in line.items() if k != "stage"})
