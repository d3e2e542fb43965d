"""NeMo restores and runs what `ckptkit nemo` wrote, OmegaConf reads what it set.

Each case is a function that takes the original archive and a scratch folder.
"""

import json
import pathlib
import random
import shutil
import tarfile
import tempfile

import fixture_nemo  # first: it stands in for packages that NeMo does not need
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.core.classes import ModelPT, common
from nemo.utils import logging
from omegaconf import OmegaConf

import interop

logging.setLevel(logging.ERROR)
# NeMo restores classes of its own packages only; the one with a model inside is the fixtures'.
common.ALLOWED_TARGET_PREFIXES.append("fixture_nemo.")

TOKENIZERS = pathlib.Path(__file__).resolve().parents[2] / "crates/nemo-archive/tests/data/tokenizers"
MODELS = ["ctc_char.nemo", "ctc_bpe.nemo", "ctc_bpe_bf16.nemo", "rnnt_bpe.nemo", "hybrid_tdt.nemo", "nested.nemo"]
WITH_TOKENIZER = ["ctc_bpe.nemo", "rnnt_bpe.nemo", "hybrid_tdt.nemo", "nested.nemo"]
# Models that are no fixtures, saved by NeMo when the run begins.
MADE = {"hybrid_tdt.nemo": fixture_nemo.hybrid_tdt}


# --- restoring ------------------------------------------------------------------


def restore(path):
    """The model as NeMo restores it, its class taken from the config."""
    target = config_of(path).target
    cls = fixture_nemo.Parent if target.endswith(".Parent") else ModelPT
    model = cls.restore_from(str(path), map_location="cpu").eval()
    interop.judged("nemo (restore_from)")
    return model


def outputs(model):
    """What the model makes of one second of sound."""
    if isinstance(model, fixture_nemo.Parent):
        with torch.no_grad():
            x = torch.arange(3.0)
            return [*outputs(model.asr), model.first(x), model.second(x), model.count]
    for name, tensor in model.state_dict().items():
        # The pattern that fills the fixtures knows nothing of variances and filters.
        if name.endswith("running_var") or name.startswith("preprocessor."):
            tensor.abs_().add_(1)
    torch.manual_seed(0)
    signal = torch.sin(torch.arange(16000) / 25.0).unsqueeze(0).to(next(model.parameters()).dtype)
    length = torch.tensor([signal.shape[1]])
    with torch.no_grad():
        found = list(model(input_signal=signal, input_signal_length=length))
        if hasattr(model, "joint"):
            targets = torch.tensor([[1, 2, 3]])
            decoded = model.decoder(targets=targets, target_length=torch.tensor([3]))[0]
            found.append(model.joint(encoder_outputs=found[0], decoder_outputs=decoded))
        if hasattr(model, "ctc_decoder"):
            found.append(model.ctc_decoder(encoder_output=found[0]))
    return [t for t in found if isinstance(t, torch.Tensor)]


def restore_and_compare(original, edited):
    """Both are restored; weights and outputs must be equal. Gives the edited model."""
    first, second = restore(original), restore(edited)
    ours, theirs = second.state_dict(), first.state_dict()
    assert list(ours) == list(theirs), "names of weights"
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name
    for one, two in zip(outputs(first), outputs(second), strict=True):
        assert torch.isfinite(one).all() and torch.equal(one, two), "outputs"
    return second


def saved_again(model, scratch):
    """NeMo saves what it restored, and restores that."""
    path = scratch / "again.nemo"
    model.save_to(str(path))
    restore_and_compare(path, path)


# --- the program ------------------------------------------------------------------


def edited(verb, source, scratch, *args):
    target = scratch / f"{verb}.nemo"
    interop.ckptkit("nemo", verb, source, *args, "-o", target, "--overwrite", "--quiet")
    return target


def config_of(path):
    """The config as OmegaConf loads it."""
    with tarfile.open(path) as archive:
        return OmegaConf.load(archive.extractfile("./model_config.yaml"))


def asr_field(path):
    """The ASR model's section of the config, with a dot, or nothing where all of it is."""
    return "asr_cfg." if "asr_cfg" in config_of(path) else ""


def asr_of(model):
    return getattr(model, "asr", model)


# --- cases ------------------------------------------------------------------------


