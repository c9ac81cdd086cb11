"""python -m tools.train STAGE [options]: see README.md."""

import argparse
import os

STAGES = ["drawings", "captions", "tokenizer", "check", "smoke", "vae", "embedding", "base", "styles", "students", "scores", "export"]

TRAINED = ["vae", "embedding", "base", "styles", "students"]


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.train", description="Makes the checkpoints that come with Tintype.")
    parser.add_argument("--home", help="folder of all state (else $TINTYPE_TRAIN, else ~/.cache/tintype/train)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="else a GPU where there is one")
    parser.add_argument("--compile", action="store_const", const="1", help="base and styles by torch.compile: quicker steps after a minute or more of compiling")
    stages = parser.add_subparsers(dest="stage", required=True)
    timed = {}
    for name in STAGES:
        stage = stages.add_parser(name)
        if name in TRAINED:
            stage.add_argument("--minutes", type=float, required=True, help="how long to train now")
            timed[name] = stage
    timed["vae"].add_argument("--width", type=int, default=48, help="channels of the decoder")
    for name in ("vae", "base"):
        timed[name].add_argument("--from", dest="start", help="a checkpoint of diffusers to begin with, such as one exported before")
    timed["base"].add_argument("--batch", type=int)
    stages.choices["drawings"].add_argument("--subjects", type=int, help="so many of them, not all")
    timed["styles"].add_argument("--only", nargs="+", help="these alone")
    stages.choices["scores"].add_argument("--only", nargs="+", help="these alone")
    stages.choices["scores"].add_argument("--subjects", type=int, default=240)
    stages.choices["scores"].add_argument("--seeds", type=int, default=4)
    stages.choices["export"].add_argument("--out", required=True, help="folder to write")
    every = stages.add_parser("all", help="every stage in turn, going on where it was")
    every.add_argument("--hours", type=float, required=True, help="training time of all stages, former runs included")
    every.add_argument("--from", dest="start", help="as for vae and base")
    every.add_argument("--width", type=int, default=48, help="as for vae")
    for name in ("pack", "unpack"):
        stages.add_parser(name, help="what a machine without network needs, as one file").add_argument("file")
    stages.choices["pack"].add_argument("--only", nargs="+", help="folders of the state, such as base styles/soft")
    stages.choices["pack"].add_argument("--piece", type=float, help="cut into pieces of so many MiB")
    stages.add_parser("status", help="where each stage stands")
    args = vars(parser.parse_args())
    for name, variable in (("home", "TINTYPE_TRAIN"), ("device", "TINTYPE_DEVICE"), ("compile", "TINTYPE_COMPILE")):
        if value := args.pop(name):
            os.environ[variable] = value
    run(args)


def run(args):
    import importlib

    import torch

    torch.set_flush_denormal(True)  # before there are other threads, which take it over
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    stage = args.pop("stage")
    if stage in [*TRAINED, "scores", "all"]:
        from .common import home

        (home() / "stop").unlink(missing_ok=True)  # it was for a run before
    if stage in ("pack", "unpack", "status"):
        from . import bundle

        getattr(bundle, stage)(**args)
    elif stage == "all":
        from . import everything

        everything.run(**args)
    else:
        importlib.import_module(f".{stage}", __package__).run(**args)


if __name__ == "__main__":
    main()
