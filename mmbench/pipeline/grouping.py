"""Cells of a table by group of images: each group's value, the worst one, and how far it lies behind the best."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from mmbench.core import construction
from mmbench.core.files import sha256_json
from mmbench.core.noise import Sample
from mmbench.core.protocol import Protocol
from mmbench.pipeline.cells import ALPHA, Cell
from mmbench.pipeline.comparing import Images
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.gaps import gap_interval, gap_p
from mmbench.pipeline.lookup import row_config
from mmbench.pipeline.rows import described
from mmbench.pipeline.sampled import BySeed, Scores, directions
from mmbench.pipeline.tables import UNLEARNED
from mmbench.statistics.bootstrap import mean_interval
from mmbench.statistics.paired import holm

LEAST = 10  # images that a group has at least to be the best or the worst
LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None))  # words
COUNTS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, None))  # objects
WIDTH = 10  # percent of the picture, of a bin of holes


class Group(NamedTuple):
    """A group of images; groups are in the order of `place`."""

    place: float
    name: str


Groups = dict[Sample, tuple[Group, ...]]
Unlearned = Collection[tuple[str, str]]  # methods and data sets of rows that count as not having learned


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
        mean: over seeds, of the metric over the samples of the group.
        spread: the standard deviation over seeds; None of fewer than two.
        standing: "best", "worst", "few" of one with too few images to be either, or "".
        interval: 95 %, over the images of the group; None of fewer than two.
    """

    method: str
    data: str
    metric: str
    group: Group
    images: int
    mean: float
    spread: float | None
    standing: str = ""
    interval: tuple[float, float] | None = None


class Gap(NamedTuple):
    """How far the worst group of a cell lies behind the best.

    Attributes:
        size: the difference of the two.
        interval: 95 %, over images, of the true one (`gaps.gap_interval`).
        p: of groups that have nothing to do with values, corrected by Holm's method for all gaps of a page.
    """

    size: float
    interval: tuple[float, float]
    p: float

    @property
    def is_shown(self) -> bool:
        """Whether it is more than chance, of which one among all gaps of a page is false by chance in 1 of 20."""
        return self.p < ALPHA


Gaps = dict[tuple[str, str, str], Gap]  # by method, data set and metric


def split(found: Groups) -> dict[Group, list[Sample]]:
    """The samples of each group, in the order of groups."""
    members: dict[Group, list[Sample]] = defaultdict(list)
    for sample, named in found.items():
        for group in named:
            members[group].append(sample)
    return dict(sorted(members.items()))


def parts(of_groups: Mapping[Group, Images], names: tuple[str, str, str], least: int, sign: int) -> list[Part]:
    """The parts of one cell, in the order of their groups, without intervals.

    Where the groups that may be the best or the worst print alike, none is either.

    Args:
        of_groups: values of each group, whose mean in a seed is the metric over the group.
        names: method, data set and metric.
        least: images that a group has at least to be the best or the worst.
        sign: 1 where higher is better, -1 where lower is, 0 where nobody says.
    """
    whole = [_part(names, group, of_groups[group], least) for group in sorted(of_groups)]
    ranked = sorted((part for part in whole if not part.standing), key=lambda part: -sign * part.mean)
    if not sign or len(ranked) < 2 or _printed(ranked[0].mean) == _printed(ranked[-1].mean):
        return whole
    ends = {ranked[0].group: "best", ranked[-1].group: "worst"}
    return [replace(part, standing=ends.get(part.group, part.standing)) for part in whole]


def _part(names: tuple[str, str, str], group: Group, found: Images, least: int) -> Part:
    means = (found.sums.sum(axis=0) / found.counts.sum(axis=0)).tolist()
    spread = stdev(means) if len(means) > 1 else None
    return Part(*names, group, len(found.ids), fmean(means), spread, "few" if len(found.ids) < least else "")


def with_intervals(found: Sequence[Part], images: Sequence[Images]) -> list[Part]:
    """The parts with their intervals, but for those of few images, of which they would be too short.

    Those of as many images, which share their draws, come one after the other.

    Args:
        images: the values of each part.
    """
    done = list(found)
    for place in sorted(range(len(found)), key=lambda place: len(images[place].ids)):
        if done[place].standing != "few":
            one = images[place]
            done[place] = replace(done[place], interval=mean_interval(one.sums, one.counts))
    return done


