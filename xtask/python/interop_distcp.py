"""Judges distributed checkpoints that ckptkit wrote: torch loads them, value by value.

    python interop_distcp.py SCRATCH --write PROGRAM   make sources, write them again, judge
    python interop_distcp.py SCRATCH                   judge what is there (with an old torch, too)

SCRATCH/written/NAME.VARIANT are the checkpoints, SCRATCH/expected/NAME.pt is what torch itself makes
of the source NAME: a fixture, or one of SCRATCH/sources that torch saves for this. PROGRAM is the
example `reshard` of the crate distcp, built with all features.
"""

import argparse
import os
import pathlib
import pickle
import subprocess
import tempfile

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

import fixture_types
from processes import run_ranks

FIXTURES = pathlib.Path(__file__).parents[2] / "tests/fixtures/distcp"

# Fixtures that torch itself can put together.
SOURCES = ["dtypes", "file_per_item", "fsdp2_2", "fsdp2_4", "fsdp2_app", "lightning.ckpt", "megatron", "mesh_2d",
           "nested", "not_flattened", "objects", "sharded_tensor", "threads", "torch_2_1", "torch_2_4", "tp_2", "tp_4",
           "zstd"]  # fmt: skip

# Name → what the program is told. 3 → 4, 4 → 3 and all others are among them.
VARIANTS = {
    "1": ["1"],
    "2": ["2"],
    "3": ["3"],
    "4": ["4"],
    "7": ["7"],
    "2x2": ["4", "2", "2"],
    "3x2": ["6", "3", "2"],
    "items": ["3", "items"],
    "aligned": ["2", "align=4096"],
}
SHARDS = {
    "shards_1": ["1", "safetensors"],
    "shards_3": ["3", "safetensors"],
    "shards_2x2": ["4", "2", "2", "safetensors"],
}
# Tensors only, of dtypes that safetensors has.
FOR_SHARDS = ["mesh_2d", "tp_2", "tp_4", "weights"]


class Wide(torch.nn.Module):
    """Odd sizes, so that nothing divides evenly."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.up = torch.nn.Linear(6, 10)
        self.down = torch.nn.Linear(10, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x):
        return self.norm(self.down(torch.relu(self.up(self.embed(x)))))


def fully_sharded(module, mesh):
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:  # before 2.6
        from torch.distributed._composable.fsdp import fully_shard
    for child in module.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def with_optimizer(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


# --- sources ----------------------------------------------------------------------------------------


def save_wide(rank, folder):
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh

    from processes import pattern

    module = fully_sharded(Wide(), init_device_mesh("cpu", (3,)))
    model, optim = get_state_dict(module, with_optimizer(module))
    with torch.no_grad():
        for start, tensor in enumerate(model.values()):
            pattern(tensor, start)
        for start, values in enumerate(optim["state"].values()):
            pattern(values["exp_avg"], start + 7)
            pattern(values["exp_avg_sq"], start + 9)
    dcp.save({"model": model, "optim": optim}, checkpoint_id=f"{folder}/wide")
    dcp.save(model, checkpoint_id=f"{folder}/weights")


def save_small(rank, folder):
    """Every dtype that torch saves into such a checkpoint, and shapes at their bounds."""
    from fixture import raw

    names = ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16",
             "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
             "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2", "bcomplex32"]  # fmt: skip
    state = {name: raw(getattr(torch, name), 5, 3) for name in names if name != "bool"}
    state["bool"] = torch.tensor([[True, False], [False, True], [True, True]])
    state |= {f"one_{name}": raw(getattr(torch, name), 9) for name in ("float32", "float4_e2m1fn_x2", "complex32")}
    state |= {"none": torch.empty(0, 3), "no_columns": torch.empty(3, 0), "": torch.ones(2), "7": {"1": torch.ones(1)}}
    dcp.save(state, checkpoint_id=f"{folder}/all_dtypes")


def prepare(scratch):
    """Saves the sources that are no fixtures, and what torch makes of all."""
    (scratch / "sources").mkdir(parents=True)
    (scratch / "expected").mkdir()
    run_ranks(3, save_wide, str(scratch / "sources"))
    run_ranks(1, save_small, str(scratch / "sources"))
    for source in sources(scratch):
        dcp_to_torch_save(source, scratch / f"expected/{source.name}.pt")


def sources(scratch):
    return [FIXTURES / name for name in SOURCES] + sorted((scratch / "sources").iterdir())


def write(scratch, program):
    (scratch / "written").mkdir()
    for source in sources(scratch):
        variants = VARIANTS | (SHARDS if source.name in FOR_SHARDS else {})
        for variant, words in variants.items():
            to = scratch / f"written/{source.name}.{variant}"
            subprocess.run([program, source, to, *words], check=True, stdout=subprocess.DEVNULL)


# --- comparing --------------------------------------------------------------------------------------


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


def in_order(value, like):
    """Dicts with their keys in another's order: what a module lists is in its own."""
    if isinstance(value, dict) and isinstance(like, dict) and set(value) == set(like):
        return {key: in_order(value[key], like[key]) for key in like}
    if isinstance(value, (list, tuple)) and isinstance(like, (list, tuple)) and len(value) == len(like):
        return type(value)(in_order(v, w) for v, w in zip(value, like))
    return value


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


def whole(value):
    return each(value, lambda t: t.full_tensor() if hasattr(t, "full_tensor") else t)


