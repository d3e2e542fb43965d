"""torch loads the distributed checkpoints that were written, in every way it has, value by value.

SCRATCH/written/NAME.VARIANT are the checkpoints; SCRATCH/expected/NAME.pt is what torch itself makes
of the source NAME: a fixture, or one of SCRATCH/sources that torch saves for this.
"""

import json

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import dcp_by_name
import dcp_loads
import fixture_lightning  # noqa: F401  classes that the fixtures name
import fixture_types
import interop
import judge_sidecar
import make_lightning  # noqa: F401
import make_torch_objects  # noqa: F401
import manifest
import sidecar
from dcp_loads import check, each, poison
from processes import run_ranks

FIXTURES = interop.FIXTURES / "distcp"
WRITTEN = interop.SCRATCH / "written"
EXPECTED = interop.SCRATCH / "expected"

# Fixtures that torch itself can put together.
SOURCES = ["dtypes", "file_per_item", "fsdp2_2", "fsdp2_4", "fsdp2_app", "lightning.ckpt", "megatron", "mesh_2d",
           "nested", "not_flattened", "objects", "sharded_tensor", "threads", "torch_2_1", "torch_2_4", "tp_2", "tp_4",
           "zstd"]  # fmt: skip

# Name → what the program is told. 3 → 4, 4 → 3 and all others are among them.
VARIANTS = {
    "1": ["--ranks", "1"],
    "2": ["--ranks", "2"],
    "3": ["--ranks", "3"],
    "4": ["--ranks", "4"],
    "7": ["--ranks", "7"],
    "2x2": ["--mesh", "2x2"],
    "3x2": ["--mesh", "3x2"],
    "aligned": ["--ranks", "2", "--align", "4096"],
}
SHARDS = {
    "shards_1": ["--ranks", "1"],
    "shards_3": ["--ranks", "3"],
    "shards_2x2": ["--mesh", "2x2"],
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
    from torch.distributed.fsdp import fully_shard

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


def sources():
    return [FIXTURES / name for name in SOURCES] + sorted((interop.SCRATCH / "sources").iterdir())


def prepare():
    """Saves the sources that are no fixtures, and what torch makes of all; the program writes them."""
    folder = interop.SCRATCH / "sources"
    for made in (folder, EXPECTED, WRITTEN):
        made.mkdir()
    run_ranks(3, save_wide, str(folder))
    run_ranks(1, save_small, str(folder))
    for source in sources():
        dcp_to_torch_save(source, EXPECTED / f"{source.name}.pt")
        for variant, flags in VARIANTS.items():
            to = f"written/{source.name}.{variant}"
            interop.convert(source, to, "--to", "distcp", "--all", *flags)
        for variant, flags in SHARDS.items() if source.name in FOR_SHARDS else ():
            to = f"written/{source.name}.{variant}"
            interop.convert(source, to, "--to", "distcp", "--form", "safetensors", *flags)


# --- comparing --------------------------------------------------------------------------------------


def in_order(value, like):
    """Dicts with their keys in another's order: what a module lists is in its own."""
    if isinstance(value, dict) and isinstance(like, dict) and set(value) == set(like):
        return {key: in_order(value[key], like[key]) for key in like}
    if isinstance(value, (list, tuple)) and isinstance(like, (list, tuple)) and len(value) == len(like):
        return type(value)(in_order(v, w) for v, w in zip(value, like))
    return value


def whole(value):
    return each(value, lambda t: t.full_tensor() if hasattr(t, "full_tensor") else t)


def expected_of(directory):
    """What torch made of the checkpoint that `directory` was written from."""
    path = EXPECTED / f"{directory.name.rsplit('.', 1)[0]}.pt"
    return torch.load(path, weights_only=False)


# --- loads on several ranks -------------------------------------------------------------------------


def fully_sharded_run(rank, shape, directories):
    """`dcp.load` into a module under FSDP2 and its optimizer."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", shape)
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
        check(in_order(got, expected), expected, f"{directory.name} on rank {rank} of {shape}")


def tensor_parallel(rank, shape, directories):
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


def hugging_face(rank, shape, directories):
    """torch's own `HuggingFaceStorageReader`, into plain tensors or into rows."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", shape)
    for directory in directories:
        expected = expected_of(directory)

        def target(tensor):
            empty = torch.empty_like(tensor)
            rows = shape != (1,) and tensor.dim() > 0
            return poison(distribute_tensor(empty, mesh, [Shard(0)]) if rows else empty)

        state = {name: target(tensor) for name, tensor in expected.items()}
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(directory)))
        check(whole(state), expected, f"{directory.name} on rank {rank} of {shape}")


