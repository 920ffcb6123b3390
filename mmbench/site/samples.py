"""Samples side by side, from the run folders that are here; of toy data alone."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmbench.core import construction
from mmbench.core.images import to_uint8
from mmbench.core.noise import Sample
from mmbench.core.outputs import IMAGES
from mmbench.core.protocol import Protocol
from mmbench.pipeline.assembly import prepared_data
from mmbench.pipeline.lookup import row_config
from mmbench.site.gathering import Page

NUM_SAMPLES = 5  # of a protocol
NUM_PROTOCOLS = 2  # of a table
QUALITY = 85  # of WebP with loss
EFFORT = 20  # without loss: 85 takes ten times as long for a twentieth of the bytes
WIDEST = 1600  # pixels of a picture


class Images:
    """The image files of a site, each named by its content and kept once.

    Attributes:
        files: path in the site to bytes.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def add(self, pixels: np.ndarray, lossless: bool = True) -> str:
        """The path of a picture, (H, W, 3) uint8, which is kept; small ones without loss."""
        image = Image.fromarray(pixels)
        if image.width > WIDEST:
            image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        options = {"quality": EFFORT, "method": 2} if lossless else {"quality": QUALITY, "method": 4}
        image.save(stream, "WEBP", lossless=lossless, **options)
        content = stream.getvalue()
        path = f"images/{hashlib.sha256(content).hexdigest()[:20]}.webp"
        self.files[path] = content
        return path


@dataclass(frozen=True)
class Shown:
    """One sample: what it is told, what the methods are given, and what each makes of it.

    Attributes:
        prompt: a text, or "".
        original: path of the picture that a hole was made in; "" where there is none.
        before: path of what the methods are given; "" where that is no picture.
        before_label: what that is: the input, or what a hole leaves.
        cells: label of a row to the path of its picture; a row without one is left out.
    """

    prompt: str
    original: str
    before: str
    before_label: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Strip:
    """Samples of one protocol on one data set.

    Attributes:
        title: both of them.
        columns: labels of the rows that have pictures.
        samples: a few that all of them have.
    """

    title: str
    columns: list[str]
    samples: list[Shown] = field(default_factory=list)


def folders(runs: str | Path) -> dict[str, Path]:
    """Run key to the run folder that has its images.

    Raises:
        ValueError: a manifest is damaged; names it.
    """
    found = {}
    for path in sorted(Path(runs).glob("*/*/manifest.json")):
        try:
            found[json.loads(path.read_text(encoding="utf-8"))["run_key"]] = path.parent
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"expected a manifest with a run_key, found {path} damaged ({error}): delete its folder"
            ) from None
    return found


def strips(page: Page, kept: Mapping[str, Path], images: Images, words: Sequence[str]) -> list[Strip]:
    """The samples of a table: of its first protocols that have run folders, on each data set."""
    if page.source != "toy":
        return []
    found: dict[tuple[str, str], dict[str, tuple[Any, Path]]] = {}
    for row, protocol, record in page.found():
        if record.run_key in kept:
            found.setdefault((row.dataset, protocol), {}).setdefault(row.label, (row, kept[record.run_key]))
    made: list[Strip] = []
    for data in dict.fromkeys(data for data, _ in found):
        for protocol in [protocol for known, protocol in found if known == data][:NUM_PROTOCOLS]:
            made += _strip(page, data, protocol, found[data, protocol], images, words)
    return made


def _strip(
    page: Page, data: str, protocol: str, rows: Mapping[str, tuple[Any, Path]], images: Images, words: Sequence[str]
) -> Iterator[Strip]:
    manifests = {label: _pictures(folder) for label, (_, folder) in rows.items()}
    manifests = {label: files for label, files in manifests.items() if files}
    if not manifests:
        return
    common = sorted(set.intersection(*(set(files) for files in manifests.values())))
    chosen = common[:: max(1, len(common) // NUM_SAMPLES)][:NUM_SAMPLES]
    if not chosen:
        return
    row, _ = rows[next(iter(manifests))]
    plain = row_config(page.experiment, row, protocol, page.source, row.seeds_of(page.experiment.seeds)[0], words)
    given = _given(plain, chosen, images)
    shown = []
    for place, sample in enumerate(chosen):
        prompt = next((files[sample][1] for files in manifests.values() if files[sample][1]), "")
        original, before, label = given[place] if given else ("", "", "")
        cells = {name: images.add(pixels(files[sample][0])) for name, files in manifests.items()}
        shown.append(Shown(prompt, original, before, label, cells))
    yield Strip(f"{data}, protocol {protocol}", list(manifests), shown)


def _pictures(folder: Path) -> dict[Sample, tuple[Path, str]]:
    """Sample to its picture, where it is one, and its prompt: of first draws."""
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        Sample(entry["id"], entry["caption"], 0): (folder / entry["file"], entry["prompt"] or "")
        for entry in content["samples"]
        if entry["draw"] == 0 and entry["file"].endswith(".png") and (folder / entry["file"]).is_file()
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _given(plain: dict[str, Any], samples: Sequence[Sample], images: Images) -> list[tuple[str, str, str]]:
    """Of each sample the original, what methods are given, and what to call that; nothing where that is no picture."""
    inputs = construction.target(plain["method"]["module"]).task.inputs
    if "image" not in inputs:
        return []
    protocol = Protocol.of(plain["protocol"])
    data = prepared_data(plain, evaluation=True)
    data.setup("predict")
    fields = {"image", "mask"} & data.fields & set(inputs)
    items = data.evaluation(protocol.split, list(samples), protocol.seed, fields)
    found = []
    for item in (items[place] for place in range(len(samples))):
        whole = images.add(IMAGES.cell(to_uint8(item["image"])))
        if "mask" in fields:
            left = images.add(IMAGES.cell(to_uint8(torch.where(item["mask"] > 0, 0.0, item["image"]))))
            found.append((whole, left, "hole"))
        else:
            found.append(("", whole, "input"))
    return found
