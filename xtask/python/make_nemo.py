"""nemo/: archives that NeMo's `save_to` wrote, repacked and unpacked forms of them."""

import io
import json
import pathlib
import tarfile
import tempfile

import fixture_nemo  # first: it stands in for packages that NeMo does not need
import torch
import yaml
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import OmegaConf

import manifest
from fixture import copy_kept, fixture, kept, load, main, numbers
from fixture_nemo import Work
from fixture_types import OBJECTS

NEMO = {"library": ["torch", "nemo_toolkit"], "weights": ""}
CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"


# --- reading --------------------------------------------------------------------


def unpacked(path):
    """(folder, context): the archive's members, or the directory itself."""
    if path.is_dir():
        return path, None
    context = tempfile.TemporaryDirectory()
    with tarfile.open(path) as archive:
        archive.extractall(context.name, filter="data")
    return pathlib.Path(context.name), context


def described(path, tree=None):
    """Weights as torch loads them, the config as OmegaConf reads it, the artifacts' hashes."""
    folder, context = unpacked(path)
    (config,) = folder.rglob(CONFIG)
    folder = config.parent
    content = (tree or weights)(folder)
    values = OmegaConf.to_container(OmegaConf.load(config), resolve=False)
    content["config"] = manifest.Encoder([]).value(values)
    content["artifacts"] = artifacts(folder)
    del context
    return content


def weights(folder):
    return manifest.describe(load(folder / WEIGHTS), "", values=False)


def artifacts(folder):
    own = {CONFIG, WEIGHTS}
    return manifest.of_files(folder, [p for p in folder.iterdir() if p.is_file() and p.name not in own])


# --- models ---------------------------------------------------------------------


def saved(path, build, dtype=torch.float32):
    with Work():
        model = build().to(dtype)
        model.save_to(str(path))
        if type(model) is not fixture_nemo.Parent:  # NeMo restores classes of its own only
            again = type(model).restore_from(str(path), map_location="cpu").state_dict()
            assert list(again) == list(model.state_dict())
            assert all(torch.equal(again[k], v.to(again[k].dtype)) for k, v in model.state_dict().items())
    return described(path)


@fixture("nemo/ctc_char.nemo", "a CTC model over characters, no artifacts", **NEMO)
def ctc_char(path):
    return saved(path, fixture_nemo.ctc_char)


@fixture("nemo/ctc_bpe.nemo", "a CTC model with a sentencepiece tokenizer", **NEMO)
def ctc_bpe(path):
    return saved(path, fixture_nemo.ctc_bpe)


@fixture("nemo/ctc_bpe_bf16.nemo", "the same in bfloat16", **NEMO)
def ctc_bpe_bf16(path):
    return saved(path, fixture_nemo.ctc_bpe, torch.bfloat16)


@fixture("nemo/rnnt_bpe.nemo", "a transducer with a sentencepiece tokenizer", **NEMO)
def rnnt_bpe(path):
    return saved(path, fixture_nemo.rnnt_bpe)


@fixture("nemo/nested.nemo", "a parent with a nested ASR model, artifacts of both, tied weights", **NEMO)
def nested(path):
    return saved(path, fixture_nemo.nested)


@fixture("nemo/unpacked", "what NeMo leaves when packing is switched off", **NEMO)
def unpacked_directory(path):
    with Work():
        model = fixture_nemo.ctc_bpe()
        connector = SaveRestoreConnector()
        connector.pack_nemo_file = False
        path.mkdir()
        connector.save_to(model, str(path / "model.nemo"))
    return described(path)


# --- other shapes, by hand --------------------------------------------------------

SMALL = {
    "target": "nemo.collections.asr.models.ctc_models.EncDecCTCModel",
    "labels": ["a", "b", "n", "y", "'"],
    "rate": 1.0e-05,
    "tokenizer": {"model_path": "nemo:00000000000000000000000000000001_tokenizer.model"},
    "link": "${rate}",
}


def small_weights():
    return {"encoder.weight": numbers(4, 3), "encoder.bias": numbers(4, dtype=torch.bfloat16), "count": torch.tensor(5)}


def small_members(prefix="./"):
    buffer = io.BytesIO()
    torch.save(small_weights(), buffer)
    return [
        (f"{prefix}00000000000000000000000000000001_tokenizer.model", b"not a real tokenizer"),
        (f"{prefix}{CONFIG}", yaml.safe_dump(SMALL, sort_keys=False, allow_unicode=True).encode()),
        (f"{prefix}{WEIGHTS}", buffer.getvalue()),
    ]


def packed(path, members, mode="w", form=tarfile.PAX_FORMAT, directories=("./",)):
    with tarfile.open(path, mode, format=form) as archive:
        for name in directories:
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


TAR = {"library": ["torch"], "weights": ""}


@fixture("nemo/gzip.nemo", "a gzip archive, as releases before 1.7 wrote", **TAR)
def gzip(path):
    packed(path, small_members(), "w:gz")
    return described(path)


@fixture("nemo/bare_ustar.nemo", "ustar, names without `./`, the weights first", **TAR)
def bare_ustar(path):
    packed(path, small_members("")[::-1], form=tarfile.USTAR_FORMAT, directories=())
    return described(path)


@fixture("nemo/gnu.nemo", "GNU headers with a long name", **TAR)
def gnu(path):
    long = ("./" + "0" * 32 + "_" + "long" * 40 + ".model", b"long")
    packed(path, [long, *small_members()], form=tarfile.GNU_FORMAT)
    return described(path)


