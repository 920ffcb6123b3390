"""One batch over several processes: rows that the others hold, for losses over pairs of the whole batch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


class _Gathered(torch.autograd.Function):
    """Rows of all processes; backwards, what all processes say of one's own rows, summed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()]


class _Summed(torch.autograd.Function):
    """The sum over all processes; backwards, the sum of what all of them say of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, differentiable; of one, as it is."""
    return _Summed.apply(value.contiguous()) if divided() else value


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, (N, ...) to (processes * N, ...), in the order of processes; of one, as they are.

    All processes call it together, with equal shapes. It is differentiable: a row's gradient is the sum of those of
    all processes. A loss that each of them computes of all rows thus has, once DDP has averaged gradients over
    processes, the gradient of one process that has the whole batch.
    """
    return _Gathered.apply(rows.contiguous()) if divided() else rows


def gathered_sequences(rows: Tensor) -> Tensor:
    """As `gathered`, of (N, L, ...) whose L differs between processes: zeros (False) fill up to the longest."""
    if not divided():
        return rows
    longest = torch.tensor(rows.shape[1], device=rows.device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    missing = int(longest) - rows.shape[1]
    return gathered(F.pad(rows, (0, 0) * (rows.dim() - 2) + (0, missing)))


def divided() -> bool:
    """Whether several processes work together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
