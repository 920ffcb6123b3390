"""What is true of toy pictures, in a folder beside them: `attributes.jsonl`, a line for each, and `parts/<id>.png`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def known(key: str, attributes: Mapping[str, str], captions: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, Any]:
    """What is written of one image.

    Args:
        key: its id.
        attributes: the true ones.
        captions: each with the attributes that it names.
    """
    return {"id": key, "attributes": attributes, "captions": [named for _, named in captions]}


def write(folder: Path, facts: Iterable[Mapping[str, Any]]) -> None:
    """Writes what is `known` of the images, in this order."""
    lines = "".join(json.dumps(fact, sort_keys=True) + "\n" for fact in facts)
    (folder / "attributes.jsonl").write_bytes(lines.encode())


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What is `known`, by the ids of the images."""
    lines = (folder / "attributes.jsonl").read_text(encoding="utf-8").splitlines()
    return {fact["id"]: fact for fact in map(json.loads, lines)}
