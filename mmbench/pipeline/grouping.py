"""Cells of a table by group of images: each group's value, the worst one, and how far it lies behind the best."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, NamedTuple

from mmbench.core import construction
from mmbench.core.files import sha256_json
from mmbench.core.noise import Sample
from mmbench.core.protocol import Protocol
from mmbench.pipeline.cells import Cell
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.lookup import row_config
from mmbench.pipeline.rows import described
from mmbench.pipeline.sampled import BySeed, directions

LEAST = 10  # images that a group has at least to be the best or the worst
LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None))  # words
COUNTS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, None))  # objects
WIDTH = 10  # percent of the picture, of a bin of holes


class Group(NamedTuple):
    """A group of images; groups are in the order of `place`."""

    place: float
    name: str


Groups = dict[Sample, tuple[Group, ...]]


class Lacking(ValueError):
    """A data set has not what groups are made of."""


def _by_class(items: Sequence[Mapping[str, Any]], prompt: str) -> list[tuple[Group, ...]]:
    """The data set's own classes, by the folder that all images of one have and no others, or by their number."""
    numbers = [int(item["class_id"]) for item in items]
    images = {item["id"] for item in items}
    if len(set(numbers)) == len(images) > 1:
        raise Lacking("classes of several images for by=class, found one where each image is a class of its own")
    folders: dict[int, set[str]] = defaultdict(set)
    for number, item in zip(numbers, items, strict=True):
        folders[number].add(item["id"].rpartition("/")[0])
    names = {number: next(iter(found)) for number, found in folders.items() if len(found) == 1}
    is_named = all(names.values()) and len(set(names.values())) == len(folders)
    return [(Group(number, names[number] if is_named else f"class {number}"),) for number in numbers]


def _by_attribute(items: Sequence[Mapping[str, Any]], prompt: str) -> list[tuple[Group, ...]]:
    """The attributes that the prompt names and what it says of them; a sample may be of several groups, or of none."""
    named = [[f"{part} {value}" for part, value in item[f"{prompt}_attributes"].items()] for item in items]
    places = {name: place for place, name in enumerate(sorted({name for names in named for name in names}))}
    return [tuple(Group(places[name], name) for name in names) for names in named]


def _by_caption_length(items: Sequence[Mapping[str, Any]], prompt: str) -> list[tuple[Group, ...]]:
    return [(_binned(len(item[prompt].split()), LENGTHS, "word"),) for item in items]


def _by_object_count(items: Sequence[Mapping[str, Any]], prompt: str) -> list[tuple[Group, ...]]:
    return [(_binned(len(item["box_labels"]), COUNTS, "object"),) for item in items]


def _by_mask_area(items: Sequence[Mapping[str, Any]], prompt: str) -> list[tuple[Group, ...]]:
    """Bins of a tenth of the picture, their lower end inside."""
    found = []
    for item in items:
        low = min(100 - WIDTH, WIDTH * math.floor(round(float(item["mask"].mean()) * 100, 6) / WIDTH))
        found.append((Group(low, f"hole {low} to {low + WIDTH} %"),))
    return found


def _binned(count: int, bins: Iterable[tuple[int, int | None]], unit: str) -> Group:
    for low, high in bins:
        if high is None:
            return Group(low, f"{low} {unit}s or more")
        if count <= high:
            return Group(low, f"{low} {unit}{'' if low == 1 else 's'}" if low == high else f"{low} to {high} {unit}s")
    raise AssertionError("the last bin has no end")


# What a table is grouped by, to the field that it needs (`{prompt}` stands for the text) and how groups are made.
KINDS: Mapping[str, tuple[str, Callable[[Sequence[Mapping[str, Any]], str], list[tuple[Group, ...]]]]] = {
    "class": ("class_id", _by_class),
    "attribute": ("{prompt}_attributes", _by_attribute),
    "caption_length": ("{prompt}", _by_caption_length),
    "object_count": ("box_labels", _by_object_count),
    "mask_area": ("mask", _by_mask_area),
}