def grouped(
    experiment: Experiment,
    source: str,
    overrides: Sequence[str],
    cells: Sequence[Cell],
    scores: Mapping[tuple[str, str], Mapping[str, Scores]],
    by: str,
    least: int = LEAST,
) -> tuple[list[Part], Gaps, list[str]]:
    """The parts of all cells that have values by sample, their gaps, and what the data sets lack that have no groups.

    Args:
        cells: of the table.
        scores: theirs (`sampled.scores_of_table`).
        by: one of `KINDS`.

    Raises:
        Lacking: no data set of the table has what groups are made of.
        MissingAsset, ValueError: as `groups`.
    """
    done: list[Part] = []
    images: list[Images] = []
    lacking: dict[str, str] = {}
    known: dict[str, Groups] = {}
    tested: dict[tuple[str, tuple[Group, ...]], dict[tuple[str, str, str], BySeed]] = defaultdict(dict)
    ends: dict[tuple[str, str, str], list[Images]] = {}
    rows = {(row.dataset, row.label): row for row in experiment.rows}
    signs = directions(experiment, cells)
    for (data, metric), methods in scores.items():
        for method, of_cell in methods.items():
            row, by_seed = rows[data, method], of_cell.within()
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
            names = method, data, metric
            members = {group: of_cell.within(ones) for group, ones in split(known[key]).items()}
            of_groups = {group: Images(values) for group, values in members.items() if any(values.values())}
            found = parts(of_groups, names, least, signs.get(metric, 0))
            done += found
            images += of_groups.values()
            if any(part.standing == "best" for part in found):
                ranked = tuple(part.group for part in found if part.standing != "few")
                ends[names] = [of_groups[group] for group in ranked]
                tested[key, ranked][names] = by_seed
    if lacking and not done:
        raise Lacking(next(iter(lacking.values())))
    ps: dict[tuple[str, str, str], float] = {}
    for (key, ranked), by_cell in tested.items():
        ps |= zip(by_cell, _ps(list(by_cell.values()), known[key], ranked, len(ends)), strict=True)
    adjusted = dict(zip(ps, holm([*ps.values()]), strict=True))
    gaps = {names: Gap(*gap_interval(of_groups), adjusted[names]) for names, of_groups in ends.items()}
    return with_intervals(done, images), gaps, list(lacking.values())


def _ps(cells: Sequence[BySeed], found: Groups, ranked: Sequence[Group], tests: int) -> list[float]:
    """p of the gap of each of several cells, with the same samples: of the mean over seeds of each sample.

    Of products and harmonic means it is the gap of their linear part about the means of the row.
    """
    samples = list(found)
    values = np.array(
        [[fmean(one[sample] for one in by_seed.values() if sample in one) for sample in samples] for by_seed in cells]
    )
    member = np.array([[group in found[sample] for group in ranked] for sample in samples])
    return gap_p(values, samples, member, tests)


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


def summary(
    found: Sequence[Part], gaps: Gaps, whole: Mapping[tuple[str, str, str], float | None], unlearned: Unlearned
) -> list[dict[str, str]]:
    """A line for each cell: its value, its best and its worst group, how far these lie apart, and what that shows.

    Args:
        found: the parts of the cells.
        whole: method, data set and metric to the value of the cell.
        unlearned: rows with a mark.
    """
    cells: dict[tuple[str, str, str], list[Part]] = defaultdict(list)
    for part in found:
        cells[part.method, part.data, part.metric].append(part)
    lines = []
    for (method, data, metric), ones in cells.items():
        ends = {part.standing: part for part in ones}
        best, worst = ends.get("best"), ends.get("worst")
        mean, gap = whole.get((method, data, metric)), gaps.get((method, data, metric))
        lines.append(
            {
                "method": _marked(method, data, unlearned),
                "data": data,
                "metric": metric,
                "all": "-" if mean is None else _printed(mean),
                "best": _named(best),
                "worst": _named(worst),
                "gap": f"{_printed(gap.size)} {_bounds(gap.interval)}" if gap else "-",
                "more than chance": _said(gap),
            }
        )
    return lines


def _printed(value: float) -> str:
    return f"{value:.4f}"