def expected_of(directory):
    """What torch made of the checkpoint that `directory` was written from."""
    name = directory.name.rsplit(".", 1)[0]
    path = directory.parents[1] / f"expected/{name}.pt"
    return torch.load(path, weights_only=False)


# --- judges: each takes a directory -----------------------------------------------------------------


def judge_plain(directory):
    """`dcp.load` into plain tensors, in one process."""
    metadata = FileSystemReader(directory).read_metadata()
    state = {}
    for fqn, entry in metadata.state_dict_metadata.items():
        tensor = isinstance(entry, TensorStorageMetadata)
        leaf = poison(torch.empty(entry.size, dtype=entry.properties.dtype)) if tensor else "nothing yet"
        set_element(state, metadata.planner_data[fqn], leaf)
    dcp.load(state, storage_reader=FileSystemReader(directory))
    check(state, expected_of(directory), "")


def judge_consolidated(directory):
    """`dcp_to_torch_save` gives what it gives for the source, in the same order."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/whole.pt"
        dcp_to_torch_save(directory, file)
        check(torch.load(file, weights_only=False), expected_of(directory), "")


def judge_fully_sharded(rank, world, directories):
    """`dcp.load` into a module under FSDP2 and its optimizer."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (world,))
    for directory in directories:
        expected = expected_of(directory)
        module = fully_sharded(Wide() if "wide" in directory.name else fixture_types.Net(), mesh)
        optimizer = with_optimizer(module)
        model, optim = get_state_dict(module, optimizer)
        state = {"model": each(model, poison), "optim": each(optim, poison)}
        nested = "app" in expected
        dcp.load({"app": state} if nested else state, storage_reader=FileSystemReader(directory))
        options = StateDictOptions(strict=True)
        set_state_dict(module, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"],
                       options=options)  # fmt: skip
        model, optim = get_state_dict(module, optimizer)
        got, expected = whole({"model": model, "optim": optim}), expected["app"] if nested else expected
        # Options that the optimizer of an older torch does not have stay in the checkpoint.
        for group, known in zip(expected["optim"]["param_groups"], optim["param_groups"]):
            for option in set(group) - set(known):
                del group[option]
        check(in_order(got, expected), expected, f"{directory.name} on rank {rank} of {world}")


def judge_tensor_parallel(rank, shape, directories):
    """`dcp.load` into a tensor-parallel module; with two dimensions it is under FSDP2, too."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for directory in directories:
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp")[-len(shape):])
        plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        module = parallelize_module(Wide(), mesh["tp"], plan)
        if len(shape) == 2:
            fully_sharded(module, mesh["dp"])
        state = {"model": each(module.state_dict(), poison)}
        dcp.load(state, storage_reader=FileSystemReader(directory))
        module.load_state_dict(state["model"], strict=True)
        got, expected = whole(dict(module.state_dict())), expected_of(directory)["model"]
        check(in_order(got, expected), expected, f"{directory.name} on rank {rank} of {shape}")


def judge_shards(rank, world, directories):
    """torch's own `HuggingFaceStorageReader`, into plain tensors or into rows."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    for directory in directories:
        expected = expected_of(directory)

        def target(tensor):
            empty = torch.empty_like(tensor)
            rows = world > 1 and tensor.dim() > 0
            return poison(distribute_tensor(empty, mesh, [Shard(0)]) if rows else empty)

        state = {name: target(tensor) for name, tensor in expected.items()}
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(directory)))
        check(whole(state), expected, f"{directory.name} on rank {rank} of {world}")


# --- all of them ------------------------------------------------------------------------------------


def judge(scratch):
    """Runs every judge; gives how many loads there were."""
    written = sorted((scratch / "written").iterdir())
    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 9)
    # Dtypes that came later than the torch that runs here.
    unknown = ["all_dtypes", "dtypes"] if old else []
    files = [d for d in written if ".shards_" not in d.name and d.name.rsplit(".", 1)[0] not in unknown]
    shards = [d for d in written if ".shards_" in d.name]
    done = 0
    for directory in files:
        for judge_one in (judge_plain, judge_consolidated):
            try:
                judge_one(directory)
            except Exception as e:
                raise SystemExit(f"{judge_one.__name__} {directory.name}: {type(e).__name__} {e}") from e
            done += 1
    models = [d for d in files if d.name.startswith(("fsdp2_", "wide."))]
    for world in (1, 2, 4):
        run_ranks(world, judge_fully_sharded, world, models)
        done += len(models)
    wide = [d for d in files if d.name.startswith("wide.")]
    # Two dimensions have no state dict before 2.5.
    for shape in ((2,), (4,)) if old else ((2,), (4,), (2, 2)):
        world = torch.Size(shape).numel()
        run_ranks(world, judge_tensor_parallel, shape, wide)
        done += len(wide)
    if not old:
        for world in (1, 2, 4):
            run_ranks(world, judge_shards, world, shards)
            done += len(shards)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=pathlib.Path)
    parser.add_argument("--write", metavar="PROGRAM", help="make sources and write them with this first")
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    if options.write:
        prepare(scratch)
        write(scratch, os.path.abspath(options.write))
    done = judge(scratch)
    if not done:
        raise SystemExit(f"nothing to judge in {scratch}/written")
    print(f"torch {torch.__version__}: {done} loads judged")


if __name__ == "__main__":
    main()
