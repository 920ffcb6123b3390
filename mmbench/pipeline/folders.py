"""Scores anybody's folder of images under mmbench's metrics and protocols."""

import csv
import json
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mmbench.core import config
from mmbench.core.files import sha256_file, sha256_json
from mmbench.core.images import read_rgb
from mmbench.core.noise import Sample
from mmbench.data.batches import collate
from mmbench.data.views import View
from mmbench.metrics.suite import described, with_files

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
SHOWN = 20  # problems that an error names


OWN = (
    "fake", "real", "captions", "input", "mask", "metrics", "protocol", "extractor",
    "out", "skip_bad", "size", "workers",
)  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """Image files by name: the path below the folder, without extension."""

    what: str
    files: dict[str, Path]

    @classmethod
    def read(cls, what: str, path: Path) -> "Folder":
        """Lists a folder.

        Raises:
            ValueError: it is no folder, holds no image, or two of one name.
        """
        if not path.is_dir():
            raise ValueError(f"expected a folder or a zip archive for {what}=, found {path}: correct the path")
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        names = [file.relative_to(path).with_suffix("").as_posix() for file in found]
        if not names:
            raise ValueError(f"expected images in {what}={path}, found none of {', '.join(sorted(SUFFIXES))}")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"expected one image of each name in {what}={path}, found {twice[0]} twice: remove one")
        return cls(what, dict(zip(names, found, strict=True)))

    def sha256(self) -> str:
        """Identity of the images: of all names and contents."""
        return sha256_json({name: sha256_file(file) for name, file in self.files.items()})


@contextmanager
def folders(paths: Mapping[str, str]) -> Iterator[dict[str, Folder]]:
    """The folders of the command line, zip archives unpacked for as long as they are wanted."""
    with tempfile.TemporaryDirectory(prefix="mmbench-score-") as unpacked:
        found = {}
        for what, text in paths.items():
            path = Path(text).expanduser()
            if path.is_file():
                if not zipfile.is_zipfile(path):
                    raise ValueError(f"expected a folder or a zip archive for {what}=, found {path}: correct the path")
                with zipfile.ZipFile(path) as archive:
                    # The standard library removes `..` and roots from the names, and writes links as plain files.
                    archive.extractall(Path(unpacked) / what)
                path = Path(unpacked) / what
            found[what] = Folder.read(what, path)
        yield found


def read_captions(path: Path) -> dict[str, str]:
    """Name to caption, of a JSON object or of a table of two columns without a header.

    Raises:
        ValueError: the file holds something else, or one name twice.
    """
    wanted = f"{path}: expected {{name: text}} in .json, or name and text in each line of .csv or .tsv"
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            pairs = list(json.loads(text).items())
        else:
            pairs = [
                tuple(row) for row in csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",")
            ]
    except FileNotFoundError:
        raise ValueError(f"{wanted}, found no file: correct the path") from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{wanted}, found {type(error).__name__}: correct the file") from None
    if bad := [pair for pair in pairs if len(pair) != 2 or not isinstance(pair[1], str) or not pair[1].strip()]:
        raise ValueError(f"{wanted}, found {bad[0]!r}: correct the file")
    captions = {
        str(Path(name).with_suffix("")) if Path(name).suffix.lower() in SUFFIXES else name: text for name, text in pairs
    }
    if len(captions) < len(pairs):
        raise ValueError(f"{wanted}, each name once, found one twice: correct the file")
    return captions


@dataclass
class Problems:
    """What is wrong with single images, gathered so that all of it can be said at once."""

    found: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, problem: str) -> None:
        self.found.setdefault(name, problem)

    def require(self, allowed: int) -> None:
        """Raises ValueError if there are more than may be left out; names them."""
        if len(self.found) <= allowed:
            return
        named = "; ".join(f"{name}: {problem}" for name, problem in sorted(self.found.items())[:SHOWN])
        more = f"; and {len(self.found) - SHOWN} more" if len(self.found) > SHOWN else ""
        raise ValueError(
            f"expected images that can be scored, found {len(self.found)} that cannot ({named}{more}): mend them, or "
            f"set skip_bad={len(self.found)} to leave them out"
        )


