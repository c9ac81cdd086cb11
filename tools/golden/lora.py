"""LoRAs and their kin over four of the tiny checkpoints of pipelines.py, and the pictures that diffusers draws with them.

tests/golden/lora/<case>.safetensors: the file as a person has it. expected.safetensors: `<case>/picture` u8 [height, width, 3] and
`<case>/<component>.<parameter>` f32, the merged parameter by the formula, here as torch computes it. cases.json: the checkpoint and
the LoRAs of each case. Where diffusers (with peft) reads the file, the picture is drawn with the LoRA loaded and not fused; it must
be the one that the formula's weights give. Else it is drawn with the formula's weights.
"""

import json
import warnings

import diffusers
import numpy as np
import torch
import transformers
from common import GOLDEN, fresh, generator, write, write_json
from diffusers import DiffusionPipeline
from pipelines import draw

warnings.filterwarnings("ignore")
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

HERE = GOLDEN / "lora"
SD1, SD2, F16, XL = "sd1-ddim", "sd2-euler", "dpm-karras", "sdxl"
BLOCK = "transformer_blocks.0"


def load(name):
    pipe = DiffusionPipeline.from_pretrained(GOLDEN / "pipelines" / name, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def targets(pipe, *ends, component="unet"):
    """The modules whose names end so, and the shapes of their weights."""
    modules = getattr(pipe, component).named_modules()
    return {name: tuple(m.weight.shape) for name, m in modules if name.endswith(ends) and getattr(m, "weight", None) is not None}


class Random:
    """Tensors with an effect on what they are merged with."""

    def __init__(self, case):
        self.g = generator(f"lora {case}")

    def __call__(self, *shape, std=1.0):
        # Through f16, as most files are.
        return (torch.randn(shape, generator=self.g) * std).half().float()


def rebuild(mid, a, b):
    """LyCORIS' rebuild_tucker."""
    return torch.einsum("ij...,ip,jr->pr...", mid, a, b)


# ---- kinds: tensors by role, and what is added to a weight ---------------------------------------------------------------


def low(rand, shape, rank, strength=0.5):
    down = rand(rank, *shape[1:], std=np.prod(shape[1:]) ** -0.5)
    up = rand(shape[0], rank, *[1] * (len(shape) - 2), std=strength)
    return {"down": down, "up": up}, (up.flatten(1) @ down.flatten(1)).reshape(shape), rank


def tucker(rand, shape, rank):
    out, inner, *kernel = shape
    down, mid, up = rand(rank, inner, 1, 1, std=0.4), rand(rank, rank, *kernel, std=0.4), rand(out, rank, 1, 1, std=0.4)
    # LyCORIS' LoConModule.
    delta = torch.einsum("mn...,im,nj->ij...", mid, up.flatten(1), down.flatten(1))
    return {"down": down, "mid": mid, "up": up}, delta, rank


def hada(rand, shape, rank, cp=False):
    out, inner, *kernel = shape
    if cp:
        t = [rand(rank, rank, *kernel) for _ in "12"]
        a, b = [rand(rank, out, std=0.6) for _ in "12"], [rand(rank, inner, std=0.6) for _ in "12"]
        delta = rebuild(t[0], a[0], b[0]) * rebuild(t[1], a[1], b[1])
        extra = {"hada_t1": t[0], "hada_t2": t[1]}
    else:
        a, b = [rand(out, rank, std=0.6) for _ in "12"], [rand(rank, int(np.prod(shape[1:])), std=0.6) for _ in "12"]
        delta, extra = ((a[0] @ b[0]) * (a[1] @ b[1])).reshape(shape), {}
    return {"hada_w1_a": a[0], "hada_w1_b": b[0], "hada_w2_a": a[1], "hada_w2_b": b[1], **extra}, delta, rank


def kron(rand, shape, factor, one, two, rank=2):
    """`one` and `two`: how each factor is stored, "whole", "product" or (the second) "tucker"."""
    out, inner, *kernel = shape
    o1, i1 = factor
    o2, i2 = out // o1, inner // i1
    tensors = {}
    if one == "whole":
        w1 = tensors["lokr_w1"] = rand(o1, i1, std=0.5)
    else:
        a, b = tensors["lokr_w1_a"], tensors["lokr_w1_b"] = rand(o1, rank, std=0.6), rand(rank, i1, std=0.6)
        w1 = a @ b
    if two == "whole":
        w2 = tensors["lokr_w2"] = rand(o2, i2, *kernel, std=0.4)
    elif two == "product":
        a, b = rand(o2, rank, std=0.5), rand(rank, i2 * int(np.prod(kernel)), std=0.5)
        tensors.update(lokr_w2_a=a, lokr_w2_b=b)
        w2 = (a @ b).reshape(o2, i2, *kernel)
    else:
        t, a, b = rand(rank, rank, *kernel, std=0.6), rand(rank, o2, std=0.6), rand(rank, i2, std=0.6)
        tensors.update(lokr_t2=t, lokr_w2_a=a, lokr_w2_b=b)
        w2 = rebuild(t, a, b)
    w1 = w1.reshape(o1, i1, *[1] * len(kernel))
    return tensors, torch.kron(w1, w2.contiguous()), None if one == two == "whole" else rank


def dora(weight, delta, lengths, by_input=False):
    """What is added to the weight so that the sum has rows (or columns) of these lengths."""
    merged = weight + delta
    dims = [d for d in range(weight.dim()) if d != int(by_input)]
    norm = torch.linalg.vector_norm(merged, dim=dims, keepdim=True)
    return merged * lengths.reshape(norm.shape) / norm - weight


# ---- ways to name them -----------------------------------------------------------------------------------------------------

KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
PEFT = {"down": "lora_A.weight", "up": "lora_B.weight"}


def kohya(component, module, role):
    start = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[component]
    return f"{start}{module.replace('.', '_')}.{KOHYA.get(role, role)}"


# The tiny SD 1.x's blocks, counted as the original code does.
ORIGINAL = {
    "down_blocks.0.attentions.0": "input_blocks.1.1", "mid_block.attentions.0": "middle_block.1",
    "up_blocks.1.attentions.0": "output_blocks.2.1", "up_blocks.1.attentions.1": "output_blocks.3.1",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.3.0.skip_connection", "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv", "up_blocks.1.resnets.1.time_emb_proj": "output_blocks.3.0.emb_layers.1",
}  # fmt: skip


def original(component, module, role):
    ours, theirs = next((o, t) for o, t in ORIGINAL.items() if module.startswith(o))
    return kohya(component, theirs + module[len(ours) :], role)


# The tiny SDXL's.
ORIGINAL_XL = {
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.attentions.0": "input_blocks.3.1", "down_blocks.2.attentions.0": "input_blocks.5.1",
    "mid_block.attentions.0": "middle_block.1", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.attentions.1": "output_blocks.1.1", "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.attentions.0": "output_blocks.2.1", "up_blocks.1.attentions.1": "output_blocks.3.1",
}  # fmt: skip


def kohya_xl(component, module, role):
    if component == "unet":
        ours, theirs = next((o, t) for o, t in ORIGINAL_XL.items() if module.startswith(o))
        return kohya(component, theirs + module[len(ours) :], role)
    start = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}[component]
    module = module if module.startswith("text_model.") else f"text_model.{module}"
    return f"{start}{module.replace('.', '_')}.{KOHYA.get(role, role)}"


