"""What the scores of a record rest on, in one file beside it: values by sample, and how others vary with the images."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from mmbench.core.files import sha256_bytes, written_atomically
from mmbench.core.noise import Sample
from mmbench.core.results import Result

COLUMNS = ("id", "caption", "draw")  # of a sample; in the file as `sample/id`, ..., which no metric is called
DRAWN = "halves/"  # before the names of scores whose deviations are kept


class Drawn(NamedTuple):
    """How a score of a whole set of images varies with them.

    Attributes:
        ids: SHA-256 of the ids of the images; halves of the same images are the same.
        count: how many images.
        deviations: (100,) float64, as `statistics.resampling.deviations` gives them.
    """

    ids: str
    count: int
    deviations: NDArray[np.float64]


def keep(
    record: Result,
    values: Mapping[str, Mapping[Sample, float]],
    results: str | Path,
    path: str | Path | None = None,
    varying: Mapping[str, Drawn] | None = None,
) -> Result:
    """Writes values by sample beside where the record will lie; the record that names the file and its hash.

    Comes before `Result.write` with the same `results` and `path`, so that no record names a file that is not there.
    The same values give the same bytes: samples are sorted, each id is written once, and the file holds nothing else.
    Where no score is a mean over samples, and none varies as is known, there is no file.

    Args:
        record: the record, not written yet.
        values: as `MetricSuite.by_sample` gives them.
        results: the folder of all records.
        path: where the record will lie, if not at its usual place.
        varying: how other scores vary with the images, all of the same images.
    """
    if not values and not varying:
        return record
    record_path = Path(path) if path else record.path(results)
    content = encoded(values, varying)
    name = f"{record_path.stem}.samples.safetensors"
    with written_atomically(record_path.with_name(name)) as partial:
        partial.write_bytes(content)
    return replace(record, samples={"file": name, "sha256": sha256_bytes(content)})


def read(record: Result, folder: str | Path) -> dict[str, dict[Sample, float]]:
    """The values by sample of a record: "name@extractor" to sample, in the order of samples, to value.

    Args:
        record: the record.
        folder: where it lies: `results`/<experiment>, unless it was written to a path of its own.

    Raises:
        ValueError: the record names no such file, or the file is missing or damaged.
    """
    return decoded(_content(record, folder))


def drawn(record: Result, folder: str | Path) -> dict[str, Drawn]:
    """How scores of a record vary with the images, of those that are no means over samples: by "name@extractor".

    Raises:
        ValueError: as `read`.
    """
    tensors = load(_content(record, folder))
    if DRAWN not in tensors:
        return {}
    of = json.loads(tensors.pop(DRAWN).tobytes())
    return {
        name.removeprefix(DRAWN): Drawn(of["ids"], of["count"], found)
        for name, found in sorted(tensors.items())
        if name.startswith(DRAWN)
    }


def _content(record: Result, folder: str | Path) -> bytes:
    if not record.samples:
        raise ValueError(
            f"expected a record of {record.experiment} with values by sample, found one without: evaluate it again"
        )
    path = Path(folder) / record.samples["file"]
    if not path.is_file():
        raise ValueError(f"{path}: expected the values by sample of a record, found no file: evaluate it again")
    content = path.read_bytes()
    if (found := sha256_bytes(content)) != record.samples["sha256"]:
        raise ValueError(
            f"{path}: expected SHA-256 {record.samples['sha256']}, as the record says, found {found}: the file is "
            "damaged or another one, evaluate again"
        )
    return content


def encoded(values: Mapping[str, Mapping[Sample, float]], varying: Mapping[str, Drawn] | None = None) -> bytes:
    """A safetensors file of one float64 (N,) for each metric, NaN where it has no value of a sample.

    Beside them `ids` (JSON, as bytes), and of the N samples `sample/id` (place among `ids`), `sample/caption` and
    `sample/draw`, int32. Of scores that vary as is known `halves/<name>`, and `halves/`, which images these are of
    (JSON, as bytes).
    """
    samples = sorted({sample for one in values.values() for sample in one})
    ids = sorted({sample.id for sample in samples})
    places = {key: place for place, key in enumerate(ids)}
    rows = np.array([(places[one.id], one.caption, one.draw) for one in samples], np.int32).reshape(-1, len(COLUMNS))
    tensors = {name: np.array([one.get(sample, np.nan) for sample in samples]) for name, one in values.items()}
    tensors |= {f"sample/{name}": np.ascontiguousarray(column) for name, column in zip(COLUMNS, rows.T, strict=True)}
    for name, found in (varying or {}).items():
        tensors |= {DRAWN + name: found.deviations, DRAWN: _bytes({"ids": found.ids, "count": found.count})}
    return save(tensors | {"ids": _bytes(ids)})


def _bytes(content: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), np.uint8)


def decoded(content: bytes) -> dict[str, dict[Sample, float]]:
    """What `encoded` has written."""
    tensors = load(content)
    ids = json.loads(tensors.pop("ids").tobytes())
    columns = [tensors.pop(f"sample/{name}").tolist() for name in COLUMNS]
    samples = [Sample(ids[place], caption, draw) for place, caption, draw in zip(*columns, strict=True)]
    return {
        name: {sample: value for sample, value in zip(samples, one.tolist(), strict=True) if not math.isnan(value)}
        for name, one in sorted(tensors.items())
        if not name.startswith(DRAWN)
    }
