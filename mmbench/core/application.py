"""What turns a function of a configuration into a Hydra application."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmbench.core import config

_command_line: list[str] = []  # as it was typed; Lightning repeats it for the other processes of a distributed run


def application(run: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
    """`hydra.main` over `conf/run.yaml`; `run` gets the settled configuration of each job (`config.composed`).

    A ValueError in `run` ends the process with one line and exit code 1: Hydra would print a traceback.
    """

    @hydra.main(config_path=str(config.shipped("conf")), config_name=config.ROOT, version_base="1.3")
    def job(cfg: DictConfig) -> None:
        sys.argv = list(_command_line) or sys.argv
        try:
            run(config.composed(HydraConfig.get().overrides.task))
        except ValueError as error:
            sys.exit(f"mmbench: error: {' '.join(str(error).split())}")

    return job


@contextmanager
def within_memory(batch_size: int, remedy: str) -> Iterator[None]:
    """Says what to do where the memory of the device does not hold a batch.

    Args:
        batch_size: number of images.
        remedy: what to do, beside freeing memory that other programs hold.

    Raises:
        ValueError: CUDA ran out of memory inside.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        found = str(error).partition(". GPU")[0]
        raise ValueError(
            f"expected batches of {batch_size} to fit into the device's memory, found too little ({found}): "
            f"{remedy}, or free memory that other programs hold"
        ) from None


def start(job: Callable[[], None], arguments: list[str]) -> int:
    """Checks the words of the command line, then hands them to the Hydra application `job`.

    Args:
        job: what `application` made.
        arguments: the words after the command.

    Raises:
        ValueError: a key, a choice or the method is wrong or missing.
    """
    flags = [word for word in arguments if word.startswith("-")]
    if not flags or flags[0] in ("-m", "--multirun", "--cfg", "-c", "--resolve"):
        words = [word for word in arguments if "=" in word and not word.startswith("-")]
        config.check(words)
        config.require_method(words)
    _command_line[:] = sys.argv
    sys.argv = [sys.argv[0], *map(config.for_hydra, arguments)]  # Hydra reads its words from here
    job()
    return 0
