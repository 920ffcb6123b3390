"""Explains why two numbers differ: scores the same images under both protocols, and under every step between."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmbench.core import catalogue, composition, config, construction
from mmbench.core.files import locked, written_atomically
from mmbench.core.protocol import Protocol, explained_fields
from mmbench.core.results import Result
from mmbench.metrics.suite import build_suite
from mmbench.pipeline import canary, rows
from mmbench.pipeline.evaluation import score
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.generation import Run, generate, prepared
from mmbench.pipeline.publications import Published, published

# Metrics that lie between two others: what the way from one to the next is.
RUNGS = {
    ("psnr", "tdanet_psnr"): [("picnet_psnr", "best of k"), ("tdanet_psnr", "grey")],
    ("l1", "tdanet_l1"): [("picnet_l1", "best of k, levels 0 to 255"), ("tdanet_l1", "grey, ratio in %")],
    ("picnet_tv", "tdanet_tv"): [("tdanet_tv", "grey, in %")],
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

    The network that judges changes first, then the fields of the protocol in their order, then the arguments of the
    metric in the order of their names; last, where it is another, the metric itself, by the rungs that are known.
    """
    now, metric = _alone(first), first.metric
    wanted = _alone(second)
    ours, theirs = now["metrics"][metric], wanted["metrics"][second.metric]
    same = ours["_target_"] == theirs["_target_"]
    if same and now["extractors"] != wanted["extractors"]:
        judges = [_judge(protocol) for protocol in (now, wanted)]
        now = {**now, "extractors": wanted["extractors"]}
        yield Step("weights of the judge", *judges, now, metric)
    for one in explained_fields():
        before, after = now[one.name], wanted[one.name]
        if before != after:
            now = {**now, one.name: after}
            yield Step(one.metadata["word"], before, after, now, metric)
    if same:
        for key in sorted(ours.keys() | theirs.keys()):
            node = now["metrics"][metric]
            if node.get(key) != theirs.get(key):
                now = {**now, "metrics": {metric: {**node, key: theirs.get(key)}}}
                yield Step(f"{metric}: {key}", node.get(key), theirs.get(key), now, metric)
        return
    for name, what in RUNGS.get((metric, second.metric), [(second.metric, "definition of the metric")]):
        node = theirs if name == second.metric else composition.node(f"metric/{name}")
        now = {**now, "extractors": wanted["extractors"], "metrics": {name: node}}
        yield Step(what, metric, name, now, name)
        metric = name


def _alone(side: Side) -> dict[str, Any]:
    """The protocol of one metric; its network is called `judge`, whatever it was called.

    Of the task of the method whose images they are, so that numbers of two tasks can be compared, too.
    """
    task = construction.target(side.plain["method"]["module"]).task
    protocol = {**deepcopy(side.protocol), "task": task.name}
    node = protocol["metrics"][side.metric]
    judge = protocol["extractors"].get(node.get("extractor"))
    if judge is not None:
        node["extractor"] = "judge"
    return {**protocol, "metrics": {side.metric: node}, "extractors": {"judge": judge} if judge else {}}


def _judge(protocol: Mapping[str, Any]) -> str:
    judge = protocol["extractors"]["judge"]
    return f"{judge['name']} ({judge['network']['_target_'].rpartition('.')[2]})"


def value(plain: Mapping[str, Any], protocol: Mapping[str, Any], metric: str, images: Run | None) -> Any:
    """The score of a metric under a protocol, and the run that has the images.

    Args:
        images: a run of which images are taken that would be drawn again alike.

    Raises:
        MissingAsset, ValueError: as `generation.prepared`, `build_suite` and `evaluation.score` say.
    """
    run = prepared(under(plain, protocol))
    with locked(run.folder):
        if images is not None and _alike(images, run):
            for sample in run.samples:
                there, here = images.file(sample), run.file(sample)
                if there.is_file() and not here.exists():
                    with written_atomically(here) as partial:
                        shutil.copyfile(there, partial)
        assets = Path(plain["paths"]["assets"]).expanduser()
        suite = build_suite(run.protocol.metrics, run.protocol.extractors, assets)
        canary.check(suite, assets)
        generate(run)
        scores, _ = score(run, suite)
    return scores[suite.keys[metric]]["value"], run


