"""torch/: the ways in which torch.save lays out a file."""

import collections
import io
import json
import pathlib
import struct
import tempfile
import zipfile

import torch

import manifest
from fixture import fill, fixture, load, main, numbers
from fixture_types import Net, Point, TiedNet
from processes import run_ranks


def mixed():
    base = numbers(4, 3)
    return {
        "epoch": 3,
        "model": collections.OrderedDict(
            [("a.weight", base), ("a.tied", base), ("a.rows", base[1:3]), ("a.bias", numbers(3).half())]
        ),
        "scores": [0.5, 1, None, "text", (1, 2)],
        "flags": {"done": True, "big": 2**70, "raw": b"\x00\xff"},
    }


for protocol in (1, 2, 3, 4, 5):

    @fixture(f"torch/protocol_{protocol}.pt", f"zip with a protocol {protocol} pickle", weights="model")
    def with_protocol(path, protocol=protocol):
        torch.save(mixed(), path, pickle_protocol=protocol)

    @fixture(
        f"torch/legacy_protocol_{protocol}.pt",
        f"legacy stream with protocol {protocol} pickles",
        weights="model",
    )
    def legacy_with_protocol(path, protocol=protocol):
        torch.save(mixed(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)


@fixture("torch/protocol_0.pt", "zip with a protocol 0 pickle: storages are named by text, torch cannot load it")
def protocol_0(path):
    tree = {"w": numbers(2, 3), "step": 4}
    torch.save(tree, path, pickle_protocol=0)
    return manifest.describe(tree)


@fixture("torch/legacy_views.pt", "legacy stream: shared and viewed storages, several dtypes", weights="")
def legacy_views(path):
    base = numbers(4, 6)
    tree = {
        "base": base,
        "t": base.t(),
        "window": base[1:3, 2:5],
        "half": numbers(5, dtype=torch.float16),
        "long": numbers(2, dtype=torch.int64),
        "bool": torch.tensor([True, False]),
        "complex": numbers(2, dtype=torch.complex64),
        "parameter": torch.nn.Parameter(numbers(2)),
        "empty": torch.empty(0),
        "scalar": torch.tensor(3.5),
    }
    torch.save(tree, path, _use_new_zipfile_serialization=False)


@fixture("torch/legacy_module.pt", "legacy stream of a whole module with its source text", values=False, weights="")
def legacy_module(path):
    net = Net()
    fill(net.state_dict(keep_vars=True).values())
    torch.save(net, path, _use_new_zipfile_serialization=False)


@fixture("torch/align_4096.pt", "storages on page boundaries (storage_alignment 4096)", weights="model")
def align_4096(path):
    torch.utils.serialization.config.save.storage_alignment = 4096
    try:
        torch.save(mixed(), path)
    finally:
        torch.utils.serialization.config.save.storage_alignment = 64


@fixture("torch/no_crc.pt", "zip whose checksums are all zero (set_crc32_options(False))", weights="model")
def no_crc(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(mixed(), path)
    finally:
        torch.serialization.set_crc32_options(True)


@fixture("torch/from_buffer.pt", "saved to a buffer: the folder is called `archive`", weights="")
def from_buffer(path):
    buffer = io.BytesIO()
    torch.save({"w": numbers(3)}, buffer)
    path.write_bytes(buffer.getvalue())


# --- variants made by hand from a file that torch wrote -----------------------


def members(tree):
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(path, entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, data)


@fixture("torch/rezipped_deflate.pt", "members deflated by an ordinary zip tool", weights="model")
def rezipped_deflate(path):
    zipped(path, members(mixed()), zipfile.ZIP_DEFLATED)


@fixture("torch/rezipped_stored.pt", "re-zipped and stored: no alignment, no data descriptors", weights="model")
def rezipped_stored(path):
    zipped(path, members(mixed()))


@fixture("torch/member_order.pt", "storages first, the pickle last", weights="model")
def member_order(path):
    entries = members(mixed())
    zipped(path, entries[::-1])


@fixture("torch/minimal_members.pt", "only the members that a loader needs", weights="model")
def minimal_members(path):
    needed = ("data.pkl", "version")
    entries = members(mixed())
    zipped(path, [e for e in entries if e[0].split("/")[1] in needed or "/data/" in e[0]])


@fixture("torch/old_keys.pt", "storage keys as torch 1.6 wrote them: large numbers in any order", weights="")
def old_keys(path):
    entries = members({"a": numbers(2), "b": numbers(3)})
    renamed = {b"0": b"94258477618704", b"1": b"94258477000001"}
    out = []
    for name, data in entries:
        folder, _, member = name.partition("/")
        if member == "data.pkl":
            for old, new in renamed.items():
                was = b"X\x01\x00\x00\x00" + old
                assert data.count(was) == 1
                data = data.replace(was, b"X" + struct.pack("<I", len(new)) + new)
        elif member.startswith("data/"):
            member = "data/" + renamed[member[5:].encode()].decode()
        elif member != "version":
            continue
        out.append((f"{folder}/{member}", data))
    zipped(path, sorted(out, key=lambda e: "/data/" in e[0], reverse=True))


@fixture("torch/big_endian.pt", "byte order `big`, swapped by hand per element size", weights="")
def big_endian(path):
    tree = {
        "f32": numbers(2, 3),
        "i64": numbers(3, dtype=torch.int64),
        "f16": numbers(4, dtype=torch.float16),
        "u8": numbers(5, dtype=torch.uint8),
        "c64": numbers(2, dtype=torch.complex64),
        "view": numbers(2, 4).t(),
    }
    parts = [4, 8, 2, 1, 4, 4]  # a complex number is swapped by halves
    swapped = []
    for name, data in members(tree):
        if name.endswith("/byteorder"):
            data = b"big"
        elif "/data/" in name:
            size = parts[int(name.rpartition("/")[2])]
            data = b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))
        swapped.append((name, data))
    zipped(path, swapped)


