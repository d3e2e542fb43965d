"""Stands in for the CUDA libraries that a wheel of torch links to and a run on a CPU never calls.

    python stub_libraries.py PREFIX

An old torch from the package index comes for CUDA, whose libraries weigh more than torch does (2 GB of
4.5). The dynamic loader wants every library and every symbol to be there: so each library that is
missing is made, with the symbols that torch asks of it, each of which ends the program when called.
What torch calls when it is imported must be real: the small libraries that `requirements-torch-old.txt`
names. Needs `cc` and `readelf`.
"""

import collections
import pathlib
import re
import subprocess
import sys

# What the symbols of libraries begin with that give them no version.
UNVERSIONED = {"libnccl": ("nccl",), "libcusparse": ("cusparse",)}


def readelf(option, library):
    command = ["readelf", "-W", option, library]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(library):
    return set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.+?)\]", readelf("-d", library)))


def undefined(library):
    """(name, version, whether it is data) of every symbol that others have to bring."""
    for line in readelf("--dyn-syms", library).splitlines():
        parts = line.split()
        if len(parts) >= 8 and parts[6] == "UND":
            name, _, version = parts[7].partition("@")
            yield name, version, parts[3] == "OBJECT"


def versions(library):
    """Version → the library that it is asked of."""
    out, of = {}, None
    for line in readelf("-V", library).splitlines():
        if found := re.search(r"File: (\S+)", line):
            of = found[1]
        elif of and (found := re.search(r"Name: (\S+)\s+Flags", line)):
            out[found[1]] = of
    return out


def make(folder, name, symbols):
    """A library of this name with {version: {symbol: whether it is data}}."""
    code, script = ["#include <stdlib.h>"], []
    for version, listed in sorted(symbols.items()):
        code += [f"char {s}[4096];" if data else f"void {s}(void) {{ abort(); }}" for s, data in listed.items()]
        if version:
            script.append(f"{version} {{ global: {' '.join(f'{s};' for s in listed) or 'nothing;'} }};")
    (folder / "stub.c").write_text("\n".join(code))
    (folder / "stub.map").write_text("\n".join(script))
    command = ["cc", "-w", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{name}", "-o", name, "stub.c"]
    subprocess.run(command + ["-Wl,--version-script=stub.map"] * bool(script), check=True, cwd=folder)
    (folder / "stub.c").unlink()
    (folder / "stub.map").unlink()


def main(prefix):
    (packages,) = pathlib.Path(prefix).glob("lib/python3*/site-packages")
    folder = packages / "torch/lib"
    libraries = [path for path in folder.iterdir() if ".so" in path.name]
    there = {path.name for path in [*libraries, *packages.glob("nvidia/*/lib/*")]}
    wanted = {path: needed(path) for path in libraries}
    missing = {name for names in wanted.values() for name in names if re.match("lib(cu|nv|nccl)", name)} - there
    symbols = {name: collections.defaultdict(dict) for name in missing}
    for path, names in wanted.items():
        of = {version: name for version, name in versions(path).items() if name in missing}
        for version, name in of.items():
            symbols[name][version]  # asked for even where none of its symbols is
        for symbol, version, data in undefined(path):
            if version in of:
                symbols[of[version]][version][symbol] = data
            elif not version:
                for name in names & missing:
                    if symbol.startswith(UNVERSIONED.get(name.partition(".")[0], "-")):
                        symbols[name][""][symbol] = data
    for name in sorted(missing):
        make(folder, name, symbols[name])
        print(name, sum(map(len, symbols[name].values())), "symbols")


if __name__ == "__main__":
    main(*sys.argv[1:])
