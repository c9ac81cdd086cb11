"""One operation a case, over odd sizes, with weights in f32, f16 and bf16.

tests/golden/ops.safetensors holds tensors named `<case>/<tensor>`, and under `cases` in its metadata a list of
{ name, op, attrs, inputs: [tensor], params: [{ pack, parts: [tensor] }], output: tensor }.
Inputs and parameters stand in the order in which the operation takes them. Results are computed in f64 from the stored
numbers and rounded once; the time embedding is diffusers' own, in f32.
"""

import torch
import torch.nn.functional as F
from common import GOLDEN, generator, write
from diffusers.models.embeddings import get_timestep_embedding

HALF, FULL, BRAIN = torch.float16, torch.float32, torch.bfloat16
ACTS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "tanh": torch.tanh,
}
tensors, cases = {}, []


class Case:
    """Draws a case's tensors, keeps them under its name, and hands them out in f64."""

    def __init__(self, op, name):
        self.op, self.name = op, f"{op}-{name}"
        self.g = generator(self.name)
        self.inputs, self.params = [], []

    def keep(self, name, value):
        assert f"{self.name}/{name}" not in tensors, self.name
        tensors[f"{self.name}/{name}"] = value
        return name

    def input(self, name, shape, scale=1.0, shift=0.0):
        return self.given(name, torch.randn(shape, generator=self.g) * scale + shift)

    def given(self, name, value):
        self.inputs.append(self.keep(name, value))
        return value.double() if value.is_floating_point() else value.long()

    def param(self, pack, *parts):
        """`parts` are (name, shape, dtype, scale, shift)."""
        values, names = [], []
        for name, shape, dtype, scale, shift in parts:
            value = (torch.randn(shape, generator=self.g) * scale + shift).to(dtype)
            names.append(self.keep(name, value))
            values.append(value.double())
        self.params.append({"pack": pack, "parts": names})
        return values

    def done(self, output, **attrs):
        assert torch.isfinite(output).all(), self.name
        self.keep("output", output.float())
        cases.append(
            dict(name=self.name, op=self.op, attrs=attrs, inputs=self.inputs, params=self.params, output="output")
        )


def epilogue(case, y, row_bias=0, step=0, act=None, residual=False, post=None):
    """What follows the sums of a linear layer or convolution; `row_bias` is its number of rows."""
    if row_bias:
        y = y + case.input("row_bias", (row_bias, y.shape[-1]))[step if row_bias > 1 else 0]
    if act:
        y = ACTS[act](y)
    if residual:
        y = y + case.input("residual", y.shape)
    if post:
        y = ACTS[post](y)
    case.done(
        y, **case.attrs, row_bias=row_bias > 0, step=step, act=act, residual=residual, post=post,
    )  # fmt: skip


def linear(name, shape, widths, dtypes=FULL, bias=True, ones=False, **rest):
    """A layer whose weights may be several joined ones; `ones`: stored as a convolution of 1 x 1."""
    case = Case("linear", name)
    widths = [widths] if isinstance(widths, int) else widths
    dtypes = dtypes if isinstance(dtypes, list) else [dtypes] * len(widths)
    k = shape[-1]
    x = case.input("x", shape)
    tail = (1, 1) if ones else ()
    parts = [(f"weight{i}", (n, k, *tail), d, k**-0.5, 0) for i, (n, d) in enumerate(zip(widths, dtypes))]
    weight = torch.cat([w.reshape(-1, k) for w in case.param("matrix", *parts)])
    y = x @ weight.T
    if bias:
        y = y + torch.cat(case.param("vector", *[(f"bias{i}", n, d, 0.5, 0) for i, (n, d) in enumerate(zip(widths, dtypes))]))
    case.attrs = {}
    epilogue(case, y, **rest)


