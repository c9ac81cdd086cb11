"""Writes tests/golden/noise.safetensors: the normal numbers that torch draws on a CPU.

Run from anywhere, with the packages of requirements.txt installed: python tools/golden/noise.py
Needs a CPU with AVX2 (torch's portable path rounds differently in the last place).

Tensors: "seed.size" holds torch.randn(size); of a size over 1000 the first 64, the last 64 and every 97th number.
"sequence.seed" holds one generator's answers to the sizes in the metadata entry "sequence", one after the other.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SEEDS = [0, 42, 2**32 - 1, 2**32 + 5, 2**63 + 7]
SIZES = [1, 15, 16, 17, 1000, 16384]
SEQUENCE = [1, 3, 16, 2, 20, 1, 1, 33]


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def sample(numbers: torch.Tensor) -> torch.Tensor:
    return numbers if len(numbers) <= 1000 else torch.cat([numbers[:64], numbers[-64:], numbers[::97]])


def main() -> None:
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"), torch.backends.cpu.get_cpu_capability()
    tensors = {f"{seed}.{size}": sample(torch.randn(size, generator=generator(seed))) for seed in SEEDS for size in SIZES}
    for seed in SEEDS:
        one = generator(seed)
        tensors[f"sequence.{seed}"] = torch.cat([torch.randn(size, generator=one) for size in SEQUENCE])
    metadata = {"seeds": json.dumps(SEEDS), "sizes": json.dumps(SIZES), "sequence": json.dumps(SEQUENCE), "torch": torch.__version__}
    path = Path(__file__).resolve().parents[2] / "tests" / "golden" / "noise.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
