"""Writes zip64.txt: everything but the payloads of an archive of more than 4 GiB as torch 2.15 lays
it out, sparse and without data (so without checksums). Run with the environment `torch`.

First line: ALIGNMENT ROOT. Then `member NAME SIZE`, in order; then `at OFFSET HEX` for every stretch
between payloads.
"""

import os
import zipfile

import torch

PATH = "zip64.pt"
tensors = [torch.ones(3), torch.empty(0), torch.ones(2**32 + 40, dtype=torch.uint8), torch.ones(5)]
torch.serialization.set_crc32_options(False)
with torch.serialization.skip_data():
    torch.save({"a": tensors[0], "big": tensors[2], "none": tensors[1], "b": tensors[3]}, PATH)

with zipfile.ZipFile(PATH) as archive, open(PATH, "rb") as file, open("zip64.txt", "w") as out:
    members = archive.infolist()
    root = members[0].filename.split("/")[0]
    out.write(f"64 {root}\n")
    stretches = []
    start = 0
    for member in members:
        out.write(f"member {member.filename.split('/', 1)[1]} {member.file_size}\n")
        file.seek(member.header_offset)
        local = file.read(30)
        name, extra = (int.from_bytes(local[i : i + 2], "little") for i in (26, 28))
        payload = member.header_offset + 30 + name + extra
        stretches.append((start, payload))
        start = payload + member.file_size
    stretches.append((start, os.path.getsize(PATH)))
    for start, end in stretches:
        file.seek(start)
        out.write(f"at {start} {file.read(end - start).hex()}\n")
os.unlink(PATH)
