"""Building a study: one page that works offline, with nothing in it that names a method, and its key, kept apart."""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from mmbench.core.files import sha256_json, write_json, write_text
from mmbench.core.noise import random_stream
from mmbench.people.answers import KEY, read_key
from mmbench.people.design import NOISE, REAL, Screen, screens_of
from mmbench.people.gathering import TRUTH, Gathered, Item
from mmbench.people.questions import QUESTIONS

NOISE_SIDE = 64  # pixels of the pictures that are nothing but noise
LARGEST = 200e6  # bytes of a page that browsers of phones still open


def png(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) uint8 pixels and nothing beside them: no EXIF, no text, no time."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="PNG", optimize=True)
    return content.getvalue()


class Album:
    """The pictures of a page, each under a name that tells nothing of it.

    Args:
        generator: of the names, whose order tells nothing either.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.pictures: dict[str, str] = {}
        self.meant: dict[str, dict[str, int]] = {}

    def add(self, pixels: np.ndarray, **meant: int) -> str:
        """Takes a picture in; its name. `meant`: what it is, for the key."""
        name = self.generator.bytes(5).hex()
        assert name not in self.pictures
        self.pictures[name] = base64.b64encode(png(pixels)).decode()
        self.meant[name] = meant
        return name

    def mixed(self) -> dict[str, str]:
        """The pictures in the order of their names, which is none."""
        return dict(sorted(self.pictures.items()))


def build(
    gathered: Gathered,
    experiment: str,
    kind: str,
    questions: Sequence[str],
    count: int,
    raters: int,
    seed: int,
    real: bool,
    out: Path,
) -> dict[str, Any]:
    """Writes `out`/send/study.html, the page, and `out`/key.json, which stays with who asks.

    Args:
        real: whether the real picture stands among those that are judged.

    Returns:
        The key.

    Raises:
        ValueError: there are too few images, no real ones, or too many methods for the kind; or the key of another
            study lies there.
    """
    items = gathered.items(count, seed)
    labels = [row.label for row in gathered.rows] + [TRUTH] * real
    _require(kind, items, labels, real)
    generator = random_stream(seed, experiment, kind, "study")
    screens = screens_of(kind, count, len(labels), len(questions), raters, generator)
    album = Album(generator)
    shown = _pictures(album, items, screens, real)
    named = [
        [
            {"id": f"s{number:04d}", "item": one.item, "question": one.question}
            | {"pictures": [shown[one.item, picture] for picture in one.shown]}
            for number, one in enumerate(mine)
        ]
        for mine in screens
    ]
    page = {
        "kind": kind,
        "questions": [
            {"asked": QUESTIONS[name].asked[kind], "explained": QUESTIONS[name].explained} for name in questions
        ],
        "input": gathered.given,
        "items": [
            {"prompt": item.prompt, "input": album.add(item.given, item=place) if item.given is not None else None}
            for place, item in enumerate(items)
        ],
        "raters": named,
        "pictures": album.mixed(),
    }
    digest = sha256_json(page)
    _require_no_other(out / "key.json", digest)
    html = rendered({"study": digest, **page})
    if len(html) > LARGEST:
        raise ValueError(f"expected a page of at most {LARGEST / 1e6:.0f} MB, found {len(html) / 1e6:.0f}: lower n")
    checks = [[one.check for one in mine] for mine in screens]
    key = {
        "format": KEY,
        "study": digest,
        "experiment": experiment,
        "kind": kind,
        "questions": list(questions),
        "methods": labels,
        "rows": [row.facts for row in gathered.rows],
        "items": [{"id": one.sample.id, "caption": one.sample.caption, "draw": one.sample.draw} for one in items],
        "raters": [
            [{**screen, "check": check} for screen, check in zip(mine, found, strict=True)]
            for mine, found in zip(named, checks, strict=True)
        ],
        "pictures": {name: meant["method"] for name, meant in sorted(album.meant.items()) if "method" in meant},
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(out / "key.json", key)  # before the page, which nobody can score without
    write_text(out / "send" / "study.html", html)
    return key


def _require_no_other(path: Path, digest: str) -> None:
    """Refuses to write over the key of another study, whose answers may still come."""
    if not path.exists():
        return
    try:
        found = read_key(path)["study"]
    except ValueError:
        found = ""
    if found != digest:
        raise ValueError(
            f"expected no key of another study in this folder, found {path} of study {found[:8] or 'unknown'}, whose "
            "answers need it: name another folder with out=, or remove it"
        )


def _require(kind: str, items: Sequence[Item], labels: Sequence[str], real: bool) -> None:
    """Refuses numbers that make no study."""
    count = len(labels)
    if real and any(item.real is None for item in items):
        raise ValueError("expected real pictures with real=true, found a data set without: leave it out")
    if count < 2:
        raise ValueError(f"expected two rows or more to compare, found {labels[0]}: run more rows, or add real=true")
    if kind == "ranks" and count > 9:
        raise ValueError(f"expected at most 9 pictures to rank, found {count}: choose some with rows=, or kind=pairs")
    if kind == "pairs" and len(items) < (pairs := count * (count - 1) // 2):
        raise ValueError(f"expected n of at least {pairs}, an item for each pair, found {len(items)}: raise n")


def _pictures(
    album: Album, items: Sequence[Item], screens: Sequence[Sequence[Screen]], real: bool
) -> dict[tuple[int, int], str]:
    """The names of all pictures that screens show, by item and method."""
    wanted = sorted({(one.item, picture) for mine in screens for one in mine for picture in one.shown})
    found: dict[tuple[int, int], str] = {}
    for place, picture in wanted:
        item = items[place]
        if picture == NOISE:
            pixels = album.generator.integers(256, size=(NOISE_SIDE, NOISE_SIDE, 3), dtype=np.uint8)
        elif picture == REAL or (real and picture == len(item.made)):
            pixels = item.real if item.real is not None else item.made[0]
        else:
            pixels = item.made[picture]
        found[place, picture] = album.add(pixels, item=place, method=picture)
    return found


def rendered(study: dict[str, Any]) -> str:
    """The page: its own style and script, which alone may run, and no request to anywhere."""
    parts = {name: (files("mmbench.people") / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    sums = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in parts.items()}
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{sums['css']}'; script-src 'sha256-{sums['js']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(study, ensure_ascii=False, separators=(",", ":"))
    safe = data.replace("<", "\\u003c").replace("\N{LINE SEPARATOR}", "\\u2028")  # no text ends the element
    template = (files("mmbench.people") / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(policy=policy, style=parts["css"], script=parts["js"], study=safe)
