"""Reading the tensors of a TorchScript archive without running its code."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


def read_torchscript_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a module that was saved by `torch.jit.save`, e.g. OpenAI's CLIP.

    The archive holds its module as a pickle. It is read with an unpickler that knows tensors, and takes a module for
    a bag of attributes: the archive's code is never looked at. (`torch.jit.load` would compile it, and is
    deprecated.)

    Raises:
        ValueError: the file is no such archive, or its pickle asks for anything but tensors and modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            with archive.open(f"{root}data.pkl") as file:
                module = _Unpickler(file, archive, root).load()
    except (zipfile.BadZipFile, StopIteration, KeyError, EOFError, pickle.UnpicklingError) as error:
        found = "no data.pkl" if isinstance(error, StopIteration) else str(error)
        raise ValueError(f"{path}: expected a TorchScript archive of tensors, found {found}: fetch it again") from None
    state: dict[str, Tensor] = {}
    _collect(module, "", state)
    return state


class _Module:
    """Stands for a class of the archive's own code; unpickling fills its `__dict__`."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self.archive = archive
        self.root = root

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list  # lists of numbers, or of tensors, among the attributes
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, saved: tuple[Any, ...]) -> Tensor:
        _, dtype, key, _, _ = saved
        return torch.frombuffer(bytearray(self.archive.read(f"{self.root}data/{key}")), dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _collect(module: _Module, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", state)
