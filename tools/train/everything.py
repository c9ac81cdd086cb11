"""Every stage in turn, within so many hours. Each has its share of them, former runs included, so that the same command goes on
where it was ended, and one with more hours goes on with all stages. What a stage takes beyond its share, all that follow give; some time
is kept for the scores."""

import time

from . import captions, drawings, tokenizer
from .checkpoints import CHECKPOINTS
from .common import home, on_gpu, read_json, say, seconds_spent, stop_asked

SHARES = {"vae": 0.15, "embedding": 0.05, "base": 0.42, "styles": 0.18, "students": 0.20}
# With a checkpoint to begin with.
SHARES_WITH_START = {"vae": 0.12, "embedding": 0.05, "base": 0.45, "styles": 0.18, "students": 0.20}


def spent(stage):
    if stage == "vae":
        return seconds_spent("vae") + seconds_spent("vae-decoder")
    if stage == "styles":  # what was trained from a former base will begin anew
        path = home() / "base/spent.json"
        now = read_json(path)["samples"] if path.exists() else None
        return sum(seconds_spent(f"styles/{n}", base=now) for n in CHECKPOINTS)
    return seconds_spent(stage)


def kept_for_scores(seconds):
    """Of so many seconds in all."""
    return min(60.0, 0.15 * seconds) if on_gpu() else min(1500.0, 0.15 * seconds)


def minutes_of(stage, shares, total, end, now, spent=spent):
    """How long a stage may train now, of `total` seconds for all training that has to end at `end`."""
    want = {name: max(0.0, share * total - spent(name)) for name, share in shares.items()}
    rest = list(shares)[list(shares).index(stage) :]
    needed = sum(want[name] for name in rest)
    there = min(1.0, max(0.0, end - now) / needed) if needed else 0.0
    return want[stage] * there / 60


def run(hours, start=None, width=48):
    from . import base, embedding, scores, students, styles, vae

    began = time.time()
    for stage in (drawings, captions, tokenizer):
        stage.run()
    timed = {
        "vae": lambda m: vae.run(m, width, start),
        "embedding": embedding.run,
        "base": lambda m: base.run(m, start=start),
        "styles": styles.run,
        "students": students.run,
    }
    shares = SHARES_WITH_START if start else SHARES
    seconds = 3600 * hours
    total = seconds - kept_for_scores(seconds)
    end = began + total - sum(spent(name) for name in timed)
    for name, train in timed.items():
        minutes = minutes_of(name, shares, total, end, time.time())
        if stop_asked():
            break
        # A little that is left isn't worth it, and a base that went on by a second would have all styles begin anew.
        if minutes * 60 > 0.02 * shares[name] * total:
            say("all", begins=name, minutes=minutes)
            train(minutes)
    if not stop_asked():
        # Without a GPU four pictures of each subject would take as long as a stage: `scores` by itself draws them.
        scores.run(seeds=4 if on_gpu() else 1)
    say("all", ended="stopped" if stop_asked() else "done", minutes=(time.time() - began) / 60)
