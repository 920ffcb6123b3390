"""Builds the site: one folder of pages that needs no server, written whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from PIL import Image

from mmbench.core import config
from mmbench.core.files import CannotWrite, require_writable, sha256_bytes
from mmbench.pipeline import tables
from mmbench.site import charts, gathering, samples, views
from mmbench.site.gathering import Page
from mmbench.site.samples import Images

MARK = "mmbench-site.json"  # which a folder that a site may replace has
LINT = "lint.md"  # below results/tables/
SCROLLED = '<div class="scroll" tabindex="0" role="region" aria-label="Findings"><table class="small">'


def build(names: Sequence[str], words: Sequence[str], paths: Mapping[str, str], out: Path) -> int:
    """Builds the site of some experiments; returns the number of its pages.

    The same records give the same bytes. What was there before is replaced when all pages are there, and stays where
    something goes wrong.

    Args:
        names: of the experiments.
        words: as `mmbench table` takes them.
        paths: `paths` of the configuration.
        out: the folder.

    Raises:
        ValueError: the folder holds something else than a site; a record is damaged.
        CannotWrite: it cannot be written.
    """
    require_own(out)
    require_writable(out, "out=")
    with config.remembering():
        content = _content(names, words, paths)
    mark = {"made by": "mmbench report", "files": {path: sha256_bytes(data) for path, data in sorted(content.items())}}
    content[MARK] = (json.dumps(mark, indent=1) + "\n").encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for path, data in content.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(data)
        partial.chmod(0o755)
        _replace(partial, out)
    except OSError as error:
        raise CannotWrite(f"expected to write a site to {out}, found {error.strerror}: name another out=") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(path.endswith(".html") for path in content)


def require_own(out: Path) -> None:
    """Refuses a folder that has something in it and is no site.

    Raises:
        ValueError: names it.
    """
    if out.exists() and not (out.is_dir() and ((out / MARK).is_file() or not any(out.iterdir()))):
        raise ValueError(
            f"expected a new or empty folder, or a site of mmbench, for out=, found {out} with other files in it: "
            "name another"
        )


def _replace(partial: Path, out: Path) -> None:
    """Puts a folder in the place of another, which is gone only when the new one is there."""
    if not out.exists():
        partial.rename(out)
        return
    before = Path(tempfile.mkdtemp(prefix=f".{out.name}-before-", dir=out.parent))
    out.rename(before / "site")
    try:
        partial.rename(out)
    except OSError:
        (before / "site").rename(out)
        raise
    finally:
        shutil.rmtree(before, ignore_errors=True)


def _content(names: Sequence[str], words: Sequence[str], paths: Mapping[str, str]) -> dict[str, bytes]:
    """Path in the site to its bytes."""
    pages, results = gathering.gathered(names, words, paths), Path(paths["results"])
    images, kept, text = Images(), samples.folders(paths["runs"]), _templates()
    found: dict[str, bytes] = {}
    for page in pages:
        found[f"tables/{page.name}.html"] = _table(text, page, paths, kept, images, words)
        for _, _, record in page.found():
            path = record.path(results)
            if path.is_file():  # one that somebody named otherwise is linked nowhere
                found[views.copied(record)] = path.read_bytes()
    entries = gathering.ledger(pages)
    lines = [views.overview(page) for page in pages]
    lint = _lint(results)
    found["index.html"] = _page(text, "index.html", "", lines=lines, statuses=views.statuses(entries), lint=bool(lint))
    claimed, reasons = views.claimed(pages), views.reasons(entries)
    found["ledger.html"] = _page(text, "ledger.html", "", claims=claimed, entries=entries, reasons=reasons)
    found["lint.html"] = _page(text, "lint.html", "", lint=lint)
    found |= images.files
    for file in sorted((files("mmbench.site") / "static").iterdir(), key=lambda one: one.name):
        found[f"static/{file.name}"] = file.read_bytes()
    return found


def _table(
    text: Environment,
    page: Page,
    paths: Mapping[str, str],
    kept: Mapping[str, Path],
    images: Images,
    words: Sequence[str],
) -> bytes:
    experiment, results = page.experiment, Path(paths["results"])
    copies = {views.copied(record) for _, _, record in page.found() if record.path(results).is_file()}
    return _page(
        text,
        "table.html",
        "../",
        page=page,
        about=views.overview(page),
        columns=views.columns(page),
        rows=views.rows(page),
        strips=samples.strips(page, kept, images, words),
        pictures=_pictures(page, results, images),
        scatter=charts.scatter(page),
        curves=charts.curves(page),
        training=charts.training(page, words, paths["runs"]),
        is_trained=any(record.weights["choice"] == "trained" for _, _, record in page.found()),
        cards=views.cards(page),
        runs=views.runs(page),
        copies=copies,
        configurations=views.configurations(page),
        under=[*tables.agreements(experiment, page.cells), *tables.remarks(experiment), *tables.notes(page.cells)],
        legend=tables.LEGEND,
    )


def _pictures(page: Page, results: Path, images: Images) -> list[tuple[str, int, int, str]]:
    """The pictures that an experiment names, of toy data: path, width, height and what is to be seen."""
    found = []
    for name, seen in page.experiment.pictures.items() if page.source == "toy" else ():
        path = results / "pictures" / name
        if path.is_file():
            with Image.open(path) as image:
                kept = images.add(samples.pixels(path), lossless=False)
                found.append((kept, image.width, image.height, seen))
    return found


def _lint(results: Path) -> str:
    """The findings about printed numbers as HTML; "" where there are none."""
    path = results / "tables" / LINT
    if not path.is_file():
        return ""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(path.read_text(encoding="utf-8"))
    for token in tokens:
        if token.attrs.pop("style", "") == "text-align:right":  # pages have no styles of their own
            token.attrs["class"] = "num"
    found = str(reader.renderer.render(tokens, reader.options, {}))
    return found.replace("<table>", SCROLLED).replace("</table>", "</table></div>")


def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("mmbench.site"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters["slug"] = lambda words: str(words).replace(" ", "-")
    found.filters["code"] = _code
    return found


def _code(text: str) -> Markup:
    """A text in which what stands between backticks is code."""
    parts = [escape(part) if place % 2 == 0 else Markup("<code>{}</code>").format(part)
             for place, part in enumerate(text.split("`"))]  # fmt: skip
    return Markup("").join(parts)


def _page(text: Environment, template: str, root: str, **shown: Any) -> bytes:
    return text.get_template(template).render(root=root, **shown).encode()