def conv2d(name, shape, out, kernel=3, dtype=FULL, stride=1, padding=(1, 1, 1, 1), upsample=None, bias=True, **rest):
    case = Case("conv2d", name)
    ci = shape[-1]
    x = case.input("x", shape).permute(0, 3, 1, 2)
    (weight,) = case.param("conv", ("weight", (out, ci, kernel, kernel), dtype, (ci * kernel**2) ** -0.5, 0))
    if upsample:
        x = F.interpolate(x, upsample, mode="nearest")
    top, left, bottom, right = padding
    y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride).permute(0, 2, 3, 1)
    if bias:
        y = y + case.param("vector", ("bias", out, dtype, 0.5, 0))[0]
    case.attrs = dict(kernel=[kernel, kernel], stride=stride, padding=list(padding), upsample=upsample)
    epilogue(case, y, **rest)


def group_norm(name, shape, groups, eps=1e-5, act=None, dtype=FULL, scale=1.0, shift=0.0):
    case = Case("group_norm", name)
    x, c = case.input("x", shape, scale, shift), shape[-1]
    gamma, beta = case.param("vector", ("gamma", c, dtype, 0.3, 1), ("beta", c, dtype, 0.3, 0))
    y = F.group_norm(x.movedim(-1, 1), groups, gamma, beta, eps).movedim(1, -1)
    case.done(ACTS[act](y) if act else y, groups=groups, eps=eps, act=act)


def layer_norm(name, shape, eps=1e-5, dtype=FULL, scale=1.0, shift=0.0):
    case = Case("layer_norm", name)
    x, c = case.input("x", shape, scale, shift), shape[-1]
    gamma, beta = case.param("vector", ("gamma", c, dtype, 0.3, 1), ("beta", c, dtype, 0.3, 0))
    case.done(F.layer_norm(x, (c,), gamma, beta, eps), eps=eps)


def attention(name, batch, s, t, heads, dim, causal=False, sharp=1.0, shared=False, joined=False):
    """`shared`: keys and values have a batch of 1. `joined`: q, k and v are one value, with channels before and after."""
    case, c = Case("attention", name), heads * dim
    offsets = [0, 0, 0]
    if joined:
        x = case.input("qkv", (batch, s, 3 * c + 4))
        offsets = [1, c + 2, 2 * c + 3]
        q, k, v = (x[..., o : o + c] for o in offsets)
        case.inputs *= 3
    else:
        n = 1 if shared else batch
        q, k, v = case.input("q", (batch, s, c), sharp), case.input("k", (n, t, c), sharp), case.input("v", (n, t, c))
    q, k, v = (y.unflatten(-1, (heads, dim)).transpose(1, 2) for y in (q, k, v))
    scores = q @ k.transpose(-1, -2) / dim**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(s, t).triu(1).bool(), -torch.inf)
    y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    case.done(y, heads=heads, head_dim=dim, causal=causal, offsets=offsets)


def unary(name, f, values, **attrs):
    case = Case("unary", name)
    case.done(f(case.given("x", values)), **attrs)


def all_linear():
    linear("plain", (2, 7, 33), 20)
    linear("one-row", (1, 1, 3), 4)
    linear("one-channel", (1, 5, 1), 3, bias=False)
    linear("f16", (1, 77, 32), 96, HALF)
    linear("bf16", (1, 3, 20), 33, BRAIN)
    linear("odd-f16", (3, 5, 7), 9, HALF)
    linear("long", (1, 3, 515), 5)
    linear("beyond-tiles", (1, 131, 65), 129, HALF)
    linear("one-row-wide", (1, 1, 64), 130, HALF)
    linear("as-convolution", (1, 6, 10), 11, HALF, ones=True)
    linear("joined", (2, 5, 12), [12, 12, 7], HALF, bias=False)
    linear("joined-biases", (1, 5, 6), [3, 4], FULL)
    linear("joined-dtypes", (1, 5, 6), [5, 4], [HALF, FULL])
    linear("act", (1, 9, 6), 10, act="silu")
    linear("residual", (2, 3, 20), 20, HALF, residual=True)
    linear("everything", (1, 5, 20), 33, HALF, row_bias=3, step=2, act="gelu", residual=True, post="relu")
    linear("no-bias-everything", (1, 5, 6), 7, bias=False, row_bias=1, act="tanh", residual=True, post="quick_gelu")


