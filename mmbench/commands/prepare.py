"""Fetches or makes a data set, and checks it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.core import catalogue, checking, command_line, config, construction
from mmbench.core.download import announced
from mmbench.core.files import ASSETS, require_writable
from mmbench.data.archives import Archive
from mmbench.data.fetching import is_unfinished, obtain, source

if TYPE_CHECKING:
    from mmbench.data.base import DataModule

HELP = """usage: mmbench prepare data=NAME [data.source=real|toy] [option=value ...]

Fetches (real) or makes (toy) a data set below paths.assets, by default the user's cache folder or MMBENCH_HOME, and
checks it. First it says what it will fetch, how large that is, from where and under which terms. Every archive is
checked against its published size and sum before it is unpacked, every file that the splits name is looked for, and the
images of each split are counted. Interrupted, it goes on where it stopped when it is run again.

options:
  data.root=FOLDER       the data set lies there already, unpacked: it is checked and nothing there is changed; only a
                         folder below paths.assets is ever written to
  paths.mirror=PLACE     a folder or URL that has the archives under their names, for machines without internet; what
                         it lacks is fetched from its origin. Archives may also be put into <data.root>/archives
  verify=quick|full      decode fifty images of each split (quick), or all of them (full)
  stats=true             also print what the data set is like: counts, captions, sizes, masks
  data.module.KEY=VALUE  another split scheme, say: see conf/data/NAME.yaml

  mmbench prepare data=cub
  mmbench prepare data=cub paths.mirror=/mnt/archives verify=full
  mmbench prepare data=cub data.source=toy
"""
CHOICES = {"verify": ("quick", "full"), "stats": ("false", "true")}
HEARD = re.compile(r"data\.(source|root|toy_images|toy_seed)|data\.module\.\w+|paths\.(assets|mirror)")


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("data", *CHOICES))
    if "data" not in own:
        raise ValueError(f"expected data=NAME, found none: choose from {', '.join(catalogue.names('data'))}")
    for option, choices in CHOICES.items():
        if own.setdefault(option, choices[0]) not in choices:
            raise ValueError(f"expected {option}={' or '.join(choices)}, found {own[option]!r}: choose one of those")
    for word in command_line.parse(rest):
        key = word.get_key_element().lstrip("+~")
        is_known = key in checking.known_keys([]) or "@" in key or key in catalogue.groups()
        if is_known and not HEARD.fullmatch(key):
            raise ValueError(f"expected options of a data set, found {key}: leave it out, or see prepare --help")
    # The root of every configuration has a method; which one does not matter to a data set.
    cfg = config.composed(["method=identity", f"data={own['data']}", *rest])
    require_writable(Path(cfg["paths"]["assets"]).expanduser(), ASSETS)
    from mmbench.data.toy.base import Toy  # torch takes seconds to import

    data: DataModule = construction.construct(cfg["data"]["module"])
    if isinstance(data, Toy):
        data.make()
    else:
        _fetch(data, cfg["paths"]["mirror"])
    full = own["verify"] == "full"
    is_known = not full and data.checked()
    if is_known:
        counts = ", ".join(f"{len(records):,} {split}" for split, records in data.records.items())
        print(f"{own['data']} is here and checked: {counts} images in {data.root}")
    else:
        data.verify(full)
        for name, value in data.summary().items():
            print(f"{name}: {value}")
    if own["stats"] == "true":
        from mmbench.data.statistics import report

        print(report(data))
    if not is_known:
        print(f"next: mmbench evaluate method=identity {_words(own['data'], cfg, rest)}")
    return 0


def _words(name: str, cfg: dict[str, Any], rest: Sequence[str]) -> str:
    """The words that name this data set in another command."""
    chosen = [word for word in rest if word.startswith(("data.", "paths.assets=")) and "data.source=" not in word]
    return " ".join([f"data={name}", f"data.source={cfg['data']['source']}", *chosen])


def _fetch(data: "DataModule", mirror: str | None) -> None:
    """Fetches the archives that are not there, unpacked, into a folder that is ours."""
    if not data.root.resolve().is_relative_to(data.assets.resolve()):
        return
    absent = [archive for archive in data.archives if not data.holds(archive) or is_unfinished(archive, data.root)]
    if not absent:
        return
    print(f"to fetch, into {data.root}:")
    for archive in absent:
        print(f"  {_plan(archive, data.root, mirror)}")
    for reason in obtain(absent, data.root, mirror):
        print(f"without it: {reason}")


def _plan(archive: Archive, root: Path, mirror: str | None) -> str:
    optional = "; optional" if archive.optional else ""
    return announced(archive.file, archive.size, source(archive, root, mirror), archive.terms, optional)