# --- what people put into checkpoints -----------------------------------------


@fixture("torch/module.pt", "a whole nn.Module: entered as its state_dict names things", values=False, weights="")
def module(path):
    net = Net()
    fill(net.state_dict(keep_vars=True).values())
    torch.save(net, path)


@fixture("torch/module_in_dict.pt", "a module with tied weights inside a dict", values=False, weights="model")
def module_in_dict(path):
    net = TiedNet()
    fill(net.state_dict(keep_vars=True).values())
    torch.save({"epoch": 1, "model": net, "best": Point(1, 0.5)}, path)


@fixture("torch/torchscript.pt", "TorchScript: a scripted module", values=False)
def torchscript(path):
    net = Net().eval()
    fill(net.state_dict(keep_vars=True).values())
    torch.jit.save(torch.jit.script(net), path)
    # The buffer that state_dict leaves out is an attribute here.
    loaded = torch.jit.load(path)
    return manifest.of_tensors(script_tensors(loaded), weights="")


def script_tensors(module, prefix=""):
    named = []
    for name, _ in attributes(module._c):
        value = getattr(module, name)
        if isinstance(value, torch.Tensor):
            named.append((prefix + name, value))
        elif isinstance(value, torch.jit.ScriptModule):
            named += script_tensors(value, f"{prefix}{name}.")
    return named


def attributes(script):
    inner = torch._C.ModuleDict(script), torch._C.ParameterDict(script), torch._C.BufferDict(script)
    modules, parameters, buffers = (d.items() for d in inner)
    return [*parameters, *buffers, *modules]


@fixture("torch/export.pt2", "torch.export: weights as raw members", values=False)
def export(path):
    net = Net().eval()
    fill(net.state_dict(keep_vars=True).values())
    program = torch.export.export(net, (torch.zeros(2, 4),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths
    torch.export.save(program, path)
    program = torch.export.load(path)
    return manifest.of_tensors(list(program.state_dict.items()) + list(program.constants.items()))


def train_state(net, optimizer):
    for _ in range(2):
        net(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    fill(net.state_dict(keep_vars=True).values())
    for state in optimizer.state.values():
        fill(value for key, value in state.items() if key != "step")
    return net.state_dict(), optimizer.state_dict()


@fixture("torch/train_adam.pt", "model_state_dict beside an optimizer and a scheduler", weights="model_state_dict")
def train_adam(path):
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    weights, state = train_state(net, optimizer)
    tree = {"epoch": 2, "model_state_dict": weights, "optimizer_state_dict": state}
    torch.save(tree | {"scheduler": scheduler.state_dict(), "loss": 0.25, "args": {"lr": 1e-3}}, path)


@fixture("torch/train_sgd.pt", "state_dict beside an optimizer with momentum", weights="state_dict")
def train_sgd(path):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    weights, state = train_state(net, optimizer)
    torch.save({"state_dict": weights, "optimizer": state, "arch": "net", "best_acc1": 71.5}, path)


@fixture("torch/data_parallel.pt", "a bare state dict whose names begin with `module.`", weights="")
def data_parallel(path):
    net = torch.nn.DataParallel(Net())
    fill(net.state_dict(keep_vars=True).values())
    torch.save(net.state_dict(), path)


@fixture("torch/ema.pt", "a model and its moving average: which are the weights is for the user to say")
def ema(path):
    net = Net()
    fill(net.state_dict(keep_vars=True).values())
    average = {name: tensor * 2 for name, tensor in net.state_dict().items()}
    torch.save({"model": net.state_dict(), "ema": average, "step": 10}, path)


@fixture("torch/wrapped.pt", "weights one level down, under `app`", weights="app.model")
def wrapped(path):
    net = TiedNet()
    fill(net.state_dict(keep_vars=True).values())
    torch.save({"app": {"model": net.state_dict(), "step": 7}}, path)


@fixture("torch/state_dict.pt", "a module's state_dict with its `_metadata`, tied weights", weights="")
def state_dict(path):
    net = TiedNet()
    fill(net.state_dict(keep_vars=True).values())
    torch.save(net.state_dict(), path)


def dtensor_tree(world):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    return {
        "sharded": distribute_tensor(numbers(4, 3), mesh, [Shard(0)]),
        "replicated": distribute_tensor(numbers(2), mesh, [Replicate()]),
        "plain": numbers(3),
    }


def save_dtensors(rank, path, described, world):
    """Only a process of the group can load DTensors: the first rank describes them."""
    tree = dtensor_tree(world)
    if rank == 0:
        torch.save(tree, path)
        described.write_text(json.dumps(manifest.describe(load(path), "")))


for world, name, note in ((1, "dtensor", "one rank, which has all"), (2, "dtensor_shard", "one of two ranks")):

    @fixture(f"torch/{name}.pt", f"DTensors in a plain torch.save of {note}", weights="")
    def dtensor(path, world=world):
        with tempfile.TemporaryDirectory() as folder:
            described = pathlib.Path(folder, "described.json")
            run_ranks(world, save_dtensors, path, described, world)
            return json.loads(described.read_text())


if __name__ == "__main__":
    main()
