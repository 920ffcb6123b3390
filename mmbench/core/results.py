"""Results: one append-only JSON record per row and seed."""

import datetime
import json
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, get_origin, get_type_hints

from mmbench.core.files import write_json

RECORDED_PACKAGES = (
    "mmbench", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "torch-fidelity", "lpips",
    "open_clip_torch", "numpy", "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What one evaluation found, and everything needed to know what it was.

    Attributes:
        experiment: name of the experiment, or of the method where none was named.
        row: {"method", "data", "source"}.
        seed: seed of training and of the noise at evaluation.
        protocol: {"name", "hash"}.
        metrics: "name@extractor" to {"value", "std", "count", "weights"}; weights = SHA-256 of the extractor's file.
        run_key: hash of configuration, input data, weights and seed.
        config_hash: hash of configuration and seed alone, which a table can compute without data.
        weights: {"choice", "sha256", "verified"} of the method's own weights; sha256 None where it has none.
        data: {"fingerprint", "split"}.
        coverage: {"count", "sha256", "processes"}: proof that each sample was scored exactly once.
        samples: {"file", "sha256"} of the values by sample, a file beside the record; empty where there are none.
        size: height and width of the generated images, in pixels.
        costs: {"parameters", "trained_parameters", "steps", "cpu_seconds"}: what generation reads, and what training
            took with all its stages (`mmbench/pipeline/costs.py`); without what is not known.
        canary: {"pictures", "changed"}: what the drift canary saw before (`mmbench/canary.py`).
        config: the resolved configuration without hardware and paths.
        outdated: why the values are no longer what this version would compute, in a few words; "" where they are. A
            table shows such a value and judges it not.
        commit, versions, device, date: provenance, not hashed.
    """

    experiment: str
    row: dict[str, str]
    seed: int
    protocol: dict[str, str]
    metrics: dict[str, dict[str, Any]]
    run_key: str
    config_hash: str
    weights: dict[str, Any]
    data: dict[str, Any]
    config: dict[str, Any]
    coverage: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    size: list[int] = field(default_factory=list)
    costs: dict[str, Any] = field(default_factory=dict)
    canary: dict[str, Any] = field(default_factory=dict)
    outdated: str = ""
    commit: str = field(default_factory=lambda: commit())
    versions: dict[str, str] = field(default_factory=lambda: versions())
    device: str = field(default_factory=lambda: device())
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))

    def path(self, results: str | Path) -> Path:
        """Where the record lies, below `results`/<experiment> under a name of its own."""
        row = self.row
        stamp = self.date.replace(":", "").replace("-", "").removesuffix("+0000")
        name = f"{row['method']}-{row['data']}-{row['source']}-s{self.seed}-{self.run_key[:12]}-{stamp}.json"
        return Path(results) / self.experiment / name

    def write(self, results: str | Path, path: str | Path | None = None) -> Path:
        """Writes the record where `Result.path` says, or to `path`; returns the path."""
        path = Path(path) if path else self.path(results)
        write_json(path, asdict(self))
        return path


KINDS = {name: get_origin(kind) or kind for name, kind in get_type_hints(Result).items()}  # of a record's keys


class Unwritten(ValueError):
    """A record that could not be written although its folder could be when the work began: a full disk, say.

    Attributes:
        record: it, with everything that was found.
    """

    def __init__(self, record: Result, error: ValueError) -> None:
        super().__init__(str(error))
        self.record = record


def read(results: str | Path, experiment: str) -> list[Result]:
    """All records of an experiment, oldest first.

    Files whose names begin with a dot are none: a run that was killed leaves one that it had not finished, and a Mac
    puts one beside each file.

    Raises:
        ValueError: a file is no record; names it.
    """
    found = []
    for path in sorted((Path(results) / experiment).glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            found.append(_parsed(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(
                f"{path}: expected a record of this version of mmbench, found {reason}: move it out of this folder"
            ) from None
    return sorted(found, key=lambda record: record.date)


def _parsed(text: str) -> Result:
    """A record from its JSON.

    Raises:
        ValueError, TypeError: it is none; says why in a few words.
    """
    content = json.loads(text, parse_constant=_refuse)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    if strangers := sorted(content.keys() - KINDS.keys()):
        raise ValueError(f"the unknown key {strangers[0]!r}")
    if wrong := [key for key, value in content.items() if not isinstance(value, KINDS[key])]:
        raise ValueError(f"{content[wrong[0]]!r} as its {wrong[0]}")
    for name, score in content.get("metrics", {}).items():
        if not isinstance(score, dict) or not isinstance(score.get("value"), int | float):
            raise ValueError(f"{str(score)[:80]!r} as its {name}")
    return Result(**content)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant}, which is no number")


def by_configuration(results: str | Path, experiment: str) -> dict[str, Result]:
    """The newest record of each configuration and seed, by `config_hash`; every file is read once.

    Raises:
        ValueError: as `read`.
    """
    return {record.config_hash: record for record in read(results, experiment)}


def newest(results: str | Path, experiment: str, **wanted: str) -> Result | None:
    """The newest record whose attributes equal `wanted` (`run_key=...` or `config_hash=...`); None if there is none."""
    matching = [
        record
        for record in read(results, experiment)
        if all(getattr(record, name) == value for name, value in wanted.items())
    ]
    return matching[-1] if matching else None


def commit() -> str:
    """Commit of the checkout this package runs from, with `+` when files differ from it; "unknown" outside one."""
    folder = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+" if changes.stdout.strip() else head


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that values depend on."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def device() -> str:
    """The accelerator's name, or the processor's architecture."""
    import torch  # takes seconds, and whoever reads records needs none of it

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"
