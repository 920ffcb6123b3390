"""Explains why two numbers differ."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmbench.core import catalogue, command_line, config
from mmbench.core.results import Result, read_record

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
        return config.composed([f"protocol={name}", *words]), None
    record = read_record(path)
    if "method" not in record.config:
        raise ValueError(f"{path}: expected a record of `mmbench evaluate`, found one of `mmbench score`")
    row = [f"method={record.row['method']}", f"data={record.row['data']}", f"data.source={record.row['source']}"]
    facts = [f"++{key}={_word(fact)}" for key, fact in _scalars(record.config["data"], "data")]
    row += [f"scale={scale}" for scale in filter(None, [record.config.get("scale")])]
    own = [*row, f"seed={record.seed}", f"weights={record.config['weights']}", *facts]
    return config.composed([*own, *(word for word in words if not word.startswith("method="))]), record


def _scalars(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in node.items():
        if isinstance(item, Mapping):
            if key not in ("mask", "preprocessing"):  # the protocol's
                yield from _scalars(item, f"{prefix}.{key}")
        elif not key.startswith("_") and (prefix, key) not in (("data", "name"), ("data", "source")):
            yield f"{prefix}.{key}", item


def _word(fact: Any) -> str:
    return "null" if fact is None else str(fact).lower() if isinstance(fact, bool) else str(fact)


def _under(protocol: str, plain: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the protocol of a name, as it is for this method and these data."""
    words = [f"method={plain['method']['name']}", f"data={plain['data']['name']}"]
    words += [f"data.source={plain['data']['source']}", f"protocol={protocol}"]
    return {**plain, "protocol": config.composed(words)["protocol"]}


def _print_comparisons(first: dict[str, Any], second: dict[str, Any], asked: str) -> None:
    from mmbench.pipeline.explaining import comparisons

    for mine, other, frame in comparisons(first, second, asked):
        print(f"\n{mine}" + (f" and {other}" if other != mine else ""))
        print(frame.to_markdown(index=False, floatfmt=".6g"))


def _print_published(first: dict[str, Any], name: str, asked: str) -> None:
    """Published beside ours; what of the difference lies between our protocol and the card of the paper's."""
    from mmbench.pipeline.experiment_files import load
    from mmbench.pipeline.explaining import published_beside

    experiment, source = load(name), first["data"]["source"]
    known = "" if source == experiment.sources[0] else "; toy data, so that the rest says nothing about the paper"
    for metric, row, number, frame in published_beside(first, partial(_under, plain=first), experiment, asked):
        under_card = frame["after"].iloc[-1]
        print(f"\n{metric} of {row.label}: published {number.text} ({number.protocol or 'no protocol stated'})")
        print(frame.to_markdown(index=False, floatfmt=".6g"))
        print(f"not explained by protocol: {number.value - under_card:+.6g} ({number.text} - {under_card:.6g}){known}")


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("record", "against", "metric", "experiment"))
    command_line.require_said(own)
    for key in ("record", "against"):
        if key not in own:
            raise ValueError(f"expected {key}=RECORD.json or {key}=PROTOCOL, found none: see `mmbench explain --help`")
    against, asked = own["against"], own.get("metric", "")
    if against == "published" and "experiment" not in own:
        known = ", ".join(catalogue.names("experiment"))
        raise ValueError(f"expected experiment=NAME with against=published, found none: choose from {known}")
    if against != "published" and "experiment" in own:
        raise ValueError("expected experiment=NAME with against=published, found another: leave experiment= out")
    if own["record"].endswith(".json") and (rows := [word for word in rest if word.startswith(("method=", "data="))]):
        raise ValueError(f"expected the row of the record, found {rows[0]}: leave it out")
    first, record = _side(own["record"], rest)
    second, other = _side(against, rest) if against.endswith(".json") else (None, None)
    if record and other and record.row != other.row:
        raise ValueError(
            f"expected two records of one row, found {record.row} and {other.row}: what differs is not the protocol"
        )
    if second is None and against != "published":
        second = _under(against, first)
    from mmbench.pipeline.explaining import as_recorded  # torch takes seconds to import

    if record:
        first = as_recorded(first, record, own["record"])
    if second is None:
        _print_published(first, own["experiment"], asked)
    else:
        _print_comparisons(first, as_recorded(second, other, against) if other else second, asked)
    return 0
