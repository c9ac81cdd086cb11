"""What transformers' CLIPTokenizer makes of prompts with CLIP's standard vocabulary, made of the merges in www/tintype/assets/."""

import gzip
import json
import tempfile
from pathlib import Path

from common import GOLDEN, ROOT, write_json
from tokenizer import PROMPTS
from transformers import CLIPTokenizer

MERGES = ROOT / "www" / "tintype" / "assets" / "clip-merges.txt.gz"
MARKS = ["<|startoftext|>", "<|endoftext|>"]
MORE = ["a photo of an astronaut riding a horse on mars", "masterpiece, best quality, 1girl, ultra-detailed"]


def byte_chars():
    """OpenAI's order: bytes that can be seen, then the others, each with the character that stands for it."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in seen] + [chr(256 + i) for i in range(256 - len(seen))]


def main():
    merges = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[:-1]
    chars = byte_chars()
    tokens = [*chars, *(f"{char}</w>" for char in chars), *("".join(merge.split(" ")) for merge in merges), *MARKS]
    assert len(tokens) == len(set(tokens)) == 49408
    cases = []
    for pad in [MARKS[1], "!"]:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
            (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
            write_json(folder / "tokenizer_config.json", {"model_max_length": 77, "pad_token": pad})
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        prompts = [*PROMPTS, *MORE]
        ids = [tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids for prompt in prompts]
        cases.append({"pad": pad, "prompts": prompts, "ids": ids})
    assert cases[0]["ids"][-2][1:10] == [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525]
    (GOLDEN / "vocabulary.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
