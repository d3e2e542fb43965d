"""Reads a safetensors file, or a distributed checkpoint, and its `ckptkit.json` into the object that
they hold.

Written after docs/formats/sidecar.md and nothing else: where this and ckptkit
differ, the document is wrong. It imports and calls what the sidecar names, as
unpickling would, so it is for files of one's own.
"""

import _compat_pickle
import base64
import hashlib
import importlib
import json
import math
import pathlib
import struct
import zipfile

import torch
from torch.storage import TypedStorage, UntypedStorage

import manifest

DTYPES = {name: getattr(torch, dtype) for dtype, name in manifest.DTYPES.items() if hasattr(torch, dtype)}


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
        self.begun = {}
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

    def begin(self, node, made, number=None):
        """An object that is filled later: what holds it may be met again before it is full."""
        self.begun[id(node)] = made
        return self.keep(number, made)

    def value(self, node):
        if id(node) in self.begun:
            return self.begun[id(node)]
        if isinstance(node, list):
            made = self.begin(node, [])
            made.extend(map(self.value, node))
            return made
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
            made = self.typed(node, number)
        elif form in ("$call", "$new"):
            function = rest[form]
            function = resolve(function) if isinstance(function, str) else self.value(function)
            args = self.arguments(rest["args"])
            kwargs = self.value(rest["kwargs"]) if "kwargs" in rest else {}
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
            made = self.begin(node, {}, number)
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
            made = self.begin(node, [], number)
            made.extend(map(self.value, value))
        elif kind == "dict":
            made = self.begin(node, {}, number)
            made.update((self.value(k), self.value(v)) for k, v in value)
        elif kind == "set":
            made = self.begin(node, set(), number)
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


def read_distributed(directory):
    """Name to (dtype, shape, bytes): of a distributed checkpoint's entries, of the tensors in its
    objects and in Lightning's `meta.pt`, and of the file that holds the storages beside them."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint._traverse import get_element

    import dcp_loads

    found = {}

    def add(name, tensor):
        for part, tensor in manifest.with_parts([(name, tensor)]):
            if manifest.has_bytes(tensor):
                dtype = manifest.dtype_name(tensor.dtype)
                found[part] = (dtype, manifest.shape_of(tensor), manifest.raw_bytes(tensor))

    state = dcp_loads.plain(directory)
    for name, path in FileSystemReader(directory).read_metadata().planner_data.items():
        value = get_element(state, path)
        for inner, tensor in manifest.walk({name: value}):
            add(inner, tensor)
    if (directory / "meta.pt").exists():
        for name, tensor in manifest.walk(torch.load(directory / "meta.pt", weights_only=False)):
            add(name, tensor)
    if (directory / "ckptkit.safetensors").exists():
        found |= read_safetensors(directory / "ckptkit.safetensors")
    return found


def identity(directory, name):
    """What tells whether a file is the one that the sidecar was written with."""
    if name == "meta.pt":
        with zipfile.ZipFile(directory / name) as archive:
            (member,) = (m for m in archive.namelist() if m.endswith("/data.pkl"))
            content = archive.read(member)
    else:
        content = (directory / name).read_bytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def load(directory):
    directory = pathlib.Path(directory)
    with open(directory / "ckptkit.json", encoding="utf-8") as file:
        sidecar = json.load(file, object_pairs_hook=unique)
    written_with = sidecar.get("written_with", {})
    for name, expected in written_with.items():
        assert identity(directory, name) == expected, f"{name} is another one"
    if (directory / ".metadata").exists():
        assert ".metadata" in written_with
        tensors = read_distributed(directory)
    else:
        tensors = read_safetensors(directory / "model.safetensors")
    return Reader(sidecar, tensors).value(sidecar["root"])
