"""Every stage in turn. Each has its share of the hours, former runs included, so that the same command goes on where it was
ended, and one with more hours goes on with all of them."""

from . import captions, drawings, tokenizer
from .checkpoints import CHECKPOINTS, STUDENTS
from .common import home, say, seconds_spent, stop_asked

SHARES = {"vae": 0.18, "embedding": 0.05, "base": 0.40, "styles": 0.17, "students": 0.20}


def spent(stage):
    if stage == "vae":
        return seconds_spent("vae") + seconds_spent("vae-decoder")
    if stage == "styles":
        return sum(seconds_spent(f"styles/{n}") for n in CHECKPOINTS)
    if stage == "students":
        return sum(seconds_spent(f"students/{n}-{k}") for n in CHECKPOINTS for k in STUDENTS)
    return seconds_spent(stage)


def run(hours, start=None, width=48):
    from . import base, embedding, scores, students, styles, vae

    (home() / "stop").unlink(missing_ok=True)
    for stage in (drawings, captions, tokenizer):
        stage.run()
    timed = {
        "vae": lambda m: vae.run(m, width, start),
        "embedding": embedding.run,
        "base": base.run,
        "styles": styles.run,
        "students": students.run,
    }
    for name, train in timed.items():
        minutes = SHARES[name] * hours * 60 - spent(name) / 60
        if stop_asked():
            break
        if minutes > 0.05:
            say("all", begins=name, minutes=minutes)
            train(minutes)
    if not stop_asked():
        scores.run()
    say("all", ended="stopped" if stop_asked() else "done")
