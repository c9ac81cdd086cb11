"""Captions that can be composed, and the scenes that they describe.

    two|three|four [COLOUR] SUBJECTS [on COLOUR]
    [COLOUR] SUBJECT and [COLOUR] SUBJECT [on COLOUR]
    [mirrored] [small|big] [COLOUR] SUBJECT [at the PLACE] [on COLOUR]

A scene is numbers only (render.py draws it): which drawing goes where, how large, mirrored or not, in which hue, on which
ground. What a caption doesn't say is as in the drawings: the middle, a common size, the drawing's own colours, white ground.
"""

import random
import re

from .common import STYLES, home, read_json, say, write_json

GROUNDS = {
    "white": (255, 255, 255), "black": (24, 24, 24), "red": (214, 48, 49), "orange": (245, 139, 32), "yellow": (250, 212, 60),
    "green": (62, 160, 72), "teal": (0, 150, 150), "blue": (52, 104, 220), "purple": (128, 72, 190), "pink": (250, 152, 190),
    "brown": (128, 84, 52), "gray": (150, 150, 150),
}  # fmt: skip
# Degrees of hue of subjects' colours.
HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 122, "teal": 178, "blue": 218, "purple": 274, "pink": 328}
COUNTS = {"two": 2, "three": 3, "four": 4}
PLACES = {
    "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1),
    "top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1),
}  # fmt: skip
SPOTS = {
    1: [(0, 0)],
    2: [(-0.25, 0), (0.25, 0)],
    3: [(0, -0.23), (-0.25, 0.23), (0.25, 0.23)],
    4: [(-0.25, -0.23), (0.25, -0.23), (-0.25, 0.23), (0.25, 0.23)],
}
SLOTS = 4
# Twenty combinations that training never sees: what is drawn for them was put together from its parts.
HELD_OUT = {
    "colour": [
        ("blue", "fox"), ("green", "cat"), ("purple", "banana"), ("red", "penguin"), ("pink", "elephant"), ("teal", "octopus"),
        ("orange", "rocket"), ("yellow", "whale"),
    ],
    "count": [("two", "cat"), ("three", "strawberry"), ("two", "rocket"), ("four", "mushroom")],
    "pair": [
        ("cat", "rocket"), ("fox", "sunflower"), ("penguin", "pizza"), ("robot", "banana"), ("ghost", "guitar"), ("owl", "crown"),
        ("frog", "umbrella"), ("bear", "balloon"),
    ],
}  # fmt: skip


def unseen_prompts():
    return (
        [f"{c} {s}" for c, s in HELD_OUT["colour"]]
        + [f"{n} {plural(s)}" for n, s in HELD_OUT["count"]]
        + [f"{a} and {b}" for a, b in HELD_OUT["pair"]]
    )


def named():
    """Subjects that are asked for by name: in what is held out, and on the sheets."""
    from .base import LOOK
    from .checkpoints import ANIMAL_PROMPTS, PROMPTS

    words = set(re.split(r"\W+", " ".join([*LOOK, *PROMPTS, *ANIMAL_PROMPTS])))
    held_out = {n for pairs in HELD_OUT.values() for pair in pairs for n in pair}
    return held_out | words | {"strawberry", "birthday cake"}


IRREGULAR = {
    "mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "person": "people", "child": "children", "wolf": "wolves",
    "leaf": "leaves", "sheep": "sheep", "fish": "fish", "deer": "deer", "ox": "oxen", "knife": "knives", "bread": "breads",
    "loaf": "loaves", "man": "men", "woman": "women", "scarf": "scarves", "elf": "elves", "shelf": "shelves",
}  # fmt: skip


def plural(name):
    """Of the first noun where a preposition follows, else of the last word."""
    words = name.split()
    at = next((i for i, w in enumerate(words) if w in ("with", "of", "and", "on", "in", "without", "behind", "from", "over")), len(words))
    if at == 0:
        at = len(words)
    word = words[at - 1]
    if word in IRREGULAR:
        word = IRREGULAR[word]
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        word = word if word.endswith("s") and not word.endswith("ss") and at == len(words) and word not in ("bus", "lotus") else word + "es"
    elif word.endswith("y") and word[-2:-1] not in "aeiou":
        word = word[:-1] + "ies"
    elif word in ("potato", "tomato", "mango", "buffalo"):
        word += "es"
    else:
        word += "s"
    return " ".join([*words[: at - 1], word, *words[at:]])


