"""lightning/: `.ckpt` files of real training runs, and old spellings of their keys."""

import argparse
import collections
import logging

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from omegaconf import OmegaConf

from fixture import fill, fixture, main, numbers
from fixture_lightning import Momentum, Plain, Tied, TwoOptimizers, WithConfig, WithObject, train
from fixture_types import Color, Point, TiedNet

LIBRARY = ["torch", "lightning"]
OPTIONS = {"library": LIBRARY, "weights": "state_dict"}

for noisy in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(noisy).setLevel(logging.ERROR)


def watchers(base):
    return [
        pl.callbacks.ModelCheckpoint(dirpath=f"{base}/best", monitor="val_loss", save_top_k=2, save_last=True),
        pl.callbacks.EarlyStopping("val_loss", patience=5),
    ]


@fixture("lightning/adam.ckpt", "AdamW, StepLR, ModelCheckpoint, EarlyStopping, data module", **OPTIONS)
def adam(path):
    train(Plain(), path, callbacks=watchers)


@fixture("lightning/sgd.ckpt", "SGD with momentum, ReduceLROnPlateau, an extra key", **OPTIONS)
def sgd(path):
    train(Momentum(name="sgd"), path)


@fixture("lightning/weights_only.ckpt", "save_weights_only: no loops, callbacks or optimizers", **OPTIONS)
def weights_only(path):
    train(Plain(), path, weights_only=True)


@fixture("lightning/tied.ckpt", "tied weights, no hyper-parameters", **OPTIONS)
def tied(path):
    train(Tied(), path)


@fixture("lightning/two_optimizers.ckpt", "manual optimization with two optimizers", **OPTIONS)
def two_optimizers(path):
    train(TwoOptimizers(), path)


@fixture("lightning/hparams_namespace.ckpt", "hyper-parameters from an argparse.Namespace", **OPTIONS)
def hparams_namespace(path):
    config = argparse.Namespace(lr=0.1, inner=argparse.Namespace(depth=2), tags=["a", "b"])
    train(WithConfig(config), path)


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
    train(WithConfig(config), path)


@fixture("lightning/hparams_dataclass.ckpt", "a dataclass and an enum member as hyper-parameters", **OPTIONS)
def hparams_dataclass(path):
    train(WithObject(Point(2, 0.5, ["t"]), kind=Color.BLUE), path)


@fixture("lightning/mixed_precision.ckpt", "with the state of a GradScaler", **OPTIONS)
def mixed_precision(path):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    train(Plain(), path, plugins=[plugin])


@fixture("lightning/ema.ckpt", "weight averaging: the averaged weights and the current ones",
         **OPTIONS)  # fmt: skip
def ema(path):
    from lightning.pytorch.callbacks import EMAWeightAveraging

    train(Tied(), path, callbacks=lambda _: [EMAWeightAveraging(decay=0.5)])


@fixture("lightning/bf16.ckpt", "bfloat16 weights (bf16-true)", **OPTIONS)
def bf16(path):
    train(Plain(), path, precision="bf16-true")


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
