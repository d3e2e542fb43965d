"""torch/: one file for each kind of tensor that torch.save writes."""

import collections

import torch

from fixture import fixture, main, numbers, raw
from fixture_types import Tagged

PLAIN = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
         "uint8", "complex64", "complex128"]  # fmt: skip
UNTYPED_INTS = ["uint16", "uint32", "uint64"]
FLOAT8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
RAW = ["float4_e2m1fn_x2", "bits8", "bits1x8", "bits2x4", "bits4x2", "bits16", "complex32",
       "bcomplex32"]  # fmt: skip


@fixture("torch/dtypes_v2.pt", "every dtype with a typed storage (_rebuild_tensor_v2)", weights="")
def dtypes_v2(path):
    tensors = {name: numbers(2, 3, dtype=getattr(torch, name)) for name in PLAIN}
    tensors["bool"] = torch.tensor([[True, False, True], [False, False, True]])
    tensors["scalar"] = torch.tensor(1.5)
    tensors["scalar_int"] = torch.tensor(7)
    tensors["empty"] = torch.empty(0, 3)
    tensors["special"] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    torch.save(tensors, path)


@fixture("torch/dtypes_v3.pt", "every dtype with an untyped storage (_rebuild_tensor_v3)", weights="")
def dtypes_v3(path):
    tensors = {name: numbers(2, 3).abs().mul(8).to(getattr(torch, name)) for name in UNTYPED_INTS}
    tensors["uint64_big"] = torch.tensor([2**64 - 1, 2**63], dtype=torch.uint64)
    tensors |= {name: numbers(2, 4).to(getattr(torch, name)) for name in FLOAT8}
    tensors |= {name: raw(getattr(torch, name), 2, 4) for name in RAW}
    torch.save(tensors, path)


@fixture("torch/views.pt", "strided, expanded, overlapping and offset views of one storage", weights="")
def views(path):
    base = numbers(4, 6)
    torch.save(
        {
            "base": base,
            "transposed": base.t(),
            "row": base[2],
            "column": base[:, 3],
            "window": base[1:3, 2:5],
            "overlap": base.flatten()[5:17],
            "steps": base.flatten()[1::5],
            "sliding": torch.as_strided(base, (5, 4), (2, 1), 3),
            "expanded": base[0:1].expand(3, 6),
            "scalar_expanded": torch.tensor(2.5).expand(2, 3),
            "scalar": base[3, 5],
            "empty_tail": base.flatten()[24:],
            "flattened": base.flatten(),
            "odd_strides": torch.as_strided(base, (1, 6), (99, 1), 6),
            "channels_last": numbers(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
            "permuted": numbers(2, 3, 4).permute(2, 0, 1),
        },
        path,
    )


@fixture("torch/views_bf16.pt", "views of 2-byte and 16-byte elements", weights="")
def views_bf16(path):
    half, wide = numbers(5, 4, dtype=torch.bfloat16), numbers(3, 4, dtype=torch.complex128)
    torch.save({"half": half[1:, 1:3], "half_t": half.t(), "wide": wide.t(), "wide_row": wide[1]}, path)


@fixture("torch/conj_neg.pt", "conjugate and negative bits: the stored bytes are not the value", weights="")
def conj_neg(path):
    base = numbers(2, 3, dtype=torch.complex64)
    other = numbers(2, 3, dtype=torch.complex64, start=5)  # a float view of it: its own storage
    double = numbers(2, 2, dtype=torch.complex128)
    torch.save(
        {
            "base": base,
            "conj": base.conj(),
            "conj_t": base.conj().t(),
            "neg": other.conj().imag,
            "adjoint": double.mH,
        },
        path,
    )


@fixture("torch/tied.pt", "names that share a storage, wholly and in part", weights="")
def tied(path):
    shared, other = numbers(4, 3), numbers(2, 2)
    torch.save(
        collections.OrderedDict(
            [
                ("embed.weight", shared),
                ("head.weight", shared),  # the same object
                ("alias.weight", shared.view(4, 3)),  # another object, the same view
                ("half.weight", shared[:2]),  # shares the storage, is not tied
                ("flat.weight", shared.flatten()),
                ("other", other),
                ("other_again", other.detach()),
                ("equal_but_apart", other.clone()),
            ]
        ),
        path,
    )


@fixture("torch/attributes.pt", "tensors among the attributes of others")
def attributes(path):
    parameter = torch.nn.Parameter(numbers(3))
    parameter.scale = numbers(2, start=5)
    tensor = numbers(2, 2, start=9)
    tensor.mask = numbers(4, dtype=torch.uint8)
    torch.save({"plain": numbers(2), "parameter": parameter, "tensor": tensor}, path)


@fixture("torch/parameters.pt", "Parameters, Buffers, attributes on tensors, a subclass", weights="")
def parameters(path):
    attributed = numbers(2)
    attributed.tag = "kept"
    with_state = torch.nn.Parameter(numbers(3))
    with_state.sequence_parallel = True
    torch.save(
        {
            "parameter": torch.nn.Parameter(numbers(2, 3)),
            "frozen": torch.nn.Parameter(numbers(3), requires_grad=False),
            "parameter_with_state": with_state,
            "requires_grad": numbers(2).requires_grad_(),
            "buffer": torch.nn.Buffer(numbers(4)),
            "attributed": attributed,
            "subclass": numbers(2, 2).as_subclass(Tagged),
        },
        path,
    )


@fixture("torch/quantized.pt", "quantized tensors, whole and per channel", weights="")
def quantized(path):
    whole = {
        str(dtype).removeprefix("torch."): torch.quantize_per_tensor(numbers(3, 4), 0.25, 3, dtype)
        for dtype in (torch.qint8, torch.quint8, torch.qint32)
    }
    scales, zeros = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0, 1, 2])
    channel = torch.quantize_per_channel(numbers(3, 4), scales, zeros, 0, torch.qint8)
    packed = torch.quantize_per_channel(
        numbers(3, 4), scales, zeros.float(), 0, torch.quint4x2
    )
    transposed = torch.quantize_per_tensor(numbers(3, 4), 0.25, 0, torch.qint8).t()
    torch.save({**whole, "channel": channel, "packed": packed, "transposed": transposed}, path)


