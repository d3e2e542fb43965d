"""hostile/: malformed safetensors files and directories."""

import json
import struct

from safetensors import SafetensorError, safe_open

from fixture import main, refusal

ST = ["safetensors"]


def packed(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(4,), offsets=(0, 4), dtype="U8"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refused_by_library(path):
    try:
        safe_open(path, "pt")
    except (SafetensorError, OSError):
        return
    raise SystemExit(f"safetensors reads {path.name}: it is not malformed")


DATA = bytes(range(4))
W = {"layer.weight": entry()}

FILES = {
    "st_empty": ("no byte", b"", []),
    "st_short": ("five bytes", b"\5\0\0\0\0", []),
    "st_header_huge": ("a header of 2^40 bytes", packed(W, DATA, 1 << 40), []),
    "st_header_past_end": ("a header longer than the file", packed(W, b"", 5000), []),
    "st_header_zero": ("a header of no byte", packed(b"", DATA), []),
    "st_not_json": ("a header that is not JSON", packed(b'{"layer.weight": nonsense}', DATA), []),
    "st_not_object": ("a header that is a list", packed(b"[1, 2]", DATA), []),
    "st_not_utf8": ("a header that is not UTF-8", packed(b'{"\xff": 1}', DATA), []),
    "st_nul_padding": ("a header padded with NUL", packed(json.dumps(W).encode() + b"\0\0", DATA), []),
    "st_bom": ("a byte order mark", packed(b"\xef\xbb\xbf" + json.dumps(W).encode(), DATA), []),
    "st_surrogate": ("half a surrogate pair in a name", packed(json.dumps(W).replace("layer.weight", "\\ud800").encode(), DATA), []),
    "st_truncated": ("data cut off", packed({"layer.weight": entry((8,), (0, 8))}, DATA), []),
    "st_trailing": ("bytes after the data", packed(W, DATA + b"x"), []),
    "st_overlap": ("two tensors over the same bytes", packed({"a": entry(), "b": entry((4,), (2, 6))}, DATA + b"xy"), []),
    "st_alias": ("two names for one range", packed({"a": entry(), "b": entry()}, DATA), []),
    "st_hole": ("bytes that belong to no tensor", packed({"a": entry((2,), (0, 2)), "b": entry((1,), (3, 4))}, DATA), []),
    "st_reversed": ("end before begin", packed({"layer.weight": entry((4,), (4, 0))}, DATA), ["layer.weight"]),
    "st_shape_mismatch": ("a shape of 8 bytes in 4", packed({"layer.weight": entry((8,))}, DATA), ["layer.weight"]),
    "st_overflow": ("sizes whose product overflows", packed({"layer.weight": entry((1 << 40, 1 << 40))}, DATA), ["layer.weight"]),
    "st_negative": ("a negative size", packed({"layer.weight": entry((-4,))}, DATA), []),
    "st_float_size": ("a size that is a float", packed({"layer.weight": entry((4.0,))}, DATA), []),
    "st_dtype": ("a dtype that does not exist", packed({"layer.weight": entry(dtype="F128")}, DATA), ["F128"]),
    "st_dtype_case": ("a dtype in lower case", packed({"layer.weight": entry(dtype="u8")}, DATA), ["u8"]),
    "st_half_byte": ("three elements of four bits", packed({"layer.weight": entry((3,), (0, 2), "F4")}, DATA[:2]), ["layer.weight"]),
    "st_no_dtype": ("an entry without a dtype", packed({"layer.weight": {"shape": [4], "data_offsets": [0, 4]}}, DATA), []),
    "st_metadata_number": ("metadata that is not text", packed({"__metadata__": {"n": 1}, **W}, DATA), []),
    "st_twice_metadata": ("two `__metadata__`", packed(b'{"__metadata__":{},"__metadata__":{}}'), []),
    "st_deep": ("JSON nested 200 levels deep", packed(b'{"layer.weight":' + b"[" * 200 + b"]" * 200 + b"}"), []),
}  # fmt: skip

for stem, (note, data, mentions) in FILES.items():

    @refusal(f"hostile/{stem}.safetensors", note, mentions, library=ST)
    def malformed(path, data=data):
        path.write_bytes(data)
        refused_by_library(path)


# The library reads the next one (the last of two equal names wins): we do not.
@refusal("hostile/st_duplicate_name.safetensors", "one name twice: which counts is a guess", ["layer.weight"])
def duplicate_name(path):
    text = json.dumps(entry(), separators=(",", ":"))
    path.write_bytes(packed(f'{{"layer.weight":{text},"layer.weight":{text}}}'.encode(), DATA))


# --- sharded directories ------------------------------------------------------------


def sharded(path, shards, weight_map):
    path.mkdir()
    for name, names in shards.items():
        header = {n: entry((4,), (4 * i, 4 * i + 4)) for i, n in enumerate(names)}
        (path / name).write_bytes(packed(header, DATA * len(names)))
    index = {"metadata": {"total_size": 4 * len(weight_map)}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

SHARDED = {
    "hf_missing_shard": ("a shard of the index is not there", {ONE: ["a"]}, {"a": ONE, "b": TWO}, [TWO]),
    "hf_missing_tensor": ("a shard lacks a tensor of the index", {ONE: ["a"], TWO: ["c"]}, {"a": ONE, "b": TWO}, ["b"]),
    "hf_two_claims": ("two shards hold one tensor", {ONE: ["a"], TWO: ["a", "b"]}, {"a": ONE, "b": TWO}, ["a"]),
    "hf_escape": ("the index leaves the directory", {ONE: ["a"]}, {"a": ONE, "b": "../outside.safetensors"}, ["outside"]),
    "hf_absolute": ("the index names an absolute path", {ONE: ["a"]}, {"a": ONE, "b": "/etc/passwd"}, ["passwd"]),
}  # fmt: skip

for stem, (note, shards, weight_map, mentions) in SHARDED.items():

    @refusal(f"hostile/{stem}", note, mentions, library=[])
    def broken_index(path, shards=shards, weight_map=weight_map):
        sharded(path, shards, weight_map)


@refusal("hostile/hf_index_not_json", "an index that is not JSON", ["model.safetensors.index.json"], library=[])
def index_not_json(path):
    sharded(path, {ONE: ["a"]}, {"a": ONE})
    (path / "model.safetensors.index.json").write_text('{"weight_map": ')


# --- shards of a distributed save -----------------------------------------------------


def dcp_shards(path, pieces):
    """`pieces`: rank number to (offset, rows) of `w`."""
    path.mkdir()
    for number, (offset, rows) in pieces.items():
        info = json.dumps({"layer.weight": {"saved_offsets": offset}})
        held = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": info}
        header = {"__metadata__": held, "layer.weight": entry((rows, 2), (0, 2 * rows))}
        name = f"shard-{number:05}-model-00001-of-00001.safetensors"
        (path / name).write_bytes(packed(header, bytes(2 * rows)))


PIECES = {
    "dcp_st_gap": ("a middle rank's shard is missing", {1: ([0, 0], 2), 3: ([4, 0], 2)}),
    "dcp_st_overlap": ("two shards cover the same rows", {1: ([0, 0], 3), 2: ([2, 0], 2)}),
    "dcp_st_far": ("an offset of 2^60", {1: ([0, 0], 2), 2: ([1 << 60, 0], 2)}),
    "dcp_st_rank": ("one offset for two dimensions", {1: ([0, 0], 2), 2: ([2], 2)}),
    "dcp_st_negative": ("a negative offset", {1: ([0, 0], 2), 2: ([-2, 0], 2)}),
}

for stem, (note, pieces) in PIECES.items():

    @refusal(f"hostile/{stem}", note, ["layer.weight"] if stem != "dcp_st_gap" else [], library=[])
    def broken_pieces(path, pieces=pieces):
        dcp_shards(path, pieces)


if __name__ == "__main__":
    main()
