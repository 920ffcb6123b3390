"""Whole networks that authors saved as Python objects (`torch.save(network)`): their tensors, without their code."""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals


class _Object:
    """Stands for an object in a file, of whatever class, and holds its attributes; it has no code."""

    def __init__(self, *_: Any) -> None:
        """What a class is called with says nothing of tensors."""


def read_module(path: Path) -> dict[str, Tensor]:
    """The state dict of a network that a file holds as an object; no class of its is looked for, and none is run.

    Files are zip archives, as PyTorch writes them since 1.6; older ones hold the network's source beside it.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    wanted, stand_ins = f"{path}: expected a network as PyTorch saves one", dict[str, tuple[type, str]]()
    while True:
        try:
            with safe_globals(list(stand_ins.values())):
                content = torch.load(path, map_location="cpu", weights_only=True)
            break
        except Exception as error:  # torch.load raises whatever a damaged file provokes
            stranger = re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", str(error))
            if not isinstance(error, pickle.UnpicklingError) or not stranger or stranger[1] in stand_ins:
                found = f"the name {stranger[1]}" if stranger else "a damaged file or one of another kind"
                raise ValueError(f"{wanted}, found {found}: fetch it again") from None
            stand_ins[stranger[1]] = (type("Object", (_Object,), {}), stranger[1])
    if not isinstance(content, _Object) or not (state := dict(_tensors(content, ""))):
        raise ValueError(f"{wanted}, found an object of another kind: fetch it again")
    return state


def _tensors(module: _Object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those below it, under the names of a state dict."""
    parts: dict[str, Any] = vars(module)
    passing = parts.get("_non_persistent_buffers_set", set())
    for name, tensor in {**parts.get("_parameters", {}), **parts.get("_buffers", {})}.items():
        if isinstance(tensor, Tensor) and name not in passing:
            yield prefix + name, tensor.detach()
    for name, child in parts.get("_modules", {}).items():
        if isinstance(child, _Object):
            yield from _tensors(child, f"{prefix}{name}.")
