"""What turns a function of a configuration into a Hydra application."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from mmbench.core import catalogue, checking, command_line, config, interrupts
from mmbench.core.files import write_text

# Hydra's flags: those that say what to do, and those that are followed by a word of their own.
FLAGS = ("-m", "--multirun", "--run", "-r", "--resolve", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
WITH_WORD = ("-c", "--cfg", "-p", "--package", "--info", "-i", "--experimental-rerun")
# Those that name another configuration, of which these commands compose nothing.
ELSEWHERE = ("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")

_command_line: list[str] = []  # as it was typed; Lightning repeats it for the other processes of a distributed run
_failed: list[str] = []  # what jobs of a sweep that ended with an error say
_said: list[str] = []  # that of it which this process has printed
PLUGINS = {  # launchers and sweepers: package of Hydra's plugin, and the extra of mmbench that has it
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "slurm": ("hydra_submitit_launcher", "slurm"),
    "slurm_local": ("hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_ray_launcher", "ray"),
    "optuna": ("hydra_optuna_sweeper", "optuna"),
}
FAILED = "error.txt"  # in the folder of a job that ended with an error: what it says


def application(run: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
    """`hydra.main` over `conf/run.yaml`; `run` gets the settled configuration of each job (`config.composed`).

    A ValueError in `run` ends the process with one line and exit code 1, where Hydra would print a traceback; in a
    sweep the line is printed, and the other jobs run.
    """

    @hydra.main(config_path=str(catalogue.shipped("conf")), config_name=catalogue.ROOT, version_base="1.3")
    def job(cfg: DictConfig) -> Any:
        sys.argv = list(_command_line) or sys.argv
        hydra_config = HydraConfig.get()
        try:
            return run(config.composed(hydra_config.overrides.task))
        except RuntimeError:
            interrupts.wait_for_loss()
            raise
        except ValueError as error:
            line = f"mmbench: error: {' '.join(str(error).split())}"
            if hydra_config.mode != RunMode.MULTIRUN:
                sys.exit(line)
            print(line, file=sys.stderr)
            _said.append(line)
            write_text(Path(hydra_config.runtime.output_dir) / FAILED, f"{line}\n")
            if cfg.objective is not None:  # a sweeper is to know that this one has no score
                raise
            return None

    return job


class Failures(Callback):
    """Tells the process that began a sweep of jobs that ended with an error, wherever they ran."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        for path in sorted(Path(config.hydra.sweep.dir).rglob(FAILED)):
            line = path.read_text(encoding="utf-8").strip()
            _failed.append(line)
            if line not in _said:
                print(f"{line} ({path.parent})", file=sys.stderr)


def require_packages(words: Sequence[str]) -> None:
    """Refuses a launcher or a sweeper whose package is not installed.

    Raises:
        ValueError: says what to install.
    """
    for word in command_line.parse([word for word in words if word.startswith(("hydra/launcher=", "hydra/sweeper="))]):
        choice = str(word.value())
        if choice not in PLUGINS:
            continue  # Hydra's own, or one of a plugin that is installed
        package, extra = PLUGINS[choice]
        if not importlib.util.find_spec("hydra_plugins") or not importlib.util.find_spec(f"hydra_plugins.{package}"):
            raise ValueError(
                f"expected the package {package.replace('_', '-')} for {word.key_or_group}={choice}, found none: "
                f"pip install 'mmbench[{extra}]'"
            )


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
        arguments: the words after the command; flags may stand anywhere.

    Returns:
        The exit code: 1 where a job of a sweep ended with an error.

    Raises:
        ValueError: a key, a choice or the method is wrong or missing, or a sweep is not asked for.
    """
    words = [word for word in arguments if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    flags = [word for word in arguments if word not in words]
    _require_known(flags)
    if not flags or {"-m", "--multirun", "--cfg", "-c", "--resolve"} & set(flags):
        checking.check(words)
        checking.require_method(words)
        _require_sweepable(words, bool({"-m", "--multirun"} & set(flags)))
    require_packages(words)
    _command_line[:] = sys.argv
    _failed.clear()
    _said.clear()
    # Hydra reads its words from here; argparse wants those that belong together in one place.
    sys.argv = [sys.argv[0], *map(command_line.for_hydra, words), *flags]
    job()
    return 1 if _failed else 0


def _require_known(flags: list[str]) -> None:
    """Refuses flags that Hydra does not have, or that would change nothing here, and words that are no key=value."""
    before = ""
    for word in flags:
        flag, _, _ = word.partition("=")
        if flag in ELSEWHERE:
            raise ValueError(
                f"expected the configuration of mmbench, found {flag}: put YAMLs of your own into conf/ of a checkout"
            )
        if word.startswith("-") and flag not in (*FLAGS, *WITH_WORD):
            catalogue.unknown("flag", flag, (*FLAGS, *WITH_WORD))
        if not word.startswith("-") and before not in WITH_WORD:
            raise ValueError(f"expected key=value, found {word!r}: see --help")
        before = word


def _require_sweepable(words: list[str], multirun: bool) -> None:
    """Refuses several values of a key where one is wanted, and those that Hydra's own sweeper cannot number.

    Words that choose a mode or another sweeper are Hydra's to judge.
    """
    parsed = command_line.parse(words)
    if any(word.key_or_group in ("hydra.mode", "hydra/sweeper") for word in parsed):
        return
    for word in filter(Override.is_sweep_override, parsed):
        found = str(word.input_line).partition("=")[2]
        if not multirun:
            raise ValueError(f"expected one value of {word.key_or_group}, found {found}: add --multirun for a sweep")
        if not word.is_discrete_sweep():
            raise ValueError(f"expected values of {word.key_or_group} one by one, found {found}: write a,b or range()")
