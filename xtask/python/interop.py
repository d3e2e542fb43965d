"""What the judges share: running the program, and counting what was judged.

    SCRIPT PROGRAM SCRATCH FIXTURES
"""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

PROGRAM, SCRATCH, FIXTURES = (pathlib.Path(a) for a in sys.argv[1:4])
_JUDGED = collections.Counter()
_WRONG = []


def ckptkit(*args, refused=False):
    """Runs the program; its JSON report for `convert`. Fails loudly unless `refused` is fine."""
    args = [str(a) for a in args]
    out = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    if out.returncode and not refused:
        sys.exit(f"ckptkit {' '.join(args)}\n{out.stderr}")
    return out


def convert(source, name, *flags, refused=False):
    """Converts to SCRATCH/name; the path, or None where the program refused and may."""
    to = SCRATCH / name
    if to.is_dir():
        shutil.rmtree(to)
    to.unlink(missing_ok=True)
    out = ckptkit("convert", "--quiet", source, to, *flags, refused=refused)
    return None if out.returncode else to


def fixtures(*groups):
    """(name, path, manifest) of every readable fixture."""
    for group in groups:
        for path in sorted((FIXTURES / group).glob("*.json")):
            target = path.with_suffix("")
            yield f"{group}/{target.name}", target, json.loads(path.read_text())


def weight_rows(found):
    """What the manifest says of the weights, by their names; None where it names none."""
    weights = found.get("weights")
    if weights is None:
        return None
    prefix = f"{weights['key']}." if weights["key"] else ""
    rows = {row["name"]: row for row in found["tensors"]}
    return {name: {**rows[prefix + name], "name": name} for name in weights["names"]}


def judged(library, count=1):
    _JUDGED[library] += count


def wrong(name, what):
    """Notes a difference; the run goes on and fails at its end."""
    _WRONG.append(f"{name}: {what}")


def finish():
    for library, count in sorted(_JUDGED.items()):
        print(f"judged {library} {count}")
    if _WRONG:
        sys.exit("\n".join(_WRONG))