def _bounds(interval: tuple[float, float] | None) -> str:
    return f"[{_printed(interval[0])}, {_printed(interval[1])}]" if interval else ""


def _said(gap: Gap | None) -> str:
    if gap is None:
        return "-"
    p = "p < 0.001" if gap.p < 0.001 else f"p = {gap.p:.3f}"
    return f"{'yes' if gap.is_shown else 'not shown'}, {p}"


def _marked(method: str, data: str, unlearned: Unlearned) -> str:
    return f"{method} {UNLEARNED}" if (method, data) in unlearned else method


def _named(part: Part | None) -> str:
    return f"{_printed(part.mean)} {_bounds(part.interval)} ({part.group.name})" if part else "-"


def lines(found: Sequence[Part], gaps: Gaps, unlearned: Unlearned) -> list[dict[str, str]]:
    """A line for each group of each cell."""
    return [
        {
            "method": _marked(part.method, part.data, unlearned),
            "data": part.data,
            "metric": part.metric,
            "group": part.group.name,
            "images": str(part.images),
            "value": _printed(part.mean),
            "spread": "-" if part.spread is None else _printed(part.spread),
            "interval low": "-" if part.interval is None else _printed(part.interval[0]),
            "interval high": "-" if part.interval is None else _printed(part.interval[1]),
            "standing": part.standing,
            "gap p adjusted": f"{gap.p:.4g}" if (gap := gaps.get((part.method, part.data, part.metric))) else "-",
        }
        for part in found
    ]


def crossed(found: Sequence[Part], gaps: Gaps, unlearned: Unlearned) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Data set and metric to a table of groups by methods; the ends of a gap that is more than chance are marked."""
    tables: dict[tuple[str, str], dict[Group, dict[str, str]]] = {}
    counts: dict[tuple[str, str, Group], int] = {}
    methods: dict[tuple[str, str], dict[str, None]] = {}
    for part in found:
        key, method = (part.data, part.metric), _marked(part.method, part.data, unlearned)
        gap = gaps.get((part.method, *key))
        mark = f" ({part.standing})" if gap and gap.is_shown and part.standing in ("best", "worst") else ""
        text = f"{_printed(part.mean)} {_bounds(part.interval)}".rstrip()
        tables.setdefault(key, {}).setdefault(part.group, {})[method] = text + mark
        methods.setdefault(key, {})[method] = None
        counts[*key, part.group] = max(part.images, counts.get((*key, part.group), 0))
    return {
        key: [
            {"group": group.name, "images": str(counts[*key, group]),
             **{method: tables[key][group].get(method, "-") for method in methods[key]}}
            for group in sorted(tables[key])
        ]
        for key in tables
    }  # fmt: skip


def explained(by: str, least: int, gaps: Gaps, missing: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """What stands under a table by group.

    Args:
        missing: lines of what data sets lack that have no groups, of rows that are left out, and of marks.
        left_out: metrics of the table that are scores of whole sets, or of which no values by sample are kept.
    """
    told = [
        f"By {by.replace('_', ' ')}: each metric over what was made of a group's images, then the mean over seeds; "
        "of products and harmonic means those of the group's means. [a, b]: 95 % interval over the group's images. "
        f"Groups of fewer than {least} images are shown, without one, and are neither best nor worst, and none is "
        "where all print alike."
    ]
    if by == "attribute":
        told.append("An image counts in the group of each attribute that its text names.")
    if gaps:
        told.append(
            "Gap: how far the worst lies behind the best, and where the true one lies; its interval holds whichever "
            "groups these are. More than chance: the largest gap among several equal groups is "
            "never 0, so that p is the share of exchanges of the groups among the images of a row that have one as "
            f"large, corrected by Holm's method for {len(gaps):,} gaps, as intervals are not; only where it is below "
            f"{ALPHA:g} are the two marked in the tables of groups. It asks whether groups are alike in all: a small "
            "one that varies more than the others has a large gap more often. It tells of groups and not of why: they "
            "may differ in more than what they are named after."
        )
    if left_out:
        told.append(
            f"Not by group: {', '.join(left_out)}; scores of whole sets (FID, IS) depend on the number of images, in "
            "which groups differ, and of others no values by sample are kept."
        )
    return [*told, *missing]
