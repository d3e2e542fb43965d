"""Asks OmegaConf whether the texts in edits.txt say what they should, and writes what they say.

    python make_edits.py > edits.tsv      (needs omegaconf, PyYAML)

Each edit is done to the values that OmegaConf reads from the first text; what it reads from the
second must be that. A line is the name of a case and the values of its second text as JSON.
"""

import json
import math
import pathlib
import sys

import yaml
from omegaconf import OmegaConf

try:
    from omegaconf._utils import get_yaml_loader
except ImportError:
    from omegaconf._yaml import get_yaml_loader


def cases(text):
    for case in text.split("=== ")[1:]:
        head, rest = case.split("--- before\n")
        before, after = rest.split("--- after\n")
        name, operation = head.splitlines()
        yield name, operation, before, after


def read(text):
    """The values as OmegaConf's loader gives them; `OmegaConf.create` must take them too."""
    values = yaml.load(text, Loader=get_yaml_loader())
    assert same(OmegaConf.to_container(OmegaConf.create(values)), values)
    return values


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def descend(values, parts, create):
    """The container and the key that a dotted path ends in."""
    while True:
        if isinstance(values, list):
            key, rest = int(parts[0]), parts[1:]
        else:
            known = [n for n in range(1, len(parts) + 1) if ".".join(parts[:n]) in values]
            n = known[0] if known else 1
            key, rest = ".".join(parts[:n]), parts[n:]
            if key.isdigit() and values and all(type(k) is int for k in values):
                key = int(key)
        if not rest:
            return values, key
        if create and isinstance(values, dict) and values.get(key) is None:
            values[key] = {}
        values, parts = values[key], rest


def apply(values, operation):
    """The edit, done to the values."""
    what, path, *text = operation.split(" ", 2)
    inner = values
    if isinstance(values.get("model"), dict) and "target" not in values:
        inner = values["model"]  # a training config
    container, key = descend(inner, path.split("."), what == "set")
    if what == "del":
        del container[key]
        return
    value = yaml.load(text[0], Loader=get_yaml_loader())
    if isinstance(container, list) and key == len(container):
        container.append(value)
    else:
        container[key] = value


def unshared(value):
    """Aliases are one object, and an edit is to one place."""
    if isinstance(value, dict):
        return {k: unshared(v) for k, v in value.items()}
    return [unshared(v) for v in value] if isinstance(value, list) else value


def plain(value):
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$type": "float", "value": str(value)}
    return value


for name, operation, before, after in cases(pathlib.Path(__file__).with_name("edits.txt").read_text()):
    for form in (str, lambda s: s.replace("\n", "\r\n"), lambda s: "\ufeff" + s):
        expected = unshared(yaml.load(form(before), Loader=get_yaml_loader()))
        apply(expected, operation)
        if not same(read(form(after)), expected):
            sys.exit(f"{name}: {read(form(after))!r}, expected {expected!r}")
    print(name, json.dumps(plain(read(after)), ensure_ascii=False), sep="\t")