def under(plain: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration under another protocol: the data module is told what `config.composed` tells it.

    Raises:
        ValueError: as `Protocol.of`.
    """
    given = deepcopy({**plain, "protocol": asdict(Protocol.of(protocol))})
    given["data"]["evaluation"] = config.of_protocol(given["protocol"], given["data"])
    return given


def as_recorded(plain: Mapping[str, Any], record: Result, path: str) -> dict[str, Any]:
    """The configuration that the words of a record compose, under the record's own protocol.

    Raises:
        ValueError: the method was another when the record was written; names the record's path.
    """
    found = under(plain, record.config["protocol"])
    if rows.described(found)["method"] != record.config["method"]:
        raise ValueError(f"{path}: expected the method as this version composes it, found another: evaluate it again")
    return found


def _alike(one: Run, other: Run) -> bool:
    """Whether two runs draw the same image for a sample, so that they differ in the set of samples alone."""
    facts = []
    for run in (one, other):
        described = rows.described(run.plain)
        kept = {**run.protocol.changing("images"), "split": run.protocol.split}
        facts.append([described["method"], described["data"], described["seed"], kept])
    return facts[0] == facts[1]


def explained(first: Side, second: Side) -> pd.DataFrame:
    """The steps as rows: step, from, to, before, after, contribution; the last row is the sum."""
    start, images = value(first.plain, _alone(first), first.metric, None)
    lines, now = [], start
    for step in steps(first, second):
        then, images = value(first.plain, step.protocol, step.metric, images)
        lines.append([step.what, _short(step.before), _short(step.after), now, then, then - now])
        now = then
    lines.append(["sum", first.protocol["name"], second.protocol["name"], start, now, now - start])
    return pd.DataFrame(lines, columns=["step", "from", "to", "before", "after", "contribution"])


def comparisons(
    first: dict[str, Any], second: dict[str, Any], asked: str = ""
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Metrics of two configurations that differ in their protocols: name under the first, under the second, the steps.

    Args:
        asked: a metric, or one of each, `psnr:tdanet_psnr`; empty for all that both protocols have.

    Raises:
        ValueError: a protocol lacks the metric, or the two have none in common.
    """
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
                catalogue.unknown(f"metric of {plain['protocol']['name']}", name, plain["protocol"]["metrics"])
        yield mine, other, explained(Side(first, mine), Side(second, other))


def published_beside(
    first: dict[str, Any], card: Callable[[str], dict[str, Any]], experiment: Experiment, asked: str = ""
) -> Iterator[tuple[str, Row, Published, pd.DataFrame]]:
    """Published numbers of a configuration's row, with the steps from its protocol to the card of the paper's.

    Args:
        card: the configuration under a protocol of the experiment, by its name.
        asked: the metric that is wanted; empty for all that both protocols have.

    Raises:
        ValueError: the experiment has no row of this method on these data, or the two have no such metric.
    """
    row = _row(experiment, first)
    numbers = published(experiment, row)
    ours = {name: experiment.metric(name, row, first["data"]["source"]).partition("@")[0] for name in experiment.places}
    both = {name: mine for name, mine in ours.items() if name in numbers and mine in first["protocol"]["metrics"]}
    if asked and asked not in both.values():
        catalogue.unknown(f"metric that {experiment.name} and {first['protocol']['name']} have", asked, both.values())
    if not both:
        raise ValueError(
            f"expected a metric of {first['protocol']['name']} that was published for {row.label} on {row.data}, found "
            "none: choose another protocol"
        )
    for name in (name for name, mine in both.items() if asked in ("", mine)):
        theirs = card(experiment.protocol_of(name, row.data))
        yield name, row, numbers[name], explained(Side(first, both[name]), Side(theirs, both[name]))


def _row(experiment: Experiment, plain: Mapping[str, Any]) -> Row:
    for row in experiment.rows:
        if (row.method, row.data) == (plain["method"]["name"], plain["data"]["name"]):
            return row
    raise ValueError(
        f"expected a row of {experiment.name} for {plain['method']['name']} on {plain['data']['name']}, found none"
    )


def _short(fact: Any) -> str:
    """A fact in few words: of a node, its class and what it is given."""
    if isinstance(fact, Mapping):
        given = ", ".join(f"{key}={_short(item)}" for key, item in fact.items() if not key.startswith("_"))
        return str(fact.get("_target_", "")).rpartition(".")[2] + (f"({given})" if given else "")
    if fact is None or isinstance(fact, bool):
        return {None: "none", True: "yes", False: "no"}[fact]
    return str(fact)