def peft(component, module, role):
    module = f"text_model.{module}" if component == "text_encoder" else module
    return f"{component}.{module}.{PEFT.get(role, role)}"


def processor(component, module, role):
    """As diffusers wrote it before it knew of peft."""
    module, leaf = module.rsplit(".", 1) if not module.endswith(".0") else module.rsplit(".", 2)[:2]
    return f"{component}.{module}.processor.{leaf}_lora.{role}.weight"


# ---- files ------------------------------------------------------------------------------------------------------------------


class File:
    """A LoRA in the making, and what it adds to each parameter."""

    def __init__(self, name, pipe, naming):
        self.name, self.pipe, self.naming = name, pipe, naming
        self.rand = Random(name)
        self.tensors, self.deltas = {}, {}

    def add(self, component, module, made, alpha=None, dora_by=None, key="dora_scale"):
        """`made`: tensors, delta, rank. `dora_by`: "output" or "input"."""
        tensors, delta, rank = made
        weight = getattr(self.pipe, component).get_parameter(f"{module}.weight")
        assert delta.shape == weight.shape, (module, delta.shape, weight.shape)
        if alpha is not None:
            tensors = {**tensors, "alpha": torch.tensor(float(alpha))}
        factor = alpha / rank if alpha is not None and rank else 1.0
        lengths = None
        if dora_by:
            by_input = dora_by == "input"
            dims = [d for d in range(weight.dim()) if d != int(by_input)]
            lengths = torch.linalg.vector_norm(weight, dim=dims, keepdim=True) * (1 + self.rand(1, std=0.2).abs())
            lengths = (lengths if key == "dora_scale" else lengths.flatten()).contiguous()
            tensors = {**tensors, key: lengths}
        for role, tensor in tensors.items():
            self.tensors[self.naming(component, module, role)] = tensor
        self.deltas[component, f"{module}.weight"] = (weight.clone(), delta * factor, lengths, dora_by == "input")

    def write(self, dtype=torch.float32, metadata=None):
        write(HERE / f"{self.name}.safetensors", {k: t.to(dtype) for k, t in self.tensors.items()}, metadata)

    def delta(self, key, scale):
        weight, delta, lengths, by_input = self.deltas[key]
        return scale * delta if lengths is None else dora(weight, scale * delta, lengths, by_input)


