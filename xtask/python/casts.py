"""What torch makes of every float cast: the table that the tests of casting compare with.

Run with the Python of the fixtures; prints a line `SOURCE TARGET SHA256` a pair. The hash is over
the target's little-endian bytes, every byte of a NaN set to 0xAA, since which NaN it is means
nothing. Sources: all values of the one- and two-byte types; for wider types every sign and
exponent with the upper bits of the fraction, and endings around the places where rounding turns.
"""

import hashlib

import torch

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def source(dtype):
    size = torch.empty(0, dtype=dtype).element_size()
    if size == 1:
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    if size == 2:
        return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    if size == 4:
        upper = torch.arange(1 << 19, dtype=torch.int64) << 13
        return torch.cat([upper, upper | 1, upper | 0x1000]).to(torch.uint32).view(dtype)
    upper = torch.arange(1 << 17, dtype=torch.int64) << 47
    endings = [0, 1, 1 << 46, 1 << 28, (1 << 46) + 1]
    return torch.cat([upper | ending for ending in endings]).view(dtype)


def digest(tensor):
    nan = torch.isnan(tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32))
    size = tensor.element_size()
    raw = tensor.contiguous().view(torch.uint8).clone().reshape(-1, size)
    raw[nan] = 0xAA
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()


print(f"# torch {torch.__version__.split('+')[0]}, made by xtask/python/casts.py")
for name, dtype in TYPES.items():
    for target, to in TYPES.items():
        if target != name:
            print(name, target, digest(source(dtype).to(to)))
