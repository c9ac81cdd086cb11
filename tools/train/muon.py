"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): steps whose matrices have all singular values alike, by an iteration
of Newton and Schulz. Convolutions count as matrices of [out, in x kernel]. Scaled as in arXiv 2502.16982, a step is as large
as one of AdamW, so rates are the same.
"""

import torch


def orthogonal(x, dtype):
    """[N, rows, columns]: the nearest matrices whose singular values are about 1 (0.7 to 1.2), computed in `dtype`."""
    x = x.to(dtype)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


def is_matrix(name, weight):
    """Whether Muon is for it: not for embeddings, first and last layers, norms and biases."""
    return weight.ndim >= 2 and "embed" not in name and not name.startswith(("conv_in.", "conv_out."))


class Muon(torch.optim.Optimizer):
    def __init__(self, weights, lr, momentum=0.95, weight_decay=0.01, dtype=torch.float32):
        self.dtype = dtype
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            for p in weights:
                if "mean" not in self.state[p]:
                    self.state[p]["mean"] = torch.zeros_like(p)
            grads, means = [p.grad for p in weights], [self.state[p]["mean"] for p in weights]
            torch._foreach_lerp_(means, grads, 1 - group["momentum"])
            ahead = torch._foreach_lerp(grads, means, group["momentum"])
            alike = {}  # of one shape: orthogonal together
            for p, a in zip(weights, ahead):
                a = a.flatten(1)
                alike.setdefault(a.shape, []).append((p, a))
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for shape, pairs in alike.items():
                steps = orthogonal(torch.stack([a for _, a in pairs]), self.dtype) * (0.2 * max(shape) ** 0.5)
                for (p, _), step in zip(pairs, steps):
                    p.add_(step.view(p.shape), alpha=-group["lr"])