# --- all of them ------------------------------------------------------------------------------------


def in_one_process(directories):
    for directory in directories:
        for way, load in (("load", dcp_loads.plain), ("dcp_to_torch_save", dcp_loads.consolidated)):
            try:
                check(load(directory), expected_of(directory), "")
            except dcp_loads.REFUSALS as error:
                interop.wrong(directory.name, f"{way}: {type(error).__name__} {error}")
            interop.judged(f"torch.distributed.checkpoint ({way})")


def on_ranks(kind, function, shapes, directories):
    for shape in shapes:
        world = torch.Size(shape).numel()
        try:
            run_ranks(world, function, shape, directories)
        except SystemExit as failure:  # the ranks have said why
            interop.wrong(kind, failure)
        interop.judged(f"torch.distributed.checkpoint ({kind})", len(directories))


def weights_of_others():
    """The weights of every format's fixtures, cut for three ranks: what their manifests say."""
    for name, path, found in interop.fixtures("torch", "lightning", "safetensors", "nemo"):
        rows = interop.weight_rows(found)
        if not rows or any(row["sha256"] is None for row in rows.values()):
            continue
        if name == "safetensors/aliases.safetensors":  # recorded in its metadata, tied again
            rows["head.weight"] = {**rows["embed.weight"], "name": "head.weight"}
        key = found["weights"]["key"]
        flags = ["--to", "distcp", "--ranks", "3", "--weights-key", key, "--aliases", "copy"]
        to = interop.convert(path, "weights", *flags, refused=True)
        if to is None:  # a dtype that torch lacks; the refusals are tested elsewhere
            continue
        interop.judged("torch.distributed.checkpoint (load)")
        try:
            state = dcp_loads.plain(to)
        except dcp_loads.REFUSALS as error:
            interop.wrong(name, f"load: {type(error).__name__} {error}")
            continue
        got = [(key, t) for key, t in state.items() if isinstance(t, torch.Tensor)]
        got = {row["name"]: row for key, tensor in got for row in manifest.entries(key, tensor)}
        for key in sorted(got.keys() | rows.keys()):
            if got.get(key) != rows.get(key):
                interop.wrong(name, f"{key} is {got.get(key)}, not {rows.get(key)}")


def optimizers_by_name():
    """What scripts save with `torch.save`, numbers in the optimizer's state, goes on in sharded modules."""
    folder = interop.SCRATCH / "scripts"
    folder.mkdir()
    run_ranks(1, dcp_by_name.save, Wide, str(folder))
    written = []
    for source in sorted(folder.glob("*.pt")):
        to = f"scripts/{source.stem}"
        sharded = [interop.convert(source, f"{to}.{n}", "--to", "distcp", "--all", "--ranks", n) for n in (1, 3)]
        named = interop.convert(source, f"{to}-named", "--all", "--optimizer-names")
        for way in (sharded[1], named):
            path = interop.convert(way, f"scripts/{way.name}-back.pt", "--all")
            try:
                dcp_by_name.go_on_from_file(Wide, folder, source.stem, path)
            except Exception as error:  # the others are judged all the same
                interop.wrong(path.name, repr(error))
            interop.judged("torch (Optimizer.load_state_dict)")
        written += sharded
    for shape, shard in (((1,), None), ((1,), fully_sharded), ((2,), fully_sharded)):
        try:
            run_ranks(shape[0], dcp_by_name.go_on, shape, Wide, shard, str(folder), written)
        except SystemExit as failure:  # the ranks have said why
            interop.wrong(f"optimizers by name on {shape}", failure)
        interop.judged("torch.distributed.checkpoint (optimizer by name)", len(written))