def all_conv2d():
    conv2d("plain", (2, 7, 5, 3), 5)
    conv2d("f16", (1, 6, 9, 4), 6, dtype=HALF)
    conv2d("bf16", (1, 3, 3, 7), 4, dtype=BRAIN)
    conv2d("one-pixel", (1, 1, 1, 6), 3)
    conv2d("one-by-one", (1, 5, 7, 33), 20, kernel=1, padding=(0, 0, 0, 0), dtype=HALF, bias=False)
    conv2d("one-by-one-batch", (2, 3, 3, 4), 4, kernel=1, padding=(0, 0, 0, 0))
    conv2d("stride", (2, 6, 9, 4), 6, stride=2, dtype=HALF)
    conv2d("stride-odd", (1, 5, 3, 6), 5, stride=2)
    conv2d("stride-asymmetric", (1, 6, 7, 3), 4, stride=2, padding=(0, 0, 1, 1))
    conv2d("padding-four", (1, 4, 5, 3), 4, padding=(2, 0, 1, 3), dtype=HALF)
    conv2d("no-padding", (1, 5, 6, 3), 4, padding=(0, 0, 0, 0))
    conv2d("upsample", (2, 3, 5, 6), 4, upsample=[6, 10])
    conv2d("upsample-odd", (1, 5, 3, 4), 20, upsample=[9, 5], dtype=HALF, act="silu")
    conv2d("beyond-tiles", (1, 12, 11, 40), 68, dtype=HALF)
    conv2d("wide", (1, 3, 3, 96), 33, dtype=HALF)
    conv2d("act", (1, 5, 5, 4), 8, act="relu")
    conv2d("row-bias", (2, 3, 5, 6), 7, row_bias=3, step=1)
    conv2d("row-bias-one", (2, 3, 3, 4), 4, row_bias=1, step=0, dtype=HALF)
    conv2d("residual", (2, 5, 3, 6), 6, dtype=HALF, residual=True)
    conv2d("residual-post", (1, 5, 7, 6), 6, residual=True, post="relu")
    conv2d("everything", (2, 5, 3, 6), 20, stride=2, row_bias=2, step=1, act="silu", residual=True, post="tanh")
    conv2d("no-bias-everything", (1, 3, 4, 3), 5, bias=False, row_bias=1, act="gelu_tanh", residual=True, post="silu")


def all_norms():
    group_norm("plain", (2, 5, 7, 20), 5)
    group_norm("silu", (1, 3, 3, 32), 8, act="silu", dtype=HALF)
    group_norm("one-channel-groups", (1, 5, 5, 6), 6)
    group_norm("one-group", (2, 3, 5, 33), 1, act="silu")
    group_norm("one-pixel", (1, 1, 1, 6), 3)
    group_norm("tokens", (2, 7, 12), 4)
    group_norm("large", (1, 33, 17, 8), 2, act="silu")
    group_norm("wide", (1, 2, 2, 320), 32, eps=1e-6, dtype=HALF)
    # The mean is far from 0: the mean of squares less the square of the mean would lose the variance.
    group_norm("far-mean", (1, 7, 5, 12), 3, shift=300.0)
    # The variance is no larger than eps: a wrong eps shows.
    group_norm("small", (1, 5, 3, 6), 2, eps=1e-5, scale=2e-3)
    group_norm("constant", (1, 3, 3, 4), 2, scale=0.0, shift=5.0)
    layer_norm("plain", (2, 5, 33))
    layer_norm("narrow", (1, 7, 3), dtype=HALF)
    layer_norm("wide", (1, 3, 770), dtype=HALF)
    layer_norm("image", (2, 3, 5, 6), eps=1e-6)
    layer_norm("far-mean", (1, 5, 20), shift=-300.0)
    layer_norm("small", (1, 3, 20), eps=1e-5, scale=2e-3)


