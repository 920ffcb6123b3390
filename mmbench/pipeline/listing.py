"""Which files of a folder are samples, and what of it is passed over."""

import os
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

# What Windows and macOS leave beside pictures, in small letters; other systems' own names begin with a dot.
SYSTEM = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"})
HIDDEN = "hidden names (.*, __MACOSX, Thumbs.db, desktop.ini)"
NOWHERE = "links that lead nowhere, or no files"
LOOPS = "links to a folder that holds them"
UNREADABLE = "folders that cannot be read"
SHOWN = 5  # suffixes that are named


def listed(folder: Path, suffixes: Set[str]) -> tuple[list[Path], dict[str, int]]:
    """The files with one of `suffixes` (in small letters) below a folder, sorted, and kind to number of what is not.

    Links to files and folders are followed, so that a file that several ways lead to is there under several names; one
    that leads back to a folder that it lies in is not. Of hidden folders nothing is looked at or counted but the
    folder.
    """
    passed: Counter[str] = Counter()
    others: Counter[str] = Counter()
    here = folder.resolve()
    files = sorted(_walk(folder, here, frozenset({here, *here.parents}), suffixes, passed, others))
    if others:
        named = sorted(others)
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        passed[f"files with other suffixes ({', '.join(named[:SHOWN])}{more})"] = others.total()
    return files, dict(sorted(passed.items()))


def _walk(
    folder: Path, here: Path, holders: frozenset[Path], suffixes: Set[str], passed: Counter[str], others: Counter[str]
) -> Iterator[Path]:
    """Files below `folder`, which is the real folder `here`; `holders` are all real folders that it lies in."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        passed[UNREADABLE] += 1
        return
    for path in entries:
        name, suffix = path.name, path.suffix.lower()
        if name.startswith(".") or name.lower() in SYSTEM:
            passed[HIDDEN] += 1
        elif os.path.isdir(path):  # noqa: PTH112  (pathlib raises where a name is too long to be followed)
            real = path.resolve() if path.is_symlink() else here / name
            if real in holders:
                passed[LOOPS] += 1
            else:
                yield from _walk(path, real, holders | {real, *real.parents}, suffixes, passed, others)
        elif not os.path.isfile(path):  # noqa: PTH113
            passed[NOWHERE] += 1
        elif suffix in suffixes:
            yield path
        else:
            others[suffix or "none"] += 1