class Writer:
    """Draws scenes with their captions at random."""

    def __init__(self, subjects, only=None):
        self.subjects = subjects
        self.chosen = only if only is not None else list(range(len(subjects)))
        self.forbidden = {
            (kind, a, b) for kind, pairs in HELD_OUT.items() for a, b in pairs
        } | {("pair", b, a) for a, b in HELD_OUT["pair"]}

    def word(self, r, index):
        subject = self.subjects[index]
        if subject["tags"] and r.random() < 0.2:
            return r.choice(subject["tags"])
        return subject["name"]

    def colour(self, r, index, ground, chance):
        """A colour word and its number, or nothing."""
        if r.random() >= chance:
            return "", -1
        name = r.choice(list(HUES))
        if name == ground or ("colour", name, self.subjects[index]["name"]) in self.forbidden:
            return "", -1
        return name + " ", list(HUES).index(name)

    def scene(self, r, style=None):
        style = r.randrange(len(STYLES)) if style is None else style
        ground = "white" if r.random() < 0.45 else r.choice(list(GROUNDS))
        said = ground != "white" or r.random() < 0.1
        first = r.choice(self.chosen)
        roll = r.random()
        place, spots, flip, size = "", [(0, 0)], False, r.uniform(0.84, 0.9)
        indices, hues = [first], [-1]
        if roll < 0.10:
            word = r.choice(list(COUNTS))
            if ("count", word, self.subjects[first]["name"]) in self.forbidden:
                return self.scene(r, style)
            count = COUNTS[word]
            colour, hue = self.colour(r, first, ground, 0.25)
            indices, hues = [first] * count, [hue] * count
            spots, size = SPOTS[count], r.uniform(0.44, 0.48)
            text = f"{word} {colour}{plural(self.word(r, first))}"
        elif roll < 0.22:
            second = r.choice(self.chosen)
            if second == first or ("pair", self.subjects[first]["name"], self.subjects[second]["name"]) in self.forbidden:
                return self.scene(r, style)
            indices = [first, second]
            one, hue = self.colour(r, first, ground, 0.15)
            two, other = self.colour(r, second, ground, 0.15)
            hues = [hue, other]
            spots, size = SPOTS[2], r.uniform(0.45, 0.49)
            text = f"{one}{self.word(r, first)} and {two}{self.word(r, second)}"
        else:
            colour, hue = self.colour(r, first, ground, 0.3)
            hues = [hue]
            words = ""
            if r.random() < 0.06:
                flip, words = True, "mirrored "
            if (roll := r.random()) < 0.08:
                size, words = r.uniform(0.42, 0.48), words + "small "
            elif roll < 0.13:
                size, words = r.uniform(1.0, 1.06), words + "big "
            if size < 1 and r.random() < (0.6 if size < 0.5 else 0.08):
                place = r.choice(list(PLACES))
                size = min(size, r.uniform(0.5, 0.55))
                x, y = PLACES[place]
                spots = [(x * (0.48 - size / 2), y * (0.48 - size / 2))]
            text = f"{words}{colour}{self.word(r, first)}"
            if r.random() < 0.08:
                text = ("an " if text[0] in "aeiou" else "a ") + text
        if place:
            text += f" at the {place}"
        if said:
            text += f" on a {ground} background" if r.random() < 0.1 else f" on {ground}"
        slots = []
        for index, hue, (x, y) in zip(indices, hues, spots):
            jitter = 0.012
            slots.append((index, x + r.uniform(-jitter, jitter), y + r.uniform(-jitter, jitter), size, flip, hue))
        return {"caption": text, "style": style, "ground": list(GROUNDS).index(ground), "slots": slots}

    def scenes(self, count, seed, style=None):
        r = random.Random(seed)
        return [self.scene(r, style) for _ in range(count)]


def run():
    """A sample to read, and the words from which the tokenizer is made with how often each comes."""
    out = home() / "captions"
    if (out / "words.json").exists():
        return
    subjects = read_json(home() / "drawings/subjects.json")
    names = {s["name"] for s in subjects}
    missing = {n for pairs in HELD_OUT.values() for a, b in pairs for n in (a, b)} - names - set(HUES) - set(COUNTS)
    assert not missing, f"held out, but no subject: {missing}"
    scenes = Writer(subjects).scenes(100_000, seed=1)
    captions = [s["caption"] for s in scenes]
    unseen = set(unseen_prompts())
    assert not any(c.removesuffix(" on white") in unseen for c in captions)
    words = {}
    for caption in captions:
        for word in caption.split():
            words[word] = words.get(word, 0) + 1
    for subject in subjects:
        for name in (subject["name"], plural(subject["name"]), *subject["tags"]):
            for word in name.split():
                words[word] = words.get(word, 0) + 1
    write_json(out / "sample.json", captions[:300])
    write_json(out / "words.json", dict(sorted(words.items(), key=lambda w: (-w[1], w[0]))))
    say("captions", words=len(words), longest=max(len(c.split()) for c in captions))
