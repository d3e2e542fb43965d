"""transformers loads the directories that were written, and its models give the same outputs."""

import torch
import transformers

import interop

transformers.logging.set_verbosity_error()
INPUT = torch.tensor([[1, 5, 3, 2]])


def model(path):
    found, info = transformers.AutoModelForCausalLM.from_pretrained(
        path, output_loading_info=True, dtype="auto"
    )
    # A checkpoint that lacks a tensor would load as well, with a warning and random numbers.
    problems = {kind: names for kind, names in info.items() if names}
    if problems:
        interop.wrong(str(path), f"transformers reports {problems}")
    interop.judged("transformers")
    return found.eval()


def outputs(path):
    with torch.no_grad():
        return model(path)(INPUT).logits


def same(name, path, expected):
    if not torch.equal(outputs(path), expected):
        interop.wrong(name, "the outputs differ")


def directories():
    for name in ("hf_sharded", "hf_tied"):
        source = interop.FIXTURES / "safetensors" / name
        expected = outputs(source)
        for size in ("200", "1KB", "5GB"):
            to = interop.convert(source, f"{name}-{size}", "--max-shard-size", size)
            same(f"{name} in shards of {size}", to, expected)
        # By way of every format that keeps the config.
        ckpt = interop.convert(source, f"{name}.ckpt")
        same(f"{name} by way of .ckpt", interop.convert(ckpt, f"{name}-back"), expected)
        half = interop.convert(source, f"{name}-bf16", "--dtype", "bf16")
        if model(half).dtype != torch.bfloat16:
            interop.wrong(name, "the cast weights did not load as bfloat16")


def torch_state_dict():
    """`pytorch_model.bin` as transformers took it for years, from a sharded directory."""
    source = interop.FIXTURES / "safetensors" / "hf_sharded"
    expected = outputs(source)
    state = torch.load(interop.convert(source, "pytorch_model.bin"), weights_only=True)
    config = transformers.AutoConfig.from_pretrained(source)
    fresh = transformers.AutoModelForCausalLM.from_config(config).eval()
    fresh.load_state_dict(state, strict=True)
    interop.judged("transformers")
    with torch.no_grad():
        if not torch.equal(fresh(INPUT).logits, expected):
            interop.wrong("pytorch_model.bin", "the outputs differ")


directories()
torch_state_dict()
interop.finish()