@fixture("nemo/pax_long_name.nemo", "PAX headers with a long name in another script", **TAR)
def pax_long_name(path):
    long = ("./" + "0" * 32 + "_" + "tökén" * 30 + ".model", b"long")
    packed(path, [long, *small_members()])
    return described(path)


@fixture("nemo/wrapped.nemo", "everything under one extra folder", **TAR)
def wrapped(path):
    packed(path, small_members("mymodel/"), directories=("mymodel/",))
    return described(path)


@fixture("nemo/plain_names.nemo", "artifacts without the hexadecimal prefix, paths not rewritten (1.0 beta)", **TAR)
def plain_names(path):
    config = {**SMALL, "tokenizer": {"model_path": "/old/train/tokenizer.model"}}
    members = small_members()[1:]
    members[0] = (members[0][0], yaml.safe_dump(config, sort_keys=False).encode())
    packed(path, [("./tokenizer.model", b"not a real tokenizer"), *members], "w:gz")
    return described(path)


@fixture("nemo/yaml_dialect.nemo", "a config with comments, anchors, flow style, CRLF", **TAR)
def yaml_dialect(path):
    text = (
        "# a comment\r\ntarget: nemo.x.Y\r\nbase: &base {lr: 1.0e-05, name: 'n'}\r\n"
        "copy: *base\r\nlabels: ['y', '''', ' ', \"\\u00e9\", ~, null, -.inf, 0x10]\r\n"
        "link: ${base.lr}\r\nenv: ${oc.env:HOME,none}\r\nmissing: ???\r\ntext: |\r\n  two\r\n  lines\r\n"
    )
    members = small_members()[1:]
    members[0] = (members[0][0], text.encode())
    packed(path, members)
    return described(path)


# --- more than one weights member -----------------------------------------------


def ranks(folder):
    """A slice from each rank folder, named `FOLDER/NAME`."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    loaded = [(name, load(folder / name / WEIGHTS)) for name in names]
    return manifest.of_tensors([(f"{n}/{k}", t) for n, tree in loaded for k, t in tree.items()], None)


def rank_archive(path, names, config):
    members = [(f"./{CONFIG}", yaml.safe_dump(config, sort_keys=False).encode())]
    for index, name in enumerate(names):
        buffer = io.BytesIO()
        torch.save({"embed.weight": numbers(3, 4, start=index), "norm.bias": numbers(4)}, buffer)
        members.append((f"./{name}/{WEIGHTS}", buffer.getvalue()))
    packed(path, members, directories=("./", *(f"./{name}/" for name in names)))
    return described(path, ranks)


@fixture("nemo/mp_rank.nemo", "tensor parallel rank folders", library=["torch"])
def mp_rank(path):
    config = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 1, "target": "x.Y"}
    return rank_archive(path, ["mp_rank_00", "mp_rank_01"], config)


@fixture("nemo/tp_pp_rank.nemo", "tensor and pipeline parallel rank folders", library=["torch"])
def tp_pp_rank(path):
    config = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "target": "x.Y"}
    names = [f"tp_rank_{t:02}_pp_rank_{p:03}" for t in range(2) for p in range(2)]
    return rank_archive(path, names, config)


# --- kept -----------------------------------------------------------------------


@fixture("nemo/connector_1_23_mp_rank.nemo", "NeMo 1.23's own tensor parallel archive, kept", library=["torch"])
def kept_mp_rank(path):
    copy_kept("nemo/connector_1_23_mp_rank.nemo", path)
    return described(path, ranks)


@fixture("nemo/connector_1_4.nemo", "written by NeMo 1.4's own connector: gzip, kept", library=["torch"], weights="")
def kept_1_4(path):
    copy_kept("nemo/connector_1_4.nemo", path)
    return described(path)


def distributed(folder):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    inner = folder / "model_weights"
    with tempfile.TemporaryDirectory() as scratch:
        dcp_to_torch_save(inner, f"{scratch}/whole.pt")
        whole = load(f"{scratch}/whole.pt")
    tree = {**whole, "common": load(inner / "common.pt")}
    return manifest.describe(tree, values=False)


@fixture("nemo/dist_checkpoint.nemo", "a Megatron distributed checkpoint inside the archive, kept", library=["torch"])
def kept_dist(path):
    copy_kept("nemo/dist_checkpoint.nemo", path)
    return described(path, distributed)


def distributed_objects(folder):
    """The same with Megatron's objects in files of their own, by their whole names."""
    inner = folder / "model_weights"
    found = distributed(folder)
    objects = {name: load(inner / pathlib.Path(name).with_suffix(".pt")) for name in OBJECTS}
    found["tensors"] += manifest.describe(objects, values=False)["tensors"]
    return found


@fixture("nemo/dist_objects.nemo", "a distributed checkpoint whose objects are members of their own", library=["torch"])
def dist_objects(path):
    source = kept("distcp/megatron_objects_0_7")
    config = {"target": "x.Y", "dist_ckpt_format": "torch_dist"}
    members = [(f"./{CONFIG}", yaml.safe_dump(config, sort_keys=False).encode())]
    for file in sorted(f for f in source.rglob("*") if f.is_file()):
        members.append((f"./model_weights/{file.relative_to(source)}", file.read_bytes()))
    packed(path, members, directories=("./", "./model_weights/"))
    return described(path, distributed_objects)


@fixture("nemo/speechlm2", "a SpeechLM2 model from save_pretrained, kept", library=["torch", "safetensors"])
def speechlm2(path):
    from safetensors.torch import load_file

    copy_kept("nemo/speechlm2", path)
    content = manifest.of_tensors(list(load_file(path / "model.safetensors").items()))
    return {**content, "config": json.loads((path / "config.json").read_text())}


if __name__ == "__main__":
    main()