def all_attention():
    attention("8", 2, 5, 7, 3, 8)
    attention("8-image-text", 1, 256, 77, 1, 8)
    attention("40", 1, 5, 77, 2, 40)
    attention("64-causal", 1, 77, 77, 1, 64, causal=True)
    attention("80", 2, 7, 3, 2, 80)
    attention("160", 1, 9, 5, 1, 160)
    attention("6", 1, 33, 33, 5, 6)
    attention("1-token", 1, 3, 1, 2, 8)
    attention("causal-heads", 2, 5, 5, 2, 12, causal=True)
    attention("sharp", 1, 7, 33, 2, 8, sharp=20.0)
    attention("shared", 3, 5, 7, 2, 8, shared=True)
    attention("joined", 2, 7, 7, 2, 8, joined=True)
    attention("joined-causal", 1, 16, 16, 3, 10, joined=True, causal=True)


def all_elementwise():
    near = torch.linspace(-6, 6, 97)
    # Where exp and its square overflow, where results vanish, and numbers below the least normal one.
    far = torch.tensor([-1e4, -200, -100, -89, -88, -50, -20, 0, -0.0, 1e-40, -1e-40, 20, 50, 88, 89, 100, 200, 1e4])
    for name, f in ACTS.items():
        unary(f"{name}", f, near.reshape(1, 97), act=name)
        unary(f"{name}-far", f, far, act=name)
    unary("affine", lambda x: x * -1.75 + 0.3, near[:33], mul=-1.75, add=0.3)
    unary("clamp", lambda x: x.clamp(-1.0, 2.5), near, min=-1.0, max=2.5)

    case = Case("geglu", "plain")
    a, b = case.input("x", (2, 5, 14), 2.0).chunk(2, -1)
    case.done(a * F.gelu(b))
    case = Case("geglu", "wide")
    a, b = case.input("x", (1, 3, 130), 30.0).chunk(2, -1)
    case.done(a * F.gelu(b))
    for name, shape in (("image", (2, 3, 5, 7)), ("one", (1, 1))):
        case = Case("add", name)
        case.done(case.input("a", shape) + case.input("b", shape))
    for name, rows, step in (("one", 1, 4), ("step", 3, 1)):
        case = Case("add_row", name)
        x = case.input("x", (2, 3, 5, 6))
        row = case.input("rows", (rows, 6))[step if rows > 1 else 0]
        case.done(x + row, step=step)
    for name, shape, (m, n) in (("image", (2, 3, 5), (3, 6)), ("tokens", (1, 7), (20, 1)), ("four", (1, 3, 3), (4, 8))):
        case = Case("concat", name)
        case.done(torch.cat([case.input("a", (*shape, m)), case.input("b", (*shape, n))], -1))
    for name, shape, size in (("double", (2, 3, 5, 3), [6, 10]), ("odd", (1, 5, 2, 6), [9, 3]), ("one", (1, 1, 1, 4), [3, 5])):
        case = Case("upsample", name)
        y = F.interpolate(case.input("x", shape).permute(0, 3, 1, 2), size, mode="nearest")
        case.done(y.permute(0, 2, 3, 1), size=size)


def all_embeddings():
    for name, dtype, c in (("f32", FULL, 6), ("f16", HALF, 33)):
        case = Case("embedding", name)
        ids = case.given("ids", torch.tensor([[0, 10, 3, 3, 9], [5, 1, 0, 2, 10]], dtype=torch.uint32))
        (table,) = case.param("table", ("table", (11, c), dtype, 1, 0))
        (positions,) = case.param("table", ("positions", (7, c), dtype, 1, 0))
        case.done(table[ids] + positions[:5])
    times = torch.tensor([0, 1, 20.5, 333.25, 981, 999])
    for name, dim, flip, shift in (("sd", 32, True, 0), ("plain", 20, False, 1), ("narrow", 6, True, 0.5)):
        case = Case("timestep_embedding", name)
        case.given("timesteps", times)
        y = get_timestep_embedding(times, dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
        case.done(y, dim=dim, flip_sin_to_cos=flip, freq_shift=shift)


def main():
    for make in (all_linear, all_conv2d, all_norms, all_attention, all_elementwise, all_embeddings):
        make()
    path = GOLDEN / "ops.safetensors"
    write(path, tensors, ("cases", cases))
    print(f"{len(cases)} cases, {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
