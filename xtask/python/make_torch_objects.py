"""torch/: the Python values that lie beside tensors in checkpoints."""

import argparse
import collections
import datetime
import decimal
import functools
import pathlib
import pickle
import types
import uuid

import numpy
import torch

from fixture import fixture, main, numbers
from fixture_types import (Color, Frozen, Level, MyDict, MyList, Pair, Plain, Point, Reduced, Slots,
                           Stateful)  # fmt: skip


def plain_values():
    return {
        "none": None,
        "true": True,
        "ints": [0, 1, -1, 255, 256, 65536, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)],
        "big_ints": [2**63, -(2**63) - 1, 2**100, -(2**100), 10**700],
        "floats": [0.0, -0.0, 1.5, 1e300, 5e-324, 0.1, 1e16],
        "not_finite": [float("nan"), float("inf"), float("-inf")],
        "complex": 1.5 - 2j,
        "text": ["", "plain", "ünï 重み 🦀", "line\nbreak", "nul\0inside", "x" * 300],
        "lone_surrogate": "a\ud800b",
        "bytes": [b"", b"plain", bytes(range(256))],
        "bytearray": bytearray(b"\x00\x01\xff"),
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((1, (2,)), [])],
        "set": {1, 2, 3},
        "empty_set": set(),
        "frozenset": frozenset({"a", "b"}),
        "range": range(2, 10, 3),
        "slice": slice(1, None, 2),
        "ellipsis_like": "...",
        "empty": {"dict": {}, "list": []},
        "type_key": {"$type": "a key that looks like ours", "a": 1},
        "tensor": numbers(2),
    }


@fixture("torch/values_plain.pt", "plain Python values")
def values_plain(path):
    torch.save(plain_values(), path)


@fixture("torch/values_keys.pt", "keys that are not strings")
def values_keys(path):
    torch.save(
        {
            None: "none",
            (1, "a"): "tuple",
            7: "int",
            -3: "negative",
            2**70: "big",
            2.5: "float",
            b"k": "bytes",
            frozenset({1}): "frozenset",
            torch.float16: "dtype",
            Color.RED: "enum",
            "s\udfff": "lone surrogate",
            "7": "digits as a string",
            "inner": {True: 1, False: 0},
        },
        path,
    )


@fixture("torch/values_containers.pt", "containers of the standard library, and subclasses of dict and list")
def values_containers(path):
    ordered = collections.OrderedDict([("b", 1), ("a", numbers(2))])
    ordered._metadata = collections.OrderedDict([("", {"version": 1})])
    counted = collections.defaultdict(int, {"x": 3})
    mine = MyDict(a=1, b=[2])
    mine.note = "attribute"
    torch.save(
        {
            "ordered": ordered,
            "ordered_int_keys": collections.OrderedDict([(2, "two"), (1, "one")]),
            "defaultdict": counted,
            "defaultdict_list": collections.defaultdict(list, {"l": [1, 2]}),
            "defaultdict_none": collections.defaultdict(None, {"n": 0}),
            "counter": collections.Counter("abracadabra"),
            "deque": collections.deque([1, 2, numbers(3)]),
            "deque_maxlen": collections.deque([1, 2, 3], maxlen=5),
            "subclass_of_dict": mine,
            "subclass_of_list": MyList([1, 2]),
            "namedtuple": Pair(1, "two"),
        },
        path,
    )


@fixture("torch/values_objects.pt", "objects of the standard library and of user classes")
def values_objects(path):
    torch.save(
        {
            "path": pathlib.PurePosixPath("a/b.txt"),
            "path_posix": pathlib.PosixPath("runs/last.ckpt"),
            "datetime": datetime.datetime(2024, 2, 29, 12, 30, 15, 250),
            "date": datetime.date(1999, 12, 31),
            "timedelta": datetime.timedelta(days=1, seconds=2, microseconds=3),
            "decimal": decimal.Decimal("1.50"),
            "uuid": uuid.UUID(int=0x1234567890ABCDEF),
            "enum": [Color.RED, Color.BLUE, Level.HIGH],
            "dataclass": Point(2, 0.25, ["t"]),
            "frozen_slots": Frozen("n", 1e-3),
            "slots": Slots(),
            "plain": Plain(),
            "namespace": argparse.Namespace(lr=0.1, layers=[1, 2], name=None),
            "simple_namespace": types.SimpleNamespace(a=1, b="c"),
            "partial": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
            "reduced": Reduced(1, [2], "three"),
            "stateful": Stateful([1, 2]),
            "holder": Point(1, 2.0, [numbers(2), {"inner": numbers(3)}]),
            "globals": [dict, len, collections.OrderedDict, torch.nn.Linear, Point],
            "module_config": torch.nn.functional.relu,
        },
        path,
    )


