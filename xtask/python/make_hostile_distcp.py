"""hostile/: broken distributed checkpoints, made from a good one of two files."""

import os
import pathlib
import pickle
import tempfile

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from fixture import main, numbers, refusal

ROWS = 4
FIRST, SECOND = "__0_0.distcp", "__1_0.distcp"


def good(path):
    """`w`, 4 x 3, in two chunks of two rows; the second one's file is renamed by hand."""
    path.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        for name, start in (("a", 0), ("b", 6)):
            writer = dcp.FileSystemWriter(name)
            dcp.save({"layer.weight": numbers(2, 3, start=start)}, storage_writer=writer, no_dist=True)
        os.chdir(before)
        first, second = pathlib.Path(folder, "a"), pathlib.Path(folder, "b")
        (path / FIRST).write_bytes((first / FIRST).read_bytes())
        (path / SECOND).write_bytes((second / FIRST).read_bytes())
        metadata = pickle.loads((first / ".metadata").read_bytes())
        other = pickle.loads((second / ".metadata").read_bytes())
    metadata.storage_meta = None
    tensor = metadata.state_dict_metadata["layer.weight"]
    tensor.size = torch.Size([ROWS, 3])
    tensor.chunks = [chunk(0), chunk(2)]
    (info,) = metadata.storage_data.values()
    (moved,) = other.storage_data.values()
    moved.relative_path = SECOND
    metadata.storage_data = {index(0): info, index(2): moved}
    return metadata


def chunk(row, rows=2):
    return ChunkStorageMetadata(torch.Size([row, 0]), torch.Size([rows, 3]))


def index(row):
    return MetadataIndex("layer.weight", torch.Size([row, 0]))


def write(path, metadata):
    (path / ".metadata").write_bytes(pickle.dumps(metadata, protocol=4))


def tensor(metadata):
    return metadata.state_dict_metadata["layer.weight"]


def info(metadata, row=2):
    return metadata.storage_data[index(row)]


def broken(name, note, *mentions):
    """Registers a change of the good checkpoint's metadata."""

    def register(change):
        @refusal(f"hostile/{name}", note, mentions)
        def make(path):
            metadata = good(path)
            change(metadata)
            write(path, metadata)

        return change

    return register


@broken("dcp_chunk_missing", "a region that no chunk covers", "layer.weight")
def chunk_missing(m):
    del tensor(m).chunks[1]
    del m.storage_data[index(2)]


@broken("dcp_chunk_no_entry", "a chunk without an entry in storage_data", "layer.weight")
def chunk_no_entry(m):
    del m.storage_data[index(2)]


@broken("dcp_chunk_overlap", "two chunks over the same rows", "layer.weight")
def chunk_overlap(m):
    tensor(m).size = torch.Size([3, 3])
    tensor(m).chunks = [chunk(0), chunk(1)]
    m.storage_data[index(1)] = m.storage_data.pop(index(2))


@broken("dcp_chunk_outside", "a chunk outside the tensor", "layer.weight")
def chunk_outside(m):
    tensor(m).size = torch.Size([3, 3])


@broken("dcp_chunk_rank", "a chunk of another number of dimensions", "layer.weight")
def chunk_rank(m):
    tensor(m).chunks[1] = ChunkStorageMetadata(torch.Size([2]), torch.Size([2]))
    m.storage_data[MetadataIndex("layer.weight", torch.Size([2]))] = m.storage_data.pop(index(2))


@broken("dcp_chunk_negative", "a chunk at a negative row", "layer.weight")
def chunk_negative(m):
    tensor(m).chunks[0] = ChunkStorageMetadata(torch.Size([-2, 0]), torch.Size([2, 3]))
    m.storage_data[MetadataIndex("layer.weight", torch.Size([-2, 0]))] = m.storage_data.pop(index(0))


@broken("dcp_item_shape", "an item larger than its chunk", "layer.weight")
def item_shape(m):
    tensor(m).size = torch.Size([3, 3])
    tensor(m).chunks[1] = chunk(2, 1)


@broken("dcp_item_dtype", "items of another dtype than the metadata says", "layer.weight")
def item_dtype(m):
    tensor(m).properties.dtype = torch.float64


