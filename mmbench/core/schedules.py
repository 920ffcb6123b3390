"""Learning rates that change from epoch to epoch.

They follow from the first rate and the epoch alone, so that a resumed run is the same run.
"""

from collections.abc import Callable, Iterable
from typing import Any

# From the first learning rate and the epoch, counted from 0, to the epoch's learning rate.
Schedule = Callable[[float, int], float]


def halved(every: int) -> Schedule:
    """Half the learning rate each time so many epochs are done."""
    return lambda first, epoch: first / 2 ** (epoch // every)


def declining(num_epochs: int) -> Schedule:
    """From the first learning rate evenly down to nothing, which it would be behind the last of so many epochs."""
    return lambda first, epoch: first * (1 - epoch / num_epochs)


def set_learning_rates(optimizers: Iterable[Any], schedule: Schedule, epoch: int) -> None:
    """Gives every parameter group of optimisers, as `optimizers()` of a module returns them, its rate of an epoch.

    Call it at the start of every epoch: a group's first rate is the one that it has at the first call.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            # Kept in checkpoints, as PyTorch's own schedulers keep it.
            group["lr"] = schedule(group.setdefault("initial_lr", group["lr"]), epoch)
