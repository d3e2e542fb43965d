"""lightning/: `.ckpt` files of real training runs, and old spellings of their keys."""

import argparse
import collections
import datetime
import decimal
import fractions
import functools
import logging
import pathlib
import types
import uuid
import zoneinfo

import lightning.pytorch as pl
import numpy
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from omegaconf import OmegaConf

import manifest
from fixture import fill, fixture, load, main, numbers
from fixture_lightning import (Everything, Frozen as FrozenLayer, Momentum, Named, Plain, Tied, TwoOptimizers,
                               Unused, WithConfig, WithObject, train)  # fmt: skip
from fixture_types import Plain as Plain_
from fixture_types import (Access, Color, Frozen, Level, MyDict, MyList, Outer, Pair, Point, Reduced, Slots,
                           Stateful, Tagged, TiedNet, Whole, Word)  # fmt: skip

LIBRARY = ["torch", "lightning"]
OPTIONS = {"library": LIBRARY, "weights": "state_dict"}

for noisy in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(noisy).setLevel(logging.ERROR)


def trained(module, path, **options):
    """The manifest of a run, with the names of every optimizer's parameters in their order."""
    optimizers = train(module, path, **options)
    return {**manifest.describe(load(path), "state_dict"), "optimizers": optimizers}


def watchers(base):
    return [
        pl.callbacks.ModelCheckpoint(dirpath=f"{base}/best", monitor="val_loss", save_top_k=2, save_last=True),
        pl.callbacks.EarlyStopping("val_loss", patience=5),
    ]


@fixture("lightning/adam.ckpt", "AdamW, StepLR, ModelCheckpoint, EarlyStopping, data module", **OPTIONS)
def adam(path):
    return trained(Plain(), path, callbacks=watchers)


@fixture("lightning/sgd.ckpt", "SGD with momentum, ReduceLROnPlateau, an extra key", **OPTIONS)
def sgd(path):
    return trained(Momentum(name="sgd"), path)


@fixture("lightning/weights_only.ckpt", "save_weights_only: no loops, callbacks or optimizers", **OPTIONS)
def weights_only(path):
    return trained(Plain(), path, weights_only=True)


@fixture("lightning/tied.ckpt", "tied weights, no hyper-parameters", **OPTIONS)
def tied(path):
    return trained(Tied(), path)


@fixture("lightning/two_optimizers.ckpt", "manual optimization with two optimizers", **OPTIONS)
def two_optimizers(path):
    return trained(TwoOptimizers(), path)


@fixture("lightning/decay_groups.ckpt", "two groups by weight decay, a frozen layer, tied weights, buffers",
         **OPTIONS)  # fmt: skip
def decay_groups(path):
    return trained(FrozenLayer(), path)


@fixture("lightning/frozen_twin.ckpt", "a frozen layer with a weight shaped as a trained one is", **OPTIONS)
def frozen_twin(path):
    return trained(FrozenLayer(width=4), path)


@fixture("lightning/named_parameters.ckpt", "an optimizer that knows the names of its parameters", **OPTIONS)
def named_parameters(path):
    return trained(Named(width=4), path)


@fixture("lightning/unused.ckpt", "SGD with momentum, one layer without a state", **OPTIONS)
def unused(path):
    return trained(Unused(), path)


@fixture("lightning/hparams_namespace.ckpt", "hyper-parameters from an argparse.Namespace", **OPTIONS)
def hparams_namespace(path):
    config = argparse.Namespace(lr=0.1, inner=argparse.Namespace(depth=2), tags=["a", "b"])
    return trained(WithConfig(config), path)


@fixture("lightning/hparams_omegaconf.ckpt", "hyper-parameters as an OmegaConf DictConfig",
         **OPTIONS | {"library": [*LIBRARY, "omegaconf"]})  # fmt: skip
def hparams_omegaconf(path):
    config = OmegaConf.create(
        {
            "lr": 0.1,
            "layers": [1, 2, {"width": 8}],
            "name": None,
            "inner": {"missing": "???"},
            "link": "${lr}",
            "flag": True,
            "color": "RED",
        }
    )
    return trained(WithConfig(config), path)


@fixture("lightning/hparams_dataclass.ckpt", "a dataclass and an enum member as hyper-parameters", **OPTIONS)
def hparams_dataclass(path):
    return trained(WithObject(Point(2, 0.5, ["t"]), kind=Color.BLUE), path)


