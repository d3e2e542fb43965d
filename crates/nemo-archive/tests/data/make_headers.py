"""What Python's tarfile puts before members: `make_headers.py > headers.tsv`.

A line is format, type, name (JSON), size, time, SHA-256 of the blocks before the bytes. Without a
PAX record the format is ustar, which cuts long names in two; with one it is pax.
"""

import hashlib
import io
import json
import tarfile

LONG = "n" * 98  # with `./` as long as the field is
HEX = "0f3a" * 8
EIGHT_GIB = 8 << 30

CASES = [
    ("ustar", "d", "./", 0, 0),
    ("ustar", "d", "./", 0, 1700000000),
    ("ustar", "f", "./model_config.yaml", 5, 0),
    ("ustar", "f", "./model_weights.ckpt", EIGHT_GIB - 1, EIGHT_GIB - 1),
    ("ustar", "f", f"./{HEX}_tokenizer.model", 100_000, 1700000000),
    ("ustar", "d", "./mp_rank_00/", 0, 1),
    ("ustar", "f", "./mp_rank_00/model_weights.ckpt", 512, 1),
    ("ustar", "f", f"./{LONG}", 1, 0),
    ("ustar", "f", f"./{LONG}nn", 1, 0),
    ("ustar", "f", f"./{'d' * 150}/{'n' * 100}", 1, 0),
    ("ustar", "d", f"./{'d' * 98}/{'n' * 98}/", 0, 0),
    ("pax", "f", f"./{LONG}nnn", 1, 7),
    ("pax", "f", f"./{'d' * 154}/n", 1, 7),
    ("pax", "f", f"./{HEX}_tökén.model", 1, 7),
    ("pax", "f", f"./{HEX}_{'模型' * 60}.model", 3, 7),
    ("pax", "d", "./é/", 0, 7),
    ("pax", "f", "./model_weights.ckpt", EIGHT_GIB, 7),
    ("pax", "f", "./model_weights.ckpt", 1 << 50, 7),
    ("pax", "f", f"./{LONG}nnn", EIGHT_GIB + 1, 7),
    ("ustar", "f", "./a b\tc", 1, 7),
]

for form, kind, name, size, time in CASES:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if kind == "d" else tarfile.REGTYPE
    info.mode = 0o755 if kind == "d" else 0o644
    info.size, info.mtime = size, time
    formats = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT}
    blocks = info.tobuf(formats[form], "utf-8", "surrogateescape")
    digest = hashlib.sha256(blocks).hexdigest()
    print(form, kind, json.dumps(name), size, time, digest, sep="\t")

# A whole archive, end and padding included.
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
    for name, data in [("./", None), ("./model_config.yaml", b"a: 1\n"), ("./w/", None), ("./w/x", b"x" * 600)]:
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
        info.mode, info.size, info.mtime = (0o755, 0, 9) if data is None else (0o644, len(data), 9)
        archive.addfile(info, io.BytesIO(data or b""))
digest = hashlib.sha256(buffer.getvalue()).hexdigest()
print("ustar", "whole", json.dumps("archive"), len(buffer.getvalue()), 9, digest, sep="\t")
