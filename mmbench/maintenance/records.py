"""Carries records over when the way changes in which a configuration is written down, and not what it says.

A table finds a record by the hash of its configuration. Where a key gets another name or place, the hash changes and
the number does not: such a record gets the new hash. Each record is compared with what its row composes today, fact by
fact, after the renamings of `RENAMINGS`. Where all facts agree, it is filed under today's hash; where those that differ
are all among `OUTDATED`, too, but marked with the reason, so that tables show it and judge nothing by it; where others
differ, it stays as it is. Values are never touched.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmbench.core import catalogue, command_line, config, hashing
from mmbench.core.protocol import Protocol
from mmbench.core.results import Result, read_record
from mmbench.pipeline.rows import described

HELP = """usage: python -m mmbench.maintenance.records [write=true] [results=FOLDER]

Says which records below results/ say in older words what their rows say today, or rest on something that has changed
since; with write=true files them under today's hash, the latter marked as outdated. Values are never touched.
"""

Facts = dict[str, Any]


def _protocol(facts: Facts, now: Facts) -> None:
    """A protocol kept all its keys, and named no task; the scale hung on the source of the data."""
    old = facts["protocol"]
    cropped = old.pop("bird_crop", None)
    if cropped is not None:
        old["data"] = {facts["data"]["name"]: {"bird_crop": cropped}}
    facts["protocol"] = Protocol.of({"task": now["protocol"]["task"], **old}).facts()
    facts.setdefault("scale", "toy" if facts["data"]["source"] == "toy" else "published")


def _optimisers(facts: Facts, now: Facts) -> None:
    """The one optimiser of a method was written in its code, and its YAML had the learning rate."""
    betas = {"DAMSM": {"betas": [0.5, 0.999]}, "SISGANEmbedding": {}}
    for method in _methods(facts["method"]):
        name = method["module"]["_target_"].rpartition(".")[2]
        if name in betas and (rate := method["module"].pop("learning_rate", None)) is not None:
            adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": rate, **betas[name]}
            method["module"]["optimizer"] = adam


def _cards(facts: Facts, now: Facts) -> None:
    """Cards have a module of their own."""
    moved = json.dumps(facts).replace('"mmbench.core.weights.Card"', '"mmbench.core.cards.Card"')
    facts.update(json.loads(moved))


def _methods(facts: Facts) -> Iterator[Facts]:
    """A method and the stages it stands on."""
    yield facts
    for stage in facts.get("stages", {}).values():
        yield from _methods(stage)


RENAMINGS: tuple[Callable[[Facts, Facts], None], ...] = (_cards, _protocol, _optimisers)

# (end of a fact's path, its old value) to why the value of such a record is not today's.
OLD_VGG = "trained through a toy VGG whose features were so small that perceptual terms counted for nothing"
OUTDATED = {
    ("perceptual.card.sha256", "95f4ac9b6e3dcaf5131f4241bc01c478baca493468aef8d1801ba19a0450dbec"): OLD_VGG,
    ("method.module.lambda_own", 20.0): OLD_VGG,
    ("method.module.lambda_other", 5.0): OLD_VGG,
}


def carried_over(record: Result, plain: Mapping[str, Any]) -> tuple[Result | None, str]:
    """The record under the hash of today's configuration, and in words what became of it; None where it stays.

    Args:
        record: as it was written.
        plain: what its row composes today.
    """
    now = described(dict(plain))
    wanted = hashing.config_hash(now)
    if record.config_hash == wanted:
        return None, "is of today"
    facts = deepcopy(record.config)
    for renaming in RENAMINGS:
        renaming(facts, now)
    differing = _differing(facts, now)
    reasons = {reason for path, value in differing.items() if (reason := _reason(path, value))}
    if strangers := [path for path, value in differing.items() if not _reason(path, value)]:
        return None, f"stays: {strangers[0]} is another today"
    inputs = {"data": record.data["fingerprint"], "weights": record.weights["sha256"]}
    changed = {
        "config": facts,
        "config_hash": wanted,
        "run_key": hashing.config_hash([facts, inputs]),
        "protocol": {"name": facts["protocol"]["name"], "hash": hashing.config_hash(facts["protocol"])},
        "outdated": "; ".join(sorted(reasons)),
    }
    return dataclasses.replace(record, **changed), f"outdated: {changed['outdated']}" if reasons else "the same facts"


def _differing(old: Facts, now: Facts) -> dict[str, Any]:
    """Paths of facts that differ, to their old values; None for what there was not."""
    before, after = (dict(_flat(hashing.identifying(hashing.scientific(one)))) for one in (old, now))
    return {
        path: before.get(path) for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)
    }


def _flat(facts: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(facts, Mapping) or not facts:
        yield prefix, facts
        return
    for key, item in facts.items():
        yield from _flat(item, f"{prefix}.{key}" if prefix else key)


def _reason(path: str, value: Any) -> str:
    return next((reason for (end, old), reason in OUTDATED.items() if path.endswith(end) and value == old), "")


def words_of(record: Result) -> list[str]:
    """The command line that composes a record's row today."""
    row = [
        f"{key}={record.row[name]}" for key, name in (("method", "method"), ("data", "data"), ("data.source", "source"))
    ]
    protocol = record.protocol["name"].removesuffix("-toy").replace("-", "_")
    return [*row, f"protocol={protocol}", f"seed={record.seed}", f"weights={record.config['weights']}"]


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    own, rest = command_line.split_options(arguments, ("write", "results"))
    if rest:
        catalogue.unknown("option", rest[0].partition("=")[0], ["write", "results"])
    results = Path(own.get("results", "results"))
    count = 0
    for path in sorted(results.glob("*/*.json")):
        try:
            record = read_record(path)
        except ValueError as error:
            print(f"stays: {error}")
            continue
        if "method" not in record.config:  # of `mmbench score`, which composes no row
            continue
        found, words = carried_over(record, config.composed(words_of(record)))
        print(f"{path}: {words}")
        if found is not None and own.get("write") == "true":
            written = found.write(results)
            if written != path:
                path.unlink()
            count += 1
    print(f"{count} records filed under the hash of today" if count else "nothing written (write=true writes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
