"""Whole networks that authors saved as Python objects (`torch.save(network)`): their tensors, without their code."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class StandIn:
    """Takes the place of an object in a file, whatever its class: it holds attributes, and has no code."""

    def __init__(self, *_: Any) -> None:
        """What a class is called with says nothing of tensors."""

    def __setstate__(self, state: Any) -> None:
        """Attributes, where they are by name."""
        if isinstance(state, dict):
            vars(self).update(state)


def stand_ins(path: Path) -> list[Any]:
    """For `safe_globals`: a class without code in the place of each of a file's that is not PyTorch's own.

    PyTorch lists what a file asks for of zip archives alone, as it has written them since 1.6.
    """
    foreign = get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    return [(type(name.rpartition(".")[2], (StandIn,), {}), name) for name in foreign]


def read_module(path: Path) -> dict[str, Tensor]:
    """The state dict of a network that a file holds as an object; no class of its is looked for, and none is run.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        with safe_globals(stand_ins(path)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises whatever a damaged file provokes
        raise ValueError(
            f"{path}: expected a network as PyTorch saves one, found a damaged file or one of another kind: fetch it "
            "again"
        ) from None
    if not isinstance(content, StandIn) or not (state := dict(_tensors(content, ""))):
        raise ValueError(
            f"{path}: expected a network as PyTorch saves one, found an object of another kind: fetch it again"
        )
    return state


def _tensors(module: StandIn, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those below it, under the names of a state dict."""
    parts: dict[str, Any] = vars(module)
    passing = parts.get("_non_persistent_buffers_set", set())
    for name, tensor in {**parts.get("_parameters", {}), **parts.get("_buffers", {})}.items():
        if isinstance(tensor, Tensor) and name not in passing:
            yield prefix + name, tensor.detach()
    for name, child in parts.get("_modules", {}).items():
        if isinstance(child, StandIn):
            yield from _tensors(child, f"{prefix}{name}.")