def inspect(
    found: Mapping[str, Folder], paired: Sequence[str], captions: Mapping[str, str] | None, size: int | None
) -> Problems:
    """What names and headers of the files show: missing partners, sizes, modes. Damage inside shows in reading."""
    problems = Problems()
    fake = found["fake"]
    for what in paired:
        for name in fake.files.keys() - found[what].files.keys():
            problems.add(name, f"no {what} image")
    if "input" in found:  # a reference set may be larger; an input without an output is an output that is missing
        for name in found["input"].files.keys() - fake.files.keys():
            problems.add(name, "no generated image")
    if captions is not None:
        for name in fake.files.keys() - captions.keys():
            problems.add(name, "no caption")
    headers = {what: _headers(folder, problems) for what, folder in found.items()}
    modes = Counter(mode for _, mode in headers["fake"].values())
    sizes = Counter(shape for shape, _ in headers["fake"].values())
    if not modes:
        return problems
    mode, shape = modes.most_common(1)[0][0], sizes.most_common(1)[0][0]
    for name, (own_shape, own_mode) in headers["fake"].items():
        if own_mode != mode:
            problems.add(name, f"mode {own_mode} where most are {mode}")
        if own_shape != shape:
            problems.add(name, f"{_by(own_shape)} pixels where most are {_by(shape)}")
    for what in set(found) - {"fake"}:
        for name, (own_shape, _) in headers[what].items():
            if size is None and own_shape != shape and (what not in paired or name in fake.files):
                problems.add(
                    name if what in paired else f"{what}/{name}",
                    f"{what} image of {_by(own_shape)} pixels where generated ones are {_by(shape)} (size=N resizes)",
                )
    return problems


def _headers(folder: Folder, problems: Problems) -> dict[str, tuple[tuple[int, int], str]]:
    headers = {}
    for name, file in folder.files.items():
        try:
            with Image.open(file) as image:
                headers[name] = image.size, image.mode
        except (OSError, SyntaxError, Image.DecompressionBombError):
            problems.add(name if folder.what == "fake" else f"{folder.what}/{name}", f"{file.name} is no image")
    return headers


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


class Scored(Dataset):
    """Generated images with what they are compared with; an image that cannot be read becomes {"bad": (name, why)}."""

    def __init__(
        self, names: Sequence[str], sources: Mapping[str, Folder], captions: Mapping[str, str] | None, size: int | None
    ) -> None:
        self.names, self.sources, self.captions, self.size = names, sources, captions, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        item: dict[str, Any] = {"id": name, "sample": Sample(name, 0, 0)}
        try:
            for batch_field, folder in self.sources.items():
                pixels = _sized(read_rgb(folder.files[name]), None if batch_field == "generated" else self.size)
                item[batch_field] = (pixels[:1] > 127).float() if batch_field == "mask" else pixels
        except ValueError as error:
            return {"bad": (name, str(error))}
        if self.captions is not None:
            item["prompt"] = self.captions[name]
        return item


def _sized(pixels: Tensor, size: int | None) -> Tensor:
    if size is None:
        return pixels
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    view = View.centred((0, 0, *picture.size), size)
    return torch.from_numpy(view(picture).copy()).permute(2, 0, 1)


class _Real(Dataset):
    """The real set: `id`, `sample` and `image`."""

    def __init__(self, folder: Folder, size: int | None) -> None:
        self.items = Scored(list(folder.files), {"image": folder}, None, size)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        if "bad" in item:
            raise ValueError(f"real image {item['bad'][1]}")
        return item