def refused_values():
    """What `weights_only=True` refuses, and what it accepts in between."""
    shared = argparse.Namespace(depth=3)
    ring = Plain_()
    ring.me = ring
    knot = ([],)
    knot[0].append(knot)
    parameter = torch.nn.Parameter(numbers(2, start=3))
    parameter.source = Color.BLUE
    mine = MyDict(a=1)
    mine.note = [Level.HIGH]
    table = numpy.array([(1, 2.5)], dtype=[("n", "<i4"), ("x", "<f8")])
    objects = numpy.array([[1, "two"], [None, Color.RED]], dtype=object)
    berlin = datetime.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    ahead = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
    behind = datetime.timezone(-datetime.timedelta(hours=3, seconds=30, microseconds=5))
    return {
        "accepted": {
            "none": None,
            "set": {1, 2},
            "complex": 1 - 2j,
            "bytes": b"\x00\xff",
            "dtype": torch.bfloat16,
            "size": torch.Size([2]),
            "ordered": collections.OrderedDict(b=1, a=(1, [2])),
            "counter": collections.Counter("aab"),
            "big": 2**2000,
        },
        "namespaces": [shared, types.SimpleNamespace(inner=shared), types.SimpleNamespace()],
        "again": shared,
        "dataclass": Point(2, 0.25, [pathlib.PurePosixPath("t")]),
        "frozen_slots": Frozen("n", 1e-3),
        "slots": Slots(),
        "stateful": Stateful([1, Color.RED]),
        "reduced": Reduced(1, [Level.LOW], "three"),
        "ring": ring,
        "knot": knot,
        "enums": [Color.RED, Color.BLUE, Level.HIGH, Access.READ | Access.WRITE],
        "paths": [pathlib.PosixPath("/data/x"), pathlib.PurePosixPath(), pathlib.PureWindowsPath("C:/a", "b")],
        "scalars": [numpy.float64(1.5), numpy.float32(0.1), numpy.int8(-7), numpy.uint64(2**64 - 1)],
        "more_scalars": [numpy.bool_(True), numpy.str_("text"), numpy.complex64(1 + 2j), numpy.bytes_(b"b")],
        "arrays": {
            "f4": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
            "fortran": numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
            "big_endian": numpy.array([1, 2], dtype=">u2"),
            "bool": numpy.array([True, False]),
            "empty": numpy.zeros((0, 3)),
            "zero_d": numpy.array(2.5, dtype=numpy.float16),
            "text": numpy.array([["ab", "c"], ["", "d"]]),
            "bytes": numpy.array([b"x", b"yz"]),
            "no_text": numpy.zeros((2, 0), dtype="U1"),
            "objects": objects,
            "one_object": numpy.array(None, dtype=object),
            "dates": numpy.array(["2024-01-01", "1970-01-02"], dtype="datetime64[D]"),
            "records": table,
            "dtypes": [numpy.dtype("float32"), numpy.dtype("bool"), numpy.dtype("U3"), numpy.dtype("O")],
        },
        "sets": [frozenset({1}), frozenset(), {Color.RED}, {Frozen("f", 0.5)}, {(1, Level.HIGH)}],
        "dicts": [collections.defaultdict(list, {"a": [1]}), collections.UserDict(a=1), mine, MyDict(b=2)],
        "lists": [collections.deque([1, Color.RED], maxlen=3), MyList([1, 2]), range(2, 9, 3), range(0)],
        "tuples": [Pair(1, Color.BLUE), slice(1, None, 2)],
        "inner": [Outer.Inner(), Outer.Kind.B],
        "words": [Word("plain"), Whole(7)],
        "times": [
            datetime.datetime(2024, 2, 29, 12, 30, 15, 250),
            datetime.datetime(2024, 2, 29, tzinfo=ahead),
            datetime.datetime(2024, 2, 29, tzinfo=behind),
            berlin,
            datetime.date(1999, 12, 31),
            datetime.time(1, 2, 3, tzinfo=datetime.timezone.utc),
            datetime.timedelta(days=1, seconds=2, microseconds=3),
            -datetime.timedelta(seconds=1),
            datetime.timedelta(hours=10),
        ],
        "numbers": [decimal.Decimal("1.50"), fractions.Fraction(3, 4), fractions.Fraction(2), uuid.UUID(int=10**20)],
        "long": [2**2038, 2**3000, -(10**700)],
        "nothing": [b"", bytearray(), bytearray(b"\x00")],
        "callables": [
            functools.partial(torch.nn.functional.gelu, approximate="tanh"),
            torch.nn.Linear,
            collections.OrderedDict,
            Outer.Inner,
            Outer.Kind,
            len,
            Ellipsis,
            type(None),
        ],
        "module": TiedNet(),
        "tensors": [numbers(2), parameter, torch.nn.Buffer(numbers(2, start=5), persistent=False)],
        "keys": {
            Color.RED: "taken",
            1: "one",
            Color.BLUE: "free",
            frozenset({1}): [Color.BLUE],
            (Level.HIGH, pathlib.PurePosixPath("k")): 1,
            Point: "class",
            Frozen("key", 1.0): "object",
            torch.float16: "dtype",
        },
    }  # fmt: skip


