"""hostile/: malformed torch.save files. Opening one and reading all of it must end in an error."""

import collections
import io
import pickle
import struct
import zipfile

import torch

from fixture import main, numbers, refusal

FOLDER = "archive"


class Ref:
    """Stands for a storage: pickled as a persistent id."""

    def __init__(self, key="0", numel=6, kind=torch.FloatStorage):
        self.id = ("storage", kind, key, "cpu", numel)


class Rebuilt:
    """Stands for a tensor: pickled as a call of `_rebuild_tensor_v2`."""

    def __init__(self, offset=0, size=(2, 3), stride=(3, 1), storage=None):
        hooks = collections.OrderedDict()
        self.args = (storage or Ref(), offset, size, stride, False, hooks)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.args


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.id if isinstance(obj, Ref) else None


def pickled(tree):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(tree)
    return buffer.getvalue()


def entries(data, storages=(struct.pack("<6f", *range(6)),), version=b"3\n"):
    named = [(f"data/{i}", storage) for i, storage in enumerate(storages)]
    return [("data.pkl", data), ("byteorder", b"little"), *named, ("version", version)]


def archive(path, members, folder=FOLDER):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members:
            full = f"{folder}/{name}" if folder else name
            file.writestr(zipfile.ZipInfo(full), data)


def tensor_file(path, rebuilt, storages=(struct.pack("<6f", *range(6)),)):
    archive(path, entries(pickled({"layer.weight": rebuilt}), storages))


# --- not a checkpoint at all -----------------------------------------------------


@refusal("hostile/empty_file.pt", "a file without a byte")
def empty_file(path):
    path.write_bytes(b"")


@refusal("hostile/text_file.pt", "a text file")
def text_file(path):
    path.write_text("This is not a checkpoint.\nIt only has the name of one.\n")


@refusal("hostile/preview_1_0.pt", "the archive format of the 1.0 preview")
def preview(path):
    path.write_bytes(b"PYTORCH1" + bytes(64))


# --- the container ---------------------------------------------------------------


def good():
    buffer = io.BytesIO()
    torch.save({"layer.weight": numbers(2, 3), "b": numbers(40)}, buffer)
    return buffer.getvalue()


@refusal("hostile/zip_truncated.pt", "the first half of a zip: no directory at the end")
def zip_truncated(path):
    path.write_bytes(good()[:700])


@refusal("hostile/zip_tail_lost.pt", "the last 10 bytes are missing")
def zip_tail_lost(path):
    path.write_bytes(good()[:-10])


@refusal("hostile/zip_bad_directory.pt", "the end record points past the file")
def zip_bad_directory(path):
    data = bytearray(plain_zip())
    end = data.rindex(b"PK\5\6")
    struct.pack_into("<I", data, end + 16, 0x7FFFFFF0)
    path.write_bytes(data)


def plain_zip():
    buffer = io.BytesIO()
    archive(buffer, entries(pickled({"layer.weight": Rebuilt()})))
    return buffer.getvalue()


@refusal("hostile/zip_encrypted.pt", "the encryption bit is set", ["data.pkl"])
def zip_encrypted(path):
    data = bytearray(plain_zip())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)


@refusal("hostile/zip_size_lie.pt", "a member that claims more bytes than the file has", ["data/0"])
def zip_size_lie(path):
    data = bytearray(plain_zip())
    at = data.index(b"archive/data/0", data.index(b"PK\1\2")) - 46
    struct.pack_into("<II", data, at + 20, 1 << 30, 1 << 30)
    path.write_bytes(data)


@refusal("hostile/zip_duplicate.pt", "two members of one name: loaders disagree which counts", ["data.pkl"])
def zip_duplicate(path):
    members = entries(pickled({"layer.weight": Rebuilt()}))
    archive(path, [*members, ("data.pkl", pickled({"evil": 1}))])


@refusal("hostile/zip_case_duplicate.pt", "two names that differ by case only: torch takes the first")
def zip_case_duplicate(path):
    archive(path, [*entries(pickled({"layer.weight": Rebuilt()})), ("DATA.PKL", pickled({"evil": 1}))])


@refusal("hostile/zip_no_pickle.pt", "no data.pkl", ["data.pkl"])
def zip_no_pickle(path):
    archive(path, entries(b"")[1:])


