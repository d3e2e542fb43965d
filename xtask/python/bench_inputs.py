"""What `cargo xtask bench` converts: one set of weights, written by the libraries that own each format.

    bench_inputs.py FOLDER BYTES TENSORS KIND...

Kinds that FOLDER has already are left alone. `expected.json` beside them holds the SHA-256 of every tensor as torch holds
it, in its own type and cast, for what is judged after the clock has stopped.
"""

import hashlib
import io
import json
import pathlib
import pickle
import shutil
import sys
import tarfile

import torch

from processes import run_ranks

CONFIG = b"target: nemo.collections.asr.models.ctc_models.EncDecCTCModel\noptim:\n  name: adamw\n  lr: 0.001\n"
WIDTH = 1024
LARGE = 16 << 20
RANKS = 4


def shapes(total, count):
    """One tensor of 16 MiB, and others that share what is left."""
    first = min(LARGE, total // 4)
    each = (total - first) // max(count - 1, 1)
    width = WIDTH if each >= 64 * WIDTH else 16
    yield "encoder.embed.weight", (max(first // 4 // WIDTH, 1), WIDTH)
    for i in range(count - 1):
        name = f"encoder.layers.{i // 8}.part_{i % 8}.weight"
        yield name, (max(round(each / 4 / width), 1), width)


def weights(total, count):
    """The same numbers whoever asks."""
    source = torch.Generator()
    for i, (name, shape) in enumerate(shapes(total, count)):
        yield name, torch.randn(shape, generator=source.manual_seed(i))


def sha256(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy()).hexdigest()


def expected(path, total, count):
    digests = {"F32": {}, "BF16": {}}
    for name, tensor in weights(total, count):
        digests["F32"][name] = sha256(tensor)
        digests["BF16"][name] = sha256(tensor.to(torch.bfloat16))
    path.write_text(json.dumps(digests))


def file(path, total, count):
    from safetensors.torch import save_file

    save_file(dict(weights(total, count)), path)


def sharded(path, total, count):
    from huggingface_hub import save_torch_state_dict

    path.mkdir()
    save_torch_state_dict(dict(weights(total, count)), path, max_shard_size=max(total // 4, 1))


def run(total, count):
    """A Lightning checkpoint without the states of training, which would not be converted."""
    return {"epoch": 3, "global_step": 1000, "pytorch-lightning_version": "2.6.6",
            "state_dict": dict(weights(total, count)), "hyper_parameters": {"lr": 0.001}}  # fmt: skip


def ckpt(path, total, count):
    torch.save(run(total, count), path)


def nemo(path, total, count):
    """As NeMo's save_to does: torch.save, then a plain tar of the two files."""
    weights_file = path.with_suffix(".weights")
    torch.save(dict(weights(total, count)), weights_file)
    with tarfile.open(path, "w:") as archive:
        member = tarfile.TarInfo("./model_config.yaml")
        member.size = len(CONFIG)
        archive.addfile(member, io.BytesIO(CONFIG))
        archive.add(weights_file, "./model_weights.ckpt")
    weights_file.unlink()


def distributed(rank, path, total, count, split, form):
    """The weights as DTensors; what a rank does not hold is let go before the next tensor is made."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import FileSystemWriter, HuggingFaceStorageWriter
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = {"rows": (RANKS,), "columns": (RANKS,), "mesh": (2, RANKS // 2)}[split]
    mesh = init_device_mesh("cpu", mesh, mesh_dim_names=("dp", "tp")[: len(mesh)])
    placements = {"rows": [Shard(0)], "columns": [Shard(1)], "mesh": [Shard(0), Shard(1)]}[split]
    state = {}
    for name, full in weights(total, count):
        local = distribute_tensor(full, mesh, placements, src_data_rank=None).to_local().clone()
        state[name] = DTensor.from_local(
            local, mesh, placements, run_check=False, shape=full.shape, stride=full.stride()
        )
    if form == "safetensors":
        files = dict.fromkeys(state, 1)
        writer = HuggingFaceStorageWriter(str(path), files, save_distributed=True)
        dcp.save(state, storage_writer=writer)
        return
    dcp.save({"model": state}, storage_writer=FileSystemWriter(path))
    if rank == 0:  # as Lightning's strategies for sharded models leave it
        rest = run(0, 0)
        del rest["state_dict"]
        torch.save(rest, path / "meta.pt")


def by_ranks(split, form="torch"):
    return lambda path, *size: run_ranks(RANKS, distributed, path, *size, split, form)


def many(save):
    """Ten thousand small tensors."""
    return lambda path, *_: save(path, 10_000 * 64, 10_000)


def metadata(tensors, ranks):
    """Only the index of a distributed checkpoint, of torch's own classes; its data files are holes."""

    def make(path, *_):
        from torch.distributed.checkpoint.filesystem import _StorageInfo
        from torch.distributed.checkpoint.metadata import (
            ChunkStorageMetadata,
            Metadata,
            MetadataIndex,
            TensorProperties,
            TensorStorageMetadata,
        )

        rows, width, item = 8, 4096, 8 * 4096 * 2 + 1600
        entries, places, paths = {}, {}, {}
        for t in range(tensors):
            name = f"model.layers.{t}.self_attention.linear_qkv.weight"
            chunks = [
                ChunkStorageMetadata(torch.Size((r * rows, 0)), torch.Size((rows, width))) for r in range(ranks)
            ]
            properties = TensorProperties(dtype=torch.bfloat16)
            entries[name] = TensorStorageMetadata(properties, torch.Size((ranks * rows, width)), chunks)
            paths[name] = ("model", *name.removeprefix("model.").split("."))
            for r in range(ranks):
                index = MetadataIndex(name, torch.Size((r * rows, 0)), r)
                places[index] = _StorageInfo(f"__{r}_0.distcp", t * item, item)
        path.mkdir()
        for r in range(ranks):
            with open(path / f"__{r}_0.distcp", "wb") as data:
                data.truncate(tensors * item)
        with open(path / ".metadata", "wb") as out:
            pickle.dump(Metadata(entries, paths, places), out)

    return make


KINDS = {
    "expected.json": expected,
    "model.safetensors": file,
    "sharded": sharded,
    "last.ckpt": ckpt,
    "model.nemo": nemo,
    "rows": by_ranks("rows"),
    "columns": by_ranks("columns"),
    "mesh": by_ranks("mesh"),
    "shards": by_ranks("rows", "safetensors"),
    "many.safetensors": many(file),
    "many.ckpt": many(ckpt),
    "many.nemo": many(nemo),
    "many_chunks": metadata(10_000, 1),
    "million_chunks": metadata(1000, 1000),
}


def main():
    folder, total, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for kind in sys.argv[4:]:
        path = folder / kind
        if path.exists():
            continue
        print(f"making {kind}", file=sys.stderr, flush=True)
        beside = folder / f"unfinished-{kind}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        KINDS[kind](beside / kind, total, count)
        (beside / kind).rename(path)
        beside.rmdir()


if __name__ == "__main__":
    main()
