"""The plain view of a loaded object: what `sanitize` should make of it.

Written over live Python objects, from the table in `crates/torch-save/src/sanitize.rs`, and from
nothing that reads pickles: the judge of what the Rust program writes.
"""

import argparse
import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import types
import uuid

import numpy
import torch

import manifest

SAFE_TENSORS = (torch.Tensor, torch.nn.Parameter)
ATOMS = (type(None), bool, int, float, str, complex, bytes, bytearray)
SAFE_VALUES = (torch.dtype, torch.device, torch.Size, torch.layout, torch.qscheme)
SAFE_GLOBALS = {collections.OrderedDict, collections.Counter, set, complex, bytearray, torch.Size, torch.device,
                torch.Tensor, torch.nn.Parameter}  # fmt: skip
MAX_BITS = 255 * 8 - 1


def global_name(obj):
    return manifest.qualified(obj)


def is_global(obj):
    kinds = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
    return isinstance(obj, kinds) or obj is Ellipsis or obj is NotImplemented


def words_for(key):
    """What stands for a key that has no plain form."""
    if type(key) is tuple:
        inner = ", ".join(map(words_for, key))
        return f"({inner},)" if len(key) == 1 else f"({inner})"
    if type(key) in ATOMS:
        return repr(key)
    if is_global(key) or isinstance(key, torch.dtype):
        return str(key) if isinstance(key, torch.dtype) else global_name(key)
    return f"<{global_name(type(key))}>"


