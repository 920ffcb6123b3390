"""Evaluation: a row's images are generated and scored, and one record is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.utilities import rank_zero_only

from mmbench.core import hashing, results
from mmbench.core.files import CannotWrite, locked, write_text
from mmbench.core.method import Batch
from mmbench.core.outputs import TEXTS
from mmbench.core.results import Result
from mmbench.data.batches import collate
from mmbench.metrics.suite import MetricSuite
from mmbench.pipeline import by_sample, canary, costs, grid, kept_features, mirrors, scoring
from mmbench.pipeline.experiment_files import costs_of
from mmbench.pipeline.generation import Run, Scored, generate, measure, prepared, shown, write_manifest
from mmbench.pipeline.publications import printed
from mmbench.pipeline.rows import described


def require_fields(run: Run, suite: MetricSuite) -> None:
    """Refuses metrics that the data cannot be scored by, before any image is made.

    Raises:
        ValueError: the data set lacks a field that a metric needs.
    """
    fields = run.data.fields | {f"prompt{suffix}" for suffix in _suffixes(run)}
    if missing := sorted(set(suite.needs) - fields):
        raise ValueError(
            f"expected the fields {', '.join(missing)} for the metrics of {run.protocol.name}, found "
            f"{run.plain['data']['name']} without them: choose another protocol or data set"
        )


def _suffixes(run: Run) -> list[str]:
    """What the batch has of a prompt: its text, and what that names where it is known."""
    return [suffix for suffix in ("", "_attributes") if f"{run.method.task.prompt}{suffix}" in run.data.fields]


def score(run: Run, suite: MetricSuite) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Scores the images of a run; "name@extractor" to {"value", "std", "count", "weights"}, and the coverage record.

    Each of several processes takes its share of the samples, none twice and none left out.

    Raises:
        ValueError: the data set lacks a field that a metric needs, or a sample was not scored exactly once.
    """
    require_fields(run, suite)
    task, suffixes = run.method.task, _suffixes(run)
    rank, _ = scoring.place()
    wanted = (suite.needs & run.data.fields) | {f"{task.prompt}{suffix}" for suffix in suffixes}

    def batch_of(items: Sequence[dict[str, Any]]) -> Batch:
        batch = collate(items)
        return {**batch, **{f"prompt{suffix}": batch[f"{task.prompt}{suffix}"] for suffix in suffixes}}

    mine = Scored(run, scoring.share(run.samples), wanted)
    covered = scoring.coverage(
        scoring.show(suite, scoring.loader(mine, run.data.num_workers, batch_of), "scoring"), run.samples
    )
    if suite.needs_reference and rank == 0:  # states are summed over the processes
        split = run.protocol.reference
        classes = run.protocol.reference_classes
        identity = [described(run.plain)["data"], run.data.fingerprint(), split, *([classes] if classes else [])]
        assets = Path(run.plain["paths"]["assets"]).expanduser()
        scoring.add_reference(suite, run.data.reference(split, classes), identity, assets, run.data.num_workers)
    return scoring.results_of(suite), covered


