"""Stand-ins for packages that NeMo imports at the top of a module and then does not need.

Import this before NeMo.
"""

import importlib.machinery
import sys
import types

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
        if name.split(".")[0] in STUBS:
            return importlib.machinery.ModuleSpec(name, Finder)
        return None

    @staticmethod
    def create_module(spec):
        return Stub(spec.name)

    @staticmethod
    def exec_module(module):
        pass


sys.meta_path.append(Finder)