@fixture("torch/sparse.pt", "sparse layouts and their parts", weights="")
def sparse(path):
    dense = torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0]] + [[0.0] * 4])
    torch.save(
        {
            "coo": dense.to_sparse(),
            "uncoalesced": torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 2)),
            "csr": dense.to_sparse_csr(),
            "csc": dense.to_sparse_csc(),
            "bsr": dense.to_sparse_bsr((2, 2)),
            "bsc": dense.to_sparse_bsc((2, 2)),
            "dense": dense,
        },
        path,
    )


@fixture("torch/nested.pt", "a nested tensor (strided layout)")
def nested(path):
    torch.save({"n": torch.nested.nested_tensor([numbers(3), numbers(5)]), "d": numbers(2)}, path)


@fixture("torch/jagged.pt", "nested tensors of jagged layout: made, of views with lengths, transposed, as parameter")
def jagged(path):
    made = torch.nested.nested_tensor([numbers(2, 3), numbers(1, 3, start=6)], layout=torch.jagged)
    starts, lengths = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 1])
    views = torch.nested.narrow(numbers(3, 5, 2), 1, starts, lengths, layout=torch.jagged)
    torch.save(
        {
            "made": made,
            "views": views,
            "transposed": made.transpose(1, 2),
            "parameter": torch.nn.Parameter(made.detach().to(torch.bfloat16)),
            "from_jagged": torch.nested.nested_tensor_from_jagged(numbers(4, 2), torch.tensor([0, 1, 4])),
        },
        path,
    )


@fixture("torch/meta.pt", "tensors without bytes (device meta)")
def meta(path):
    torch.save({"m": torch.empty(2, 3, device="meta"), "b": torch.empty(4, device="meta", dtype=torch.bfloat16)}, path)


@fixture("torch/single_tensor.pt", "a file that is one tensor", weights="")
def single_tensor(path):
    torch.save(numbers(2, 3, dtype=torch.float64), path)


@fixture("torch/single_parameter.pt", "a file that is one Parameter", weights="")
def single_parameter(path):
    torch.save(torch.nn.Parameter(numbers(2, 2)), path)


@fixture("torch/empty_dict.pt", "a dict with nothing in it")
def empty_dict(path):
    torch.save({}, path)


@fixture("torch/names.pt", "keys with dots, slashes, spaces and other scripts", weights="")
def names(path):
    keys = ["a.b", "with space", "sl/ash", "ünï", "重み", "quote\"s", "tab\t", "", "state"]
    torch.save({key: numbers(2, start=i) for i, key in enumerate(keys) if key}, path)


@fixture("torch/lists.pt", "tensors in lists, tuples and under integer keys")
def lists(path):
    torch.save(
        {
            "layers": [{"w": numbers(2, 2)}, {"w": numbers(2, 2, start=9)}],
            "pair": (numbers(1), numbers(3)),
            "by_int": {0: numbers(2), 12: {"exp_avg": numbers(2)}},
            "deep": [[[numbers(2)]]],
        },
        path,
    )


@fixture("torch/many_small.pt", "100 small tensors", weights="")
def many_small(path):
    torch.save({f"layer.{i}.bias": numbers(2, start=i) for i in range(100)}, path)


if __name__ == "__main__":
    main()
