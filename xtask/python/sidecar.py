"""Reads a safetensors file and its `ckptkit.json` into the object that they hold.

Written after docs/formats/sidecar.md and nothing else: where this and ckptkit
differ, the document is wrong. It imports and calls what the sidecar names, as
unpickling would, so it is for files of one's own.
"""

import _compat_pickle
import base64
import importlib
import json
import math
import pathlib
import struct

import torch
from torch.storage import TypedStorage, UntypedStorage

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64, "C128": torch.complex128,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F4": torch.float4_e2m1fn_x2,
    "QINT8": torch.qint8, "QUINT8": torch.quint8, "QINT32": torch.qint32,
    "QUINT4X2": torch.quint4x2, "QUINT2X4": torch.quint2x4,
}  # fmt: skip


def read_safetensors(path):
    """Name to (dtype, shape, bytes)."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    start = 8 + length
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], data[start + begin : start + end])
    return found


def unique(pairs):
    members = dict(pairs)
    assert len(members) == len(pairs), "a member is there twice"
    return members


def resolve(spelled):
    """The class or function `module:name`."""
    module, name = spelled.split(":", 1) if isinstance(spelled, str) else spelled
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Reader:
    def __init__(self, sidecar, tensors):
        assert sidecar["format"] == "ckptkit.sidecar" and sidecar["version"] == 1
        self.made = {}
        self.places = {}
        self.storages = [self.storage(row, tensors) for row in sidecar["storages"]]
        self.nodes = {}
        self.number(sidecar["root"])
        self.number(sidecar.get("nodes", []))

    def storage(self, row, tensors):
        names = row["tensors"] if "tensors" in row else [row["tensor"]]
        untyped = row["dtype"] is None
        data, starts = bytearray(), []
        for name in names:
            dtype, _, content = tensors[name]
            assert untyped or dtype in (row["dtype"], "U8"), name
            starts.append(len(data))
            data += content
        storage = UntypedStorage(len(data))
        if data:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (len(data),))
            whole.copy_(torch.frombuffer(data, dtype=torch.uint8))
        dtype = torch.uint8 if untyped else DTYPES[row["dtype"]]
        typed = TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
        for name, start in zip(names, starts, strict=True):
            assert name not in self.places, "a tensor makes up two storages"
            self.places[name] = (typed, untyped, start, *tensors[name][:2])
        return typed

    def number(self, value):
        """Finds what has a number; a value may refer to what comes later."""
        pending = [value]
        while pending:
            value = pending.pop()
            if isinstance(value, list):
                pending.extend(value)
            elif isinstance(value, dict):
                if "$id" in value:
                    assert value["$id"] not in self.nodes
                    self.nodes[value["$id"]] = value
                pending.extend(value.values())

    def value(self, node):
        if isinstance(node, list):
            return [self.value(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self.reference(node["$ref"])
        number = node.get("$id")
        if number in self.made:
            return self.made[number]
        return self.object(node, number)

    def reference(self, number):
        if number not in self.made:
            self.value(self.nodes[number])
        return self.made[number]

    def keep(self, number, made):
        if number is not None:
            self.made[number] = made
        return made

    def object(self, node, number):
        rest = {key: value for key, value in node.items() if key != "$id"}
        form = next(iter(rest), "")
        if form == "$type":
            made = self.typed(rest, number)
        elif form in ("$call", "$new"):
            function = rest[form]
            function = resolve(function) if isinstance(function, str) else self.value(function)
            args = self.arguments(rest["args"])
            kwargs = self.value(rest.get("kwargs", {}))
            # An argument may have led back here, and made it.
            if number in self.made:
                return self.made[number]
            if form == "$call":
                made = function(*args)
            else:
                made = function.__new__(function, *args, **kwargs)
            self.keep(number, made)
        elif form in ("$tensor", "$parameter"):
            made = self.tensor(rest[form], rest.get("requires_grad", False), form == "$parameter")
            return self.keep(number, made)
        elif form == "$storage":
            return self.storages[rest["$storage"]]
        else:
            made = self.keep(number, {})
            made.update((key, self.value(value)) for key, value in rest.items())
            return made
        self.change(made, rest)
        return made

    def arguments(self, args):
        return tuple(map(self.value, args)) if isinstance(args, list) else self.value(args)

    def typed(self, node, number):
        kind, value = node["$type"], node.get("value")
        coded = base64.b64decode(node["base64"], validate=True) if "base64" in node else None
        if kind == "list":
            made = self.keep(number, [])
            made.extend(map(self.value, value))
        elif kind == "dict":
            made = self.keep(number, {})
            made.update((self.value(k), self.value(v)) for k, v in value)
        elif kind == "set":
            made = self.keep(number, set())
            made.update(map(self.value, value))
        else:
            if kind in ("tuple", "frozenset"):
                made = {"tuple": tuple, "frozenset": frozenset}[kind](map(self.value, value))
            elif kind == "int":
                made = int(value) if coded is None else int.from_bytes(coded, "little", signed=True)
            elif kind == "float":
                bits = node.get("bits")
                made = float(value) if bits is None else struct.unpack(">d", bytes.fromhex(bits))[0]
            elif kind == "str":
                made = value if coded is None else coded.decode("utf-8", "surrogatepass")
            elif kind in ("bytes", "bytearray"):
                made = {"bytes": bytes, "bytearray": bytearray}[kind](coded)
            elif kind == "global":
                made = resolve(value if value is not None else (node["module"], node["name"]))
            elif kind in ("none", "bool"):
                made = value
            else:
                raise ValueError(kind)
            if number in self.made:
                return self.made[number]
            self.keep(number, made)
        return made

    def tensor(self, name, requires_grad, parameter):
        storage, untyped, start, dtype, shape = self.places[name]
        shape = list(shape)
        torch_dtype = DTYPES[dtype]
        if dtype == "F4":
            shape[-1] //= 2
        strides = [math.prod(max(d, 1) for d in shape[i + 1 :]) for i in range(len(shape))]
        offset, left = divmod(start, torch_dtype.itemsize)
        assert left == 0
        geometry = (offset, tuple(shape), tuple(strides), requires_grad and not parameter, {})
        if untyped:
            made = torch._utils._rebuild_tensor_v3(storage, *geometry, torch_dtype)
        else:
            made = torch._utils._rebuild_tensor_v2(storage, *geometry)
        if parameter:
            made = torch._utils._rebuild_parameter(made, requires_grad, {})
        return made

    def change(self, made, node):
        if "then" in node:
            changes = [change for each in node["then"] for change in each.items()]
        else:
            known = ("append", "set", "add", "build")
            changes = [(key, node[key]) for key in known if key in node]
        for action, content in changes:
            if action == "append":
                for item in content:
                    made.append(self.value(item))
            elif action == "set":
                pairs = content.items() if isinstance(content, dict) else content
                for key, value in pairs:
                    made[self.value(key)] = self.value(value)
            elif action == "add":
                made.update(map(self.value, content))
            else:
                build(made, self.value(content))


def build(made, state):
    """What unpickling does with a state."""
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        made.__dict__.update(state)
    for key, value in (slots or {}).items():
        setattr(made, key, value)


def load(directory):
    directory = pathlib.Path(directory)
    with open(directory / "ckptkit.json", encoding="utf-8") as file:
        sidecar = json.load(file, object_pairs_hook=unique)
    reader = Reader(sidecar, read_safetensors(directory / "model.safetensors"))
    return reader.value(sidecar["root"])
