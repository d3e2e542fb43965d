"""Prints what the fixtures hold once they are plain, for `crates/torch-save/tests/sanitize.rs`:

    python sanitized.py ../../tests/fixtures > ../../crates/torch-save/tests/data/sanitized.json

Run with the Python of the fixtures. Only files that `weights_only=True` refuses are in it.
"""

import logging
import pathlib
import sys
import warnings

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")

import torch.distributed.tensor

import manifest
from interop_lightning import load
from plain import plain

SKIP = {
    "export.pt2",  # no object
    "torchscript.pt",  # a program
    "protocol_0.pt",  # torch cannot load it
    "rebuild_tensor_v1.pt",  # of a device that is not there
}


def loads(path):
    try:
        load(path, weights_only=True)
    except Exception:
        return False
    return path.suffix != ".pkl"


def main():
    fixtures = pathlib.Path(sys.argv[1])
    lines = []
    for group in ("torch", "lightning"):
        for path in sorted((fixtures / group).iterdir()):
            if path.suffix == ".json" or path.name in SKIP or loads(path):
                continue
            found = manifest.describe(plain(load(path)))
            kept = {key: found[key] for key in ("tensors", "ties", "values")}
            lines.append(f"{manifest.dump(f'{group}/{path.name}')}: {manifest.dump(kept)}")
    print("{\n" + ",\n".join(lines) + "\n}")


main()
