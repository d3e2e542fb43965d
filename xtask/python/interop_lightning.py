"""What torch and Lightning make of Lightning checkpoints that were written here.

Every function raises on a difference, and gives how many loads were judged; `resume_losses` gives
what a real Trainer does next, to be compared between two files. The sources are the fixtures of
`lightning/` and `torch/`.
"""

import json
import pathlib
import pickle
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import torch

import manifest
from plain import plain

# What Lightning leaves out with `save_weights_only=True`, in every release.
TRAINING = {
    "callbacks", "optimizer_states", "lr_schedulers",
    "MixedPrecision", "MixedPrecisionPlugin", "NativeMixedPrecisionPlugin", "ApexMixedPrecisionPlugin",
    "native_amp_scaling_state", "amp_scaling_state", "current_model_state", "averaging_state",
    "checkpoint_callback_best", "checkpoint_callback_best_model_score", "checkpoint_callback_best_model_path",
    "early_stop_callback_wait", "early_stop_callback_patience",
}  # fmt: skip


def load(path, weights_only=False):
    if pathlib.Path(path).suffix == ".pkl":
        return pickle.loads(pathlib.Path(path).read_bytes())
    return torch.load(path, weights_only=weights_only, map_location="cpu")


def same(found, expected, what):
    """Compares two manifests; the message shows where they part."""
    if found == expected:
        return
    for key in expected:
        if found.get(key) == expected[key]:
            continue
        text = [json.dumps(side.get(key), indent=1, ensure_ascii=False).splitlines() for side in (found, expected)]
        differ = next((i for i, pair in enumerate(zip(*text, strict=False)) if pair[0] != pair[1]), min(map(len, text)))
        lines = [" ".join(side[max(0, differ - 3) : differ + 4]) for side in text]
        raise AssertionError(f"{what}: {key}: found {lines[0]}, expected {lines[1]}")
    raise AssertionError(f"{what}: found {sorted(found)}, expected {sorted(expected)}")


