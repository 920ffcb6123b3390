"""Why a row is not run, told from cards, marks of data sets and folders of trained stages: nothing is built or read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmbench.core.cards import Card, absence
from mmbench.data import marks, sources
from mmbench.pipeline.stages import known_stage, official_cards, predecessors

CARD = f"{Card.__module__}.{Card.__qualname__}"


def missing(plain: dict[str, Any]) -> str | None:
    """The first thing that a row lacks on this machine, in one line that says what to do; None if nothing is missing.

    What only the data set or the network itself can say, such as a field that the task needs, is said when it runs.

    Args:
        plain: the settled configuration of the row as plain values.
    """
    return next(_missing(plain), None)


def _missing(plain: dict[str, Any]) -> Iterator[str]:
    module, assets = plain["data"]["module"], plain["paths"]["assets"]
    root = Path(module["root"]).expanduser()
    mark = marks.read(marks.place(assets, root, module["split_scheme"]))
    if not mark or not root.is_dir():
        yield from _archives(plain["data"]["name"], root)
    yield from _weights(plain, mark["fingerprint"] if mark else None)


def _archives(name: str, root: Path) -> Iterator[str]:
    """Of a data set that was not checked yet; where its archives are laid out otherwise, `prepare` finds that out."""
    for archive in sources.archives(name):
        if not archive.optional and not all((root / path).exists() for path in archive.contents):
            yield sources.absence(archive, root)
    if not root.is_dir():
        yield f"expected data set {name} in {root}, found no folder: run `mmbench prepare` for this data set"


def _weights(plain: dict[str, Any], fingerprint: str | None) -> Iterator[str]:
    """Of the stages before, then of the networks that the method is given, then its own."""
    method, assets, choice = plain["method"], plain["paths"]["assets"], plain["weights"]
    for before in predecessors(plain).values():
        own = before["weights"] if before["weights"] in ("official", "none") else "trained"
        yield from _weights({**before, "weights": own}, fingerprint)
    yield from filter(None, (absence(card, assets) for card in _cards(method["module"])))
    if choice == "none" or "training" not in method:  # what learns nothing has no weights of its own
        return
    if choice == "official":
        cards = official_cards(plain)
        yield from filter(None, (absence(card, assets) for card in cards.values()))
        if not cards:
            yield unpublished(plain)
    elif choice == "trained":
        yield from _untrained(plain, fingerprint)
    elif not Path(choice).is_file():
        yield f"{choice}: expected a file of weights, found none: put it there or correct the path"


def _cards(node: Any) -> Iterator[Card]:
    """The cards anywhere in what a method is built of."""
    if isinstance(node, dict) and node.get("_target_") == CARD:
        yield Card(**{key: value for key, value in node.items() if key != "_target_"})
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _cards(item)


def unpublished(plain: dict[str, Any]) -> str:
    """What to say where authors published no weights for a data set."""
    data = plain["data"]
    return (
        f"expected weights of {plain['method']['name']} that its authors published for {data['name']} "
        f"({data['source']}), found none: use weights=trained"
    )


def _untrained(plain: dict[str, Any], fingerprint: str | None) -> Iterator[str]:
    wanted = known_stage(plain, fingerprint or "")
    if fingerprint and not wanted.weights.is_file():
        yield untrained(plain, wanted.weights)
    # Without a mark nobody knows the key: any training of this method, data set and seed will do.
    if not fingerprint and not any(wanted.folder.parent.glob(f"*/{wanted.weights.name}")):
        yield untrained(plain, wanted.folder.parent)


def untrained(plain: dict[str, Any], place: Path) -> str:
    """What to say where the weights of a method that is trained here are not in their place."""
    name, data = plain["method"]["name"], plain["data"]
    return (
        f"expected trained weights of {name} at {place}, found none: run mmbench train method={name} "
        f"data={data['name']} data.source={data['source']} seed={plain['seed']}"
    )
