"""torch and safetensors load what was written from every fixture, in every way they can."""

import sys

import torch
import torch.utils.serialization
from safetensors.torch import load_file

import fixture_lightning  # noqa: F401  classes that the fixtures name
import fixture_types  # noqa: F401
import interop
import make_lightning  # noqa: F401
import make_torch_objects  # noqa: F401
import manifest
import strict_loads

sys.setrecursionlimit(20000)


def load(path, **options):
    return torch.load(path, map_location="cpu", **options)


def text(obj):
    """Everything that Python sees of an object."""
    return manifest.to_text(manifest.describe(obj, None, True))


def ways(path):
    """The object as every loader gives it."""
    yield "full", load(path, weights_only=False)
    yield "mmap", load(path, weights_only=False, mmap=True)
    with torch.utils.serialization.config.patch({"load.calculate_storage_offsets": True}):
        yield "computed offsets", load(path, weights_only=False, mmap=True)


def refusal(path):
    """Why `weights_only=True` refuses a file; None where it does not."""
    try:
        load(path, weights_only=True)
    except Exception as error:  # whatever it is that it refuses with
        return str(error)
    return None


def whole_objects():
    """A file rewritten with everything in it is the same object."""
    for name, path, _ in interop.fixtures("torch", "lightning"):
        try:
            original = load(path, weights_only=False)
        except Exception:  # a form that torch itself cannot read, or no torch.save file
            continue
        # TorchScript and torch.export hold programs, which are not written.
        if "ScriptModule" in type(original).__name__:
            continue
        to = interop.convert(path, "whole.pt", "--all", refused=path.suffix == ".pt2")
        if to is None:
            continue
        expected = text(original)
        for way, obj in ways(to):
            interop.judged(f"torch ({way})")
            if text(obj) != expected:
                interop.wrong(name, f"differs when loaded with {way}")
        why = refusal(to)
        if refusal(path) is None and why is not None:
            interop.wrong(name, f"weights_only refuses it now: {why}")
        interop.judged("torch (weights_only)", why is None)


def compare(name, tensors, rows):
    """Holds a state dict against rows of a manifest: no tensor more, none less, all equal."""
    found = {}
    for key, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            found.update((row["name"], row) for row in manifest.entries(key, tensor))
    for key in sorted(found.keys() | rows.keys()):
        if found.get(key) != rows.get(key):
            interop.wrong(name, f"{key} is {found.get(key)}, not {rows.get(key)}")


def weights():
    """The weights of every fixture of every format, as a state dict and in a Lightning file."""
    groups = ("torch", "lightning", "safetensors", "nemo", "distcp")
    for name, path, found in interop.fixtures(*groups):
        rows = interop.weight_rows(found)
        if rows is None or name == "distcp/steps":
            continue
        if name == "safetensors/aliases.safetensors":  # recorded in its metadata, tied again
            rows["head.weight"] = {**rows["embed.weight"], "name": "head.weight"}
        key = found["weights"]["key"]
        for suffix in (".pt", ".ckpt"):
            to = interop.convert(path, f"weights{suffix}", "--weights-key", key, refused=True)
            if to is None:  # a dtype that torch lacks; the refusals are tested elsewhere
                continue
            for way, obj in ways(to):
                compare(f"{name} as {suffix} ({way})", obj if suffix == ".pt" else obj["state_dict"], rows)
                interop.judged(f"torch ({way})")
            why = refusal(to)
            interop.judged("torch (weights_only)", why is None)
            if why is not None and path.is_file() and refusal(path) is None:
                interop.wrong(name, f"weights_only refuses {suffix}: {why}")


def tensors_in_safetensors():
    for name, path, found in interop.fixtures("torch", "lightning", "nemo", "distcp"):
        rows = interop.weight_rows(found)
        if rows is None or name == "distcp/steps":
            continue
        to = interop.convert(
            path, "weights.safetensors", "--weights-key", found["weights"]["key"],
            "--aliases", "copy", refused=True,
        )
        if to is None:  # a dtype that the format lacks; the refusals are tested elsewhere
            continue
        rows = {key: row for key, row in rows.items() if row["sha256"] is not None}
        compare(f"{name} as safetensors", load_file(to), rows)
        interop.judged("safetensors")


whole_objects()
weights()
tensors_in_safetensors()
strict_loads.judge("torch")
interop.finish()
