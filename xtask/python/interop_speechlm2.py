"""NeMo's SpeechLM2 loads the directories that come from its training checkpoints.

What must come is what NeMo's own export makes of the same checkpoint.
"""

import fixture_speechlm2 as tiny  # first: it stands in for packages that NeMo does not need
import torch
from nemo.collections.speechlm2.models.salm import SALM
from nemo.collections.speechlm2.parts.pretrained import init_from_training_checkpoint
from nemo.utils import logging
from safetensors.torch import load_file

import interop
from processes import run_ranks

logging.setLevel(logging.ERROR)

LORA = {"task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
# What `SALM` puts there each time that it is built.
LORA_PATTERN = r"^.+\.lora_.+$"


def runs():
    """Name → (config, ranks)."""
    asr = tiny.asr_model(interop.SCRATCH / "asr.nemo")
    llm = tiny.language_model(interop.SCRATCH / "llm", tied=False)
    tied = tiny.language_model(interop.SCRATCH / "llm_tied", tied=True)
    frozen = [r"^llm\..+$", r"^embed_tokens\..+$"]
    whole = tiny.whole_perception()
    return {
        # The encoder's config is the archive's, which the checkpoint does not hold.
        "plain": (tiny.config(llm, asr), 2),
        "lora": (tiny.config(llm, asr, lora=LORA, freeze_params=frozen), 2),
        "untrained_parents": (tiny.config(llm, asr, pretrained_weights=False, perception=whole), 2),
        # FSDP2 takes no parameter that two of its units share.
        "tied": (tiny.config(tied, asr), 1),
    }


def same_model(loaded, model, how):
    """Weights and outputs are equal."""
    interop.judged(f"nemo speechlm2 ({how})")
    kept, held = loaded.state_dict(), model.state_dict()
    assert list(kept) == list(held), "names in the model"
    for key, tensor in held.items():
        assert torch.equal(kept[key], tensor.to(kept[key].dtype)), key
    loaded = loaded.to(next(model.parameters()).dtype)
    for one, two in zip(tiny.outputs(loaded), tiny.outputs(model), strict=True):
        assert torch.isfinite(one).all() and torch.equal(one, two), "outputs"


def as_exported(folder, reference, cfg):
    """The directory has what NeMo's own has, but for the card of a few lines."""
    theirs, ours = tiny.config_of(reference), tiny.config_of(folder)
    if "lora" in cfg:
        assert theirs["prevent_freeze_params"].pop() == LORA_PATTERN
    assert ours == theirs, f"config.json: {ours} and not {theirs}"
    names = {path.name for path in reference.iterdir()} - {"README.md"}
    assert {path.name for path in folder.iterdir()} == names, "files"
    want, got = load_file(reference / "model.safetensors"), load_file(folder / "model.safetensors")
    # Of tied names NeMo writes one; a distributed checkpoint has both.
    both = {"llm.lm_head.weight", "embed_tokens.weight"} if "tied" in cfg["pretrained_llm"] else set()
    assert set(want) <= set(got) <= set(want) | both, set(got) ^ set(want)
    for key, tensor in want.items():
        assert got[key].dtype == tensor.dtype and torch.equal(got[key], tensor), key


def by_other_ways(name, checkpoint, folder, flags, model):
    """From a single file, back to one, and into a run that begins with the weights."""
    single = interop.convert(checkpoint, f"{name}.single.ckpt")
    again = interop.convert(single, f"{name}.again", *flags)
    assert tiny.config_of(again) == tiny.config_of(folder)
    same_model(SALM.from_pretrained(str(again)), model, "from_pretrained")

    back = interop.convert(folder, f"{name}.back.ckpt")
    same_model(SALM.load_from_checkpoint(str(back), map_location="cpu"), model, "load_from_checkpoint")

    shards = interop.convert(folder, f"{name}.shards", "--to", "distcp", "--ranks", "3", "--add-prefix", "state_dict.")
    fresh = SALM.from_pretrained(str(folder))
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    init_from_training_checkpoint(fresh, str(shards))
    same_model(fresh, model, "init_from_training_checkpoint")


def incomplete(checkpoint):
    """Without the archive a note says what is missing, and NeMo misses it too."""
    folder = interop.SCRATCH / "incomplete"
    said = interop.ckptkit("convert", checkpoint, folder).stdout
    assert "lacks the preprocessor and encoder" in said and "--asr" in said, said
    try:
        SALM.from_pretrained(str(folder))
    except Exception as error:
        assert "preprocessor" in str(error), error
    else:
        raise AssertionError("NeMo loads a directory that is said to be incomplete")


def main():
    wanted = runs()
    paths = {name: interop.SCRATCH / f"{name}.ckpt" for name in wanted}
    for ranks in {ranks for _, ranks in wanted.values()}:
        run_ranks(ranks, tiny.train, [(cfg, paths[n]) for n, (cfg, r) in wanted.items() if r == ranks])
    for name, (cfg, _) in wanted.items():
        asr = [] if not cfg["pretrained_weights"] else ["--asr", cfg["pretrained_asr"]]
        for dtype, flags in ((None, []), (torch.bfloat16, ["--dtype", "bf16"])):
            case = name if dtype is None else f"{name}_bf16"
            try:
                reference = interop.SCRATCH / f"{case}.reference"
                model = tiny.exported(cfg, paths[name], reference, dtype)
                folder = interop.convert(paths[name], case, *asr, *flags)
                as_exported(folder, reference, cfg)
                same_model(SALM.from_pretrained(str(folder)), model, "from_pretrained")
                if dtype is None:
                    by_other_ways(name, paths[name], folder, asr, model)
            except Exception as error:  # the others are judged all the same
                interop.wrong(case, repr(error))
    incomplete(paths["plain"])
    interop.finish()


if __name__ == "__main__":
    main()