@refusal("hostile/zip_two_roots.pt", "two folders with a data.pkl each")
def zip_two_roots(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(zipfile.ZipInfo("readme.txt"), "x")
        for folder in ("one", "two"):
            for name, data in entries(pickled({"layer.weight": Rebuilt()})):
                file.writestr(zipfile.ZipInfo(f"{folder}/{name}"), data)


@refusal("hostile/zip_version_11.pt", "version 11; torch accepts 1 to 10", ["11"])
def zip_version(path):
    archive(path, entries(pickled({"layer.weight": Rebuilt()}), version=b"11\n"))


@refusal("hostile/zip_inflates_past_size.pt", "a deflated member that holds more than it says", ["data/0"])
def zip_inflates_past_size(path):
    members = entries(pickled({"layer.weight": Rebuilt()}), [bytes(100_000)])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(f"{FOLDER}/{name}", data)
    data = bytearray(path.read_bytes())
    for name_at, size_at in ((30, 22), (46, 24)):
        at = data.index(b"archive/data/0", 0 if name_at == 30 else data.index(b"PK\1\2")) - name_at
        struct.pack_into("<I", data, at + size_at, 24)
    path.write_bytes(data)


@refusal("hostile/zip_bad_crc.pt", "one bit of a storage has flipped", ["data/0"], by="verify")
def zip_bad_crc(path):
    data = bytearray(plain_zip())
    data[data.index(struct.pack("<6f", *range(6))) + 5] ^= 1
    path.write_bytes(data)


@refusal("hostile/byteorder_unknown.pt", "a byte order that does not exist", ["middle"])
def byteorder_unknown(path):
    members = dict(entries(pickled({"layer.weight": Rebuilt()})))
    members["byteorder"] = b"middle"
    archive(path, members.items())


# --- storages --------------------------------------------------------------------


@refusal("hostile/storage_missing.pt", "the pickle names a storage that is not there", ["layer.weight"])
def storage_missing(path):
    tensor_file(path, Rebuilt(storage=Ref("1")))


@refusal("hostile/storage_short.pt", "a storage with fewer bytes than the pickle says")
def storage_short(path):
    tensor_file(path, Rebuilt(), [bytes(20)])


@refusal("hostile/storage_path_key.pt", "a storage key that is a path")
def storage_path_key(path):
    tensor_file(path, Rebuilt(storage=Ref("../data.pkl")))


@refusal("hostile/storage_huge.pt", "2^40 elements promised, 24 bytes there")
def storage_huge(path):
    tensor_file(path, Rebuilt(storage=Ref(numel=1 << 40)))


# --- geometry --------------------------------------------------------------------

for name, note, options in (
    ("offset_outside", "a view that begins behind its storage", {"offset": 7}),
    ("offset_negative", "a view that begins before its storage", {"offset": -1}),
    ("stride_negative", "a negative stride", {"stride": (-3, 1)}),
    ("view_outside", "a view whose last element is behind its storage", {"size": (3, 3)}),
    ("stride_outside", "strides that leave the storage", {"stride": (30, 1)}),
    ("rank_mismatch", "more sizes than strides", {"stride": (3,)}),
    ("size_negative", "a negative size", {"size": (-2, 3)}),
    ("size_overflow", "a product of sizes past 64 bits", {"size": (1 << 40, 1 << 40)}),
    ("size_not_int", "a size that is a string", {"size": ("2", 3)}),
):

    @refusal(f"hostile/{name}.pt", note, ["layer.weight"])
    def geometry(path, options=options):
        tensor_file(path, Rebuilt(**options))


# --- the pickle ------------------------------------------------------------------

for name, note, data in (
    ("pickle_truncated", "ends in the middle of a string", b"\x80\x02X\x10\x00\x00\x00short"),
    ("pickle_no_stop", "has no end", b"\x80\x02}q\x00"),
    ("pickle_underflow", "takes from an empty stack", b"\x80\x02\x86."),
    ("pickle_no_mark", "closes what was not opened", b"\x80\x02t."),
    ("pickle_memo", "asks for what was never stored", b"\x80\x02h\x05."),
    ("pickle_sparse_memo", "stores at index 2^31 and asks for another", b"\x80\x02]r\xff\xff\xff\x7fj\xfe\xff\xff\x7f."),
    ("pickle_opcode", "an opcode that does not exist", b"\x80\x02\xff."),
    ("pickle_extension", "an extension code", b"\x80\x02\x82\x01."),
    ("pickle_huge_length", "a string of 2^31 - 1 bytes", b"\x80\x02X\xff\xff\xff\x7fabc."),
    ("pickle_negative_long", "a number of negative length", b"\x80\x02\x8b\xff\xff\xff\xff."),
    ("pickle_empty", "no byte", b""),
    ("pickle_bad_utf8", "a string that is not UTF-8", b"\x80\x02X\x02\x00\x00\x00\xff\xfe."),
):

    @refusal(f"hostile/{name}.pt", f"a pickle: {note}", ["data.pkl"])
    def broken_pickle(path, data=data):
        archive(path, entries(data))


# --- the legacy stream --------------------------------------------------------------


def legacy():
    buffer = io.BytesIO()
    torch.save({"layer.weight": numbers(2, 3)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@refusal("hostile/legacy_truncated.pt", "a legacy stream that ends inside a storage")
def legacy_truncated(path):
    path.write_bytes(legacy()[:-5])


@refusal("hostile/legacy_no_storages.pt", "a legacy stream that ends before its storages")
def legacy_no_storages(path):
    path.write_bytes(legacy()[: -(6 * 4 + 8)])


@refusal("hostile/legacy_numel_lie.pt", "a legacy stream whose storage claims 2^60 elements")
def legacy_numel_lie(path):
    data = bytearray(legacy())
    struct.pack_into("<q", data, len(data) - 32, 1 << 60)
    path.write_bytes(data)


@refusal("hostile/lightning_truncated.ckpt", "a Lightning file whose download stopped")
def lightning_truncated(path):
    buffer = io.BytesIO()
    torch.save({"epoch": 1, "state_dict": {"layer.weight": numbers(100)}, "pytorch-lightning_version": "2.6.6"}, buffer)
    path.write_bytes(buffer.getvalue()[:1200])


if __name__ == "__main__":
    main()