class Plain:
    def __init__(self):
        self.done = {}  # id → its plain form
        self.keep = []  # so that no id is used twice
        self.open = set()  # tuples that enclose the current value

    def of(self, obj):
        if isinstance(obj, ATOMS) and type(obj) in ATOMS:
            return str(obj) if type(obj) is int and obj.bit_length() > MAX_BITS else obj
        if id(obj) in self.done:
            return self.done[id(obj)]
        self.keep.append(obj)
        made = self.made(obj)
        self.done[id(obj)] = made
        return made

    def filled(self, obj, into, fill):
        """A container is known before what it holds: it may hold itself."""
        self.done[id(obj)] = into
        fill(into)
        return into

    def list(self, obj, items=None):
        items = obj if items is None else items
        return self.filled(obj, [], lambda out: out.extend(self.of(item) for item in items))

    def dict(self, obj, pairs=None, into=None):
        pairs = list(obj.items() if pairs is None else pairs)

        def fill(out):
            keys = self.dict_keys([key for key, _ in pairs])
            for key, (_, value) in zip(keys, pairs, strict=True):
                out[key] = self.of(value)

        return self.filled(obj, {} if into is None else into, fill)

    def made(self, obj):
        kind = type(obj)
        if isinstance(obj, torch.Tensor):
            return self.tensor(obj, kind)
        if isinstance(obj, SAFE_VALUES) or isinstance(obj, (torch.storage.TypedStorage, torch.UntypedStorage)):
            return obj
        if kind is list:
            return self.list(obj)
        if kind is tuple:
            return self.tuple(obj)
        if kind is dict:
            return self.dict(obj)
        if kind is collections.OrderedDict:
            made = self.dict(obj, into=collections.OrderedDict())
            made.__dict__.update(self.dict(vars(obj)))
            return made
        if kind is collections.Counter:
            return self.dict(obj, into=collections.Counter())
        if kind in (set, frozenset):
            return self.set(obj)
        if is_global(obj):
            if obj is Ellipsis or obj is NotImplemented:
                return f"builtins.{obj}"
            return obj if obj in SAFE_GLOBALS else global_name(obj)
        return self.object(obj, kind)

    def tuple(self, obj):
        """A tuple; a list where it holds itself."""
        if id(obj) in self.open:
            return self.done.setdefault(id(obj), [])
        self.open.add(id(obj))
        items = tuple(self.of(item) for item in obj)
        self.open.remove(id(obj))
        made = self.done.get(id(obj), items)
        if made is not items:
            made.extend(items)
        return made

    def tensor(self, obj, kind):
        if obj.is_nested:
            return {"$type": "torch._utils._rebuild_nested_tensor", **dict(manifest.parts(obj))}
        if kind in SAFE_TENSORS or manifest.is_dtensor(obj):
            for key, value in vars(obj).items():
                setattr(obj, key, self.of(value))
            return obj
        plain = obj.as_subclass(torch.Tensor)
        for key, value in vars(obj).items():
            setattr(plain, key, self.of(value))
        return plain

    def set(self, obj):
        keys = [self.key(item) for item in obj]
        if any(unhashable for _, unhashable in keys) or len({key for key, _ in keys}) < len(keys):
            return self.list(obj)
        return {key for key, _ in keys}

    def dict_keys(self, keys):
        plain = [self.key(key) for key in keys]
        taken = {key for key, (new, words) in zip(keys, plain, strict=True) if words is None and new is key}
        out = []
        for key, (new, words) in zip(keys, plain, strict=True):
            if words is None and new is key:
                out.append(key)
                continue
            if words is None and new in taken:
                words = f"{global_name(type(key))}({new!r})"
            if words is not None:
                new, round = words, 1
                while new in taken:
                    round += 1
                    new = f"{words}~{round}"
            taken.add(new)
            out.append(new)
        return out

    def key(self, key):
        """The plain form of a key, and the words for it where it has none that can be hashed."""
        if isinstance(key, tuple) and type(key) is not torch.Size or isinstance(key, frozenset):
            parts = [self.key(part) for part in key]
            if any(words for _, words in parts):
                return None, words_for(key)
            plain = tuple(part for part, _ in parts)
            return (key if type(key) is tuple and all(a is b for a, b in zip(key, plain)) else plain), None
        plain = self.of(key)
        try:
            hash(plain)
        except TypeError:
            return None, words_for(key)
        return plain, None

    # --- objects -------------------------------------------------------------

    def object(self, obj, kind):
        if manifest.is_omegaconf(obj):
            return self.config(obj)
        if isinstance(obj, numpy.ndarray):
            return self.array(obj)
        if isinstance(obj, numpy.generic):
            return self.of(obj.item())
        if isinstance(obj, numpy.dtype):
            return obj.name if obj.kind in "iufcbO" else obj.str[1:]
        if isinstance(obj, enum.Enum):
            return self.of(obj.value)
        if isinstance(obj, (pathlib.PurePath, decimal.Decimal, uuid.UUID, fractions.Fraction, datetime.timedelta)):
            return str(obj)
        if isinstance(obj, (datetime.date, datetime.time)):
            return manifest.moment(obj)
        if isinstance(obj, torch.nn.Module):
            return self.module(obj)
        if isinstance(obj, functools.partial):
            fields = {"func": obj.func, "args": obj.args, "keywords": obj.keywords}
            return {"$type": "functools.partial", **{k: self.of(v) for k, v in fields.items()}}
        if kind is range:
            return list(obj)
        if kind is slice:
            return self.of((obj.start, obj.stop, obj.step))
        if isinstance(obj, (argparse.Namespace, types.SimpleNamespace)):
            return self.dict(obj, vars(obj).items())
        if isinstance(obj, (collections.defaultdict, dict)):
            if kind is not collections.defaultdict and vars(obj):
                made = self.dict(obj, into=collections.OrderedDict())
                made.__dict__.update(self.dict(vars(obj)))
                return made
            return self.dict(obj)
        if isinstance(obj, (list, collections.deque)):
            return self.list(obj)
        if isinstance(obj, tuple):
            return self.of(tuple(obj))
        for base in (int, float, str, bytes):
            if isinstance(obj, base):
                return base(obj)
        if isinstance(obj, collections.UserDict):
            return self.of(obj.data)
        return self.reduced(obj)

    def config(self, obj):
        from omegaconf import OmegaConf

        return self.of(OmegaConf.to_container(obj, resolve=False))

    def array(self, obj):
        if obj.dtype.kind in "biufc" and obj.dtype.itemsize <= 16 and obj.dtype.name != "longdouble":
            return torch.from_numpy(numpy.ascontiguousarray(obj.astype(obj.dtype.newbyteorder("="))).reshape(obj.shape))
        if obj.dtype.kind in "mM":
            return torch.from_numpy(numpy.ascontiguousarray(obj.view("i8")))
        if obj.dtype.kind in "USO":
            return self.of(obj.tolist())
        shape = tuple(obj.shape)
        return {"$type": "numpy.ndarray", "dtype": obj.dtype.str, "shape": shape, "data": obj.tobytes()}

    def module(self, obj):
        parameters = dict(obj.named_parameters(remove_duplicate=False))
        state = ((k, parameters.get(k, v)) for k, v in obj.state_dict(keep_vars=True).items())
        return collections.OrderedDict((k, self.of(v)) for k, v in state)

    def reduced(self, obj):
        """Everything else, as pickle takes it apart."""
        reduced = obj.__reduce_ex__(2)
        if isinstance(reduced, str):
            return global_name(obj)
        call, args, state, items, pairs = (*reduced, None, None, None, None)[:5]
        if call is copyreg.__newobj__:
            call, *args = args
        merged = manifest.merged_state(state)
        if not args and merged is not None and (merged or isinstance(call, type)):
            return self.dict(obj, merged.items())
        fields = {"args": self.of(tuple(args))} if args else {}
        if state is not None:
            fields["state"] = self.of(state)
        return {"$type": global_name(call), **fields}


def plain(obj):
    return Plain().of(obj)