def aliases(obj):
    """The groups of paths that lead to one and the same list or dict."""
    first, groups, keep = {}, {}, []
    pending = [("", obj)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            inner = [(f"{path}.{key!r}", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            inner = [(f"{path}.{i}", item) for i, item in enumerate(value)]
        else:
            continue
        keep.append(value)
        if not isinstance(value, tuple):
            if id(value) in first:
                groups.setdefault(first[id(value)], []).append(path)
                continue
            first[id(value)] = path
        pending.extend(reversed(inner))
    return groups


def sanitized(source, result):
    """`result` loads in both ways, and holds the plain view of what `source` holds, shared where it is."""
    strict, full, expected = load(result, weights_only=True), load(result), plain(load(source))
    same(manifest.describe(strict), manifest.describe(expected), f"{result}")
    same(manifest.describe(full), manifest.describe(strict), f"{result}, loaded in full")
    if aliases(strict) != aliases(expected):
        raise AssertionError(f"{result}: found shared {aliases(strict)}, expected {aliases(expected)}")
    return 2


def slim(source, result, cast=None):
    """`result` is `source` without what training needs; its floats are cast where a dtype is named."""
    expected = load(source)
    for key in TRAINING & set(expected):
        del expected[key]
    if cast is not None:
        done = {}  # what is tied stays so
        for name, tensor in expected["state_dict"].items():
            if tensor.is_floating_point():
                place = (tensor.data_ptr(), tensor.shape, tensor.stride())
                expected["state_dict"][name] = done.setdefault(place, tensor.to(cast))
    same(manifest.describe(load(result), "state_dict"), manifest.describe(expected, "state_dict"), f"{result}")
    try:
        load(source, weights_only=True)
    except Exception:
        return 1
    load(result, weights_only=True)
    return 2


def loads_from_checkpoint(module, path, source):
    """Lightning builds the module from `path`, with its defaults, and has the weights of `source`."""
    from fixture_lightning import Base

    assert issubclass(module, Base)
    found = module.load_from_checkpoint(path, map_location="cpu").state_dict()
    same(manifest.describe(dict(found)), manifest.describe(dict(load(source)["state_dict"])), f"{path}")
    return 1


def resumable(path, module=None):
    """Writes a checkpoint in the middle of a real training, to be resumed."""
    from fixture_lightning import Plain, Varied, train

    torch.manual_seed(0)
    module = (module or Plain)()
    module.patterned = False
    train(module, path, data=Varied())


def resume_losses(ckpt, module=None, epochs=3, weights_only=None):
    """The losses of the steps that a Trainer takes after it has resumed from `ckpt`."""
    import lightning.pytorch as pl

    from fixture_lightning import Plain, Varied

    losses = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    module = (module or Plain)()
    epoch = load(ckpt)["epoch"]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epoch + epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Losses()],
    )
    trainer.fit(module, datamodule=Varied(), ckpt_path=ckpt, weights_only=weights_only)
    if not losses or any(loss != loss for loss in losses) or len(set(losses)) < 2:
        raise AssertionError(f"{ckpt}: no training to compare: {losses}")
    return losses


def modules():
    """Modules to train and resume: Adam and SGD, groups, frozen, tied and unused parameters."""
    import fixture_lightning as fixtures

    return {
        "adam": fixtures.Plain,
        "groups": fixtures.Frozen,
        "names": lambda: fixtures.Named(width=4),
        "sgd": fixtures.Momentum,
        "tied": fixtures.Tied,
        "unused": fixtures.Unused,
    }


def ways_back(interop, original, name):
    """The checkpoint after it was written in each form that keeps all of it, as one file again."""
    yield "rewritten", interop.convert(original, f"{name}-again.ckpt")
    sharded = interop.convert(original, f"{name}-sharded", "--to", "distcp", "--ranks", "3")
    yield "through ranks", interop.convert(sharded, f"{name}-ranks.ckpt")
    (sharded / "ckptkit.json").unlink()
    yield "through ranks alone", interop.convert(sharded, f"{name}-alone.ckpt")
    directory = interop.convert(original, f"{name}-directory", "--all")
    yield "through a directory", interop.convert(directory, f"{name}-directory.ckpt")
    named = interop.convert(original, f"{name}-named", "--all", "--optimizer-names")
    yield "through names", interop.convert(named, f"{name}-named.ckpt")


def resumes(interop):
    """A Trainer that resumes takes the steps that it takes from the untouched original."""
    for name, module in modules().items():
        original = interop.SCRATCH / f"{name}.ckpt"
        resumable(original, module)
        expected = resume_losses(original, module)
        for way, path in ways_back(interop, original, name):
            if resume_losses(path, module) != expected:
                interop.wrong(f"{name} {way}", "the losses differ after resuming")
            interop.judged("Lightning (Trainer.fit)")


def resumes_on_ranks(interop):
    """A Trainer on several ranks, which loads optimizers by name, takes the steps of one process."""
    import lightning_ranks

    for name in lightning_ranks.modules():
        original = interop.SCRATCH / f"{name}-one.ckpt"
        resumable(original, lambda: lightning_ranks.make(name))
        expected = resume_losses(original, lambda: lightning_ranks.make(name))
        flags = ["--to", "distcp", "--ranks", "3"]
        if name == "twin":  # shapes leave it open
            parameters = lightning_ranks.make(name).named_parameters()
            names = interop.SCRATCH / "names.txt"
            names.write_text("".join(f"{n}\n" for n, p in parameters if p.requires_grad))
            flags += ["--param-names", names]
        sharded = interop.convert(original, f"{name}-by-name", *flags)
        for ranks in (1, 2):
            found = lightning_ranks.resumed(ranks, name, sharded, 5, interop.SCRATCH)
            if found != expected:
                interop.wrong(f"{name} on {ranks} ranks", f"the losses are {found}, not {expected}")
            interop.judged("Lightning (ModelParallelStrategy)")


def resumes_from_ranks(interop):
    """What a Trainer on two ranks has saved goes on in one process, in one file."""
    import lightning_ranks

    for name in ("adam", "groups", "two"):
        original = lightning_ranks.saved(2, name, interop.SCRATCH / f"{name}-two-ranks", 2)
        expected = lightning_ranks.resumed(2, name, original, 5, interop.SCRATCH)
        path = interop.convert(original, f"{name}-two-ranks.ckpt")
        if resume_losses(path, lambda: lightning_ranks.make(name)) != expected:
            interop.wrong(f"{name} from ranks", "the losses differ after resuming")
        interop.judged("Lightning (Trainer.fit)")


def consolidates(interop):
    """Lightning puts the directory together as if nothing of ours were in it."""
    from lightning.fabric.utilities.load import _load_distributed_checkpoint

    for source in sorted((interop.FIXTURES / "lightning").glob("*.ckpt")):
        sharded = interop.convert(source, "consolidated", "--to", "distcp", "--all", "--ranks", "2")
        try:
            torch.load(sharded / "meta.pt", weights_only=True)
        except pickle.UnpicklingError:  # which is how Lightning loads it: no user of such classes can
            continue
        found = manifest.describe(_load_distributed_checkpoint(sharded))
        for ours in sharded.glob("ckptkit.*"):
            ours.unlink()
        expected = _load_distributed_checkpoint(sharded)
        original = load(source)
        try:
            same(found, manifest.describe(expected), f"{source.name} with the sidecar")
            weights = {key: value for key, value in original["state_dict"].items() if isinstance(value, torch.Tensor)}
            # Ties are what it cannot know.
            seen, wanted = (manifest.describe(side)["tensors"] for side in (expected["state_dict"], weights))
            same({"tensors": seen}, {"tensors": wanted}, source.name)
        except AssertionError as error:
            interop.wrong(source.name, error)
        interop.judged("Lightning (consolidated)")


def builds(interop):
    """The model is built from weights that have been in another format."""
    import fixture_lightning as fixtures

    source = interop.FIXTURES / "lightning" / "adam.ckpt"
    weights = interop.convert(source, "adam.safetensors")
    for path in (interop.convert(source, "adam-again.ckpt"), interop.convert(weights, "back.ckpt")):
        loads_from_checkpoint(fixtures.Plain, path, source)
        interop.judged("Lightning (load_from_checkpoint)")


def copies(interop):
    """What `lightning sanitize` and `lightning slim` write of the fixtures."""
    for source in sorted((interop.FIXTURES / "lightning").glob("*.ckpt")):
        to = interop.SCRATCH / "copy.ckpt"
        for verb, judge in (("sanitize", sanitized), ("slim", slim)):
            to.unlink(missing_ok=True)
            interop.ckptkit("lightning", verb, "--quiet", source, to)
            try:
                judge(source, to)
            except Exception as error:  # the others are judged all the same
                interop.wrong(f"{verb} {source.name}", repr(error))
            interop.judged(f"torch ({verb})")


if __name__ == "__main__":
    import logging
    import warnings

    import interop

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    copies(interop)
    consolidates(interop)
    resumes(interop)
    resumes_on_ranks(interop)
    resumes_from_ranks(interop)
    builds(interop)
    interop.finish()