def repacked(original, scratch):
    """An edit that changes nothing."""
    at = asr_field(original)
    lr = OmegaConf.select(config_of(original), f"{at}optim.lr")
    target = edited("set", original, scratch, f"{at}optim.lr={lr}")
    saved_again(restore_and_compare(original, target), scratch)


def config_edited(original, scratch):
    """Values set, added and deleted."""
    at = asr_field(original)
    values = {"optim.lr": 1e-05, "optim.betas": [0.9, 0.98], "preprocessor.dither": 0.0, "extra.name": "n"}
    values = {at + key: value for key, value in values.items()}
    pairs = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    target = edited("set", original, scratch, *pairs)
    target = edited("del", target, scratch, f"{at}optim.name")
    model = restore_and_compare(original, target)
    for key, value in values.items():
        assert OmegaConf.select(model.cfg, key) == value, key
    assert OmegaConf.select(model.cfg, f"{at}optim.name") is None
    saved_again(model, scratch)


def unpacked_and_packed(original, scratch):
    """Through a directory, with the names that it has and with plain ones."""
    for names in ([], ["--plain-names"]):
        folder = scratch / f"folder{len(names)}"
        interop.ckptkit("nemo", "unpack", original, folder, *names, "--quiet")
        target = edited("pack", folder, scratch)
        restore_and_compare(original, target)


def compressed(original, scratch):
    """As NeMo before 1.7 wrote archives."""
    target = edited("set", original, scratch, "optim.lr=0.5", "--gzip")
    assert target.read_bytes()[:2] == b"\x1f\x8b"
    restore_and_compare(original, target)


def weights_replaced(original, scratch):
    """By way of safetensors."""
    weights = scratch / "weights.safetensors"
    interop.ckptkit("convert", original, weights, "--quiet", "--overwrite")
    target = edited("replace", original, scratch, f"weights={weights}")
    saved_again(restore_and_compare(original, target), scratch)


def artifact_replaced(original, scratch):
    """A vocabulary that NeMo only keeps."""
    words = scratch / "words.txt"
    words.write_text("other\nwords\n")
    key = f"{asr_field(original)}tokenizer.vocab_path"
    target = edited("replace", original, scratch, f"{key}={words}")
    model = restore_and_compare(original, target)
    saved_again(model, scratch)
    with tarfile.open(scratch / "again.nemo") as archive:
        name = OmegaConf.select(OmegaConf.load(archive.extractfile("./model_config.yaml")), key)
        assert archive.extractfile("./" + name.removeprefix("nemo:")).read() == words.read_bytes()


def artifact_added(original, scratch):
    """One that no class knows of, and that one removed again."""
    notes = scratch / "notes.txt"
    notes.write_text("a note\n")
    target = edited("add", original, scratch, f"extra.notes={notes}")
    restore_and_compare(original, target)
    (name,) = [m for m in tarfile.open(target).getnames() if m.endswith("_notes.txt")]
    target = edited("del", target, scratch, "extra.notes")
    target = edited("rm", target, scratch, name)
    assert not [m for m in tarfile.open(target).getnames() if m.endswith("_notes.txt")]
    restore_and_compare(original, target)


def tokenizer_swapped(original, scratch):
    """Another of the same size; a larger one does not load, and is refused."""
    folder = TOKENIZERS / "same_size"
    at = asr_field(original)
    section = ["--section", f"{at}tokenizer"] if at else []
    target = edited("tokenizer", original, scratch, folder, *section)
    whole = restore_and_compare(original, target)
    model = asr_of(whole)
    pieces = [piece["text"] for piece in json.loads((folder / "pieces.json").read_text())]
    assert list(model.tokenizer.vocab) == pieces
    for path, file in [(model.model_path, "tokenizer.model"), (model.vocab_path, "vocab.txt"),
                       (model.spe_vocab_path, "tokenizer.vocab")]:  # fmt: skip
        # The folder that NeMo unpacked into is gone; the names say what was in it.
        assert path.endswith(file), path
    config = config_of(target)
    config = OmegaConf.select(config, at.removesuffix(".")) if at else config
    copies = [config.decoder.get("vocabulary"), config.get("labels"), config.get("joint", {}).get("vocabulary"),
              config.get("aux_ctc", {}).get("decoder", {}).get("vocabulary")]  # fmt: skip
    copies = [list(copy) for copy in copies if copy]
    assert copies and all(copy == pieces for copy in copies)
    saved_again(whole, scratch)

    args = [original, TOKENIZERS / "larger", *section, "-o", scratch / "no.nemo"]
    ran = interop.ckptkit("nemo", "tokenizer", *args, refused=True)
    assert ran.returncode == 2 and "52 pieces" in ran.stderr, ran.stderr
    assert not (scratch / "no.nemo").exists()


