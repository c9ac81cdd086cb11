"""A tokenizer in CLIP's form over the captions' words: bytes, bytes at a word's end, merges, two specials."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from .common import home, read_json, say, write_atomic, write_json

TOKENS = 24
VOCABULARY = 4096


def bytes_in_order():
    """GPT-2's printable stand-ins for the 256 bytes, in CLIP's order."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in shown] + [chr(256 + n) for n in range(256 - len(shown))]


def run():
    out = home() / "tokenizer"
    if (out / "tokenizer_config.json").exists():
        return
    words = read_json(home() / "captions/words.json")
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    split = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    from tokenizers import Regex

    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 258, min_frequency=1, initial_alphabet=bytes_in_order(), end_of_word_suffix="</w>", show_progress=False
    )
    # A word's weight is softened, so that each becomes one token before the vocabulary is full.
    model.train_from_iterator((w for w, n in words.items() for _ in range(1 + min(n, 20) // 4)), trainer)
    merges = [tuple(m) for m in json.loads(model.to_str())["model"]["merges"]]
    base = bytes_in_order()
    tokens = base + [b + "</w>" for b in base]
    tokens += [t for t in dict.fromkeys(a + b for a, b in merges) if t not in tokens]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {t: i for i, t in enumerate(tokens)}

    from transformers import CLIPTokenizer

    made = out / "made"
    CLIPTokenizer(vocab, merges, model_max_length=TOKENS, pad_token="<|endoftext|>").save_pretrained(made)
    write_json(made / "vocab.json", vocab)
    write_atomic(made / "merges.txt", lambda p: p.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)))
    whole = check(made, list(words))
    for file in sorted(made.iterdir(), key=lambda f: f.name == "tokenizer_config.json"):  # which tells that all is there
        file.rename(out / file.name)
    made.rmdir()
    say("tokenizer", tokens=len(tokens), merges=len(merges), words=len(words), of_one_token=whole)


def load(folder=None):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder or home() / "tokenizer")


def check(folder, words):
    """Captions come back from their tokens, and there is room for them. Gives how many words are one token."""
    tokenizer = load(folder)
    captions = read_json(home() / "captions/sample.json")
    longest = 0
    for caption in captions:
        ids = tokenizer(caption).input_ids
        longest = max(longest, len(ids))
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == caption.replace(" ", ""), caption
    say("tokenizer", longest_of_sample=longest, room=TOKENS)
    assert longest <= TOKENS
    return sum(len(tokenizer(w).input_ids) == 3 for w in words)


def encode(tokenizer, captions):
    return tokenizer(captions, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt").input_ids
