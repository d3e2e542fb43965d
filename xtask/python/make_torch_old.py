"""torch/: forms that only old releases wrote, made by hand and read with today's torch."""

import collections
import io
import pickle
import struct
import tarfile

import torch

from fixture import fixture, main, numbers

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True,
          "type_sizes": {"short": 2, "int": 4, "long": 4}}  # fmt: skip


class Ref:
    """Pickled as the persistent id that it holds."""

    def __init__(self, *identity):
        self.id = identity


class Call:
    """Pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, Ref):
            return None
        return obj.id if len(obj.id) > 1 else obj.id[0]


def pickled(obj):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


def tensor(storage, offset, size, stride):
    hooks = collections.OrderedDict()
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, hooks)


def stream(path, tree, storages):
    with open(path, "wb") as file:
        for item in (MAGIC, PROTOCOL, SYSTEM):
            pickle.dump(item, file, protocol=2)
        file.write(pickled(tree))
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            data = storages[key]
            file.write(struct.pack("<q", data.numel()) + data.numpy().tobytes())


@fixture("torch/legacy_storage_views.pt", "legacy stream whose storages are windows of a root storage", weights="")
def legacy_storage_views(path):
    whole = numbers(12)

    def view(key, offset, count):
        identity = ("storage", torch.FloatStorage, "100", "cpu", 12, (key, offset, count))
        return Ref(*identity)

    tree = {
        "whole": tensor(Ref("storage", torch.FloatStorage, "100", "cpu", 12, None), 0, (3, 4), (4, 1)),
        "tail": tensor(view("101", 8, 4), 0, (4,), (1,)),
        "middle": tensor(view("102", 2, 6), 1, (2, 2), (2, 1)),
        "middle_again": tensor(view("102", 2, 6), 1, (2, 2), (2, 1)),
    }
    stream(path, tree, {"100": whole})


@fixture("torch/rebuild_tensor_v1.pt", "legacy stream with the oldest call, `_rebuild_tensor`", weights="")
def rebuild_tensor_v1(path):
    storage = Ref("storage", torch.DoubleStorage, "7", "cuda:0", 6, None)
    tree = collections.OrderedDict(w=Call(torch._utils._rebuild_tensor, storage, 0, (2, 3), (3, 1)))
    stream(path, tree, {"7": numbers(6, dtype=torch.float64)})


@fixture("torch/python2_strings.pt", "legacy stream with strings as Python 2 wrote them", weights="")
def python2_strings(path):
    storage = Ref("storage", torch.FloatStorage, "7", "cpu", 2, None)
    stream(path, {"weight": tensor(storage, 0, (2,), (1,)), "note": "plain"}, {"7": numbers(2)})
    data = path.read_bytes()
    for text in (b"storage", b"7", b"cpu", b"weight", b"note", b"plain"):
        long, short = b"X" + struct.pack("<I", len(text)) + text, b"U" + bytes([len(text)]) + text
        data = data.replace(long, short)
    path.write_bytes(data)


@fixture("torch/tar_era.pt", "a tar archive, as torch before 0.1.10 wrote", weights="")
def tar_era(path):
    root, other = numbers(12), numbers(3, dtype=torch.int64)
    storages = [pickle.dumps(2, protocol=2)]
    for key, kind, data in ((11, torch.FloatStorage, root), (12, torch.LongStorage, other)):
        storages += [pickle.dumps((key, "cpu", kind), protocol=2)]
        storages += [struct.pack("<q", data.numel()), data.numpy().tobytes()]
    storages.append(pickle.dumps([(13, 11, 4, 8)], protocol=2))
    tensors = [pickle.dumps(3, protocol=2)]
    for key, storage, kind, size, stride, offset in (
        (21, 11, torch.FloatTensor, (3, 4), (4, 1), 0),
        (22, 13, torch.FloatTensor, (2, 3), (3, 1), 1),
        (23, 12, torch.LongTensor, (3,), (1,), 0),
    ):
        tensors.append(pickle.dumps((key, storage, kind), protocol=2))
        tensors.append(struct.pack(f"<ii{2 * len(size)}qq", len(size), 0, *size, *stride, offset))
    tree = collections.OrderedDict(w=Ref("21"), view=Ref("22"), count=Ref("23"))
    members = {
        "sys_info": pickle.dumps(SYSTEM, protocol=2),
        "pickle": pickled({**tree, "epoch": 3}),
        "tensors": b"".join(tensors),
        "storages": b"".join(storages),
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@fixture("torch/sparse_3_tuple.pt", "a sparse tensor as torch before 2.0 wrote it: no word on coalescing", weights="")
def sparse_3_tuple(path):
    def part(key, kind, numel, size, stride):
        return tensor(Ref("storage", kind, key, "cpu", numel, None), 0, size, stride)

    layout = Call(torch.serialization._get_layout, "torch.sparse_coo")
    indices = part("1", torch.LongStorage, 4, (2, 2), (2, 1))
    values = part("2", torch.FloatStorage, 2, (2,), (1,))
    data = (indices, values, torch.Size([3, 3]))
    tree = {"s": Call(torch._utils._rebuild_sparse_tensor, layout, data)}
    stream(path, tree, {"1": torch.tensor([0, 2, 1, 0]), "2": numbers(2)})


@fixture("torch/skip_data.pt", "saved with skip_data: storages are holes without checksums", weights="")
def skip_data(path):
    with torch.serialization.skip_data():
        torch.save({"w": numbers(2, 3), "b": numbers(300)}, path)


if __name__ == "__main__":
    main()
