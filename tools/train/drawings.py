"""Drawings: the same subjects in four styles, from npm packages, 128 x 128 with alpha, each fitted to 120 pixels."""

import io
import json
import re
import subprocess
import tarfile
import zipfile

import numpy as np
from PIL import Image

from .common import SIZE, STYLES, home, read_json, say, write_atomic, write_json
from .subjects import choose, some

PACKAGES = {
    "soft": ("@svgmoji/noto", "3.2.0"),
    "flat": ("@twemoji/svg", "15.0.0"),
    "3d": ("@lobehub/fluent-emoji-3d", "1.1.0"),
    "ink": ("@iconify-json/fluent-emoji-high-contrast", "1.2.6"),
    "names": ("emojibase-data", "17.0.0"),
}
FIT = 120


def fetch():
    """The packages as npm gives them, kept as archives."""
    folder = home() / "npm"
    folder.mkdir(exist_ok=True)
    archives = {}
    for use, (name, version) in PACKAGES.items():
        archive = folder / (name.removeprefix("@").replace("/", "-") + f"-{version}.tgz")
        if not archive.exists():
            subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
        archives[use] = archive
    return archives


def files(archive, wanted):
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile() and wanted(m.name)}


def key(hexcode):
    """Code points without the variation selector, the way all packages can be asked."""
    return "-".join(p.lstrip("0") for p in hexcode.lower().split("-") if p != "fe0f")


def sources(archives):
    """For each style: key -> bytes of an SVG or an image."""
    (sprite,) = files(archives["soft"], lambda n: n.endswith("sprites/all.svg")).values()
    parts = re.split(r'(?=<svg\b[^>]*?\bid=")', sprite.decode().split("</style>", 1)[1].rsplit("</svg>", 1)[0])
    soft = {}
    for part in parts:
        found = re.match(r'<svg\b[^>]*?\bid="([0-9A-F-]+)"', part)
        if found:
            part = part.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
            soft[key(found[1])] = part.encode()
    flat = files(archives["flat"], lambda n: n.endswith(".svg"))
    lit = files(archives["3d"], lambda n: n.endswith(".webp"))
    ink = files(archives["ink"], lambda n: n.endswith(("icons.json", "chars.json")))
    icons = json.loads(ink["package/icons.json"])["icons"]
    chars = json.loads(ink["package/chars.json"])
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" color="black">'
    stem = lambda n: key(n.rsplit("/", 1)[1].rsplit(".", 1)[0])
    return {
        "soft": soft,
        "flat": {stem(n): b for n, b in flat.items()},
        "3d": {stem(n): b for n, b in lit.items()},
        "ink": {key(c): (head + icons[i]["body"] + "</svg>").encode() for c, i in chars.items() if i in icons},
    }


def picture(data):
    if data[:1] == b"<":
        import resvg_py

        data = bytes(resvg_py.svg_to_bytes(svg_string=data.decode(), width=256, height=256))
    return Image.open(io.BytesIO(data)).convert("RGBA")


def fit(image):
    """Cut to what is drawn, its longer side 120 pixels, in the middle."""
    pixels = np.asarray(image, np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    ys, xs = np.nonzero(pixels[..., 3] > 0.02)
    if not len(ys):
        return None
    box = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    scale = FIT / max(box[2] - box[0], box[3] - box[1])
    size = [max(1, round((box[i + 2] - box[i]) * scale)) for i in (0, 1)]
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(4)]
    planes = [np.asarray(p.resize(size, Image.Resampling.BOX if scale < 0.6 else Image.Resampling.BICUBIC, box)) for p in planes]
    small = np.clip(np.stack(planes, -1), 0, 1)
    small[..., :3] /= np.maximum(small[..., 3:], 1e-3)
    whole = np.zeros((SIZE, SIZE, 4), np.uint8)
    x, y = (SIZE - size[0]) // 2, (SIZE - size[1]) // 2
    whole[y : y + size[1], x : x + size[0]] = np.clip(small * 255 + 0.5, 0, 255).astype(np.uint8)
    return whole


def run(subjects=None):
    out = home() / "drawings"
    if (out / "drawings.zip").exists() and (out / "subjects.json").exists():
        there = len(read_json(out / "subjects.json"))
        if subjects and not 0.9 * subjects < there <= subjects:  # a few could not be drawn
            raise SystemExit(f"{out}: there are {there} subjects, not {subjects}; other subjects need a state folder of their own")
        return
    archives = fetch()
    drawn = sources(archives)
    (names,) = files(archives["names"], lambda n: n == "package/en/data.json").values()
    (meta,) = files(archives["names"], lambda n: n == "package/meta/groups.json").values()
    count, subjects = subjects, choose(json.loads(names), json.loads(meta), {s: set(drawn[s]) for s in STYLES}, key)
    if count:
        from .captions import named

        subjects = some(subjects, count, named())
    kept = []

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for subject in subjects:
                pictures = {s: fit(picture(drawn[s][subject["key"]])) for s in STYLES}
                if any(p is None for p in pictures.values()):
                    continue
                kept.append(subject)
                for style, pixels in pictures.items():
                    packed = io.BytesIO()
                    Image.fromarray(pixels).save(packed, "WEBP", lossless=True, method=4)
                    archive.writestr(f"{style}/{subject['key']}.webp", packed.getvalue())

    write_atomic(out / "drawings.zip", write)
    write_json(out / "subjects.json", kept)
    say("drawings", subjects=len(kept), bytes=(out / "drawings.zip").stat().st_size)


def load():
    """Subjects, and one array for all styles: [style, subject, height, width, RGBA], 8 bit, straight alpha."""
    from concurrent.futures import ThreadPoolExecutor

    subjects = read_json(home() / "drawings/subjects.json")
    with zipfile.ZipFile(home() / "drawings/drawings.zip") as archive:
        blobs = [archive.read(f"{style}/{s['key']}.webp") for style in STYLES for s in subjects]
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda b: np.asarray(Image.open(io.BytesIO(b)).convert("RGBA")), blobs))
    return subjects, np.stack(decoded).reshape(len(STYLES), len(subjects), SIZE, SIZE, 4)