@fixture("torch/values_torch.pt", "torch's own values")
def values_torch(path):
    torch.save(
        {
            "dtype": [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn],
            "size": torch.Size([2, 3]),
            "empty_size": torch.Size([]),
            "device": [torch.device("cpu"), torch.device("cuda", 1)],
            "layout": torch.strided,
            "qscheme": torch.per_tensor_affine,
            "rng_state": torch.get_rng_state()[:64].clone(),
        },
        path,
    )


@fixture("torch/values_numpy.pt", "NumPy arrays and scalars", library=["torch", "numpy"])
def values_numpy(path):
    grid = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    torch.save(
        {
            "f4": grid,
            "i8": numpy.array([1, -2, 3]),
            "u1": numpy.array([[1], [255]], dtype=numpy.uint8),
            "f2": numpy.array([0.5], dtype=numpy.float16),
            "bool": numpy.array([True, False]),
            "c8": numpy.array([1 + 2j], dtype=numpy.complex64),
            "zero_d": numpy.array(2.5),
            "empty": numpy.zeros((0, 3)),
            "fortran": numpy.asfortranarray(grid),
            "big_endian": numpy.array([1, 2, 3], dtype=">i4"),
            "strided": grid[:, ::2],
            "text": numpy.array(["ab", "c"]),
            "scalars": [numpy.float64(1.5), numpy.float32(0.1), numpy.int64(-7), numpy.bool_(True)],
            "nan": numpy.float64("nan"),
            "rng": ("MT19937", numpy.arange(8, dtype=numpy.uint32), 624, 0, 0.0),
        },
        path,
    )


@fixture("torch/cyclic.pt", "containers that hold themselves")
def cyclic(path):
    ring = [1, 2]
    ring.append(ring)
    parent = {"name": "parent", "weight": numbers(2)}
    parent["child"] = {"name": "child", "parent": parent}
    node = Plain()
    node.me = node
    through_tuple = []
    through_tuple.append((through_tuple, "x"))
    torch.save({"ring": ring, "family": parent, "node": node, "through_tuple": through_tuple}, path)


@fixture("torch/shared_containers.pt", "one container under two paths: entered once")
def shared_containers(path):
    inner = {"w": numbers(2), "options": [1, 2]}
    groups = [{"params": [0, 1]}]
    torch.save({"first": inner, "second": inner, "groups": groups, "again": groups, "list": [inner]}, path)


@fixture("torch/deep.pt", "a list nested 2000 levels deep, a tensor at the bottom", values=False)
def deep(path):
    def write(depth, leaf):
        nested = leaf
        for _ in range(depth):
            nested = [nested]
        torch.save({"deep": nested, "top": numbers(1)}, path)

    in_big_stack(lambda: write(2000, numbers(2)))


def in_big_stack(function):
    import sys
    import threading

    sys.setrecursionlimit(100_000)
    threading.stack_size(512 << 20)
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@fixture("torch/plain_dict.pkl", "a plain pickle (protocol 4) without storages")
def plain_pickle(path):
    return pickled(path, {"lr": 0.1, "names": ["a", "b"], "path": pathlib.PosixPath("x/y")}, 4)


@fixture("torch/plain_p0.pkl", "a plain pickle in protocol 0")
def plain_p0(path):
    values = values_for_pickle()
    del values["slots"], values["namedtuple"]  # protocol 0 has no spelling for them
    return pickled(path, values, 0)


@fixture("torch/plain_p2.pkl", "a plain pickle in protocol 2")
def plain_p2(path):
    return pickled(path, values_for_pickle(), 2)


@fixture("torch/plain_p5.pkl", "a plain pickle in protocol 5")
def plain_p5(path):
    return pickled(path, values_for_pickle(), 5)


def values_for_pickle():
    values = {k: v for k, v in plain_values().items() if k != "tensor"}
    return values | {"enum": Color.BLUE, "point": Point(), "slots": Slots(), "namedtuple": Pair(1, 2)}


def pickled(path, obj, protocol):
    import manifest

    path.write_bytes(pickle.dumps(obj, protocol=protocol))
    return manifest.describe(pickle.loads(path.read_bytes()))


if __name__ == "__main__":
    main()
