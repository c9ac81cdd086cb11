"""The checkpoints that are made: id, the style they draw in, and which subjects they know best."""

from .common import STYLES

CHECKPOINTS = {
    "soft": {
        "style": "soft", "name": "Soft", "description": "Rounded shapes with gentle shading",
        "license": "Apache-2.0", "credits": "Noto Emoji (Google), Apache-2.0",
    },
    "flat": {
        "style": "flat", "name": "Flat", "description": "Flat colours and clean outlines",
        "license": "CC-BY-4.0", "credits": "Twemoji (Twitter and contributors), CC-BY 4.0",
    },
    "3d": {
        "style": "3d", "name": "3D", "description": "Glossy, lit, three-dimensional",
        "license": "MIT", "credits": "Fluent Emoji (Microsoft), MIT",
    },
    "ink": {
        "style": "ink", "name": "Ink", "description": "Black ink, bold lines",
        "license": "MIT", "credits": "Fluent Emoji High Contrast (Microsoft), MIT",
    },
    "animals": {
        "style": "3d", "name": "Animals", "description": "Animals alone, glossy and lit",
        "license": "MIT", "credits": "Fluent Emoji (Microsoft), MIT",
        "subgroups": ("animal-", "cat-face", "monkey-face"),
    },
}  # fmt: skip
STUDENTS = (4, 1)
PROMPTS = ["fox", "birthday cake", "rocket on blue", "octopus on yellow", "blue cat", "two strawberries", "cat and rocket", "small ghost at the left"]
ANIMAL_PROMPTS = ["fox", "octopus on yellow", "owl", "blue cat", "two penguins", "lion and butterfly", "panda on green", "small whale at the left"]


def style_number(name):
    return STYLES.index(CHECKPOINTS[name]["style"])


def subjects_of(name, subjects):
    """Numbers of the subjects of a specialist; None where a checkpoint knows all."""
    starts = CHECKPOINTS[name].get("subgroups")
    return [i for i, s in enumerate(subjects) if s["subgroup"].startswith(starts)] if starts else None


def prompts_of(name):
    return ANIMAL_PROMPTS if "subgroups" in CHECKPOINTS[name] else PROMPTS
