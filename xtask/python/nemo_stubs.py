"""Stand-ins for packages that NeMo imports at the top of a module and then does not need.

Import this before NeMo.
"""

import importlib.machinery
import importlib.util
import pathlib
import sys
import types

# Whole packages by their dotted names.
STUBS = {
    "onnx": "imported by nemo.utils.export_utils for exporting models, which no fixture does",
    "datasets": "imported by the Hugging Face audio dataset, and no fixture reads audio",
}


class Stub(types.ModuleType):
    __path__ = []
    __version__ = "0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **options: None})


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if any(name == stub or name.startswith(f"{stub}.") for stub in STUBS):
            return importlib.machinery.ModuleSpec(name, Finder)
        return None

    @staticmethod
    def create_module(spec):
        return Stub(spec.name)

    @staticmethod
    def exec_module(module):
        pass


sys.meta_path.insert(0, Finder)


def without_init(parent, *names):
    """Makes subpackages of `parent` importable whose own `__init__`, which imports all that there
    is, does not run: one module is wanted, and not what its neighbours need."""
    (folder,) = importlib.util.find_spec(parent).submodule_search_locations
    for name in names:
        package = types.ModuleType(f"{parent}.{name}")
        package.__path__ = [str(pathlib.Path(folder, *name.split(".")))]
        sys.modules[package.__name__] = package
