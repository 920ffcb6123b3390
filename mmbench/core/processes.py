"""One batch over several processes: rows that the others hold, for losses over pairs of the whole batch."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

LONGEST = timedelta(days=7)  # that a data set takes to be fetched, unpacked and checked

_turns = itertools.count()


@contextmanager
def first_alone() -> Iterator[None]:
    """Of the processes that torchrun has started the first goes through the block alone, then that of each machine.

    The others come last: machines may share a disk or not. Lightning's own launcher starts other processes when the
    first one has come as far as to its trainer.
    """
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield
        return
    store, _, _ = next(iter(distributed.rendezvous("env://")))
    machine, turn = os.environ["GROUP_RANK"], f"{os.environ['TORCHELASTIC_RESTART_COUNT']}/{next(_turns)}"
    leads = os.environ["LOCAL_RANK"] == "0"
    if os.environ["RANK"] != "0":
        store.wait([f"mmbench/{turn}/{0 if leads else machine}"], LONGEST)
    yield
    if leads:
        store.set(f"mmbench/{turn}/{machine}", "")


class _Gathered(torch.autograd.Function):
    """Rows of all processes, in turn; backwards, what all processes say of one's own rows, summed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows)
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return own(summed(gradient))


class _Summed(torch.autograd.Function):
    """The sum over all processes; backwards, the sum of what all of them say of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return summed(gradient)


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, differentiable any number of times; of one, as it is."""
    return _Summed.apply(value.contiguous()) if divided() else value


def averaged(values: Tensor) -> Tensor:
    """The mean of (N, ...) of all processes, a scalar, where N differs between them.

    What a process says of its own rows is weighed so that it is the average over processes, of values and of gradients,
    that is the mean of all rows: as Lightning logs it and DDP learns from it.
    """
    if not divided():
        return values.mean()
    return values.sum() * num_processes() / summed(values.new_tensor(values.numel()))


def batch_mean(rows: Tensor) -> Tensor:
    """The mean over the first axis of (N, ...) of the whole batch, (...), where N may differ between processes."""
    if not divided():
        return rows.mean(dim=0)
    return summed(rows.sum(dim=0)) / summed(rows.new_tensor(len(rows)))


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, (N, ...) to (processes * N, ...), in the order of the batch; of one, as they are.

    Processes take rows of a batch in turn (`data.batches.EpochSampler`).
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


def own(rows: Tensor) -> Tensor:
    """This process's part of the rows of the whole batch, which `gathered` gave; of one, all of them."""
    return rows[rank() :: num_processes()]


def own_of_first(count: int) -> int:
    """How many of the first `count` rows of the whole batch this process has: its own first ones."""
    return len(range(count)[rank() :: num_processes()])


def next_rows(rows: Tensor) -> Tensor:
    """The row behind each row of the whole batch but its last: (N, ...) to (N, ...), or one less where that is here.

    What comes back belongs to the first ones of this process's rows.
    """
    return own(gathered(rows)[1:])


def divided() -> bool:
    """Whether several processes work together."""
    return num_processes() > 1


def num_processes() -> int:
    """How many processes work together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number among them."""
    return distributed.get_rank() if divided() else 0
