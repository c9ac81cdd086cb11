"""Where state lives, which device computes, how a stage is stopped, saved and continued, and what it logs."""

import contextlib
import fcntl
import functools
import json
import os
import signal
import time
from pathlib import Path

import torch

from .muon import Muon, is_matrix

STYLES = ["soft", "flat", "3d", "ink"]
SIZE = 128


def home():
    """The folder of all state, outside git."""
    folder = Path(os.environ.get("TINTYPE_TRAIN") or Path.home() / ".cache/tintype/train")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def device():
    """The one that $TINTYPE_DEVICE names (or `--device`), else a GPU where there is one."""
    asked = os.environ.get("TINTYPE_DEVICE")
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise SystemExit("--device cuda: torch finds no CUDA device")
    where = torch.device(asked or ("cuda" if has_gpu else "cpu"))
    if where.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return where


def on_gpu():
    return device().type == "cuda"


@functools.cache
def multiplies_bf16():
    """Whether the device multiplies bf16 faster than f32: by instructions of its own, not by widening."""
    return on_gpu() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast():
    return torch.autocast(device().type, dtype=torch.bfloat16) if multiplies_bf16() else contextlib.nullcontext()


def write_atomic(path, write):
    """Calls `write` with a name beside `path`, then gives the file its own name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    write(beside)
    with open(beside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)


def write_json(path, value):
    write_atomic(path, lambda p: p.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n"))


def read_json(path):
    return json.loads(Path(path).read_text())


class Stop:
    """Whether to save and end: SIGTERM, SIGINT, or a file named `stop` in the state folder."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_):
        self.asked = True

    def __bool__(self):
        return self.asked or (home() / "stop").exists()


STOP = None


def stop_asked():
    global STOP
    if STOP is None:
        STOP = Stop()
    return bool(STOP)


