"""What extractors said of a run's images: kept in its folder, made again from the images, and drawn from.

Features of another evaluation, of a group of images or of halves of them need no network then. They lie in
`features/<extractor>-<hash of its weights>.safetensors`, float32 as the network gave them: 234 MiB for 30,000 images
and Inception's 2048 features.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from mmbench.core import construction
from mmbench.core.files import sha256_json, written_atomically
from mmbench.core.noise import Sample
from mmbench.core.progress import track
from mmbench.core.results import Result
from mmbench.core.weights import encoded, read_safetensors
from mmbench.metrics.suite import Held, MetricSuite, build_suite
from mmbench.pipeline import by_sample, scoring
from mmbench.pipeline.generation import Run
from mmbench.statistics import resampling

SAMPLES = "samples"  # in a file, which samples its rows are of: JSON as bytes; no output of a network is called so


def path(folder: Path, extractor: str, weights_sha256: str) -> Path:
    """Where the features of the images in a run's folder lie."""
    return folder / "features" / f"{extractor}-{weights_sha256[:16]}.safetensors"


def keep(folder: Path, suite: MetricSuite, held: Held) -> None:
    """Writes what the suite's metrics hold of the generated images, a file for each extractor."""
    for metric in suite.metrics.values():
        if metric.holds:
            judge = metric.extractor
            write(path(folder, judge.name, judge.weights_sha256), held.samples, held.outputs[judge.weights_sha256])


def write(file: Path, samples: list[Sample], outputs: Mapping[str, Tensor]) -> None:
    """Writes outputs (N, ...) of N samples."""
    text = np.frombuffer(json.dumps(samples, ensure_ascii=False).encode(), np.uint8)
    with written_atomically(file) as partial:
        partial.write_bytes(encoded({**outputs, SAMPLES: torch.from_numpy(text.copy())}))


def read(file: Path) -> tuple[list[Sample], dict[str, Tensor]]:
    """What `write` has written: samples, sorted, and output to (N, ...).

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    outputs = read_safetensors(file)
    samples = [Sample(*one) for one in json.loads(outputs.pop(SAMPLES).numpy().tobytes())]
    return samples, outputs


def suite_of(run: Run) -> MetricSuite:
    """The metrics of a run's protocol, where the run computes.

    Raises:
        MissingAsset, ValueError: as `build_suite` and `scoring.place_suite`.
    """
    assets = Path(run.plain["paths"]["assets"]).expanduser()
    suite = build_suite(run.protocol.metrics, run.protocol.extractors, assets, run.plain["settings"])
    scoring.place_suite(suite, run.plain["trainer"]["accelerator"])
    return suite


def restore(run: Run, record: Result) -> None:
    """Makes features that are gone again, from the run's images; the first of several processes does."""
    if rank_zero_only.rank > 0 or not _lacking(run, record):
        return
    suite = suite_of(run)
    wanted: dict[Path, tuple[Any, set[str]]] = {}
    for metric in suite.metrics.values():
        if metric.holds:
            judge = metric.extractor
            file = path(run.folder, judge.name, judge.weights_sha256)
            wanted.setdefault(file, (judge, set()))[1].update(metric.holds)
    samples = sorted(run.samples)
    for file, (judge, outputs) in wanted.items():
        if not file.is_file():
            write(file, samples, _seen(run, samples, judge, outputs, suite.device))


def _lacking(run: Run, record: Result) -> bool:
    judged = [key for key in record.metrics if _holds(run.protocol.metrics, key)]
    weights = {(key.partition("@")[2], record.metrics[key]["weights"]) for key in judged}
    return not all(path(run.folder, *one).is_file() for one in weights)


def _seen(run: Run, samples: list[Sample], judge: Any, outputs: set[str], device: torch.device) -> dict[str, Tensor]:
    """What an extractor says of a run's images: output to (N, ...), the same bits as at the evaluation."""
    parts: dict[str, list[Tensor]] = {output: [] for output in outputs}
    with scoring.full_precision():
        for at in track(range(0, len(samples), scoring.BATCH), "features"):
            images = [run.output.judged(run.read(sample)) for sample in samples[at : at + scoring.BATCH]]
            found = judge(torch.stack(images).to(device))
            for output, rows in parts.items():
                rows.append(found[output])
            judge.forget()
    return {output: torch.cat(rows) for output, rows in parts.items()}


def _holds(metrics: Mapping[str, Mapping[str, Any]], key: str) -> tuple[str, ...]:
    """The outputs that the metric of a score holds."""
    described = metrics.get(key.partition("@")[0].partition("(")[0])
    return construction.target(described).holds if described else ()


def is_known(metrics: Mapping[str, Mapping[str, Any]], record: Result, folder: Path) -> bool:
    """Whether a record says how its scores of whole sets vary with the images, or has none of them.

    Args:
        metrics: of the record's protocol.
        folder: where the record lies.
    """
    if not any(_holds(metrics, key) for key in record.metrics):
        return True
    there = record.samples and (folder / record.samples["file"]).is_file()
    return bool(there) and by_sample.varying(record, folder) is not None


def varying(suite: MetricSuite, held: Held) -> by_sample.Varying | None:
    """How the suite's scores of whole sets vary with the images, from halves of these; None where it has no such score.

    All samples of an image go together. A score that a half has too few images for is not among them,
    since halves of several rows are compared in pairs.
    """
    names = {suite.keys[name]: metric for name, metric in suite.metrics.items() if metric.holds}
    if not names:
        return None
    ids = sorted({sample.id for sample in held.samples})
    found: dict[str, list[float]] = {name: [] for name in names}
    rows_of: dict[str, list[int]] = {key: [] for key in ids}
    for row, sample in enumerate(held.samples):
        rows_of[sample.id].append(row)
    if len(ids) < resampling.FEWEST:
        return by_sample.Varying(sha256_json(ids), len(ids), {})
    for half in track(resampling.halves(len(ids)), "halves of the images"):
        rows = [row for place in half for row in rows_of[ids[place]]]
        samples = [held.samples[row] for row in rows]
        for name, metric in names.items():
            outputs = held.outputs[metric.extractor.weights_sha256]
            part = metric.part(samples, {state: outputs[state][rows] for state in metric.holds})
            if len(rows) >= part.least_count:
                found[name].append(part.score().value)
    whole = {name: scores for name, scores in found.items() if len(scores) == resampling.HALVES}
    deviations = {name: resampling.deviations(np.array(scores), len(ids)) for name, scores in whole.items()}
    return by_sample.Varying(sha256_json(ids), len(ids), deviations)