def case(name, base, files, scales, how, expected, cases):
    """`how`: "diffusers" draws with the LoRAs loaded, "formula" with the merged weights."""
    pipe = load(base)
    asked = json.loads((GOLDEN / "pipelines" / base / "case.json").read_text())
    _, plain = draw(pipe, asked)
    if how == "diffusers":
        for i, file in enumerate(files):
            pipe.load_lora_weights(HERE, weight_name=f"{file.name}.safetensors", adapter_name=f"a{i}")
        pipe.set_adapters([f"a{i}" for i in range(len(files))], list(scales))
        _, picture = draw(pipe, asked)
        pipe = load(base)
    touched = {}
    for file, scale in zip(files, scales):
        for key in file.deltas:
            touched.setdefault(key, []).append(file.delta(key, scale))
    for (component, parameter), deltas in touched.items():
        weight = getattr(pipe, component).get_parameter(parameter)
        weight.copy_(weight + sum(deltas))
        expected[f"{name}/{component}.{parameter}"] = weight.clone()
    _, merged = draw(pipe, asked)
    far = "by the formula"
    if how == "diffusers":
        off = np.abs(merged.astype(int) - picture)
        far = f"diffusers' own is off by {off.max()}, {off.mean():.4f} in the mean"
        assert off.max() <= 1, (name, far)
    else:
        picture = merged
    changed = np.abs(picture.astype(int) - plain).mean()
    clipped = ((picture == 0) | (picture == 255)).mean()
    print(f"{name}: {len(touched)} parameters, the picture changes by {changed:.1f}, clipped {clipped:.1%}; {far}")
    assert 4 < changed and clipped < 0.3, name
    expected[f"{name}/picture"] = torch.from_numpy(picture)
    loras = [{"file": f"{file.name}.safetensors", "scale": scale} for file, scale in zip(files, scales)]
    cases[name] = {"pipeline": base, "loras": loras}