def groups(by: str, plain: dict[str, Any], samples: Sequence[Sample]) -> Groups:
    """The groups of each sample of a row, from its data as its protocol shows them.

    Args:
        by: one of `KINDS`.
        plain: the row's configuration.

    Raises:
        Lacking: the data set has no such field; names both, and what it can be grouped by.
        MissingAsset: the data are not here.
        ValueError: a sample is not of this data set.
    """
    from mmbench.data.prompts import following
    from mmbench.pipeline.assembly import prepared_data

    protocol, task = Protocol.of(plain["protocol"]), construction.target(plain["method"]["module"]).task
    data = prepared_data(plain, evaluation=True)
    if protocol.prompts:
        data = following(data, protocol.prompts, task)
    prompt = task.prompt or "caption"
    field, make = KINDS[by][0].format(prompt=prompt), KINDS[by][1]
    name = plain["data"]["name"]
    others = [kind for kind, (needs, _) in KINDS.items() if kind != by and needs.format(prompt=prompt) in data.fields]
    remedy = f"choose by={' or by='.join(others)}"
    if field not in data.fields:
        raise Lacking(f"expected the field {field} for by={by}, found {name} without it: {remedy}")
    items = data.evaluation(protocol.split, samples, protocol.seed, {field})
    try:
        found = make([items[index] for index in range(len(samples))], prompt)
    except Lacking as error:
        raise Lacking(f"expected {error} in {name}: {remedy}") from None
    return dict(zip(samples, found, strict=True))


@dataclass(frozen=True)
class Part:
    """A cell of a table, of one group of images.

    Attributes:
        method, data, metric: of the cell.
        group: the images.
        images: how many.
        mean: over seeds, of the mean over the samples of the group.
        spread: the standard deviation over seeds; None of fewer than two.
        standing: "best", "worst", "few" of one with too few images to be either, or "".
    """

    method: str
    data: str
    metric: str
    group: Group
    images: int
    mean: float
    spread: float | None
    standing: str = ""


def parts(by_seed: BySeed, found: Groups, names: tuple[str, str, str], least: int, sign: int) -> list[Part]:
    """The parts of one cell, in the order of their groups.

    Args:
        by_seed: its values by seed and sample.
        found: groups of each sample.
        names: method, data set and metric.
        least: images that a group has at least to be the best or the worst.
        sign: 1 where higher is better, -1 where lower is, 0 where nobody says.
    """
    means: dict[Group, list[float]] = defaultdict(list)
    images: dict[Group, set[str]] = defaultdict(set)
    for values in by_seed.values():
        of_group: dict[Group, list[float]] = defaultdict(list)
        for sample, value in values.items():
            for group in found[sample]:
                of_group[group].append(value)
                images[group].add(sample.id)
        for group, one in of_group.items():
            means[group].append(fmean(one))
    whole = [
        Part(*names, group, len(images[group]), fmean(one), stdev(one) if len(one) > 1 else None,
             "few" if len(images[group]) < least else "")
        for group, one in sorted(means.items())
    ]  # fmt: skip
    ranked = sorted((part for part in whole if not part.standing), key=lambda part: -sign * part.mean)
    if not sign or len(ranked) < 2:
        return whole
    ends = {ranked[0].group: "best", ranked[-1].group: "worst"}
    return [replace(part, standing=ends.get(part.group, part.standing)) for part in whole]


def grouped(
    experiment: Experiment,
    source: str,
    overrides: Sequence[str],
    cells: Sequence[Cell],
    values: Mapping[tuple[str, str], Mapping[str, BySeed]],
    by: str,
    least: int = LEAST,
) -> tuple[list[Part], list[str]]:
    """The parts of all cells that have values by sample, and what the data sets lack that have none, a line each.

    Args:
        cells: of the table.
        values: theirs by sample (`sampled.of_table`).
        by: one of `KINDS`.

    Raises:
        Lacking: no data set of the table has what groups are made of.
        MissingAsset, ValueError: as `groups`.
    """
    done: list[Part] = []
    lacking: dict[str, str] = {}
    known: dict[str, Groups] = {}
    rows = {(row.dataset, row.label): row for row in experiment.rows}
    signs = directions(experiment, cells)
    for (data, metric), methods in values.items():
        for method, by_seed in methods.items():
            row = rows[data, method]
            if row.data in lacking:
                continue
            samples = sorted({sample for one in by_seed.values() for sample in one})
            plain = _config(experiment, row, metric, source, min(by_seed), overrides)
            key = sha256_json([_seen(plain, by), samples])
            try:
                if key not in known:
                    known[key] = groups(by, plain, samples)
            except Lacking as error:
                lacking[row.data] = str(error)
                continue
            done += parts(by_seed, known[key], (method, data, metric), least, signs.get(metric, 0))
    if lacking and not done:
        raise Lacking(next(iter(lacking.values())))
    return done, list(lacking.values())


