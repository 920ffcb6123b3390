"""What the charts of a table show, as plain values that a page carries: scatters, curves, and logs of training."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmbench.pipeline.lookup import row_config
from mmbench.pipeline.stages import Stage, known_stage
from mmbench.site.gathering import Page

PRINTED = " (published)"
NUM_POINTS = 200  # of a line
SMALLEST_LOG = 2  # lines


def scatter(page: Page) -> dict[str, Any]:
    """A point for each row: its means, and its published numbers as metrics of their own; empty where none has two."""
    points: dict[tuple[str, str], dict[str, float]] = {}
    for cell in page.cells:
        if cell.metric in page.experiment.costs:
            continue
        values = points.setdefault((cell.method, cell.data), {})
        if cell.value.mean is not None:
            values[cell.metric] = cell.value.mean
        if cell.published:
            values[cell.metric + PRINTED] = cell.published.value
    names = [name for metric in page.experiment.metrics for name in (metric, metric + PRINTED)]
    metrics = [name for name in names if any(name in values for values in points.values())]
    if len(metrics) < 2 or not any(len(values) > 1 for values in points.values()):
        return {}
    x, y = _axes(page, metrics)
    found = [{"label": label, "data": data, "values": values} for (label, data), values in points.items() if values]
    return {"metrics": metrics, "x": x, "y": y, "points": found}


def _axes(page: Page, metrics: Sequence[str]) -> tuple[str, str]:
    """What is shown first: a judged metric by what it is judged by, else published by ours, else the first two."""
    judged = page.experiment.judged
    if judged and judged["by"][0] in metrics and judged["metrics"][0] in metrics:
        return judged["by"][0], judged["metrics"][0]
    for metric in metrics:
        if metric + PRINTED in metrics:
            return metric + PRINTED, metric
    return metrics[0], metrics[1]


def curves(page: Page) -> list[dict[str, Any]]:
    """The curves of an experiment that has columns along an axis: a chart for each metric and data set."""
    if not page.experiment.curve:
        return []
    from mmbench.pipeline.curves import curves_of  # matplotlib, which other tables do not need

    charts: dict[tuple[str, str], dict[str, Any]] = {}
    for curve in curves_of(page.experiment, page.cells):
        chart = charts.setdefault(
            (curve.metric, curve.data),
            {
                "title": f"{curve.metric} on {curve.data}",
                "x_label": page.experiment.curve["x"],
                "y_label": page.experiment.curve["metrics"][curve.metric],
                "series": [],
            },
        )
        name = f"{curve.method}, {curve.family}" if curve.family else curve.method
        chart["series"].append({"label": name, "points": dict(zip(curve.x, curve.mean, strict=True))})
    return [_aligned(chart) for chart in charts.values()]


def training(page: Page, words: Sequence[str], runs: str) -> list[dict[str, Any]]:
    """The losses of each trained row, and of the stages before it, whose logs are below `runs`: of its first seed."""
    charts: dict[Path, dict[str, Any]] = {}
    seen, trainings = set(), Path(runs) / "train"
    for row, protocol, record in page.found():
        if (row.key, record.weights["choice"]) in seen or record.weights["choice"] != "trained":
            continue
        seen.add((row.key, "trained"))
        if not (trainings / f"{row.method}-{row.data}-{page.source}-s{record.seed}").is_dir():
            continue  # it was trained elsewhere; to compose a row takes a third of a second
        plain = row_config(page.experiment, row, protocol, page.source, record.seed, words)
        if "training" not in plain["method"]:
            continue
        wanted = known_stage(plain, record.data["fingerprint"])
        for stage in (*wanted.before.values(), wanted):
            if stage.folder not in charts and (chart := _log(stage)):
                chart["title"] = f"{stage.name} on {row.dataset}, seed {record.seed}"
                charts[stage.folder] = chart
    return list(charts.values())


def _log(stage: Stage) -> dict[str, Any]:
    """The losses of a training by step; empty where there is no log.

    Raises:
        ValueError: a log has something else than numbers; names it.
    """
    paths = sorted((stage.folder / "log").glob("version_*/metrics.csv"))
    lines = [line for path in paths for line in _lines(path)]
    known = dict.fromkeys(name for line in lines for name in line)
    names = [name for name in known if "/" in name and not name.startswith("profile/")]
    lines = lines[:: math.ceil(len(lines) / NUM_POINTS)] if lines else []
    series = []
    for name in names:
        points = {
            line["step"]: line[name] for line in lines if math.isfinite(line.get("step", math.nan)) and name in line
        }
        if len(points) >= SMALLEST_LOG:
            series.append({"label": name, "points": points})
    if not series:
        return {}
    return _aligned({"x_label": "step", "y_label": "loss", "series": series})


def _lines(path: Path) -> Iterator[dict[str, float]]:
    """What each line of a log has, by name of its column."""
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]  # a training that goes on may be writing its last line
    try:
        for line in csv.DictReader(whole.splitlines()):
            yield {name: float(value) for name, value in line.items() if value}
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: expected numbers below a line of names, found {error}: delete it") from None


def _aligned(chart: dict[str, Any]) -> dict[str, Any]:
    """A chart whose lines have one axis: `x`, and of each of `series` its `y`, null where it has no value."""
    x = sorted({place for line in chart["series"] for place in line["points"]})
    series = [
        {"label": line["label"], "y": [_number(line["points"].get(place)) for place in x]} for line in chart["series"]
    ]
    return {**chart, "x": x, "series": series}


def _number(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
