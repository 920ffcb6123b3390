"""Losses in float32, whatever precision networks run in."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors that sees those of half precision as float32, and computes outside autocast.

    Logarithms and exponentials, and sums over many terms, lose too much in half precision; PyTorch refuses some of them
    there (binary cross-entropy of probabilities). In full precision it changes nothing.
    """

    @wraps(function)
    def widened(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        with torch.autocast(device.type, enabled=False):
            args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
            return function(*args, **kwargs)

    return widened


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
