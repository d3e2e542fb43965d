"""torch 2.4 loads what was written: files by three ways, distributed checkpoints by two."""

import torch

import dcp_loads
import fixture_types  # noqa: F401  classes that the fixtures name
import interop
import manifest
import strict_loads

# Written whole. What this torch makes of the fixture itself is what it must make of the copy.
WHOLE = ["torch/conj_neg.pt", "torch/lists.pt", "torch/names.pt", "torch/parameters.pt", "torch/shared_containers.pt",
         "torch/sparse.pt", "torch/state_dict.pt", "torch/tied.pt", "torch/train_adam.pt", "torch/values_containers.pt",
         "torch/values_objects.pt", "torch/values_plain.pt", "torch/views.pt", "torch/views_bf16.pt",
         "lightning/adam.ckpt", "lightning/keys_1_9.ckpt", "lightning/weights_only.ckpt"]  # fmt: skip

# Their weights, as a state dict and in a Lightning file. What the manifest says must come.
WEIGHTS = ["torch/module.pt", "torch/train_sgd.pt", "lightning/bf16.ckpt", "lightning/two_optimizers.ckpt",
           "safetensors/hf_sharded", "safetensors/metadata.safetensors", "safetensors/shapes.safetensors",
           "nemo/ctc_bpe_bf16.nemo", "nemo/rnnt_bpe.nemo", "distcp/fsdp2_4", "distcp/mesh_2d",
           "distcp/tp_2"]  # fmt: skip

# Cut anew. What the manifest says must come: this torch cannot read an index that 2.15 saved.
DISTRIBUTED = ["fsdp2_2", "fsdp2_4", "lightning.ckpt", "mesh_2d", "nested", "objects", "threads", "torch_2_1",
               "torch_2_4", "tp_4"]  # fmt: skip
CUTS = {"1": ["--ranks", "1"], "3": ["--ranks", "3"], "2x2": ["--mesh", "2x2"]}

WAYS = {
    "full": {"weights_only": False},
    "mmap": {"weights_only": False, "mmap": True},
    "weights_only": {"weights_only": True},
}


def load(path, **options):
    return torch.load(str(path), map_location="cpu", **options)


def text(obj):
    """Everything that Python sees of an object."""
    return manifest.to_text(manifest.describe(obj, None, True))


def is_plain(path):
    """Whether this torch loads a file without its pickle being trusted."""
    try:
        load(path, weights_only=True)
    except Exception:  # whatever it is that it refuses with
        return False
    return True


def each_way(name, path, plain, same):
    """Loads in every way; `same` says where the object is another one, or None."""
    for way, options in WAYS.items():
        if way == "weights_only" and not plain:
            continue
        try:
            difference = same(load(path, **options))
        except Exception as error:  # whatever torch refuses with
            difference = f"{type(error).__name__} {error}"
        if difference:
            interop.wrong(f"{name} ({way})", difference)
        interop.judged(f"torch 2.4 ({way})")


def whole():
    for name in WHOLE:
        source = interop.FIXTURES / name
        expected = text(load(source, weights_only=False))
        to = interop.convert(source, f"whole{source.suffix}", "--all")
        each_way(name, to, is_plain(source), lambda o: None if text(o) == expected else "differs")


def weights():
    found = {name: (path, m) for name, path, m in interop.fixtures("torch", "lightning", "safetensors", "nemo", "distcp")}
    for name in WEIGHTS:
        source, described = found[name]
        rows = interop.weight_rows(described)
        for suffix in (".pt", ".ckpt"):

            def same(obj):
                state = obj["state_dict"] if suffix == ".ckpt" else obj
                tensors = [(key, t) for key, t in state.items() if isinstance(t, torch.Tensor)]
                got = {row["name"]: row for key, t in tensors for row in manifest.entries(key, t)}
                other = sorted(key for key in got.keys() | rows.keys() if got.get(key) != rows.get(key))
                return f"other tensors: {other}" if other else None

            key = described["weights"]["key"]
            to = interop.convert(source, f"weights{suffix}", "--weights-key", key)
            each_way(f"{name} as {suffix}", to, True, same)


def tree(described):
    """Tensors by their names, and everything else in its order."""
    tensors = {row["name"]: row for row in described["tensors"]}
    return tensors, manifest.dump(described["values"])


def distributed():
    described = {name: m for name, _, m in interop.fixtures("distcp")}
    for name in DISTRIBUTED:
        source = interop.FIXTURES / "distcp" / name
        expected = tree(described[f"distcp/{name}"])
        for cut, flags in CUTS.items():
            to = interop.convert(source, f"{name}.{cut}", "--to", "distcp", "--all", *flags)
            for way, read in (("load", dcp_loads.plain), ("dcp_to_torch_save", dcp_loads.consolidated)):
                try:
                    obj = read(to)
                    if (to / "meta.pt").exists():  # what Lightning keeps beside the tensors
                        obj |= load(to / "meta.pt", weights_only=False)
                    same = tree(manifest.describe(obj)) == expected
                    difference = None if same else "differs"
                except dcp_loads.REFUSALS as error:
                    difference = f"{type(error).__name__} {error}"
                if difference:
                    interop.wrong(f"{name}.{cut} ({way})", difference)
                interop.judged(f"torch 2.4 distributed ({way})")


if not torch.__version__.startswith("2.4."):
    raise SystemExit(f"this is torch {torch.__version__}, 2.4 is to judge")
whole()
weights()
distributed()
strict_loads.judge("torch 2.4")
interop.finish()
