"""Loads of distributed checkpoints that every torch since 2.2 knows, and comparing what they give."""

import pathlib
import pickle
import tempfile

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

# What torch refuses a checkpoint with; its own is no `Exception`.
REFUSALS = (Exception, CheckpointException)


def difference(a, b, at=""):
    """Where two values differ, or None. Tensors are equal bit by bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{at}: {a.dtype} {tuple(a.shape)}, expected {b.dtype} {tuple(b.shape)}"
        bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return None if torch.equal(*bits) else f"{at}: other values"
    if type(a) is not type(b):
        return f"{at}: {type(a).__name__}, expected {type(b).__name__}"
    if isinstance(a, dict):
        if list(a) != list(b):
            return f"{at}: keys {list(a)}, expected {list(b)}"
        found = (difference(a[key], b[key], f"{at}.{key}") for key in a)
        return next((d for d in found if d), None)
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return f"{at}: {len(a)} items, expected {len(b)}"
        found = (difference(x, y, f"{at}.{i}") for i, (x, y) in enumerate(zip(a, b)))
        return next((d for d in found if d), None)
    if isinstance(a, float) and a != a:
        return None if b != b else f"{at}: {a}, expected {b}"
    # Objects without an equality of their own (`BytesIO`) are what they pickle as.
    return None if a == b or pickle.dumps(a) == pickle.dumps(b) else f"{at}: {a!r}, expected {b!r}"


def check(a, b, what):
    if found := difference(a, b):
        raise AssertionError(f"{what}{found}")


def poison(tensor):
    """Fills a tensor with what nobody saved."""
    local = getattr(tensor, "_local_tensor", tensor)
    with torch.no_grad():
        local.view(-1).view(torch.uint8).fill_(0x5A) if local.is_contiguous() and local.numel() else None
    return tensor


def each(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: each(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(each(item, change) for item in value)
    return value


def plain(directory):
    """What `dcp.load` puts into plain tensors of the saved sizes, in one process."""
    metadata = FileSystemReader(directory).read_metadata()
    state = {}
    for fqn, entry in metadata.state_dict_metadata.items():
        tensor = isinstance(entry, TensorStorageMetadata)
        leaf = poison(torch.empty(entry.size, dtype=entry.properties.dtype)) if tensor else "nothing yet"
        set_element(state, metadata.planner_data[fqn], leaf)
    dcp.load(state, storage_reader=FileSystemReader(directory))
    return state


def consolidated(directory):
    """What `dcp_to_torch_save` makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "whole.pt"
        dcp_to_torch_save(directory, file)
        return torch.load(file, weights_only=False)
