"""Whether whole checkpoints survive the sidecar: python judge_sidecar.py PROGRAM FILE…

PROGRAM is ckptkit's example `through_sidecar`. Each file is taken apart into
safetensors and JSON and put together again; torch loads the original and the
result, and `sidecar.py` reads what lies between them. All three must be equal.
"""

import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import warnings

import torch

import fixture_lightning  # noqa: F401  their classes
import fixture_types  # noqa: F401
import manifest
import sidecar

# torch makes a storage of its own of what these call a part of one.
PARTS_OF_STORAGES = ("tar_era.pt", "legacy_storage_views.pt")

warnings.filterwarnings("ignore")
sys.setrecursionlimit(100_000)


def load(path):
    try:
        return torch.load(path, weights_only=False, map_location="cpu")
    except RuntimeError as error:
        if "Invalid magic number" not in str(error):
            raise
        with open(path, "rb") as file:
            return pickle.load(file)


def sharing(obj):
    """Which tensors lie in which storages, how, and what kind they are; and all floats, bit by
    bit: what a manifest does not say."""
    numbers, out = {}, []
    for name, tensor in manifest.walk(obj):
        storage = None
        if manifest.has_bytes(tensor):
            whole = tensor.untyped_storage()
            number = numbers.setdefault(whole._cdata, len(numbers))
            geometry = (tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()))
            view = torch.empty(0, dtype=torch.uint8).set_(whole, 0, (whole.nbytes(),))
            storage = (number, geometry, tensor.is_conj(), tensor.is_neg(), view.numpy().tobytes())
        out.append((name, type(tensor), tensor.dtype, tensor.requires_grad, storage))
    return out, containers(obj)


def containers(obj):
    """Plain containers, each with its number, and the leaves in them."""
    seen, out, pending, keep = {}, [], [obj], []
    while pending:
        value = pending.pop()
        keep.append(value)
        if isinstance(value, float):
            out.append(struct.pack(">d", value))
        elif isinstance(value, (str, bytes, int, bool)) or value is None:
            out.append((type(value), value))
        elif isinstance(value, (dict, list, tuple)):
            met = id(value) in seen
            number = seen.setdefault(id(value), len(seen))
            out.append((type(value), number, len(value)) if not isinstance(value, tuple) else tuple)
            if not met:
                items = value.items() if isinstance(value, dict) else value
                pending.extend(reversed(list(items)))
        else:
            out.append(type(value))
    return out


def described(obj):
    return manifest.to_text(manifest.describe(obj, None, True))


def judge(program, path, directory):
    taken, put = directory / "taken", directory / "put.pt"
    done = subprocess.run([program, path, taken, put], capture_output=True, text=True)
    if done.returncode:
        return f"refused: {done.stderr.strip()}"
    try:
        original = load(path)
    except AssertionError as error:
        return f"refused: by torch: {error}"
    objects = {"written again": load(put), "read by sidecar.py": sidecar.load(taken)}
    for what, found in objects.items():
        # Values nest deeper than descriptions may.
        if path.name != "deep.pt" and described(found) != described(original):
            return f"DIFFERS: {what}"
        if path.name not in PARTS_OF_STORAGES and sharing(found) != sharing(original):
            return f"SHARES otherwise: {what}"
    return None


def main(program, *paths):
    equal = wrong = 0
    for path in map(pathlib.Path, paths):
        with tempfile.TemporaryDirectory() as directory:
            try:
                said = judge(program, path, pathlib.Path(directory))
            except Exception as error:  # noqa: BLE001  said of one file, the others go on
                said = f"FAILED: {type(error).__name__}: {error}"
        equal += said is None
        wrong += said is not None and not said.startswith("refused")
        if said is not None:
            print(f"{path}: {said}")
    print(f"{equal} of {len(paths)} equal, {wrong} wrong")
    return 1 if wrong or not equal else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
