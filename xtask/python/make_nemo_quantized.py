"""nemo/: quantized exports for TensorRT-LLM (`.qnemo`), by hand in the layout of NeMo 2's exporter.

The exporter needs a GPU and TensorRT Model Optimizer. What it leaves is a folder (`config.json`, a
safetensors file for each rank, the tokenizer and its config), or a tar of that folder inside gzip.
"""

import json
import pathlib
import tarfile
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import manifest
from fixture import fixture, main, numbers

QNEMO = {"library": ["torch", "safetensors"]}
CONFIG = "config.json"
TOKENIZER = "5f1cb16b1c0a4f4f8f0d8a9f36a0c1de_tokenizer.model"
LAYER = "transformer.layers.0"


def config(ranks):
    return {
        "producer": {"name": "modelopt", "version": "0.15.0"},
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "logits_dtype": "float16",
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": None,
        "hidden_size": 8,
        "norm_epsilon": 1e-05,
        "vocab_size": 6,
        "share_embedding_table": False,
        "rotary_scaling": {"factor": 8.0, "low_freq_factor": 1},
        "quantization": {
            "quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"],
        },
        "mapping": {"world_size": ranks, "tp_size": ranks, "pp_size": 1},
    }  # fmt: skip


def weights(rank, ranks):
    rows = 24 // ranks
    qkv = f"{LAYER}.attention.qkv"
    return {
        "transformer.vocab_embedding.weight": numbers(6 // ranks, 8, dtype=torch.bfloat16, start=rank),
        f"{qkv}.weight": numbers(rows, 8, dtype=torch.float8_e4m3fn, start=rank),
        f"{qkv}.weights_scaling_factor": numbers(1, start=50 + rank),
        f"{qkv}.activation_scaling_factor": numbers(1, start=60 + rank),
        f"{LAYER}.attention.kv_cache_scaling_factor": numbers(1, start=70),
        f"{LAYER}.mlp.fc.weight": numbers(16 // ranks, 4, dtype=torch.int8, start=rank),
        f"{LAYER}.input_layernorm.weight": numbers(8, dtype=torch.bfloat16),
        "lm_head.weight": numbers(6 // ranks, 8, dtype=torch.float16, start=rank),
    }


def written(folder, ranks):
    for rank in range(ranks):
        save_file(weights(rank, ranks), folder / f"rank{rank}.safetensors")
    (folder / CONFIG).write_text(json.dumps(config(ranks), indent=4))
    tokenizer = f"library: sentencepiece\ntype: null\nmodel: {TOKENIZER}\nvocab_file: null\n"
    (folder / "tokenizer_config.yaml").write_text(tokenizer)
    (folder / TOKENIZER).write_bytes(b"not a real tokenizer")


def described(folder, ranks):
    """Names carry their rank where there are several."""
    named = []
    for rank in range(ranks):
        prefix = f"rank{rank}/" if ranks > 1 else ""
        with safe_open(folder / f"rank{rank}.safetensors", "pt") as opened:
            named += [(prefix + name, opened.get_tensor(name)) for name in opened.offset_keys()]
    others = [p for p in folder.rglob("*") if p.is_file() and p.name != CONFIG and p.suffix != ".safetensors"]
    return {
        **manifest.of_tensors(named),
        "config": json.loads((folder / CONFIG).read_text()),
        "artifacts": manifest.of_files(folder, others),
    }


def packed(path, ranks, mode):
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        written(folder, ranks)
        with tarfile.open(path, mode) as archive:
            archive.add(folder, arcname="./")
        return described(folder, ranks)


@fixture("nemo/fp8.qnemo", "a quantized export for TensorRT-LLM: gzip, one rank", **QNEMO)
def one_rank(path):
    return packed(path, 1, "w:gz")


@fixture("nemo/fp8_tp2.qnemo", "the same for two ranks, in a plain tar", **QNEMO)
def two_ranks(path):
    return packed(path, 2, "w")


@fixture("nemo/fp8_tp2_directory", "the same for two ranks, loose, with the context of NeMo 2", **QNEMO)
def directory(path):
    path.mkdir()
    written(path, 2)
    context = path / "nemo_context"
    context.mkdir()
    (context / "model.yaml").write_text("_target_: nemo.collections.llm.gpt.model.llama.LlamaModel\n")
    return described(path, 2)


if __name__ == "__main__":
    main()
