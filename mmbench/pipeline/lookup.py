"""Looking up the records of a table's rows, or why there are none; nothing is run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmbench.core import catalogue, config, hashing
from mmbench.core.results import Result
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.marks import DIGITS, Mark
from mmbench.pipeline.missing import missing
from mmbench.pipeline.rows import described

NO_RECORD = "no record yet"


@dataclass(frozen=True)
class Found:
    """The newest record of each seed, in their order, of a row under one protocol; and why there is none.

    Attributes:
        is_failed: whether the reason is an error that it ended with when it was run.
    """

    records: list[Result] = field(default_factory=list)
    reason: str = NO_RECORD
    is_failed: bool = False


def row_config(
    experiment: Experiment, row: Row, protocol: str, source: str, seed: int, overrides: Sequence[str]
) -> dict[str, Any]:
    """The configuration of one row, protocol and seed as plain values.

    Raises:
        ValueError: a name or key in `overrides`, or the row's method or data set, does not exist.
    """
    for group, name in (("method", row.method), ("data", row.data)):
        if name not in catalogue.names(group):
            raise ValueError(f"{group} {name} is not part of this version of mmbench")
    own = [
        f"method={row.method}",
        f"data={row.data}",
        *f"protocol={protocol}".split(),
        f"data.source={source}",
        f"seed={seed}",
        f"experiment={experiment.name}",
        f"weights={row.weights or ('trained' if source == 'toy' else 'official')}",
        *row.words,
    ]
    return config.composed([*own, *overrides])


def records_of(
    experiment: Experiment,
    row: Row,
    source: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    held: Mapping[str, Result],
    failed: Mapping[str, Mark] | None = None,
) -> dict[str, Found]:
    """What there is of a row under each protocol that it needs; composes it once for each.

    Args:
        held: the experiment's records by configuration (`results.by_configuration`).
        failed: marks of its rows that failed (`marks.failures`).
    """
    return {
        protocol: _found(experiment, row, protocol, source, seeds, overrides, held, failed or {})
        for protocol in experiment.protocols(row.data)
    }


def keys_of(plain: dict[str, Any], seeds: Sequence[int]) -> dict[int, str]:
    """Seed to the hash of the row's configuration with it, which its record and its mark have."""
    facts = described(plain)  # they say the seed once, so that a row is composed once for all of them
    return {seed: hashing.config_hash({**facts, "seed": seed}) for seed in seeds}


def _found(
    experiment: Experiment,
    row: Row,
    protocol: str,
    source: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    held: Mapping[str, Result],
    failed: Mapping[str, Mark],
) -> Found:
    wanted = row.seeds_of(seeds)
    if not wanted:
        return Found()
    try:
        plain = row_config(experiment, row, protocol, source, wanted[0], overrides)
    except ValueError as error:
        return Found(reason=str(error))
    keys = keys_of(plain, wanted).values()
    if records := [held[key] for key in keys if key in held]:
        return Found(records)
    for key in keys:
        if key[:DIGITS] in failed:
            return Found(reason=failed[key[:DIGITS]].told, is_failed=True)
    return Found(reason=(missing(plain) if source != "toy" else None) or NO_RECORD)
