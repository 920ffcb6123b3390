"""What there is to choose from: folders that come with mmbench, the names in them, the nearest to a misspelt one."""

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NoReturn

import yaml

ROOT = "run"


def shipped(folder: str) -> Path:
    """A folder that comes with mmbench (`conf`, `experiments`, `results/published`): installed, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder


def names(group: str) -> list[str]:
    """The names one can choose in a config group (`method`, `data`, ..., also `experiment`), sorted."""
    folder = shipped("experiments") if group == "experiment" else shipped("conf") / group
    return sorted(path.stem for path in folder.glob("*.yaml"))


def summary(group: str, name: str) -> str:
    """The one-line help of a choice: the first line of its YAML, a comment."""
    folder = shipped("experiments") if group == "experiment" else shipped("conf") / group
    with (folder / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().strip().removeprefix("#").strip()


def unknown(kind: str, found: str, valid: Iterable[str]) -> NoReturn:
    """Raises the one-line error for a name that does not exist, with the nearest valid ones."""
    valid = sorted(set(valid))
    nearest = difflib.get_close_matches(found, valid, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"choose from {', '.join(valid)}"
    article = "an" if kind[0] in "aeiou" else "a"
    raise ValueError(f"expected {article} {kind}, found {found!r}: {hint}")


def groups() -> list[str]:
    """Groups that a command line may choose from, e.g. `method`."""
    return [*_groups(shipped("conf"))]


@cache
def _groups(folder: Path) -> list[str]:
    defaults = yaml.safe_load((folder / f"{ROOT}.yaml").read_text(encoding="utf-8"))["defaults"]
    keys = (key for entry in defaults if isinstance(entry, dict) for key in entry)
    return [key.removeprefix("optional ") for key in keys if not key.startswith("override ")]
