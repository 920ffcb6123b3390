"""Lets torchvision be imported beside a CPU-only torch.

torchvision's Linux wheels are CUDA builds: their compiled part does not load without CUDA libraries, and the Python
part then dies with "operator torchvision::nms does not exist", because it registers fake kernels for operators that
only the compiled part declares. Nothing in mmbench calls those operators, so declaring their schemas is enough. Where
the compiled part loads, this module changes nothing. The package imports it first of all, before anything that imports
torchvision (lpips, torch-fidelity, torchmetrics, open_clip and PyTorch Lightning do).
"""

import importlib.util
from pathlib import Path

import torch

MISSING = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_library: torch.library.Library | None = None  # the declarations live as long as this object


def compiled_part_loads() -> bool:
    """Whether torchvision's shared library of operators can be loaded into this process."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    libraries = sorted(Path(spec.origin).parent.glob("_C*.so")) + sorted(Path(spec.origin).parent.glob("_C*.pyd"))
    if not libraries:
        return False
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError:
        return False
    return True


def declare_missing_operators() -> list[str]:
    """Declares the operators of `MISSING` that nobody has declared yet; returns their names."""
    global _library
    if compiled_part_loads():
        return []
    names = [name for name in MISSING if not hasattr(torch.ops.torchvision, name)]
    if names:
        _library = _library or torch.library.Library("torchvision", "FRAGMENT")
        for name in names:
            _library.define(MISSING[name])
    return names


declare_missing_operators()