def _batch(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [item for item in items if "bad" not in item]
    return {**(collate(good) if good else {}), "bad": [item["bad"] for item in items if "bad" in item]}


def _whole(batches: Iterator[dict[str, Any]], problems: Problems, allowed: int) -> Iterator[dict[str, Any]]:
    """The batches without what cannot be read; all of that is found before anything is given up."""
    for batch in batches:
        for name, why in batch.pop("bad"):
            problems.add(name, why)
        if "sample" in batch and len(problems.found) <= allowed:
            yield batch


class _Counted:
    """Batches that can be read, with the length that a progress bar asks for."""

    def __init__(self, batches: Any, problems: Problems, allowed: int) -> None:
        self.batches, self.problems, self.allowed = batches, problems, allowed

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return _whole(iter(self.batches), self.problems, self.allowed)


def _chosen(
    own: Mapping[str, str],
    asked: tuple[dict[str, Any], dict[str, Any]],
    judges: Mapping[str, str],
    has: set[str],
    has_reference: bool,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Metrics and extractors asked for; of a protocol's, those that the folders allow, and why the others are left out.

    Raises:
        ValueError: a metric asked for by name needs something that was not given.
    """
    files = {}
    for key, file in judges.items():
        if not (match := re.fullmatch(r"extractor\.(\w+)\.file", key)):
            config.unknown("option of score", key, [*OWN, "extractor.inception.file"])
        files[match[1]] = file
    metrics, extractors = asked
    lacking = {name: _lacks(node, has, has_reference) for name, node in metrics.items()}
    left_out = {name: what for name, what in lacking.items() if what}
    if "metrics" in own and left_out:
        name, what = next(iter(left_out.items()))
        raise ValueError(f"expected {what} for the metric {name}, found none: give it, or leave the metric out")
    if len(left_out) == len(metrics):
        raise ValueError(f"expected a metric that {own.get('protocol')} can score, found none: give more folders")
    metrics = {name: node for name, node in metrics.items() if name not in left_out}
    used = {node["extractor"] for node in metrics.values() if "extractor" in node}
    extractors = {name: node for name, node in extractors.items() if name in used}
    return metrics, with_files(extractors, files), left_out


def _asked(own: Mapping[str, str], composed: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics, and the extractors that they name, by `metrics=` or `protocol=`, and `extractor=`."""
    kind = own.get("extractor", "standard")
    if "metrics" in own:
        return described(config.words(own["metrics"]), kind)
    if composed and kind == "standard":
        return composed["metrics"], composed["extractors"]
    protocol = config.node(f"protocol/{own['protocol']}")
    if kind == "toy":
        return protocol["metrics"], {**protocol["extractors"], **protocol.get("toy", {}).get("extractors", {})}
    return protocol["metrics"], protocol["extractors"]


GIVEN_BY = {"image": "input= or real=", "prompt": "captions=", "mask": "mask="}


def _lacks(node: Mapping[str, Any], has: set[str], has_reference: bool) -> str:
    """What a metric needs and was not given, in words; empty where there is nothing."""
    target: Any = config.target(node)
    needs = {*target.needs, *([node["against"]] if "against" in node else [])}
    lacking = [GIVEN_BY.get(wanted, f"{wanted}, which only mmbench's own data have") for wanted in sorted(needs - has)]
    if target.needs_reference and not has_reference:
        lacking.append("real= or data=")
    return " and ".join(lacking)


def _reference(found: Mapping[str, Folder], cfg: dict[str, Any], size: int | None, workers: int) -> tuple[Dataset, Any]:
    if "real" in found:
        return _Real(found["real"], size), [found["real"].sha256(), size]
    data = config.construct({**cfg["data"]["module"], **cfg["data"]["evaluation"]})
    data.prepare_data()
    data.setup("predict")
    split = cfg["protocol"]["reference"]
    return data.reference(split), [config.scientific(cfg["data"]), data.fingerprint(), split]


def _print(metrics: Mapping[str, Mapping[str, Any]], left_out: Mapping[str, str], problems: Problems) -> None:
    for name, found in sorted(metrics.items()):
        spread = "" if found["std"] is None else f" (std {found['std']:.4f})"
        print(f"{name:<28} {found['value']:.4f}{spread} over {found['count']}")
    for name, lacking in sorted(left_out.items()):
        print(f"{name:<28} not scored (needs {lacking})")
    for name, problem in sorted(problems.found.items()):
        print(f"left out: {name} ({problem})")
