"""What Lightning and torch make of files that were written here. Each function raises on a difference."""

import json
import pathlib
import pickle
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import torch

import manifest
from plain import plain


def load(path, weights_only=False):
    if pathlib.Path(path).suffix == ".pkl":
        return pickle.loads(pathlib.Path(path).read_bytes())
    return torch.load(path, weights_only=weights_only, map_location="cpu")


def same(found, expected, what):
    if found == expected:
        return
    for key in expected:
        if found.get(key) == expected[key]:
            continue
        text = [json.dumps(side.get(key), indent=1, ensure_ascii=False).splitlines() for side in (found, expected)]
        differ = next((i for i, pair in enumerate(zip(*text, strict=False)) if pair[0] != pair[1]), min(map(len, text)))
        lines = [" ".join(side[max(0, differ - 3) : differ + 4]) for side in text]
        raise AssertionError(f"{what}: {key}: found {lines[0]}, expected {lines[1]}")
    raise AssertionError(f"{what}: found {sorted(found)}, expected {sorted(expected)}")


def sanitized(source, result):
    """`result` loads with weights_only=True, and holds the plain view of what `source` holds."""
    found = manifest.describe(load(result, weights_only=True))
    same(found, manifest.describe(plain(load(source))), f"{result}")
    same(manifest.describe(load(result)), found, f"{result}: both ways of loading")
