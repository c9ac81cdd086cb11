"""Writes www/tintype/assets/clip-merges.txt.gz: the merges of CLIP's standard vocabulary, which single files leave out.

    python tools/vocabulary.py FOLDER

FOLDER is what a wheel of PyPI's clip-anytorch 2.6.0 unpacks to (`pip download --no-deps clip-anytorch==2.6.0`, then unzip it).
Its list, OpenAI's, has more merges than CLIP uses. The tokens are not kept: they follow from the merges (src/text/vocabulary.rs).
"""

import gzip
import hashlib
import io
import shutil
import sys
from pathlib import Path

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
TOKENS = 49408
ASSETS = Path(__file__).resolve().parents[1] / "www" / "tintype" / "assets"


def main(folder):
    packed = (folder / "clip" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == SHA256, "another list"
    # A token for each byte inside of a word and at its end, and the two marks of a text, are no merges.
    merges = gzip.decompress(packed).decode().split("\n")[1:][: TOKENS - 512 - 2]
    assert all(len(merge.split(" ")) == 2 for merge in merges)
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as file:
        file.write("".join(f"{merge}\n" for merge in merges).encode())
    ASSETS.mkdir(exist_ok=True)
    (ASSETS / "clip-merges.txt.gz").write_bytes(out.getvalue())
    shutil.copyfile(next(folder.glob("*.dist-info/LICENSE")), ASSETS / "LICENSE-clip")
    print(f"{len(merges)} merges, {len(out.getvalue())} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
