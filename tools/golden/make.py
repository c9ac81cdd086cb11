"""Makes tests/golden again: `python tools/golden/make.py [script...]`. See README.md beside this file."""

import runpy
import sys
from pathlib import Path

SCRIPTS = ["noise", "dtypes", "samplers", "tokenizer", "vocabulary", "ops", "models", "large", "resize", "pipelines", "families", "images", "lora", "distilled", "published", "single_files", "vae"]
# Follows the shipped checkpoints, whose pictures it makes where they have changed; runs only where it is named.
NAMED_ONLY = ["reference"]


def main():
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    chosen = sys.argv[1:] or SCRIPTS
    for name in chosen:
        if name not in SCRIPTS + NAMED_ONLY:
            sys.exit(f"unknown script {name}: expected some of {', '.join(SCRIPTS + NAMED_ONLY)}")
        print(f"== {name}", flush=True)
        sys.argv = [name]
        runpy.run_path(str(here / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
