"""hostile/: malformed `.nemo` archives. The error names the member."""

import gzip
import io
import tarfile

import torch

from fixture import main, numbers, refusal

CONFIG, WEIGHTS = "./model_config.yaml", "./model_weights.ckpt"
YAML = b"target: nemo.x.Y\ntokenizer:\n  model_path: nemo:0000_tok.model\n"


def checkpoint():
    buffer = io.BytesIO()
    torch.save({"w": numbers(2, 3)}, buffer)
    return buffer.getvalue()


def file(name, data=b"x", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def special(name, kind, link=""):
    return file(name, b"", type=kind, linkname=link)


def good():
    return [file(CONFIG, YAML), file("./0000_tok.model"), file(WEIGHTS, checkpoint())]


def packed(members, form=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


EXTRA = {
    "nemo_absolute": ("an absolute name", file("/tmp/evil.txt"), "evil.txt"),
    "nemo_parent": ("a name that leaves the folder", file("a/../../evil.txt"), "evil.txt"),
    "nemo_backslash": ("a backslash in a name", file("..\\evil.txt"), "evil.txt"),
    "nemo_drive": ("a drive letter", file("C:/evil.txt"), "evil.txt"),
    "nemo_symlink": ("a symbolic link", special("./tok.model", tarfile.SYMTYPE, "/etc/passwd"), "tok.model"),
    "nemo_symlink_inside": ("a symbolic link within", special("./tok.model", tarfile.SYMTYPE, "model_config.yaml"), "tok.model"),
    "nemo_hardlink": ("a hard link", special("./tok.model", tarfile.LNKTYPE, "model_config.yaml"), "tok.model"),
    "nemo_device": ("a character device", special("./tty", tarfile.CHRTYPE), "tty"),
    "nemo_fifo": ("a named pipe", special("./pipe", tarfile.FIFOTYPE), "pipe"),
    "nemo_duplicate": ("two configs under two spellings", file("././model_config.yaml", b"a: 1\n"), "model_config.yaml"),
    "nemo_file_as_folder": ("a file used as a folder", file("./model_weights.ckpt/x"), "model_weights.ckpt"),
}  # fmt: skip

for stem, (note, member, mention) in EXTRA.items():

    @refusal(f"hostile/{stem}.nemo", note, [mention])
    def extra(path, member=member):
        path.write_bytes(packed([*good(), member]))


@refusal("hostile/nemo_weights_folder.nemo", "the weights' name is a link to elsewhere", ["model_weights.ckpt"])
def weights_link(path):
    link = special(WEIGHTS, tarfile.SYMTYPE, "/etc/passwd")
    path.write_bytes(packed([*good()[:2], link]))


@refusal("hostile/nemo_no_config.nemo", "no config", ["model_config.yaml"])
def no_config(path):
    path.write_bytes(packed(good()[1:]))


@refusal("hostile/nemo_no_weights.nemo", "no weights of any layout", ["model_weights.ckpt"])
def no_weights(path):
    path.write_bytes(packed(good()[:2]))


@refusal("hostile/nemo_weights_text.nemo", "weights that are text", ["model_weights.ckpt"])
def weights_text(path):
    path.write_bytes(packed([*good()[:2], file(WEIGHTS, b"not a checkpoint, only text\n")]))


@refusal("hostile/nemo_rank_gap.nemo", "rank folders 0 and 2, none for 1", ["mp_rank_01"])
def rank_gap(path):
    members = [file(f"./mp_rank_0{n}/model_weights.ckpt", checkpoint()) for n in (0, 2)]
    config = file(CONFIG, b"tensor_model_parallel_size: 3\npipeline_model_parallel_size: 1\n")
    path.write_bytes(packed([config, *members]))


# --- the container ---------------------------------------------------------------


@refusal("hostile/nemo_empty.nemo", "a file without a byte")
def empty(path):
    path.write_bytes(b"")


@refusal("hostile/nemo_truncated.nemo", "ends inside the weights", ["model_weights.ckpt"])
def truncated(path):
    data = packed(good(), tarfile.USTAR_FORMAT)
    path.write_bytes(data[: data.index(b"PK\3\4") + 300])


@refusal("hostile/nemo_checksum.nemo", "a header whose checksum is wrong")
def checksum(path):
    data = bytearray(packed(good(), tarfile.USTAR_FORMAT))
    at = data.index(b"./model_weights.ckpt")
    data[at + 148 : at + 154] = b"000000"
    path.write_bytes(data)


@refusal("hostile/nemo_size_lie.nemo", "a PAX record gives a member 99 GB", ["big.txt"])
def size_lie(path):
    info, data = file("./big.txt")
    info.pax_headers = {"size": "99999999999"}
    path.write_bytes(packed([*good(), (info, data)]))


@refusal("hostile/nemo_global_path.nemo", "a global PAX header that renames what follows")
def global_path(path):
    header = tarfile.TarInfo.create_pax_global_header({"path": "model_config.yaml"})
    path.write_bytes(header + packed(good()))


@refusal("hostile/nemo_gzip_truncated.nemo", "gzip whose end is missing")
def gzip_truncated(path):
    path.write_bytes(gzip.compress(packed(good()), mtime=0)[:-60])


@refusal("hostile/nemo_gzip_crc.nemo", "gzip with a wrong checksum")
def gzip_crc(path):
    data = bytearray(gzip.compress(packed(good()), mtime=0))
    data[-8] ^= 0xFF
    path.write_bytes(data)


@refusal("hostile/nemo_gzip_twice.nemo", "gzip within gzip")
def gzip_twice(path):
    path.write_bytes(gzip.compress(gzip.compress(packed(good()), mtime=0), mtime=0))


@refusal("hostile/nemo_bzip2.nemo", "bzip2, which no loader takes", ["bzip2"])
def bzip2(path):
    import bz2

    path.write_bytes(bz2.compress(packed(good())))


# --- the config --------------------------------------------------------------------

CONFIGS = {
    "yaml_tag": ("a tag that would build a Python object", b"a: !!python/object/apply:os.system ['true']\n"),
    "yaml_duplicate": ("one key twice", b"target: a\ntarget: b\n"),
    "yaml_broken": ("not YAML", b"a: [1, 2\nb: }\n"),
    "yaml_latin1": ("not UTF-8", b"name: caf\xe9\n"),
    "yaml_list": ("a list where a mapping belongs", b"- a\n- b\n"),
    "yaml_aliases": (
        "nine aliases to the power of nine",
        b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)),
    ),
    "yaml_deep": ("200 levels", b"a: " + b"[" * 200 + b"]" * 200 + b"\n"),
    "yaml_uri_parent": ("an artifact that leaves the archive", b"tokenizer:\n  model_path: nemo:../../evil\n"),
}

for stem, (note, text) in CONFIGS.items():

    @refusal(f"hostile/nemo_{stem}.nemo", f"a config: {note}", ["model_config.yaml"])
    def config(path, text=text):
        path.write_bytes(packed([file(CONFIG, text), *good()[1:]]))


if __name__ == "__main__":
    main()