def evaluate(plain: dict[str, Any]) -> tuple[Result | None, Run]:
    """Generates and scores one row; re-uses the images, and the record, that are there already.

    Several processes share the work; the first of them gets the record, the others None.

    Raises:
        MissingAsset, ValueError: as `prepared`, `build_suite` and `score` say.
        Unwritten: the record could not be written; has the scores.
    """
    run = prepared(plain)
    results_folder = run.plain["paths"]["results"]
    experiment = run.plain["experiment"] or run.plain["method"]["name"]
    with locked(run.folder):
        record = results.newest(results_folder, experiment, run_key=run.run_key)
        if record and _is_whole(run, record, Path(results_folder) / experiment):
            kept_features.restore(run, record)
            log(run, record)
            return record, run
        suite = kept_features.suite_of(run)
        suite.require(run.output.name)
        require_fields(run, suite)
        assets = Path(run.plain["paths"]["assets"]).expanduser()
        drift = canary.check(suite, assets) if rank_zero_only.rank == 0 else {}
        generate(run)
        if rank_zero_only.rank == 0 and costs_of(experiment) & set(costs.OF_CARD):
            measure(run, next(iter(suite.metrics.values())).device)
        metrics, covered = score(run, suite)
        values, held = suite.by_sample(), suite.held()
        if rank_zero_only.rank > 0:
            return None, run
        write_manifest(run)
        _draw_grid(run)
        kept_features.keep(run.folder, suite, held)
        record = Result(
            experiment=experiment,
            row=run.row,
            seed=run.plain["seed"],
            protocol={"name": run.protocol.name, "hash": hashing.config_hash(run.protocol.facts())},
            metrics=metrics,
            coverage=covered,
            costs=costs.of_run(run.plain, run.data, run.folder),
            canary=drift,
            size=run.output.size(run.read(run.samples[0])),
            run_key=run.run_key,
            config_hash=hashing.config_hash(described(run.plain)),
            weights=run.weights,
            data={"fingerprint": run.data.fingerprint(), "split": run.protocol.split, **_notes(run, suite)},
            config=described(run.plain),
        )
        try:
            varying = kept_features.varying(suite, held)
            record = by_sample.keep(record.behind(results_folder), values, results_folder, varying=varying)
            record.write(results_folder)
        except CannotWrite as error:
            raise results.Unwritten(record, error) from None
    log(run, record)
    return record, run


def _is_whole(run: Run, record: Result, folder: Path) -> bool:
    """Whether nothing of a run is to be done: its images are there, and what the record is to say of them."""
    there = all(run.file(sample).is_file() for sample in run.samples)
    return there and kept_features.is_known(run.protocol.metrics, record, folder)


def _notes(run: Run, suite: MetricSuite) -> dict[str, dict[str, int]]:
    """{"notes": sentence to number of samples}, of what is to be known of the scores; empty where there is nothing."""
    prompt = run.method.task.prompt
    if prompt is None:
        return {}
    texts = run.data.texts(run.protocol.split, run.samples, run.protocol.seed)[prompt]
    notes = scoring.cut_captions(suite, texts)
    return {"notes": notes} if notes else {}


def _draw_grid(run: Run) -> None:
    """Samples as rows: example, prompt where the task has one, output."""
    columns, rows = [run.method.task.example, "prompt", run.plain["method"]["name"]], list(shown(run, 8))
    if run.method.task.prompt is None:
        columns, rows = [columns[0], columns[2]], [(row[0], row[2]) for row in rows]  # type: ignore[misc]
    grid.write_grid(run.folder / "grid.png", rows, columns)


def log(run: Run, record: Result) -> None:
    """Writes the scores to metrics.csv in the run folder, and shows them to mirrors with table, grid and texts.

    Scores are `score/NAME`, with the names of the record, and what was published `published/NAME`.
    """
    frame = pd.DataFrame([{"metric": name, **score} for name, score in sorted(record.metrics.items())])
    write_text(run.folder / "metrics.csv", frame.to_csv(index=False))
    values = {f"score/{name}": score["value"] for name, score in record.metrics.items()}
    values |= {f"published/{name}": value for name, value in printed(record).items()}
    for mirror in mirrors.mirrors(run.plain["logger"], _facts(run, record), record.config):
        for end in (0, 1):  # of a line, which a point is not
            mirror.log_metrics(values, step=end)
        mirror.log_table("metrics", list(frame), frame.astype(object).where(frame.notna(), None).to_numpy().tolist())
        mirror.log_image("grid", run.folder / "grid.png")
        if run.output is TEXTS:
            texts = [[sample.name, TEXTS.read(run.file(sample))] for sample in run.samples]
            mirror.log_table("texts", ["sample", "text"], texts)
        mirror.finalize("success")


def _facts(run: Run, record: Result) -> dict[str, str]:
    """What mirrors call an evaluation."""
    return {
        "job": "evaluate",
        "group": record.experiment,
        "name": "-".join([*run.row.values(), run.protocol.name, f"s{record.seed}"]),
        "id": mirrors.identity("evaluate", record.experiment, record.run_key),
        "seed": str(record.seed),
        "method": run.row["method"],
        "data": f"{run.row['data']} ({run.row['source']})",
        "folder": str(run.folder),
    }
