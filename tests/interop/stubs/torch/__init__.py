"""Stand-in for torch: enough for LMCache's control plane to import, and no tensors.

LMCache names torch types in annotations and reads a few capability flags while it is imported.
Every name asked for here is an inert class or submodule; nothing computes. Code that would move
real tensors must not be reached by the interop tests, and fails if it is.
"""

import importlib.machinery
import sys
import types


class _InertMeta(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _inert(f"{cls.__name__}.{name}")

    def __or__(cls, other):
        return object

    __ror__ = __or__


def _inert(name):
    return _InertMeta(name, (), {"__module__": __name__})


class dtype:
    """A named element type with its size in bytes."""

    def __init__(self, name, itemsize):
        self.name = name
        self.itemsize = itemsize

    def __repr__(self):
        return f"torch.{self.name}"


class device:
    """A device name."""

    def __init__(self, name):
        self.type = name


class Size(tuple):
    """A shape."""

    def numel(self):
        product = 1
        for extent in self:
            product *= extent
        return product


class Tensor(metaclass=_InertMeta):
    """Never instantiated: LMCache only checks `isinstance(tokens, torch.Tensor)`."""


class _Inert(types.ModuleType):
    """A submodule (`torch.cuda`, `torch.distributed`, ...) that reports that nothing is there."""

    __path__ = []

    def is_available(self):
        return False

    def device_count(self):
        return 0

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _inert(name)


for _name, _size in {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "half": 2, "float": 4, "double": 8,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "long": 8, "int": 4, "short": 2,
}.items():
    globals()[_name] = dtype(_name, _size)


def _passthrough(*args, **_kwargs):
    if len(args) == 1 and callable(args[0]):
        return args[0]
    return lambda function: function


compile = no_grad = inference_mode = _passthrough
__version__ = "0.0.0+stub"


class _Finder:
    """Answers `import torch.anything`, and LMCache's native extension, which links against torch."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname.startswith("torch.") or fullname == "lmcache.lmcache_native":
            return importlib.machinery.ModuleSpec(fullname, _Finder, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return _Inert(spec.name)

    @staticmethod
    def exec_module(module):
        return None


sys.meta_path.insert(0, _Finder)


def __getattr__(name):
    if name.startswith("__") or name in ("rbln", "npu", "hpu", "musa", "xpu", "gcu", "mlu", "sdaa"):
        raise AttributeError(name)
    if name in ("cuda", "xpu", "hpu", "musa", "npu", "mps", "distributed", "multiprocessing", "nn", "version", "utils", "library", "ops", "backends"):
        return importlib.import_module(f"torch.{name}")
    return _inert(name)
