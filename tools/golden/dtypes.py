"""tests/golden/dtypes.json: what torch widens each value of the small floats to.

Of those of 8 bits the halves' bits, of those of 16 a digest over all values as f32, little endian; NaNs are one NaN.
"""

import hashlib
import json

import torch
from common import GOLDEN


def values(bits, dtype, wide):
    one = {torch.float16: 0x7E00, torch.float32: 0x7FC00000}[wide]
    x = torch.arange(2**bits).to(torch.int16 if bits == 16 else torch.uint8).view(dtype).to(wide)
    found = x.view({torch.float16: torch.int16, torch.float32: torch.int32}[wide]).to(torch.int64)
    found = found & ((1 << 16) - 1 if wide == torch.float16 else (1 << 32) - 1)
    return torch.where(torch.isnan(x), one, found)


def digest(dtype):
    return hashlib.sha256(values(16, dtype, torch.float32).to(torch.uint32).numpy().tobytes()).hexdigest()


def main():
    made = {
        "F8_E4M3": values(8, torch.float8_e4m3fn, torch.float16).tolist(),
        "F8_E5M2": values(8, torch.float8_e5m2, torch.float16).tolist(),
        "F16": digest(torch.float16),
        "BF16": digest(torch.bfloat16),
    }
    lines = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in made.items())
    (GOLDEN / "dtypes.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