def say(stage, **values):
    """One line on the terminal and in the stage's log.jsonl."""
    values = {"stage": stage, "time": time.strftime("%Y-%m-%d %H:%M:%S"), **values}
    path = home() / stage / "log.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as log:
        log.write(json.dumps(values) + "\n")
    print(" ".join(f"{k}={v:.5g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()), flush=True)


class Clock:
    """The budget of this run, and when to save or log."""

    SAVE_EVERY = 300

    def __init__(self, minutes):
        self.start = time.time()
        self.end = self.start + 60 * minutes
        self.saved = self.start
        self.marks = {}

    def over(self):
        return time.time() >= self.end or stop_asked()

    def save_due(self):
        if time.time() - self.saved < self.SAVE_EVERY:
            return False
        self.saved = time.time()
        return True

    def saved_now(self):
        self.saved = time.time()

    def due(self, name, seconds):
        """Whether `seconds` have passed since this last was true."""
        now = time.time()
        if now - self.marks.setdefault(name, self.start) < seconds:
            return False
        self.marks[name] = now
        return True


class Meter:
    """Lines of a stage's log: mean loss, rate, and samples a second since the line before."""

    def __init__(self, trainer, clock, every):
        self.trainer, self.clock, self.every = trainer, clock, every
        self._begin()

    def _begin(self):
        self.losses, self.began, self.seen = [], time.time(), self.trainer.samples

    def add(self, loss, **more):
        self.losses.append(loss.detach())
        if self.clock.due("log", self.every):
            t = self.trainer
            speed = (t.samples - self.seen) / (time.time() - self.began)
            say(t.stage, samples=t.samples, loss=torch.stack(self.losses).mean().item(), lr=t.rate(), per_second=speed, **more)
            self._begin()


class Ema:
    """The average of a network's weights over about the last tenth of the training, however long that is (the power
    function of arXiv 2312.02696, gamma 6.94), so that it need not be known beforehand when the training ends."""

    GAMMA = 6.94

    def __init__(self, modules):
        self.live = [p for m in modules for p in m.parameters()]
        self.mean = [p.detach().clone().float() for p in self.live]
        self.steps = 0

    @torch.no_grad()
    def update(self):
        self.steps += 1
        keep = (1 - 1 / self.steps) ** (self.GAMMA + 1)
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - keep)

    @contextlib.contextmanager
    def applied(self):
        """The modules have the averaged weights meanwhile."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in self.live]
            for p, m in zip(self.live, self.mean):
                p.copy_(m)
            try:
                yield
            finally:
                for p, k in zip(self.live, kept):
                    p.copy_(k)

    def state_dict(self):
        return {"mean": self.mean, "steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
        with torch.no_grad():
            for mine, its in zip(self.mean, state["mean"], strict=True):
                mine.copy_(its)


class Trainer:
    """Modules with optimizer and average, counters, and the file they are kept in (the last two of it)."""

    def __init__(self, stage, modules, lr, horizon, warmup=20_000, weight_decay=0.01, muon=False):
        self.stage = stage
        self.modules = modules
        self.parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.optimizers = self._optimizers(lr, weight_decay, muon)
        self.lr, self.horizon, self.warmup = lr, horizon, warmup
        self.ema = Ema(list(modules.values()))
        self.samples = self.steps = 0
        self.seconds = 0.0
        self.extra = {}
        self.fresh_at = 0
        self.path = home() / stage / "state.pt"
        self.lock = self._locked()
        self.before = time.time()
        self._load()

    def _optimizers(self, lr, weight_decay, muon):
        """AdamW; or Muon where it is for, and AdamW for what is left."""
        matrices, rest = [], []
        for module in self.modules.values():
            for name, p in module.named_parameters():
                if p.requires_grad:
                    (matrices if muon and is_matrix(name, p) else rest).append(p)
        adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
        return [Muon(matrices, lr, weight_decay=weight_decay, dtype=dtype), adam] if muon else [adam]

    def _locked(self):
        """Held while this lives: two runs of one stage would spoil each other's state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(self.path.with_name("lock"), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{self.stage}: another run is at it ({self.path.parent})") from None
        return lock

    def rate(self):
        """Rises, stays, then falls as the square root of samples: it can be extended at any time."""
        rise = min(1.0, (self.samples - self.fresh_at + 1) / self.warmup)
        return self.lr * rise * min(1.0, (self.horizon / max(self.samples, 1)) ** 0.5)

    def generator(self, where="cpu"):
        """Randomness of this step, the same after a restart."""
        number = int.from_bytes(self.stage.encode()[-4:], "little") * 1_000_003 + self.steps
        return torch.Generator(where).manual_seed(number % 2**62)

    def step(self, loss, count):
        for p in self.parameters:
            p.grad = None
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
            optimizer.step()
        self.ema.update()
        self.samples += count
        self.steps += 1
        return norm

    def save(self):
        now = time.time()
        self.seconds += now - self.before
        self.before = now
        state = {
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "kinds": [type(o).__name__ for o in self.optimizers],
            "optimizers": [o.state_dict() for o in self.optimizers],
            "ema": self.ema.state_dict(),
            "samples": self.samples,
            "steps": self.steps,
            "seconds": self.seconds,
            "extra": self.extra,
        }

        def write(path):
            torch.save(state, path)
            if self.path.exists():
                os.replace(self.path, self.path.with_name("state.previous.pt"))

        write_atomic(self.path, write)
        write_json(self.path.with_name("spent.json"), {"seconds": round(self.seconds, 1), "samples": self.samples, **self.extra})

    def publish(self):
        """The averaged weights, in f16: what later stages start from, and what training goes on from where the state is not."""
        with self.ema.applied():
            kept = {k: {n: w.half() for n, w in m.state_dict().items()} for k, m in self.modules.items()}
        kept |= {"samples": self.samples, "steps": self.steps, "extra": self.extra}
        write_atomic(self.path.with_name("model.pt"), lambda p: torch.save(kept, p))

    def _load(self):
        for path in (self.path, self.path.with_name("state.previous.pt")):
            if not path.exists():
                continue
            try:
                state = torch.load(path, map_location=device(), weights_only=True)
            except Exception as error:  # cut off by a crash: the one before it will do
                print(f"{path} can't be read ({error}); taking the one before", flush=True)
                continue
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
            kinds = [type(o).__name__ for o in self.optimizers]
            if state.get("kinds") != kinds:
                raise SystemExit(f"{path}: expected the state of {kinds}, found {state.get('kinds')}'s; without that file training goes on from model.pt")
            for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(its)
                for p, kept in optimizer.state.items():  # in the weights' layout of memory, which may be another now
                    kept |= {k: torch.empty_like(p).copy_(v) for k, v in kept.items() if torch.is_tensor(v) and v.shape == p.shape}
            self.ema.load_state_dict(state["ema"])
            self.samples, self.steps = state["samples"], state["steps"]
            self.seconds, self.extra = state["seconds"], state["extra"]
            say(self.stage, going_on_at=self.samples)
            return
        model = self.path.with_name("model.pt")
        if model.exists():
            kept = torch.load(model, map_location=device(), weights_only=True)
            for name, module in self.modules.items():
                module.load_state_dict(kept[name])
            self.samples, self.steps, self.extra = kept["samples"], kept["steps"], kept["extra"]
            self.fresh_at = self.samples
            self.ema = Ema(list(self.modules.values()))
            self.ema.steps = self.steps
            say(self.stage, going_on_without_optimizer_at=self.samples)


def seconds_spent(stage, **which):
    """How long a stage has trained in all, as its last state tells; nothing where that is not of `which`."""
    path = home() / stage / "spent.json"
    kept = read_json(path) if path.exists() else {"seconds": 0.0}
    return kept["seconds"] if which.items() <= kept.items() else 0.0
