"""How many images a second the loaders yield: the authors' way, ours, and a plain copy of the same bytes.

Of whole pictures of COCO's size, 256 pixels a side, image and caption. All ways are measured in turn, again and again,
and the medians printed: a machine is never quiet.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.base import DataModule
from mmbench.data.records import Record
from mmbench.data.views import Fast, Preprocessing

HELP = """usage: python -m mmbench.benchmarks.data [FOLDER]

Prints images/s of the data loaders for the .jpg files of a folder, at any depth; of pictures made for it without one.
"""

SIDE, BATCH_SIZE = 256, 16
DRAWN, EPOCH = 128, 384  # pictures that are made, and that an epoch reads
SHAPES = ((640, 480), (640, 427), (500, 375), (480, 640))  # common among COCO's photographs
QUALITY = 90
ROUNDS = 5
AUTHORS = "authors' way"
GOALS = {"exact": 1.25, "fast": 1.5, "cache": 8.0}  # times the authors' way


class Pictures(DataModule):
    """`EPOCH` of a folder's JPEG files, some of them again where there are fewer, with one caption each."""

    archives = ()
    counts: ClassVar = {"all": {}}
    num_captions = 1

    def read_records(self) -> dict[str, list[Record]]:
        files = sorted(self.root.rglob("*.jpg"))
        if not files:
            raise ValueError(f"{self.root}: expected .jpg files, found none: name another folder, or none")
        chosen = [files[place * len(files) // EPOCH] for place in range(EPOCH)]
        return {"train": [Record(f"{place:04d}", file, ("a picture",), place) for place, file in enumerate(chosen)]}


class AuthorsWay(Dataset):
    """AttnGAN's loader (taoxugit/AttnGAN, code/datasets.py): PIL and torchvision, and the pyramid in the worker."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.cut = transforms.Compose(
            [transforms.Resize(SIDE * 76 // 64), transforms.RandomCrop(SIDE), transforms.RandomHorizontalFlip()]
        )
        self.smaller = [transforms.Resize(side) for side in (SIDE // 4, SIDE // 2)]
        self.as_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[list[Tensor], str]:
        record = self.records[index]
        square = self.cut(Image.open(record.image).convert("RGB"))
        return [self.as_tensor(image) for image in (*(resize(square) for resize in self.smaller), square)], (
            record.captions[0]
        )


class Finished:
    """Our batches as a method gets them: images in [-1, 1]."""

    def __init__(self, data: DataModule) -> None:
        self.data, self.batches = data, data.train_dataloader()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches:
            yield self.data.on_after_batch_transfer(batch, 0)


class Copies:
    """The same bytes as ours, finished, copied batch by batch."""

    def __init__(self, batches: Sequence[dict[str, Any]]) -> None:
        self.images = [batch["image"] for batch in batches]

    def __iter__(self) -> Iterator[Tensor]:
        return (image.clone() for image in self.images)


def draw_pictures(folder: Path, count: int = DRAWN) -> None:
    """JPEG files of COCO's shapes and of about its 100 to 200 kB: smooth scenery with fine texture over it."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        rng, (width, height) = random_stream("picture", k), SHAPES[k % len(SHAPES)]
        layers = [
            np.asarray(_noise(rng, width // cell, height // cell).resize((width, height), Image.Resampling.BICUBIC))
            for cell in (80, 20, 2)
        ]
        pixels = np.tensordot((0.5, 0.25, 0.25), np.stack(layers).astype(np.float64), 1)
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{k:04d}.jpg", quality=QUALITY)


def _noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def loaders(root: Path, assets: Path, num_workers: int) -> dict[str, Any]:
    """What is compared, by name: each yields about the same number of images in an epoch."""

    def ours(preprocessing: Preprocessing | None = None, cache: bool = False) -> Finished:
        data = Pictures(
            root=root, assets=assets, split_scheme="all", image_size=SIDE, batch_size=BATCH_SIZE, complete=False,
            num_workers=num_workers, seed=0, preprocessing=preprocessing, cache=cache,
        )  # fmt: skip
        data.training_fields = frozenset({"image", "caption"})
        return Finished(data)

    exact = ours()
    authors = DataLoader(
        dataset=AuthorsWay(exact.batches.dataset.records), batch_size=BATCH_SIZE, shuffle=True, drop_last=True,
        num_workers=num_workers, persistent_workers=num_workers > 0,
    )  # fmt: skip
    return {
        AUTHORS: authors,
        "exact": exact,
        "fast": ours(Fast()),
        "cache": ours(cache=True),
        "copy of memory": Copies(list(exact)),
    }


def rates(ways: dict[str, Any]) -> dict[str, float]:
    """Images per second of each: the median of `ROUNDS` epochs, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in track(range(ROUNDS + 1), "measuring"):
        for name, batches in ways.items():
            start = time.perf_counter()
            num_batches = sum(1 for _ in batches)
            seconds[name].append((time.perf_counter() - start) / num_batches)
    return {name: BATCH_SIZE / median(times[1:]) for name, times in seconds.items()}


def report(folder: Path, assets: Path) -> None:
    """Prints a table for no worker and one for one worker.

    Raises:
        ValueError: the folder has no pictures, or damaged ones.
    """
    for num_workers in (0, 1):
        found = rates(loaders(folder, assets, num_workers))
        print(f"\n{folder}, num_workers={num_workers}\n{'':<16}{'images/s':>10}{'ratio':>8}{'goal':>8}")
        for name, rate in found.items():
            goal = f"{GOALS[name]:.2f}" if name in GOALS else ""
            print(f"{name:<16}{rate:>10.0f}{rate / found[AUTHORS]:>8.2f}{goal:>8}")


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments[0]).expanduser() if arguments else Path(temporary) / "pictures"
        if not arguments:
            draw_pictures(folder)
        try:
            report(folder, Path(temporary))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