def aggregate_swapped(original, scratch):
    """One language of an aggregate tokenizer; the other stays."""
    del original  # no fixture has two
    langs = {lang: {"dir": str(TOKENIZERS / folder), "type": "bpe"} for lang, folder in
             [("en", "same_size"), ("de", "larger")]}  # fmt: skip
    decoder = {**fixture_nemo.DECODER, "num_classes": -1, "vocabulary": []}
    config = {**fixture_nemo.BASE, "tokenizer": {"type": "agg", "langs": langs}, "decoder": decoder}
    model = fixture_nemo.finished(EncDecCTCModelBPE(OmegaConf.create(config)))
    source = scratch / "aggregate.nemo"
    model.save_to(str(source))

    # Equal sizes: German gets what it has, retrained in another place.
    folder = scratch / "other"
    folder.mkdir()
    shutil.copy(TOKENIZERS / "larger/tokenizer.model", folder)
    target = edited("tokenizer", source, scratch, folder, "--lang", "de")
    restore_and_compare(source, target)
    pieces = [[p["text"] for p in json.loads((TOKENIZERS / name / "pieces.json").read_text())]
              for name in ("same_size", "larger")]  # fmt: skip

    # A model for the sizes that follow: English and German change places.
    for lang, name in [("en", "larger"), ("de", "same_size")]:
        target = edited("tokenizer", target, scratch, TOKENIZERS / name, "--lang", lang, "--force")
        shutil.move(target, scratch / "step.nemo")
        target = scratch / "step.nemo"
    model = restore_and_compare(source, target)
    assert list(model.tokenizer.vocabulary) == pieces[1] + pieces[0]
    assert list(config_of(target).decoder.vocabulary) == pieces[1] + pieces[0]
    assert config_of(target).decoder.num_classes == len(pieces[0]) + len(pieces[1])
    saved_again(model, scratch)


def random_values_read_back(original, scratch, rounds=60):
    """OmegaConf reads exactly the values that were set, whatever stands around them."""
    source = random.Random(0)
    words = ["", " ", "n", "yes", "null", "1e-4", "0o17", "12:30", "2001-12-14", "a: b", "# c", "'", '"',
             "two\nlines", "▁été", "模型", "${a.b}", "???", "nemo.x:y", "-", "<unk>", "##s", "\t", "=", "<<",
             "\u2028", "%", "@a", "`", "[x]", "{y}", "a,b", "&a", "*a", "!t", "|", ">"]  # fmt: skip

    def value(depth):
        kind = source.randrange(7 if depth else 5)
        if kind == 0:
            return source.choice([None, True, False])
        if kind == 1:
            return source.choice([0, -1, 10**18, source.randrange(-1000, 1000)])
        if kind == 2:
            return source.choice([0.0, -0.0, 1e-05, 1e22, 0.1, source.uniform(-1, 1), float("inf")])
        if kind in (3, 4):
            return source.choice(words)
        if kind == 5:
            return [value(depth - 1) for _ in range(source.randrange(4))]
        return {f"k{i}": value(depth - 1) for i in range(source.randrange(4))}

    before = OmegaConf.to_container(config_of(original), resolve=False)
    for _ in range(rounds):
        new = value(3)
        text = json.dumps(new).replace("Infinity", ".inf")  # which is YAML
        target = edited("set", original, scratch, f"optim.new={text}")
        found = OmegaConf.to_container(config_of(target), resolve=False)
        assert repr(found["optim"].pop("new")) == repr(new), text
        assert repr(found) == repr(before), text
        interop.judged("omegaconf")