@fixture("lightning/hparams_refused.ckpt", "hyper-parameters of every kind that weights_only=True refuses",
         **OPTIONS | {"library": [*LIBRARY, "numpy"]})  # fmt: skip
def hparams_refused(path):
    values = refused_values()
    fill(values["module"].state_dict(keep_vars=True).values())
    tagged = numbers(2).as_subclass(Tagged)
    tagged.note = pathlib.PurePosixPath("a/b")
    nested = torch.nested.nested_tensor([numbers(2), numbers(1)])
    module = Everything(**values)
    module.extra = {"tagged": tagged, "bare": numbers(1).as_subclass(Tagged), "nested": nested, Point: [tagged]}
    return trained(module, path)


@fixture("lightning/mixed_precision.ckpt", "with the state of a GradScaler", **OPTIONS)
def mixed_precision(path):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    return trained(Plain(), path, plugins=[plugin])


@fixture("lightning/ema.ckpt", "weight averaging: the averaged weights and the current ones",
         **OPTIONS)  # fmt: skip
def ema(path):
    from lightning.pytorch.callbacks import EMAWeightAveraging

    return trained(Tied(), path, callbacks=lambda _: [EMAWeightAveraging(decay=0.5)])


@fixture("lightning/bf16.ckpt", "bfloat16 weights (bf16-true)", **OPTIONS)
def bf16(path):
    return trained(Plain(), path, precision="bf16-true")


# --- older releases, by their spelling of the keys ----------------------------


def weights():
    net = TiedNet()
    fill(net.state_dict(keep_vars=True).values())
    return collections.OrderedDict(net.state_dict())


def optimizer_state():
    state = {i: {"step": 4, "exp_avg": numbers(2, start=i), "exp_avg_sq": numbers(2)} for i in range(2)}
    groups = [{"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "params": [0, 1]}]
    return {"state": state, "param_groups": groups}


@fixture("lightning/keys_1_4.ckpt", "keys as Lightning 1.4 spelled them: callbacks by class, amp state",
         **OPTIONS)  # fmt: skip
def keys_1_4(path):
    import pytorch_lightning
    from pytorch_lightning.utilities.parsing import AttributeDict

    checkpoint = pytorch_lightning.callbacks.ModelCheckpoint
    torch.save(
        {
            "epoch": 1,
            "global_step": 4,
            "pytorch-lightning_version": "1.4.9",
            "state_dict": weights(),
            "callbacks": {checkpoint: {"monitor": "val_loss", "best_model_score": torch.tensor(0.5)}},
            "optimizer_states": [optimizer_state()],
            "lr_schedulers": [{"step_size": 1, "gamma": 0.5, "last_epoch": 1}],
            "native_amp_scaling_state": {"scale": 65536.0, "growth_factor": 2.0},
            "hparams_name": "hparams",
            "hyper_parameters": AttributeDict(lr=0.01, layers=[1, 2]),
        },
        path,
    )


@fixture("lightning/keys_0_7.ckpt", "keys as Lightning 0.7 spelled them, in a legacy stream", **OPTIONS)
def keys_0_7(path):
    torch.save(
        {
            "epoch": 1,
            "global_step": 4,
            "checkpoint_callback_best": 0.5,
            "early_stop_callback_wait": 0,
            "early_stop_callback_patience": 3,
            "optimizer_states": [optimizer_state()],
            "lr_schedulers": [],
            "hparams": {"lr": 0.01},
            "hparams_type": "Namespace",
            "state_dict": weights(),
        },
        path,
        _use_new_zipfile_serialization=False,
    )


@fixture("lightning/keys_1_9.ckpt", "keys as Lightning 1.9 spelled them: callbacks by string", **OPTIONS)
def keys_1_9(path):
    torch.save(
        {
            "epoch": 0,
            "global_step": 2,
            "pytorch-lightning_version": "1.9.5",
            "state_dict": weights(),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
            "callbacks": {"ModelCheckpoint{'monitor': None, 'mode': 'min'}": {"last_model_path": ""}},
            "optimizer_states": [optimizer_state()],
            "lr_schedulers": [],
            "MixedPrecisionPlugin": {"scale": 65536.0, "_growth_tracker": 4},
            "hparams_name": "kwargs",
            "hyper_parameters": {"lr": 0.01},
        },
        path,
    )


if __name__ == "__main__":
    main()
