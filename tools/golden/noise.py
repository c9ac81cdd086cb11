"""Writes tests/golden/noise.safetensors: the normal numbers that torch draws on a CPU.

Needs a CPU with AVX2 (torch's portable path rounds differently in the last place).

Tensors: "seed.size" holds torch.randn(size); of a size over 1000 the first 64, the last 64 and every 97th number.
"sequence.seed" holds one generator's answers to a sequence of sizes, one after the other. The metadata entry "drawn" lists
seeds, sizes and that sequence.
"""

import torch
from common import GOLDEN, write

SEEDS = [0, 42, 2**32 - 1, 2**32 + 5, 2**63 + 7]
SIZES = [1, 15, 16, 17, 1000, 16384]
SEQUENCE = [1, 3, 16, 2, 20, 1, 1, 33]


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def sample(numbers: torch.Tensor) -> torch.Tensor:
    return numbers if len(numbers) <= 1000 else torch.cat([numbers[:64], numbers[-64:], numbers[::97]])


def main() -> None:
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"), torch.backends.cpu.get_cpu_capability()
    tensors = {}
    for seed in SEEDS:
        for size in SIZES:
            tensors[f"{seed}.{size}"] = sample(torch.randn(size, generator=generator(seed)))
        one = generator(seed)
        tensors[f"sequence.{seed}"] = torch.cat([torch.randn(size, generator=one) for size in SEQUENCE])
    drawn = {"seeds": SEEDS, "sizes": SIZES, "sequence": SEQUENCE}
    write(GOLDEN / "noise.safetensors", tensors, ("drawn", drawn))


if __name__ == "__main__":
    main()
