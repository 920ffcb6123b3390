"""Marks of data sets that were checked: what is known of one without reading it, or importing what could."""

import json
from pathlib import Path
from typing import Any

from mmbench.core.files import sha256_json


def place(assets: str | Path, root: str | Path, split_scheme: str) -> Path:
    """Where the mark of a data set and a way to split it lies."""
    root = Path(root).expanduser()
    key = sha256_json([str(root.resolve()), split_scheme])
    return Path(assets).expanduser() / "checked" / f"{root.name}-{key[:12]}.json"


def read(path: Path) -> dict[str, Any] | None:
    """What a mark says (`DataModule.verify`); None where there is none, or no whole one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("fingerprint"), str) else None
