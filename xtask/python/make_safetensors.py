"""safetensors/: single files, Hugging Face directories, shards of a distributed save."""

import json
import struct

import safetensors.torch
import torch
from safetensors import safe_open

import manifest
from fixture import fill, fixture, main, numbers, raw
from fixture_types import TiedNet
from processes import run_ranks

OPTIONS = {"library": ["torch", "safetensors"]}
INTS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2",
          "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"]  # fmt: skip


def read(path):
    """(name, tensor) in the file's own order, which safetensors itself forgets."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        order = [name for name in json.loads(file.read(size)) if name != "__metadata__"]
    with safe_open(path, "pt") as opened:
        return [(name, opened.get_tensor(name)) for name in order]


def metadata(path):
    with safe_open(path, "pt") as opened:
        return opened.metadata()


def described(path, weights="", ties=()):
    content = manifest.of_tensors(read(path), weights, ties)
    held = dict(sorted((metadata(path) or {}).items()))  # the library writes it in any order
    return content | {"values": {"__metadata__": held} if held else None}


def saved(path, tensors, metadata=None):
    safetensors.torch.save_file(tensors, path, metadata)
    return described(path)


@fixture("safetensors/dtypes.safetensors", "every dtype that torch can put in", **OPTIONS)
def dtypes(path):
    tensors = {name: numbers(2, 3).abs().mul(8).to(getattr(torch, name)) for name in INTS}
    tensors |= {name: numbers(2, 4).to(getattr(torch, name)) for name in FLOATS}
    tensors["float4"] = raw(torch.float4_e2m1fn_x2, 3, 4)
    tensors["bool"] = torch.tensor([True, False, True])
    return saved(path, tensors)


@fixture("safetensors/shapes.safetensors", "scalars, empty tensors, many dimensions", **OPTIONS)
def shapes(path):
    tensors = {
        "scalar": torch.tensor(2.5),
        "scalar_int": torch.tensor(-3),
        "empty": torch.empty(0),
        "empty_rows": torch.empty(0, 4),
        "empty_columns": torch.empty(3, 0, 2, dtype=torch.int64),
        "odd": numbers(3, dtype=torch.uint8),
        "deep": numbers(1, 2, 1, 2, 1, 2),
    }
    return saved(path, tensors)


@fixture("safetensors/metadata.safetensors", "metadata with quotes and other scripts", **OPTIONS)
def with_metadata(path):
    held = {"format": "pt", "quote\"d": "line\nbreak", "重み": "ünï", "json": json.dumps({"a": [1]})}
    return saved(path, {"w": numbers(2, 2)}, held)


@fixture("safetensors/empty.safetensors", "no tensor at all", **OPTIONS)
def empty(path):
    return saved(path, {})


@fixture("safetensors/names.safetensors", "names with dots, slashes, quotes and other scripts", **OPTIONS)
def names(path):
    keys = ["a.b", "with space", "sl/ash", "..", "ünï", "重み", "quote\"s", "tab\t", "nul\0", ""]
    return saved(path, {key: numbers(2, start=i) for i, key in enumerate(keys)})


@fixture("safetensors/aliases.safetensors", "save_model: the dropped name is recorded in the metadata", **OPTIONS)
def aliases(path):
    net = TiedNet()
    fill(net.state_dict(keep_vars=True).values())
    safetensors.torch.save_model(net, path)
    return described(path)


# --- headers that other writers produce ---------------------------------------


def crafted(path, header, data):
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return described(path)


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@fixture("safetensors/unaligned.safetensors", "a header of odd length, tensors off their own size", **OPTIONS)
def unaligned(path):
    header = {"byte": entry("U8", [3], 0, 3), "float": entry("F32", [2], 3, 11)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (1 - len(text) % 2)
    return crafted(path, text, b"\1\2\3" + struct.pack("<2f", 0.5, -2.0))


@fixture("safetensors/reordered.safetensors", "header order is not data order; spaces and escapes", **OPTIONS)
def reordered(path):
    header = {
        "z": entry("I16", [2], 8, 12),
        "a": entry("F64", [1], 0, 8),
        "ünï": entry("U8", [], 12, 13),
        "nothing": entry("F32", [0], 13, 13),
        "__metadata__": {"late": "yes"},
    }
    text = b"  " + json.dumps(header, indent=1, ensure_ascii=True).encode() + b"\n\t "
    return crafted(path, text, struct.pack("<dhhB", 1.5, -1, 2, 7))


@fixture("safetensors/sub_byte.safetensors", "F4 and F6, which torch cannot read as such", **OPTIONS)
def sub_byte(path):
    header = {"f4": entry("F4", [2, 4], 0, 4), "f6a": entry("F6_E2M3", [4], 4, 7),
              "f6b": entry("F6_E3M2", [2, 4], 7, 13)}  # fmt: skip
    data = bytes(range(40, 53))
    path.write_bytes(pack(header) + data)
    safe_open(path, "pt").keys()  # the library accepts the header
    tensors = [
        {"name": name, "dtype": e["dtype"], "shape": e["shape"], "sha256": digest(data, e)}
        for name, e in header.items()
    ]
    listed = {"key": "", "names": list(header)}
    return {"tensors": tensors, "weights": listed, "ties": [], "values": None}


def pack(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def digest(data, entry):
    import hashlib

    begin, end = entry["data_offsets"]
    return hashlib.sha256(data[begin:end]).hexdigest()


# --- directories --------------------------------------------------------------


def described_shards(path, index, ties=()):
    """In the order of the index."""
    mapping = json.loads((path / index).read_text())["weight_map"]
    tensors = {}
    for shard in sorted(set(mapping.values())):
        tensors |= dict(read(path / shard))
    return manifest.of_tensors([(name, tensors[name]) for name in mapping], "", ties)


def tiny_llama(**options):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16, **options,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    fill(model.state_dict(keep_vars=True).values())
    return model


HF = {"library": ["torch", "safetensors", "transformers"]}


@fixture("safetensors/hf_sharded", "transformers save_pretrained in shards of 1 KB", **HF)
def hf_sharded(path):
    tiny_llama(dtype="float32").save_pretrained(path, max_shard_size="1KB")
    return described_shards(path, "model.safetensors.index.json")


@fixture("safetensors/hf_tied", "transformers save_pretrained, tied embeddings left out, bfloat16", **HF)
def hf_tied(path):
    tiny_llama(tie_word_embeddings=True).to(torch.bfloat16).save_pretrained(path)
    return described(path / "model.safetensors")


@fixture("safetensors/hf_variant", "the same with variant=\"fp16\": names with the variant inside", **HF)
def hf_variant(path):
    tiny_llama().half().save_pretrained(path, max_shard_size="2KB", variant="fp16")
    (index,) = path.glob("*.index*.json")
    return described_shards(path, index.name)


# --- shards of a distributed save ----------------------------------------------

FULL = {
    "rows": (numbers(5, 4), 0),
    "columns": (numbers(4, 6, dtype=torch.bfloat16), 1),
    "replicated": (numbers(3), None),
    "scalar": (torch.tensor(1.5), None),
    "ints": (numbers(4, 2, dtype=torch.int64), 0),
    "thin": (numbers(1, 3), 0),  # the second rank has nothing of it
}


def save_hf(rank, path, consolidated=False):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    state = {
        name: distribute_tensor(full, mesh, [Replicate() if dim is None else Shard(dim)])
        for name, (full, dim) in FULL.items()
        if not consolidated or (full.is_floating_point() and full.dim())
    }
    writer = HuggingFaceStorageWriter(
        str(path), save_distributed=True, enable_consolidation=consolidated
    )
    dcp.save(state, storage_writer=writer)


@fixture("safetensors/dcp_shards", "HuggingFaceStorageWriter on two ranks, rows and columns split unevenly", **OPTIONS)
def dcp_shards(path):
    run_ranks(2, save_hf, path)
    return manifest.of_tensors([(name, full) for name, (full, _) in FULL.items()])


@fixture("safetensors/dcp_consolidated", "the same with consolidation: shards in `sharded/` and whole tensors beside", **OPTIONS)
def dcp_consolidated(path):
    run_ranks(2, save_hf, path, True)
    return described_shards(path, "model.safetensors.index.json")


if __name__ == "__main__":
    main()