@broken("dcp_size_huge", "a tensor of 2^40 rows with two small chunks", "layer.weight")
def size_huge(m):
    tensor(m).size = torch.Size([1 << 40, 3])


@broken("dcp_item_offset", "an item past the end of its file", SECOND)
def item_offset(m):
    info(m).offset = 1 << 40


@broken("dcp_item_length", "an item longer than its file", SECOND)
def item_length(m):
    info(m).length += 1000


@broken("dcp_item_short", "an item cut before its zip ends", SECOND)
def item_short(m):
    info(m).length -= 30


@broken("dcp_item_middle", "an item that begins in the middle of a zip", SECOND)
def item_middle(m):
    info(m).offset += 10
    info(m).length -= 10


@broken("dcp_item_negative", "a negative offset")
def item_negative(m):
    info(m).offset = -5


@broken("dcp_path_parent", "a data file outside the directory", "outside")
def path_parent(m):
    info(m).relative_path = "../outside.distcp"


@broken("dcp_path_absolute", "a data file by an absolute path", "passwd")
def path_absolute(m):
    info(m).relative_path = "/etc/passwd"


@broken("dcp_transform", "a transform that nobody knows", "stream.rot13")
def transform(m):
    info(m).transform_descriptors = ["stream.rot13/1"]


@broken("dcp_zstd_lie", "an item said to be compressed that is not", SECOND)
def zstd_lie(m):
    info(m).transform_descriptors = ["stream.zstd/1"]


@broken("dcp_planner_list_bomb", "a list index of 2^40 in a path", "layer.weight")
def planner_list_bomb(m):
    m.planner_data = {"layer.weight": ("list", 1 << 40)}


class Command:
    def __reduce__(self):
        return os.getenv, ("HOME",)


@broken("dcp_evil_size", "a call where a size belongs", "getenv")
def evil_size(m):
    tensor(m).size = Command()


# --- files ------------------------------------------------------------------------


@refusal("hostile/dcp_file_missing", "a rank's file is missing", [SECOND])
def file_missing(path):
    write(path, good(path))
    (path / SECOND).unlink()


@refusal("hostile/dcp_file_truncated", "a rank's file is cut in the middle", [SECOND])
def file_truncated(path):
    write(path, good(path))
    data = (path / SECOND).read_bytes()
    (path / SECOND).write_bytes(data[: len(data) // 2])


@refusal("hostile/dcp_file_text", "a rank's file is text of the right length", [SECOND])
def file_text(path):
    write(path, good(path))
    size = (path / SECOND).stat().st_size
    (path / SECOND).write_bytes((b"not an item " * size)[:size])


@refusal("hostile/dcp_unfinished", "`.metadata.tmp` only: the save did not finish", [".metadata"])
def unfinished(path):
    write(path, good(path))
    (path / ".metadata").rename(path / ".metadata.tmp")


@refusal("hostile/dcp_metadata_truncated", "metadata cut in the middle", [".metadata"])
def metadata_truncated(path):
    write(path, good(path))
    data = (path / ".metadata").read_bytes()
    (path / ".metadata").write_bytes(data[: len(data) // 2])


@refusal("hostile/dcp_metadata_text", "metadata that is text", [".metadata"])
def metadata_text(path):
    good(path)
    (path / ".metadata").write_text("state_dict_metadata: none\n")


@refusal("hostile/dcp_metadata_dict", "metadata that is a dict", [".metadata"])
def metadata_dict(path):
    good(path)
    write(path, {"state_dict_metadata": {}})


@refusal("hostile/dcp_rank_hole", "rank-local metadata of ranks 0 and 2", ["__1.metadata"])
def rank_hole(path):
    metadata = good(path)
    for rank in (0, 2):
        (path / f"__{rank}.metadata").write_bytes(pickle.dumps(metadata, protocol=4))


@refusal("hostile/dcp_bit_flip", "a flipped bit in an item's data; torch loads it", ["layer.weight"], by="verify")
def bit_flip(path):
    write(path, good(path))
    data = bytearray((path / SECOND).read_bytes())
    held = numbers(2, 3, start=6).numpy().tobytes()
    data[data.index(held)] ^= 1
    (path / SECOND).write_bytes(data)


if __name__ == "__main__":
    main()
