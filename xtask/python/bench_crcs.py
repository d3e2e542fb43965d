"""Whether every member of the zip in a file, or in a plain tar, has the checksum that the archive gives it."""

import sys
import tarfile
import zipfile


def check(file, name):
    with zipfile.ZipFile(file) as archive:
        wrong = archive.testzip()
        if wrong or not archive.namelist():
            sys.exit(f"{name}: wrong checksum of {wrong}")


path = sys.argv[1]
if zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
    check(path, path)
else:
    with tarfile.open(path) as archive:
        members = [m for m in archive if m.name.endswith(".ckpt")]
        if not members:
            sys.exit(f"{path}: no weights in the archive")
        for member in members:
            check(archive.extractfile(member), member.name)
