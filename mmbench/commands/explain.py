"""Explains why two numbers differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmbench.core import config
from mmbench.core.results import Result
from mmbench.pipeline.experiments import Experiment, Row, load, published
from mmbench.pipeline.explaining import Side, explained, under
from mmbench.pipeline.rows import described

HELP = """usage: mmbench explain record=A against=B [metric=NAME[:NAME]] [method=NAME data=NAME key=value ...]
       mmbench explain record=A against=published experiment=NAME

Scores the same images under two protocols and under every step between, one changed fact at a time, and says what each
of them contributes to the difference. Contributions add up to the whole; in another order each might be another.

  record, against   a record (a file below results/), or the name of a protocol (`mmbench list group=protocol`)
  metric            only this one; psnr:tdanet_psnr compares one of record= with another of against=
  method, data, ... whose images, where no record says it; as for `mmbench evaluate`
  against=published the row of the experiment's table with this method and data set. What cannot be scored again is
                    explained as far as the experiment's protocol goes
"""


def _side(name: str, words: Sequence[str]) -> tuple[dict[str, Any], Result | None]:
    """The configuration that a record or a protocol stands for, and the record."""
    path = Path(name)
    if path.suffix != ".json":
        return config.plain(config.composed([f"protocol={name}", *words])), None
    try:
        record = Result(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a record, found {type(error).__name__}: correct the path") from None
    if "method" not in record.config:
        raise ValueError(f"{path}: expected a record of `mmbench evaluate`, found one of `mmbench score`")
    row = [f"method={record.row['method']}", f"data={record.row['data']}", f"data.source={record.row['source']}"]
    facts = [f"++{key}={_word(fact)}" for key, fact in _scalars(record.config["data"], "data")]
    own = [*row, f"seed={record.seed}", f"weights={record.config['weights']}", *facts]
    plain = config.plain(config.composed([*own, *(word for word in words if not word.startswith("method="))]))
    plain = under(plain, record.config["protocol"])
    if described(plain)["method"] != record.config["method"]:
        raise ValueError(f"{path}: expected the method as this version composes it, found another: evaluate it again")
    return plain, record


def _scalars(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in node.items():
        if isinstance(item, Mapping):
            if key not in ("mask", "preprocessing"):  # the protocol's
                yield from _scalars(item, f"{prefix}.{key}")
        elif not key.startswith("_") and (prefix, key) not in (("data", "name"), ("data", "source")):
            yield f"{prefix}.{key}", item


def _word(fact: Any) -> str:
    return "null" if fact is None else str(fact).lower() if isinstance(fact, bool) else str(fact)


def _compare(first: dict[str, Any], second: dict[str, Any], asked: str) -> None:
    ours, _, theirs = asked.partition(":")
    shared = sorted(first["protocol"]["metrics"].keys() & second["protocol"]["metrics"].keys())
    pairs = [(ours, theirs or ours)] if asked else [(name, name) for name in shared]
    if not pairs:
        raise ValueError(
            "expected a metric that both protocols have, found none: name two, metric="
            f"{min(first['protocol']['metrics'])}:{min(second['protocol']['metrics'])}"
        )
    for mine, other in pairs:
        for plain, name in ((first, mine), (second, other)):
            if name not in plain["protocol"]["metrics"]:
                config.unknown(f"metric of {plain['protocol']['name']}", name, plain["protocol"]["metrics"])
        frame = explained(Side(first, mine), Side(second, other))
        print(f"\n{mine}" + (f" and {other}" if other != mine else ""))
        print(frame.to_markdown(index=False, floatfmt=".6g"))


def _row(experiment: Experiment, plain: Mapping[str, Any]) -> Row:
    for row in experiment.rows:
        if (row.method, row.data) == (plain["method"]["name"], plain["data"]["name"]):
            return row
    raise ValueError(
        f"expected a row of {experiment.name} for {plain['method']['name']} on {plain['data']['name']}, found none"
    )


def _against_published(first: dict[str, Any], record: Result | None, experiment: Experiment, asked: str) -> None:
    """Published beside ours; what of the difference lies between our protocol and the card of the paper's."""
    row, source = _row(experiment, first), first["data"]["source"]
    numbers = published(experiment, row)
    words = [f"method={row.method}", f"data={row.data}", f"data.source={source}"]
    for name in filter(numbers.__contains__, experiment.places):
        number, ours = numbers[name], experiment.metric(name, row, source).partition("@")[0]
        if ours not in first["protocol"]["metrics"] or (asked and asked != ours):
            continue
        protocol = experiment.protocol_of(name, row.data)
        card = {**first, "protocol": config.plain(config.composed([*words, f"protocol={protocol}"]))["protocol"]}
        frame = explained(Side(first, ours), Side(card, ours))
        under_card = frame["after"].iloc[-1]
        print(f"\n{name} of {row.label}: published {number.text} ({number.protocol or 'no protocol stated'})")
        print(frame.to_markdown(index=False, floatfmt=".6g"))
        known = "" if source == experiment.sources[0] else "; toy data, so that the rest says nothing about the paper"
        print(f"not explained by protocol: {number.value - under_card:+.6g} ({number.text} - {under_card:.6g}){known}")


def main(arguments: list[str]) -> int:
    own, rest = config.split_options(arguments, ("record", "against", "metric", "experiment"))
    for key in ("record", "against"):
        if key not in own:
            raise ValueError(f"expected {key}=RECORD.json or {key}=PROTOCOL, found none: see `mmbench explain --help`")
    first, record = _side(own["record"], rest)
    asked = own.get("metric", "")
    if own["against"] == "published":
        if "experiment" not in own:
            raise ValueError(
                f"expected experiment=NAME with against=published, found none: {config.names('experiment')}"
            )
        _against_published(first, record, load(own["experiment"]), asked)
    elif own["against"].endswith(".json"):
        second, other = _side(own["against"], rest)
        if record is not None and other is not None and record.row != other.row:
            raise ValueError(
                f"expected two records of one row, found {record.row} and {other.row}: what differs is not the protocol"
            )
        _compare(first, second, asked)
    else:
        words = [f"method={first['method']['name']}", f"data={first['data']['name']}"]
        words += [f"data.source={first['data']['source']}", f"protocol={own['against']}"]
        _compare(first, {**first, "protocol": config.plain(config.composed(words))["protocol"]}, asked)
    return 0