def _seen(plain: dict[str, Any], by: str) -> list[Any]:
    """What groups depend on, so that rows share them: of holes how a method sees its pictures, of others it is none."""
    data = plain["data"]
    looks = described(plain)["data"] if by == "mask_area" else [data["name"], data["module"].get("split_scheme")]
    prompt = construction.target(plain["method"]["module"]).task.prompt
    return [looks, Protocol.of(plain["protocol"]).facts(), prompt]


def _config(
    experiment: Experiment, row: Row, metric: str, source: str, seed: int, overrides: Sequence[str]
) -> dict[str, Any]:
    first, *_ = experiment.computed.get(metric, (metric,))
    return row_config(experiment, row, experiment.protocol_of(first, row.data), source, seed, overrides)


def summary(found: Sequence[Part], whole: Mapping[tuple[str, str, str], float | None]) -> list[dict[str, str]]:
    """A line for each cell: its value, its best and its worst group, and how far these lie apart.

    Args:
        found: the parts of the cells.
        whole: method, data set and metric to the value of the cell.
    """
    cells: dict[tuple[str, str, str], list[Part]] = defaultdict(list)
    for part in found:
        cells[part.method, part.data, part.metric].append(part)
    lines = []
    for (method, data, metric), ones in cells.items():
        ends = {part.standing: part for part in ones}
        best, worst = ends.get("best"), ends.get("worst")
        mean = whole.get((method, data, metric))
        lines.append(
            {
                "method": method,
                "data": data,
                "metric": metric,
                "all": "-" if mean is None else f"{mean:.4f}",
                "best": _named(best),
                "worst": _named(worst),
                "gap": f"{abs(best.mean - worst.mean):.4f}" if best and worst else "-",
            }
        )
    return lines


def _named(part: Part | None) -> str:
    return f"{part.mean:.4f} ({part.group.name})" if part else "-"


def lines(found: Sequence[Part]) -> list[dict[str, str]]:
    """A line for each group of each cell."""
    return [
        {
            "method": part.method,
            "data": part.data,
            "metric": part.metric,
            "group": part.group.name,
            "images": str(part.images),
            "value": f"{part.mean:.4f}",
            "spread": "-" if part.spread is None else f"{part.spread:.4f}",
            "standing": part.standing,
        }
        for part in found
    ]


def crossed(found: Sequence[Part]) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Data set and metric to a table of groups by methods; the worst group of a method has a mark behind it."""
    tables: dict[tuple[str, str], dict[Group, dict[str, str]]] = {}
    counts: dict[tuple[str, str, Group], int] = {}
    methods: dict[tuple[str, str], dict[str, None]] = {}
    for part in found:
        key = part.data, part.metric
        mark = {"worst": " (worst)", "best": " (best)"}.get(part.standing, "")
        tables.setdefault(key, {}).setdefault(part.group, {})[part.method] = f"{part.mean:.4f}{mark}"
        methods.setdefault(key, {})[part.method] = None
        counts[*key, part.group] = max(part.images, counts.get((*key, part.group), 0))
    return {
        key: [
            {"group": group.name, "images": str(counts[*key, group]),
             **{method: tables[key][group].get(method, "-") for method in methods[key]}}
            for group in sorted(tables[key])
        ]
        for key in tables
    }  # fmt: skip


def explained(by: str, least: int, missing: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """What stands under a table by group.

    Args:
        missing: lines of what data sets lack that have no groups, and of rows that are left out.
        left_out: metrics of the table that are no means over images.
    """
    told = [
        f"By {by.replace('_', ' ')}: means over what was made of the images of a group, then over seeds. "
        f"Groups of fewer than {least} images are shown and are neither best nor worst; gap: how far the worst lies "
        "behind the best."
    ]
    if by == "attribute":
        told.append("An image counts in the group of each attribute that its text names.")
    if left_out:
        told.append(f"No means over images, and so not by group: {', '.join(left_out)}.")
    return [*told, *missing]
