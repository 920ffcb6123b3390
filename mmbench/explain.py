"""Explains why two numbers differ: scores the same images under both protocols, and under every step between."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmbench import canary, evaluate
from mmbench.core import config
from mmbench.core.experiment import Experiment, Row, load, published
from mmbench.core.files import locked, written_atomically
from mmbench.core.results import Result
from mmbench.metrics.suite import build_suite

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

# In this order facts change. The first are the protocol's, then come the arguments of the metric, and then the metric.
PROTOCOL = {
    "default_preprocessing": "resize",
    "preprocessing": "resize",
    "bird_crop": "crop",
    "mask": "mask",
    "split": "split",
    "count": "count of images",
    "captions_per_image": "captions of each image",
    "draws": "draws of each caption",
    "drop_partial_batch": "partial batch",
    "seed": "choice of captions",
    "rounding": "rounding",
    "composite": "known pixels put back",
    "reference": "reference set",
}
# Metrics that lie between two others: what the way from one to the next is.
RUNGS = {
    ("psnr", "tdanet_psnr"): [("picnet_psnr", "best of k"), ("tdanet_psnr", "grey")],
    ("l1", "tdanet_l1"): [("picnet_l1", "best of k, levels 0 to 255"), ("tdanet_l1", "grey, ratio in %")],
    ("picnet_tv", "tdanet_tv"): [("tdanet_tv", "grey, in %")],
}
# What holds where a protocol does not say.
DEFAULTS = {
    "default_preprocessing": {"_target_": "mmbench.data.views.ShorterSide"},
    "preprocessing": None,
    "bird_crop": True,
    "composite": False,
    "rounding": evaluate.TO_NEAREST,
}


@dataclass(frozen=True)
class Side:
    """One of the two: a settled plain configuration, and the metric that is looked at."""

    plain: dict[str, Any]
    metric: str

    @property
    def protocol(self) -> dict[str, Any]:
        return self.plain["protocol"]


@dataclass(frozen=True)
class Step:
    """One fact that differs, and the protocol of one metric in which it and all before it have changed."""

    what: str
    before: Any
    after: Any
    protocol: dict[str, Any]
    metric: str


def steps(first: Side, second: Side) -> Iterator[Step]:
    """What leads from one protocol of one metric to another, one changed fact at a time.

    The network that judges changes first, then what `PROTOCOL` lists in its order, then the arguments of the metric in
    the order of their names; last, where it is another, the metric itself, by the rungs that are known.
    """
    now, metric = _alone(first), first.metric
    wanted = _alone(second)
    ours, theirs = now["metrics"][metric], wanted["metrics"][second.metric]
    same = ours["_target_"] == theirs["_target_"]
    if same and now["extractors"] != wanted["extractors"]:
        judges = [_judge(protocol) for protocol in (now, wanted)]
        now = {**now, "extractors": wanted["extractors"]}
        yield Step("weights of the judge", *judges, now, metric)
    for key, what in PROTOCOL.items():
        before, after = (protocol.get(key, DEFAULTS.get(key)) for protocol in (now, wanted))
        if before != after:
            now = {name: value for name, value in now.items() if name != key} | {
                name: value for name, value in wanted.items() if name == key
            }
            yield Step(what, before, after, now, metric)
    if same:
        for key in sorted(ours.keys() | theirs.keys()):
            node = now["metrics"][metric]
            if node.get(key) != theirs.get(key):
                now = {**now, "metrics": {metric: {**node, key: theirs.get(key)}}}
                yield Step(f"{metric}: {key}", node.get(key), theirs.get(key), now, metric)
        return
    for name, what in RUNGS.get((metric, second.metric), [(second.metric, "definition of the metric")]):
        node = theirs if name == second.metric else config.node(f"metric/{name}")
        now = {**now, "extractors": wanted["extractors"], "metrics": {name: node}}
        yield Step(what, metric, name, now, name)
        metric = name


def _alone(side: Side) -> dict[str, Any]:
    """The protocol of one metric; its network is called `judge`, whatever it was called."""
    protocol = deepcopy(side.protocol)
    node = protocol["metrics"][side.metric]
    judge = protocol["extractors"].get(node.get("extractor"))
    if judge is not None:
        node["extractor"] = "judge"
    return {**protocol, "metrics": {side.metric: node}, "extractors": {"judge": judge} if judge else {}}


def _judge(protocol: Mapping[str, Any]) -> str:
    judge = protocol["extractors"]["judge"]
    return f"{judge['name']} ({judge['network']['_target_'].rpartition('.')[2]})"


def value(plain: Mapping[str, Any], protocol: Mapping[str, Any], metric: str, images: evaluate.Run | None) -> Any:
    """The score of a metric under a protocol, and the run that has the images.

    Args:
        images: a run of which images are taken that would be drawn again alike.

    Raises:
        MissingAsset, ValueError: as `evaluate.prepare`, `build_suite` and `evaluate.score` say.
    """
    run = evaluate.prepared(_under(plain, protocol))
    with locked(run.folder):
        if images is not None and _alike(images.plain, run.plain):
            for sample in run.samples:
                there, here = images.image(sample), run.image(sample)
                if there.is_file() and not here.exists():
                    with written_atomically(here) as partial:
                        shutil.copyfile(there, partial)
        assets = Path(plain["paths"]["assets"]).expanduser()
        suite = build_suite(run.protocol["metrics"], run.protocol["extractors"], assets)
        canary.check(suite, assets)
        evaluate.generate(run)
        scores, _ = evaluate.score(run, suite)
    return scores[suite.keys[metric]]["value"], run


def _under(plain: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration under another protocol: the data module is told what `config.settled` tells it."""
    given = deepcopy({**plain, "protocol": dict(protocol)})
    keys = config.of_protocol(protocol, given["data"]["module"])
    given["data"]["evaluation"] = {argument: protocol[key] for argument, key in keys.items()}
    return given


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs draw the same image for a sample, so that they differ in the set of samples alone."""
    facts = []
    for plain in (one, other):
        described = evaluate.described(plain)
        kept = {
            key: described["protocol"].get(key)
            for key in evaluate.SAMPLING
            if key == "split" or key not in evaluate.SAMPLE_SET
        }
        facts.append([described["method"], described["data"], plain["seed"], kept])
    return facts[0] == facts[1]


def explained(first: Side, second: Side) -> pd.DataFrame:
    """The steps as rows: step, from, to, before, after, contribution; the last row is the sum."""
    start, images = value(first.plain, _alone(first), first.metric, None)
    rows, now = [], start
    for step in steps(first, second):
        then, images = value(first.plain, step.protocol, step.metric, images)
        rows.append([step.what, _short(step.before), _short(step.after), now, then, then - now])
        now = then
    rows.append(["sum", first.protocol["name"], second.protocol["name"], start, now, now - start])
    return pd.DataFrame(rows, columns=["step", "from", "to", "before", "after", "contribution"])


def _short(fact: Any) -> str:
    """A fact in few words: of a node, its class and what it is given."""
    if isinstance(fact, Mapping):
        given = ", ".join(f"{key}={_short(item)}" for key, item in fact.items() if not key.startswith("_"))
        return str(fact.get("_target_", "")).rpartition(".")[2] + (f"({given})" if given else "")
    if fact is None or isinstance(fact, bool):
        return {None: "none", True: "yes", False: "no"}[fact]
    return str(fact)


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
    plain = _under(plain, record.config["protocol"])
    if evaluate.described(plain)["method"] != record.config["method"]:
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
    words = [f"method={row.method}", f"data={row.data}", f"data.source={source}", f"protocol={experiment.protocol}"]
    card = {**first, "protocol": config.plain(config.composed(words))["protocol"]}
    for name, number in numbers.items():
        ours = experiment.metric(name, row, source).partition("@")[0]
        if ours not in first["protocol"]["metrics"] or (asked and asked != ours):
            continue
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
