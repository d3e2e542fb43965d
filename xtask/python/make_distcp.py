"""distcp/: directories of torch.distributed.checkpoint, each saved by real gloo ranks."""

import collections
import datetime
import os
import pathlib
import tempfile

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.filesystem import SerializationFormat
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import manifest
from fixture import copy_kept, fixture, load, main, numbers
from fixture_types import OBJECTS, Color, Net, Point
from processes import pattern, run_ranks


def consolidated(path):
    """The whole checkpoint as torch itself puts it together."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/whole.pt"
        dcp_to_torch_save(path, file)
        return load(file)


def described(path, weights=None):
    return manifest.describe(consolidated(path), weights)


def save(rank, path, build, world, writer=None, **options):
    """Writes under a relative name: the path is recorded in `.metadata`."""
    os.chdir(path.parent)
    state = build(rank, world)
    dcp.save(state, storage_writer=FileSystemWriter(path.name, **(writer or {})), **options)


def on_ranks(world, path, build, writer=None, **options):
    run_ranks(world, save, path, build, world, writer, **options)


def shard(full, mesh, *placements):
    placements = [Replicate() if p is None else Shard(p) for p in placements]
    return distribute_tensor(full, mesh, placements)


# --- how tensors are split -----------------------------------------------------


def tp_state(rank, world):
    mesh = init_device_mesh("cpu", (world,))
    return {
        "rows": shard(numbers(8, 3), mesh, 0),
        "columns": shard(numbers(4, 6), mesh, 1),
        "replicated": shard(numbers(5), mesh, None),
        "plain": numbers(2, 2),
        "uneven_rows": shard(numbers(5, 2), mesh, 0),
        "uneven_columns": shard(numbers(2, 7), mesh, 1),
        "fewer_rows_than_ranks": shard(numbers(1, 3), mesh, 0),
        "three_dims": shard(numbers(3, 4, 5), mesh, 1),
        "empty": shard(torch.empty(0, 4), mesh, 0),
        "scalar": torch.tensor(2.5),
        "vector": shard(numbers(7, dtype=torch.int64), mesh, 0),
    }


for world in (2, 4):

    @fixture(f"distcp/tp_{world}", f"DTensors over {world} ranks: rows, columns, replicas, uneven", weights="")
    def tp(path, world=world):
        on_ranks(world, path, tp_state)
        return described(path, "")


def mesh_2d_state(rank, world):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    return {
        "both": shard(numbers(4, 6), mesh, 0, 1),
        "uneven": shard(numbers(5, 7), mesh, 0, 1),
        "same_dim": shard(numbers(9, 2), mesh, 0, 0),
        "replicated_rows": shard(numbers(4, 3), mesh, None, 0),
        "replicated": shard(numbers(3), mesh, None, None),
    }


@fixture("distcp/mesh_2d", "a 2 x 2 mesh: split in both dimensions, twice in one, replicated in one", weights="")
def mesh_2d(path):
    on_ranks(4, path, mesh_2d_state)
    return described(path, "")


DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
          "complex64", "complex128"]  # fmt: skip
UNTYPED = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
           "float8_e5m2fnuz", "float8_e8m0fnu"]  # fmt: skip


def dtypes_state(rank, world):
    state = {name: numbers(3, 2, dtype=getattr(torch, name)) for name in DTYPES}
    state |= {name: numbers(3, 2).abs().mul(8).to(getattr(torch, name)) for name in UNTYPED}
    state["bool"] = torch.tensor([True, False])
    state["transposed"] = numbers(3, 4).t()
    state["channels_last"] = numbers(1, 2, 2, 3).contiguous(memory_format=torch.channels_last)
    state["slice"] = numbers(6, 6)[1:3, ::2]
    state["expanded"] = numbers(1, 3).expand(2, 3)
    state["conj"] = numbers(2, 2, dtype=torch.complex64).conj()
    tied = numbers(2, 3)
    return state | {"tied_a": tied, "tied_b": tied}


@fixture("distcp/dtypes", "dtypes and strided locals, saved by one rank", weights="")
def dtypes(path):
    on_ranks(1, path, dtypes_state)
    return described(path, "")


# --- training ------------------------------------------------------------------


def fsdp_state(rank, world, wrapper=False):
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (world,))
    net = Net()
    fully_shard(net.first, mesh=mesh)
    fully_shard(net, mesh=mesh)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model, optim = get_state_dict(net, optimizer)
    with torch.no_grad():
        for start, tensor in enumerate(model.values()):
            pattern(tensor, start)
        for start, values in enumerate(optim["state"].values()):
            for name in ("exp_avg", "exp_avg_sq"):
                pattern(values[name], start * 3 + len(name))
    state = {"model": model, "optim": optim}
    return {"app": state} if wrapper else state


for world in (2, 4):

    @fixture(f"distcp/fsdp2_{world}", f"fully_shard over {world} ranks, model and AdamW", weights="model")
    def fsdp2(path, world=world):
        on_ranks(world, path, fsdp_state)
        return described(path, "model")


def wrapped_state(rank, world):
    return fsdp_state(rank, world, wrapper=True)


@fixture("distcp/fsdp2_app", "the same under `app`, as a Stateful wrapper saves it", weights="app.model")
def fsdp2_app(path):
    on_ranks(2, path, wrapped_state)
    return described(path, "app.model")


def fsdp1_state(rank, world):
    """FSDP1 keeps one flat parameter for several; sharded, it saves each by its own name."""
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp import StateDictType

    model = FSDP(Net(), device_id=torch.device("cpu"), use_orig_params=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(numbers(4, 4)).sum().backward()
    optimizer.step()
    with FSDP.state_dict_type(model, StateDictType.SHARDED_STATE_DICT), torch.no_grad():
        weights, optim = model.state_dict(), FSDP.optim_state_dict(model, optimizer)
        for start, tensor in enumerate(weights.values()):
            pattern(tensor, start)
        for start, values in enumerate(optim["state"].values()):
            for name in ("exp_avg", "exp_avg_sq"):
                pattern(values[name], start * 3 + len(name))
    return {"model": weights, "optim": optim}


@fixture("distcp/fsdp1_2", "FSDP1's sharded state dicts on two ranks, model and AdamW: ShardedTensors", weights="model")
def fsdp1(path):
    on_ranks(2, path, fsdp1_state)
    return described(path, "model")


@fixture("distcp/steps", "a folder of steps: the reader takes the latest or asks")
def steps(path):
    path.mkdir()
    for step in (10, 20):
        on_ranks(2, path / f"step-{step}", tp_state)
    return described(path / "step-20", "") | {"values": None, "latest": "step-20"}


@fixture("distcp/nemo2", "`weights/` by Megatron-Core 0.16 on two ranks beside `context/` by NeMo 2.4, kept", library=["torch"])
def nemo2(path):
    copy_kept("distcp/nemo2", path)
    weights = path / "weights"
    return manifest.describe(consolidated(weights) | {"common": load(weights / "common.pt")})


# --- keys and objects ----------------------------------------------------------


def nested_state(rank, world):
    mesh = init_device_mesh("cpu", (world,))
    return {
        "model": {
            "layers.0.weight": shard(numbers(4, 2), mesh, 0),
            "list": [numbers(2), shard(numbers(4), mesh, 0)],
            "list_of_dicts": [{"x": numbers(2)}, {"x": numbers(3), "y": 7}],
            "tuple": (numbers(2), 1),
            "ordered": collections.OrderedDict(b=numbers(1), a=numbers(2)),
            "empty_dict": {},
            "empty_list": [],
            "mixed": [1, "two", numbers(2)],
        },
        "optim": {
            "state": {0: {"exp_avg": numbers(2), "step": torch.tensor(3.0)}, 1: {"step": 4}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}],
        },
        "step": 17,
    }


@fixture("distcp/nested", "dicts, lists and tuples, flattened as torch flattens them")
def nested(path):
    on_ranks(2, path, nested_state)
    return described(path)


def objects_state(rank, world):
    return {
        "none": None,
        "int": 17,
        "big": 2**80,
        "float": 0.5,
        "nan": float("nan"),
        "text": "ünï",
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "tuple": (1, (2, "x")),
        "list": [1, 2, 3],
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "enum": Color.BLUE,
        "dataclass": Point(2, 0.5, ["t"]),
        "path": pathlib.PosixPath("runs/1"),
        "date": datetime.date(2024, 2, 29),
        "with_tensors": (numbers(2), {"inner": numbers(3)}),
        "w": numbers(2, 2),
    }


@fixture("distcp/objects", "byte items of many kinds, tensors inside one of them")
def objects(path):
    on_ranks(1, path, objects_state)
    return described(path)


def not_flattened_save(rank, path):
    os.chdir(path.parent)
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    state = {"w": numbers(2), "nested": {"a": numbers(3), "b": 1}}
    dcp.save(state, storage_writer=FileSystemWriter(path.name), planner=planner)


@fixture("distcp/not_flattened", "saved with flatten_state_dict=False: nested dicts are byte items")
def not_flattened(path):
    run_ranks(1, not_flattened_save, path)
    return described(path)


# --- how the files are laid out -------------------------------------------------


@fixture("distcp/file_per_item", "one file for each item (single_file_per_rank=False)", weights="")
def file_per_item(path):
    on_ranks(2, path, tp_state, {"single_file_per_rank": False})
    return described(path, "")


@fixture("distcp/threads", "three files a rank (thread_count=3)", weights="")
def threads(path):
    on_ranks(2, path, tp_state, {"thread_count": 3})
    return described(path, "")


def zstd_save(rank, path):
    from torch.distributed.checkpoint._extension import ZStandard

    os.chdir(path.parent)
    writer = FileSystemWriter(path.name, _extensions=[ZStandard()])
    dcp.save(tp_state(rank, 2) | {"big": torch.zeros(64, 64), "note": "x" * 500}, storage_writer=writer)


@fixture("distcp/zstd", "every item compressed by the zstd extension", weights="", library=["torch", "zstandard"])
def zstd(path):
    run_ranks(2, zstd_save, path)
    return described(path, "")


def saved_directly(state, weights=""):
    """For layouts that torch cannot put together again: the tensors before saving."""
    return manifest.describe(state, weights)


def safetensors_state(rank, world):
    mesh = init_device_mesh("cpu", (world,))
    return {name: shard(full, mesh, dim) for name, (full, dim) in SAFETENSORS.items()}


SAFETENSORS = {"rows": (numbers(5, 2), 0), "columns": (numbers(2, 6), 1), "whole": (numbers(3), None)}


@fixture("distcp/safetensors_format", "data files in SerializationFormat.SAFETENSORS: torch cannot read them back",
         library=["torch", "safetensors"])  # fmt: skip
def safetensors_format(path):
    on_ranks(2, path, safetensors_state, {"serialization_format": SerializationFormat.SAFETENSORS})
    return saved_directly({name: full for name, (full, _) in SAFETENSORS.items()})


def rank_local_save(rank, path):
    os.chdir(path.parent)
    dcp.save(tp_state(rank, 2), storage_writer=FileSystemWriter(path.name), use_collectives=False)


@fixture("distcp/rank_local", "`__0.metadata` and `__1.metadata` (use_collectives=False): torch consolidates it wrongly")
def rank_local(path):
    run_ranks(2, rank_local_save, path)
    with tempfile.TemporaryDirectory() as folder:
        same = pathlib.Path(folder) / "same"
        on_ranks(2, same, tp_state)
        return described(same, "")


# --- other writers --------------------------------------------------------------


def lightning_save(rank, path):
    from fixture_lightning import parallel_train

    os.chdir(path.parent)
    parallel_train(path.name)


@fixture("distcp/lightning.ckpt", "Lightning's ModelParallelStrategy on two ranks, with `meta.pt`", weights="state_dict",
         library=["torch", "lightning"])  # fmt: skip
def lightning(path):
    run_ranks(2, lightning_save, path)
    return described_lightning(path)


def described_lightning(path):
    whole = consolidated(path)
    return manifest.describe(whole | load(path / "meta.pt"), "state_dict")


def fabric_save(rank, path):
    from fixture_lightning import fabric_save as save_from

    os.chdir(path.parent)
    save_from(path.name)


@fixture("distcp/fabric", "Lightning Fabric's ModelParallelStrategy on two ranks: the user's own keys, the plain ones in `meta.pt`",
         weights="net", library=["torch", "lightning"])  # fmt: skip
def fabric(path):
    run_ranks(2, fabric_save, path)
    return manifest.describe(consolidated(path) | load(path / "meta.pt"), "net")


@fixture("distcp/megatron", "Megatron-Core 0.16 torch_dist, kept: Megatron is not installed here")
def megatron(path):
    copy_kept("distcp/megatron", path)
    return manifest.describe(consolidated(path) | {"common": load(path / "common.pt")})


def described_objects(path, file_of):
    whole = consolidated(path) | {name: load(path / file_of(name)) for name in OBJECTS}
    return manifest.describe(whole | {"common": load(path / "common.pt")})


@fixture("distcp/megatron_objects", "objects in files of their own, by Megatron-Core 0.16's common strategy, kept",
         library=["torch"])  # fmt: skip
def megatron_objects(path):
    copy_kept("distcp/megatron_objects", path)
    return described_objects(path, lambda name: f"{name}.pt")


@fixture("distcp/megatron_objects_0_7", "the same as Megatron-Core 0.7 named them: without the shape's last number, kept",
         library=["torch"])  # fmt: skip
def megatron_objects_0_7(path):
    copy_kept("distcp/megatron_objects_0_7", path)
    return described_objects(path, lambda name: pathlib.Path(name).with_suffix(".pt"))


@fixture("distcp/torch_2_1", "written by torch 2.1, kept", library=["torch"])
def torch_2_1(path):
    copy_kept("distcp/torch_2_1", path)
    return described(path)


@fixture("distcp/torch_2_4", "written by torch 2.4, kept", library=["torch"])
def torch_2_4(path):
    copy_kept("distcp/torch_2_4", path)
    return described(path)


@fixture("distcp/sharded_tensor", "ShardedTensors, several shards of one tensor on a rank, kept", weights="")
def sharded_tensor(path):
    copy_kept("distcp/sharded_tensor", path)
    return described(path, "")


if __name__ == "__main__":
    main()
