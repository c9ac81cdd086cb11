"""What transformers' CLIPTokenizer makes of prompts, from files in each of the forms that they have in the wild."""

import json
import shutil
import tempfile
from pathlib import Path

from common import CHECKPOINTS, GOLDEN, write_json
from transformers import CLIPTokenizer

FILES = CHECKPOINTS / "soft" / "tokenizer"
VOCABULARY = json.loads((FILES / "vocab.json").read_text())
START, END = (str(VOCABULARY[f"<|{word}oftext|>"]) for word in ("start", "end"))
LENGTH = 16

PROMPTS = [
    "",
    " ",
    " \t\n\u3000\u00a0 ",
    "fox",
    "A red fox, on blue!",
    "grinning face with smiling eyes on yellow",
    "DON'T stop; we'll see, I'm they're I've he'd it's 'twas ''quoted'' rock'n'roll'",
    "!!! ... ?! -- (a:1.3) [b] {c} <d> a_b-c/d\\e \"f\" `g`",
    "1 23 456 7.89 v2.1 ½ ² Ⅷ ٣ 四",
    "naïve café Ångström ÀÉÎÕÜ",
    "nai\u0308ve cafe\u0301 A\u030angstro\u0308m \u1100\u1161\u11a8 \u0958 \u212b \ufb01",
    "q\u0323\u0307 z\u0351\u036b\u0343 e\u0301\u0301",
    "Straße ΣΊΣΥΦΟΣ ǅ İstanbul ẞ ß ﬀ Ꭰ",
    "日本語の猫 한국어 中文，标点。",
    "नमस्ते दुनिया ไทย العربية עברית",
    "🎂 birthday 🦊🦊 👩‍👩‍👧‍👦 🏳️‍🌈 ☺️ 👍🏽 #️⃣",
    "a\x00b\x01c\x1f\x7f\x85d\u200be\u200df\ufefe\u2028g",
    "\ufffd \U0001f9ff\U000e0067 \ue000",
    "<|endoftext|>",
    "fox <|endoftext|> cake <|startoftext|>",
    "<|STARTOFTEXT|>fox <|EndOfText|>cake",
    "fox<|endoftext|>cake <|ENDOFTEXT|>> <|EndOfText|>x <|endoftext|",
    "  <|endoftext|>   <|startoftext|>  ",
    "wow!! cool!fox !",
    "fox " * 14,
    "fox " * 15,
    "evergreen tree " * 40,
    "x" * 300,
    "ab" * 200 + " on blue",
    "fox" + " " * 500 + "cake",
    "one two three four five <|endoftext|> six seven eight nine ten eleven 日本 twelve don't",
]

TOKEN = {"lstrip": False, "rstrip": False, "single_word": False}
BOS = {"content": "<|startoftext|>", **TOKEN}
EOS = {"content": "<|endoftext|>", **TOKEN}

# name: (the vocabulary's form, tokenizer_config.json or None for the shipped one, special_tokens_map.json or None)
CASES = {
    "json": ("json", None, None),
    "pair": ("pair", None, None),
    # As SD 1.x has them: special tokens as objects, to be found in normalised text.
    "normalized": (
        "pair",
        {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"},
        {
            "bos_token": {**BOS, "normalized": True},
            "eos_token": {**EOS, "normalized": True},
            "unk_token": {**EOS, "normalized": True},
            "pad_token": "<|endoftext|>",
        },
    ),
    # The same without the text, which transformers takes over the objects before it.
    "all-normalized": (
        "json",
        {
            "model_max_length": LENGTH,
            "added_tokens_decoder": {
                START: {**BOS, "normalized": True, "special": True},
                END: {**EOS, "normalized": True, "special": True},
            },
        },
        None,
    ),
    # As SD 2.x has them: another token for padding, which the map sets against the configuration.
    "pad": (
        "pair",
        {"model_max_length": LENGTH, "pad_token": "<|endoftext|>"},
        {"bos_token": {**BOS, "normalized": False}, "eos_token": "<|endoftext|>", "pad_token": "!"},
    ),
    # With a list of added tokens, beside which the map is void.
    "decoder": (
        "json",
        {
            "model_max_length": LENGTH,
            "added_tokens_decoder": {
                START: {**BOS, "normalized": True, "special": True},
                END: {**EOS, "normalized": False, "special": True},
            },
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        {"pad_token": "!"},
    ),
    # A length that means none: the text encoder's own holds.
    "no-length": ("pair", {"model_max_length": 1e30}, None),
}


def main():
    cases = []
    for name, (form, config, special) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for file in ["tokenizer.json"] if form == "json" else ["vocab.json", "merges.txt"]:
                shutil.copyfile(FILES / file, folder / file)
            config = config or json.loads((FILES / "tokenizer_config.json").read_text())
            write_json(folder / "tokenizer_config.json", config)
            if special:
                write_json(folder / "special_tokens_map.json", special)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        results = []
        for prompt in PROMPTS:
            ids = tokenizer(prompt, padding="max_length", max_length=LENGTH, truncation=True).input_ids
            whole = tokenizer(prompt, padding="longest").input_ids
            # The rule and the wording of diffusers' warning.
            cut = len(whole) >= LENGTH and whole != ids
            dropped = tokenizer.batch_decode([whole[LENGTH - 1 : -1]])[0] if cut else None
            results.append({"ids": ids, "dropped": dropped})
        cases.append({"name": name, "form": form, "config": config, "special": special, "results": results})
    golden = {"length": LENGTH, "vocab_size": len(json.loads((FILES / "vocab.json").read_text())), "prompts": PROMPTS}
    path = GOLDEN / "tokenizer.json"
    lines = [f'"{key}": {json.dumps(value)}' for key, value in golden.items()]
    results = ",\n".join(json.dumps(case) for case in cases)
    path.write_text("{" + ",\n".join(lines) + f',\n"cases": [\n{results}\n]}}\n')


if __name__ == "__main__":
    main()