def through_other_formats(original, scratch):
    """There and back by the program; a directory keeps config and tokenizer, others keep weights."""
    directory = interop.convert(original, scratch / "directory", "--max-shard-size", "10KB")
    restore_and_compare(original, interop.convert(directory, scratch / "back.nemo"))
    for name, flags in (
        ("weights.ckpt", ()),
        ("weights.pt", ("--align", "4096")),
        ("weights.safetensors", ()),
        ("sharded", ("--to", "distcp", "--ranks", "3")),
    ):
        there = interop.convert(original, scratch / name, *flags)
        back = interop.convert(there, scratch / f"{name}.nemo", "--like", original)
        restore_and_compare(original, back)
    half = interop.convert(original, scratch / "half.nemo", "--dtype", "bf16")
    rows = json.loads(interop.ckptkit("ls", half, "--json").stdout)["tensors"]
    assert {row["dtype"] for row in rows} <= {"BF16", "I64"}, "cast"
    restore(half)


def child_taken_out(original, scratch):
    """The nested model alone: its section as the config, its weights without the prefix."""
    config = scratch / "child.yaml"
    config.write_text(interop.ckptkit("nemo", "get", original, "asr_cfg").stdout)
    flags = ["--select", "asr.**", "--strip-prefix", "asr.", "--config", config]
    child = restore(interop.convert(original, scratch / "child.nemo", *flags))
    parent = restore(original)
    assert isinstance(child, EncDecCTCModelBPE)
    assert list(child.state_dict()) == list(parent.asr.state_dict())
    for one, two in zip(outputs(child), outputs(parent.asr), strict=True):
        assert torch.isfinite(one).all() and torch.equal(one, two), "outputs"
    saved_again(child, scratch)


def tied(original, scratch):
    """What shares a storage does so again after each way there and back."""
    for name, flags in (("tied.nemo", ()), ("tied_directory", ()), ("tied.ckpt", ())):
        there = interop.convert(original, scratch / name, *flags)
        back = there
        if not name.endswith(".nemo"):
            like = ["--like", original] if name.endswith(".ckpt") else []
            back = interop.convert(there, scratch / f"{name}.nemo", *like)
        with tarfile.open(back) as archive:
            weights = torch.load(archive.extractfile("./model_weights.ckpt"), weights_only=True)
        first, second = (weights[f"{which}.weight"].untyped_storage().data_ptr() for which in ("first", "second"))
        assert first == second, name


def for_lightning(original, scratch):
    """As a Lightning checkpoint, from the archive and from a directory. The config is there as the
    argument, in plain types; NeMo's ASR models want it as OmegaConf's."""
    directory = interop.convert(original, scratch / "directory")
    first = restore(original)
    weights = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    expected = outputs(first)
    for source in (original, directory):
        path = interop.convert(source, scratch / f"{source.name}.ckpt")
        cfg = torch.load(path, weights_only=True)["hyper_parameters"]["cfg"]
        options = {"cfg": OmegaConf.create(cfg), "map_location": "cpu"}
        second = type(first).load_from_checkpoint(str(path), **options).eval()
        interop.judged("nemo (load_from_checkpoint)")
        found = second.state_dict()
        assert list(found) == list(weights)
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
        for one, two in zip(expected, outputs(second), strict=True):
            assert torch.isfinite(one).all() and torch.equal(one, two), "outputs"


CASES = [
    (through_other_formats, MODELS),
    (for_lightning, ["ctc_char.nemo"]),
    (repacked, MODELS),
    (config_edited, MODELS),
    (unpacked_and_packed, MODELS),
    (compressed, ["ctc_bpe.nemo"]),
    (weights_replaced, MODELS),
    (artifact_replaced, WITH_TOKENIZER),
    (artifact_added, WITH_TOKENIZER),
    (tokenizer_swapped, WITH_TOKENIZER),
    (aggregate_swapped, ["ctc_bpe.nemo"]),
    (child_taken_out, ["nested.nemo"]),
    (tied, ["nested.nemo"]),
    (random_values_read_back, ["ctc_bpe.nemo"]),
]


def original(name):
    """The archive by NeMo."""
    path = interop.SCRATCH / name
    if name not in MADE:
        return interop.FIXTURES / "nemo" / name
    if not path.exists():
        with fixture_nemo.Work():
            MADE[name]().save_to(str(path))
    return path


if __name__ == "__main__":
    for case, models in CASES:
        for name in models:
            with tempfile.TemporaryDirectory(dir=interop.SCRATCH) as scratch:
                try:
                    case(original(name), pathlib.Path(scratch))
                except Exception as error:  # the others are judged all the same
                    interop.wrong(f"{case.__name__} {name}", repr(error))
    interop.finish()
