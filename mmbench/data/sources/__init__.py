"""What each data set is published as, one file each: known without importing what reads it."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mmbench.data.archives import Archive


def archives(name: str) -> tuple[Archive, ...]:
    """The archives of a data set, by its name in `conf/data/`; none where it has no file here."""
    module = f"{__name__}.{name}"
    found: tuple[Archive, ...] = import_module(module).ARCHIVES if find_spec(module) else ()
    return found


def absence(archive: Archive, root: Path) -> str:
    """What to say, in one line, where nothing of an archive lies below a data set's folder."""
    wanted = archive.contents[0]
    if inside := sorted(
        folder.name for folder in root.glob("*/") if folder.name != "archives" and (folder / wanted).exists()
    ):
        return f"expected {wanted} in {root}, found none (found {inside[0]}/{wanted}): move that up one folder"
    if root.name == wanted and root.is_dir():
        return f"expected {wanted} in {root}, found none: where that is the folder itself, set data.root={root.parent}"
    return (
        f"expected {' and '.join(archive.contents)} in {root}, found none: run `mmbench prepare` for this data set, or "
        f"unpack {archive.described()} there; data.source=toy needs none"
    )
