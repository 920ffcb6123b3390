"""Results: one append-only JSON record per row and seed."""

import json
import math
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, get_origin, get_type_hints

from mmbench.core.files import sha256_json, write_json

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
        costs: {"parameters", "image_cpu_seconds", "trained_parameters", "steps", "cpu_seconds", "image_seconds",
            "process_memory_GiB", "gpu_memory_GiB"}: what generation reads and takes, and what training took with all
            its stages (`mmbench/pipeline/costs.py`); without what is not known.
        canary: {"pictures", "changed"}: what the drift canary saw before (`mmbench/canary.py`).
        config: the resolved configuration without hardware and paths.
        outdated: why the values are no longer what this version would compute, in a few words; "" where they are. A
            table shows such a value and judges it not.
        commit, versions, device, date: provenance, not hashed.
        sha256: of all other keys as they were written, so that a record that was damaged or changed by hand is told
            from a whole one; "" in one that was not written yet, or written before records had it.
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
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    sha256: str = field(default="", compare=False)

    def path(self, results: str | Path) -> Path:
        """Where the record lies, below `results`/<experiment> under a name of its own."""
        row = self.row
        stamp = self.date.replace(":", "").replace("-", "").removesuffix("+0000")
        name = f"{row['method']}-{row['data']}-{row['source']}-s{self.seed}-{self.run_key[:12]}-{stamp}.json"
        return Path(results) / self.experiment / name

    def write(self, results: str | Path, path: str | Path | None = None) -> Path:
        """Writes the record where `Result.path` says, or to `path`; returns the path."""
        path = Path(path) if path else self.path(results)
        content = json.loads(json.dumps(asdict(self), allow_nan=False))  # as it will be read
        write_json(path, {**content, "sha256": _seal(content)})
        return path

    def counts(self, name: str) -> tuple[int, int]:
        """How many images a score is over, and how many there are: more where its metric passes some over."""
        count = self.metrics[name]["count"]
        return count, self.coverage.get("count", count)  # which the first records do not have

    def behind(self, results: str | Path) -> "Result":
        """The record, dated behind all that its row and seed have below `results`.

        It is then the newest and takes no other's place, also where the clock was set back since those were written, or
        where two come in one second.
        """
        path = self.path(results)
        row, _, _ = path.name.partition(f"-{self.run_key[:12]}-")
        dates = [found for other in path.parent.glob(f"{row}-*.json") if (found := _date_in(other.stem))]
        last = max(dates, default=None)
        if last is None or last < _moment(self.date):
            return self
        return replace(self, date=(last + timedelta(seconds=1)).isoformat(timespec="seconds"))


def _seal(content: Mapping[str, Any]) -> str:
    return sha256_json({key: value for key, value in content.items() if key != "sha256"})


def _moment(date: str) -> datetime:
    """The moment of a record's `date`; ValueError where it is none."""
    found = datetime.fromisoformat(date)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _date_in(name: str) -> datetime | None:
    """The moment in the name of a record; None where somebody named it otherwise."""
    try:
        return _moment(name.rpartition("-")[2])
    except ValueError:
        return None


KINDS = {name: get_origin(kind) or kind for name, kind in get_type_hints(Result).items()}  # of a record's keys


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


MAX_NUMBER = 1.7e308  # whole numbers beyond it are none of a score
# What tables and the command line read inside a record's keys, and how to know it.
PARTS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "row": dict.fromkeys(("method", "data", "source"), _is_text),
    "weights": {"verified": lambda value: isinstance(value, bool)},
}
OF_SAMPLES = dict.fromkeys(("file", "sha256"), _is_text)
OF_A_SCORE: dict[str, Callable[[Any], bool]] = {
    "value": _is_number,
    "std": lambda value: value is None or _is_number(value),
    "count": _is_count,
}


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
    return _read(_listed(results, experiment))


def _listed(results: str | Path, experiment: str, pattern: str = "*.json") -> list[Path]:
    return [path for path in (Path(results) / experiment).glob(pattern) if not path.name.startswith(".")]


def _read(paths: list[Path]) -> list[Result]:
    return sorted(map(read_record, sorted(paths)), key=lambda record: _moment(record.date))


def read_record(path: Path) -> Result:
    """One record.

    Raises:
        ValueError: the file is none, or was damaged or changed since it was written; names it.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{path}: expected a record of this version of mmbench, found {reason}: move it out of this folder"
        ) from None


def _parsed(text: str) -> Result:
    """A record from its JSON.

    Raises:
        ValueError, TypeError, RecursionError: it is none; says why in a few words.
    """
    content = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_each_once)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    if strangers := sorted(content.keys() - KINDS.keys()):
        raise ValueError(f"the unknown key {strangers[0]!r}")
    if wrong := [key for key, value in content.items() if not _is_kind(value, KINDS[key])]:
        raise ValueError(f"{_shown(content[wrong[0]])} as its {wrong[0]}")
    for key, parts in PARTS.items():
        if key in content:
            _require_parts(content[key], parts, key)
    for name, score in content.get("metrics", {}).items():
        _require_parts(score, OF_A_SCORE, name)
    if content.get("samples"):
        _require_parts(content["samples"], OF_SAMPLES, "samples")
    if not all(map(_is_number, content.get("costs", {}).values())):
        raise ValueError(f"{_shown(content['costs'])} as its costs")
    if not all(map(_is_count, content.get("size", []))):
        raise ValueError(f"{_shown(content['size'])} as its size")
    if "date" in content:
        _moment(content["date"])
    found = Result(**content)
    if found.sha256 and found.sha256 != _seal(content):
        raise ValueError("one that was changed since it was written")
    return found


def _is_kind(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _require_parts(node: Any, parts: Mapping[str, Callable[[Any], bool]], name: str) -> None:
    if not isinstance(node, dict) or not all(key in node and fits(node[key]) for key, fits in parts.items()):
        raise ValueError(f"{_shown(node)} as its {name}")


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant}, which is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        _refuse(text)
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which a key stands once: of two, readers differ in which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def by_configuration(results: str | Path, experiment: str) -> dict[str, Result]:
    """The newest record of each configuration and seed, by `config_hash`; every file is read once.

    Raises:
        ValueError: as `read`.
    """
    return {record.config_hash: record for record in read(results, experiment)}


def newest(results: str | Path, experiment: str, run_key: str) -> Result | None:
    """The newest record of a run; None if there is none.

    Only files that are named after the run are read (`Result.path`): a table of a thousand rows asks a thousand times.

    Raises:
        ValueError: as `read`.
    """
    named = _read(_listed(results, experiment, f"*-{run_key[:12]}-*.json"))
    matching = [record for record in named if record.run_key == run_key]
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