def main():
    fresh(HERE)
    expected, cases = {}, {}
    sd1, sd2, f16 = load(SD1), load(SD2), load(F16)
    attention = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in")
    text = ("q_proj", "v_proj", "out_proj", "fc1")

    def linear(name, pipe, naming, alpha=None, ends=attention, text=text, rank=4):
        file = File(name, pipe, naming)
        for module, shape in targets(pipe, *ends).items():
            file.add("unet", module, low(file.rand, shape, rank), alpha)
        for module, shape in targets(pipe, *text, component="text_encoder").items() if text else []:
            file.add("text_encoder", module, low(file.rand, shape, rank, 0.3), alpha)
        return file

    kohya_file = linear("kohya", sd2, kohya, alpha=2)
    kohya_file.write(torch.float16)
    case("kohya", SD2, [kohya_file], [0.8], "diffusers", expected, cases)

    original_file = linear("kohya-original", sd1, original, alpha=3, text=None)
    for module, shape in targets(sd1, *[m for m in ORIGINAL if "attentions" not in m]).items():
        original_file.add("unet", module, low(original_file.rand, shape, 2), 2)
    original_file.write(torch.float16)
    case("kohya-original", SD1, [original_file], [1.0], "formula", expected, cases)

    peft_file = linear("peft", sd2, peft)
    peft_file.write()
    case("peft", SD2, [peft_file], [-0.5], "diffusers", expected, cases)

    # PEFT's own configuration goes with the file; alpha is in there alone.
    scaled = linear("peft-metadata", sd2, peft, text=None)
    scaled.deltas = {key: (w, 1.5 * d, n, i) for key, (w, d, n, i) in scaled.deltas.items()}
    config = dict(r=4, lora_alpha=6, target_modules=list(targets(sd2, *attention)), peft_type="LORA", lora_dropout=0.0)
    scaled.write(metadata=("lora_adapter_metadata", {f"unet.{key}": value for key, value in config.items()}))
    case("peft-metadata", SD2, [scaled], [0.4], "diffusers", expected, cases)

    old = linear("processor", sd2, processor, ends=("to_q", "to_k", "to_v", "to_out.0"), text=None)
    old.write()
    case("processor", SD2, [old], [1.0], "diffusers", expected, cases)

    locon = linear("locon", sd1, kohya, alpha=1, text=None)
    for module, shape in targets(sd1, "conv1", "time_emb_proj", "samplers.0.conv", "conv_shortcut").items():
        locon.add("unet", module, low(locon.rand, shape, 3), 2)
    locon.write()
    case("locon", SD1, [locon], [0.9], "diffusers", expected, cases)

    mid = File("locon-tucker", sd1, kohya)
    for module, shape in targets(sd1, "conv1", "conv2").items():
        mid.add("unet", module, tucker(mid.rand, shape, 3), 2)
    mid.write()
    case("locon-tucker", SD1, [mid], [1.0], "formula", expected, cases)

    # diffusers leaves kohya's dora_scale out, and reads peft's own vectors.
    weighted = File("dora", sd2, peft)
    for module, shape in targets(sd2, "to_q", "to_v", "to_out.0", "ff.net.2").items():
        weighted.add("unet", module, low(weighted.rand, shape, 4), None, "output", "lora_magnitude_vector")
    weighted.write()
    case("dora", SD2, [weighted], [0.6], "diffusers", expected, cases)

    rows = File("dora-kohya", sd1, kohya)
    for module, shape in targets(sd1, "to_k", "ff.net.2", "conv1").items():
        rows.add("unet", module, low(rows.rand, shape, 2), 1, "output")
    rows.write()
    case("dora-kohya", SD1, [rows], [0.7], "formula", expected, cases)

    columns = File("dora-columns", sd1, kohya)
    for module, shape in targets(sd1, "to_q", "to_v", "conv2").items():
        columns.add("unet", module, low(columns.rand, shape, 2), 1, "input")
    columns.write()
    case("dora-columns", SD1, [columns], [1.0], "formula", expected, cases)

    loha = File("loha", sd1, kohya)
    for module, shape in targets(sd1, "to_q", "to_k", "ff.net.0.proj", "proj_out").items():
        loha.add("unet", module, hada(loha.rand, shape, 3), 1.5)
    for module, shape in targets(sd1, "conv1").items():
        loha.add("unet", module, hada(loha.rand, shape, 2, cp="mid" not in module), 1)
    loha.write()
    case("loha", SD1, [loha], [0.8], "formula", expected, cases)

    lokr = File("lokr", sd1, kohya)
    for i, (module, shape) in enumerate(targets(sd1, "to_q", "to_k", "ff.net.2", "time_emb_proj").items()):
        kinds = [("whole", "whole"), ("whole", "product"), ("product", "product"), ("product", "whole")][i % 4]
        lokr.add("unet", module, kron(lokr.rand, shape, (2, 4), *kinds), 1)
    for i, (module, shape) in enumerate(targets(sd1, "conv1", "conv2").items()):
        lokr.add("unet", module, kron(lokr.rand, shape, (2, 2), "whole", ["whole", "product", "tucker"][i % 3]), 1)
    lokr.write()
    case("lokr", SD1, [lokr], [1.2], "formula", expected, cases)

    case("two", SD2, [kohya_file, peft_file], [0.6, 0.4], "diffusers", expected, cases)
    case("two-dora", SD2, [weighted, kohya_file], [0.5, 0.5], "diffusers", expected, cases)

    half = linear("half", f16, peft, ends=("to_q", "to_k", "to_v", "to_out.0"))
    half.write(torch.float16)
    case("half", F16, [half], [1.0], "diffusers", expected, cases)

    sdxl = load(XL)
    both = linear("sdxl", sdxl, kohya_xl, alpha=2)
    for module, shape in targets(sdxl, "q_proj", "v_proj", "out_proj", "fc1", component="text_encoder_2").items():
        both.add("text_encoder_2", module, low(both.rand, shape, 4, 0.3), 2)
    for module, shape in targets(sdxl, *[m for m in ORIGINAL_XL if "attentions" not in m]).items():
        both.add("unet", module, low(both.rand, shape, 2), 2)
    both.write(torch.float16)
    case("sdxl", XL, [both], [0.7], "diffusers", expected, cases)

    write(HERE / "expected.safetensors", expected)
    write_json(HERE / "cases.json", cases)


if __name__ == "__main__":
    main()
