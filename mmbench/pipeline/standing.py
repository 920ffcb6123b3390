"""How far the rows of a table are: done, at work, failed, missing; told from records and marks, and nothing is run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmbench.core import results
from mmbench.pipeline import marks
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.lookup import keys_of, row_config
from mmbench.pipeline.marks import Mark


@dataclass(frozen=True)
class Places:
    """Where what is known of a row under one protocol lies.

    Attributes:
        method, data: what the table calls them.
        protocol: as the experiment names it.
        keys: seed to the hash of the row's configuration; none where the row is no run of this version.
        reason: why not; "" where it is.
    """

    method: str
    data: str
    protocol: str
    keys: Mapping[int, str]
    reason: str = ""


@dataclass(frozen=True)
class Standing:
    """How far a row is under one protocol: its seeds by what is known of them."""

    places: Places
    done: list[int] = field(default_factory=list)
    running: dict[int, Mark] = field(default_factory=dict)
    failed: dict[int, Mark] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)


def places_of(
    experiment: Experiment, source: str, seeds: Sequence[int], rows: Sequence[Row], overrides: Sequence[str]
) -> list[Places]:
    """Each row under each protocol that it needs, in the order of the table."""
    found = []
    for row in rows:
        wanted = row.seeds_of(seeds)
        for protocol in experiment.protocols(row.data) if wanted else ():
            keys, reason = {}, ""
            try:
                keys = keys_of(row_config(experiment, row, protocol, source, wanted[0], overrides), wanted)
            except ValueError as error:
                reason = marks.one_line(error)
            found.append(Places(row.label, row.dataset, protocol, keys, reason))
    return found


def standings(places: Sequence[Places], experiment: str, paths: Mapping[str, str]) -> list[Standing]:
    """How far the rows of an experiment are now."""
    held = results.by_configuration(paths["results"], experiment)
    return [_standing(one, experiment, held, paths["runs"]) for one in places]


def _standing(places: Places, experiment: str, held: Mapping[str, object], runs: str) -> Standing:
    found = Standing(places)
    for seed, key in places.keys.items():
        if key in held:
            found.done.append(seed)
        elif (mark := marks.read(marks.place(runs, experiment, key))) is None:
            found.missing.append(seed)
        else:
            (found.running if mark.is_held else found.failed)[seed] = mark
    return found


def spoken(seconds: float) -> str:
    """A duration in its largest unit: `40 s`, `3 min`, `2 h`, `5 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
