"""The registry of fixtures: each is a function that writes one path.

    @fixture("torch/views.pt", "strided views of one storage", weights="")
    def views(path): ...

The function writes the file or directory. It returns None (the file is loaded
with `torch.load` and described), or the manifest's own keys as a dict.
"""

import importlib.metadata
import logging
import os
import pathlib
import random
import shutil
import sys
import zipfile

logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # wants triton

import numpy
import torch

import manifest

_REGISTRY = []
LIBRARIES = ["torch"]


def fixture(path, note, **options):
    def register(function):
        _REGISTRY.append((path, note, options, function))
        return function

    return register


def refusal(path, note, mentions=(), library=(), by=None):
    """A fixture that a reader must refuse with an error naming `mentions`.

    Opening it and reading everything must fail; with `by="verify"` it reads, and the
    check for damage must find it.
    """

    def register(function):
        def make(target):
            function(target)
            how = {"by": by} if by else {}
            return {"refuse": True, **how, "mentions": list(mentions)}

        _REGISTRY.append((path, note, {"library": list(library)}, make))
        return function

    return register


def seed():
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def numbers(*shape, dtype=torch.float32, start=0):
    """Small numbers that every dtype but the smallest holds exactly."""
    count = 1
    for size in shape:
        count *= size
    index = torch.arange(start, start + count, dtype=torch.int64)
    values = (index * 37 + 11) % 251 - 125
    if dtype.is_floating_point or dtype.is_complex:
        return (values.double() / 64).to(dtype).reshape(shape)
    return values.to(dtype).reshape(shape)


def raw(dtype, *shape):
    """A tensor of a dtype without arithmetic, from bytes."""
    size = torch.empty(0, dtype=dtype).element_size()
    data = (torch.arange(int(torch.Size(shape).numel()) * size) * 29 + 3) % 256
    tensor = torch.empty(0, dtype=dtype)
    tensor.set_(data.to(torch.uint8).untyped_storage(), 0, shape)
    return tensor


def fill(tensors):
    """Overwrites float tensors in place, so that no arithmetic shows in a hash."""
    for position, tensor in enumerate(tensors):
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            values = numbers(*tensor.shape, dtype=torch.float32, start=position * 7)
            tensor.data.copy_(values.to(tensor.dtype))


def load(path):
    return torch.load(path, weights_only=False, map_location="cpu")


def versions(names):
    return {name: importlib.metadata.version(name).split("+")[0] for name in names}


def write_manifest(path, note, options, content):
    libraries = options.get("library", LIBRARIES)
    whole = {"library": versions(libraries), "note": note, **content}
    path.with_name(path.name + ".json").write_text(manifest.to_text(whole))


def wanted(path, only):
    return not only or any(path == name or path.startswith(f"{name.rstrip('/')}/") for name in only)


def main():
    """SCRIPT OUT KEPT [NAME...]: writes the wanted fixtures below OUT."""
    out, only = pathlib.Path(sys.argv[1]), sys.argv[3:]
    torch.set_num_threads(1)
    hide_source_paths()
    for name, note, options, function in _REGISTRY:
        if not wanted(name, only):
            continue
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        seed()
        content = function(target)
        refuse_machine_paths(target)
        if content is None:
            content = manifest.describe(
                load(target), options.get("weights"), options.get("values", True)
            )
        write_manifest(target, note, options, content)


def kept(name):
    """Where a fixture lies that cannot be made here, only read."""
    return pathlib.Path(sys.argv[2]) / name


def hide_source_paths():
    """torch writes the names of source files into some files: keep only the tail."""
    import torch._sources
    import torch.jit.frontend
    import torch.serialization

    found = torch._sources.get_source_lines_and_file

    def relative(*args):
        lines, number, name = found(*args)
        return lines, number, name.rpartition("site-packages/")[2].rpartition("xtask/python/")[2]

    for module in (torch._sources, torch.jit.frontend, torch.serialization):
        module.get_source_lines_and_file = relative


def refuse_machine_paths(target):
    """Nothing that is committed may tell where it was made."""
    here = str(pathlib.Path(__file__).resolve().parents[2]).encode()
    home = str(pathlib.Path.home()).encode()
    for file in [target] if target.is_file() else target.rglob("*"):
        if not file.is_file():
            continue
        contents = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            try:
                with zipfile.ZipFile(file) as archive:
                    contents += [archive.read(member) for member in archive.infolist()]
            except Exception:  # malformed on purpose
                pass
        for content in contents:
            if here in content or len(home) > 1 and home + b"/" in content:
                sys.exit(f"{file.name} holds a path of this machine")


def copy_kept(name, target):
    source = kept(name)
    if not source.exists():
        sys.exit(f"{name} is kept in tests/fixtures and cannot be made again: restore it with git")
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def in_directory(path):
    """A context that makes `path` the working directory."""

    class Inside:
        def __enter__(self):
            self.before = os.getcwd()
            os.chdir(path)

        def __exit__(self, *_):
            os.chdir(self.before)

    return Inside()