def same(name, what, found, original):
    """Everything that Python sees of two objects, and what they share."""
    if judge_sidecar.described(found) != judge_sidecar.described(original):
        interop.wrong(name, f"{what}: another object")
    elif judge_sidecar.sharing(found) != judge_sidecar.sharing(original):
        interop.wrong(name, f"{what}: shared otherwise")


def without_sidecar(directory):
    """What torch makes of the checkpoint where nothing but what it writes itself is there."""
    for path in directory.glob("ckptkit.*"):
        path.unlink()
    return dcp_loads.consolidated(directory)


def saved_again(name, directory):
    """torch saves into the directory: what is there now is that, and the sidecar is not used."""
    assert json.loads(interop.ckptkit("inspect", directory, "--json").stdout)["sidecar"]
    state = {"later": {"w": torch.arange(3.0)}, "step": 7}
    dcp.save(state, checkpoint_id=directory)
    assert (directory / "ckptkit.json").exists(), "torch left it where it was"
    seen = json.loads(interop.ckptkit("inspect", directory, "--json").stdout)
    if seen["sidecar"] or not any("ckptkit.json is ignored" in w for w in seen["warnings"]):
        interop.wrong(name, f"the sidecar is used after a later save: {seen}")
    back = interop.convert(directory, "later.pt", "--all")
    same(name, "saved again", torch.load(back, weights_only=False), state)


def whole_objects():
    """Objects come back equal from a distributed checkpoint; torch sees nothing of the sidecar."""
    for name, path, _ in interop.fixtures("torch", "lightning"):
        if name == "torch/deep.pt":  # deeper than Python describes
            continue
        try:
            original = judge_sidecar.load(path)
        except Exception:  # a form that torch itself cannot read
            continue
        flags = ["--to", "distcp", "--all", "--ranks", "3"]
        directory = interop.convert(path, "object", *flags, refused=True)
        if directory is None:  # no dict, or a program; the refusals are tested elsewhere
            continue
        back = interop.convert(directory, "object.pt", "--all")
        exact = path.name not in judge_sidecar.PARTS_OF_STORAGES
        for what, load in (("written again", lambda: judge_sidecar.load(back)),
                           ("read by sidecar.py", lambda: sidecar.load(directory))):  # fmt: skip
            try:
                found = load()
            except Exception as error:  # the others are judged all the same
                interop.wrong(name, f"{what}: {type(error).__name__} {error}")
                continue
            if exact:
                same(name, what, found, original)
            elif judge_sidecar.described(found) != judge_sidecar.described(original):
                interop.wrong(name, f"{what}: another object")
            interop.judged("torch.distributed.checkpoint (sidecar)")
        try:
            seen, expected = dcp_loads.consolidated(directory), without_sidecar(directory)
            if judge_sidecar.described(seen) != judge_sidecar.described(expected):
                interop.wrong(name, "torch sees the sidecar")
            interop.judged("torch.distributed.checkpoint (dcp_to_torch_save)")
        except dcp_loads.REFUSALS as error:
            interop.wrong(name, f"dcp_to_torch_save: {type(error).__name__} {error}")
    for name in ("torch/views.pt", "torch/train_adam.pt"):
        source = interop.FIXTURES / name
        saved_again(name, interop.convert(source, "again", "--to", "distcp", "--all", "--ranks", "2"))
        interop.judged("torch.distributed.checkpoint (sidecar)")


def main():
    prepare()
    optimizers_by_name()
    written = sorted(WRITTEN.iterdir())
    shards = [d for d in written if ".shards_" in d.name]
    files = [d for d in written if d not in shards]
    in_one_process(files)
    weights_of_others()
    whole_objects()
    wide = [d for d in files if d.name.startswith("wide.")]
    models = [d for d in files if d.name.startswith("fsdp2_")] + wide
    on_ranks("FSDP2", fully_sharded_run, [(1,), (2,), (4,)], models)
    on_ranks("tensor parallel", tensor_parallel, [(2,), (4,), (2, 2)], wide)
    on_ranks("HuggingFaceStorageReader", hugging_face, [(1,), (2,), (4,)], shards)
    interop.finish()


if __name__ == "__main__":
    main()
