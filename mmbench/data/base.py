"""The base of every data set: records of what is on disk, and the batches that training and evaluation are made of.

Every random choice (caption, mismatched image, crop, flip, order) derives from a seed, the epoch and the image's id,
never from a worker, a rank, a batch or the order of calls.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from mmbench.core.files import sha256_json
from mmbench.core.images import from_uint8, read_rgb
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.task import BATCH_FIELDS
from mmbench.core.text import Vocabulary
from mmbench.data.views import Region, View, square_around

Look = Callable[[Region], View]  # `View.centred`, or `View.random` with its random stream, of some size


@dataclass(frozen=True)
class Record:
    """One image of a data set and what is known of it.

    Attributes:
        id: key within the data set; a relative path without extension where the files have one.
        image: the file.
        captions: raw texts; their number is the same for every image of a data set.
        class_id: the data set's own class number.
        box: x, y, width, height in pixels of the object that is to fill the picture; None to show all of it.
        parts: a PNG of the image's size, 0 background, 1 + p the p-th part, then what belongs to no part; or None.
        num_parts: how many parts there are.
        attributes: the true ones, with `parts` only.
        caption_attributes: for each caption, the attributes it names, with `parts` only.
    """

    id: str
    image: Path
    captions: tuple[str, ...]
    class_id: int
    box: tuple[float, float, float, float] | None = None
    parts: Path | None = None
    num_parts: int = 0
    attributes: dict[str, str] | None = None
    caption_attributes: tuple[dict[str, str], ...] = ()


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items as one batch: tensors are stacked, everything else becomes a list."""
    fields = items[0].keys()
    columns = {field: [item[field] for item in items] for field in fields}
    return {field: torch.stack(c) if isinstance(c[0], Tensor) else c for field, c in columns.items()}


class DataModule(pl.LightningDataModule):
    """A data set with images and captions.

    A subclass says where its files are: `prepare_data` and `records`.

    Args:
        image_size: side of the square images, in pixels.
        batch_size: images of a batch, in training and at evaluation.
        num_workers: processes that read images; 0 reads them in the main process. Changes no result.
        seed: of every random choice in training.

    Attributes:
        fields: the batch fields it yields, of the vocabulary in `core/task.py`.
    """

    fields: frozenset[str] = frozenset(
        {"id", "image", "caption", "caption_mismatched", "image_mismatched", "class_id"},
    )

    def __init__(self, image_size: int, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        assert self.fields <= BATCH_FIELDS.keys()
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """Split name to its records, sorted by id; read once. The names are `train` and `test`.

        Raises:
            ValueError: files contradict one another, or one is missing or damaged.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Reads the tables and captions; images are read when they are wanted.

        Raises:
            ValueError: as `records`.
        """
        _ = self.records

    @cached_property
    def _fingerprint(self) -> str:
        facts = [
            [
                split,
                *(record.id, record.captions, record.class_id, record.box, record.attributes),
                record.caption_attributes,
                [path.stat().st_size for path in (record.image, record.parts) if path],
            ]
            for split, records in sorted(self.records.items())
            for record in records
        ]
        return sha256_json(facts)

    def fingerprint(self) -> str:
        """SHA-256 that identifies the input data: ids, splits, captions, classes, boxes, attributes, sizes of files."""
        return self._fingerprint

    def summary(self) -> dict[str, Any]:
        """What there is, for a person: counts, and the fingerprint."""
        counts = {f"{split} images": len(records) for split, records in self.records.items()}
        classes = {
            f"{split} classes": len({record.class_id for record in records}) for split, records in self.records.items()
        }
        captions = sum(len(record.captions) for records in self.records.values() for record in records)
        return {**counts, **classes, "captions": captions, "fingerprint": self.fingerprint()}

    def vocabulary(self) -> Vocabulary:
        """Every word of the captions of all splits, as the AttnGAN family makes it."""
        return Vocabulary.from_captions(
            caption for records in self.records.values() for record in records for caption in record.captions
        )

    def split(self, name: str) -> list[Record]:
        """Records of a split, sorted by id.

        Raises:
            ValueError: there is no such split.
        """
        if name not in self.records:
            raise ValueError(f"expected a split of {', '.join(self.records)}, found {name!r}: choose one of those")
        return self.records[name]

    def samples(
        self, split: str, count: int | None = None, captions_per_image: int = 1, draws: int = 1, seed: int = 0
    ) -> list[Sample]:
        """The samples that a table is made of, sorted.

        Which captions an image is paired with depends on (seed, id) alone; more captions add to fewer.

        Args:
            split: `train` or `test`.
            count: number of images, a fixed pseudo-random choice by id of which a smaller one is a part; None for all.
            captions_per_image: prompts for each image.
            draws: images to generate for each prompt.
            seed: of the choices.

        Raises:
            ValueError: there are fewer images or captions than asked for.
        """
        records = self.split(split)
        if count is not None:
            if not 1 <= count <= len(records):
                raise ValueError(f"expected count from 1 to {len(records)} images of {split}, found {count}: change it")
            records = sorted(records, key=lambda record: random_stream(seed, record.id, "subset").random())[:count]
        num_captions = min(len(record.captions) for record in records)
        if not 1 <= captions_per_image <= num_captions:
            raise ValueError(f"expected captions_per_image from 1 to {num_captions}, found {captions_per_image}")
        return sorted(
            Sample(record.id, caption, draw)
            for record in records
            for caption in random_stream(seed, record.id, "captions")
            .permutation(num_captions)[:captions_per_image]
            .tolist()
            for draw in range(draws)
        )

    def evaluation(self, split: str, samples: Sequence[Sample], seed: int) -> Dataset:
        """Item i has all `fields`, and `sample`, for the i-th sample; preprocessing is deterministic.

        The mismatched image comes from another class of the split (from the same class only where there is no other),
        by (seed, id): the same for every caption and draw of an image. `caption` and `caption_mismatched` are both
        number `sample.caption` of their image.

        Raises:
            ValueError: a sample is not of this split.
        """
        return _Items(self._pairs(split, samples, seed), self.image_size)

    def texts(self, split: str, samples: Sequence[Sample], seed: int) -> dict[str, list[str]]:
        """`caption` and `caption_mismatched` of each sample, as `evaluation` pairs them; reads no image."""
        pairs = self._pairs(split, samples, seed)
        return {
            "caption": [record.captions[sample.caption] for sample, record, _ in pairs],
            "caption_mismatched": [other.captions[sample.caption] for sample, _, other in pairs],
        }

    def _pairs(self, split: str, samples: Sequence[Sample], seed: int) -> list[tuple[Sample, Record, Record]]:
        places = {record.id: place for place, record in enumerate(self.split(split))}
        if strangers := [sample.id for sample in samples if sample.id not in places]:
            raise ValueError(f"expected images of {split}, found {strangers[0]!r}: take the samples from this data set")
        mismatched = _Mismatched(self.split(split))
        return [
            (sample, self.records[split][place], mismatched(place, random_stream(seed, sample.id, "mismatched")))
            for sample in samples
            for place in [places[sample.id]]
        ]

    def reference(self, split: str) -> Dataset:
        """Every real image of a split (`id`, `image`), preprocessed as at evaluation."""
        return _Images(self.split(split), self.image_size)

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches with a random caption, crop, flip and mismatched image for each image and epoch.

        They have all `fields`, and `sample` and `noise`, where the draw is the epoch. The last partial batch of an
        epoch is dropped.

        Raises:
            ValueError: there are fewer images than a batch holds.
        """
        dataset = _Training(self.split("train"), self.image_size, self.seed)
        sampler = EpochSampler(len(dataset), self.seed)
        if len(sampler) < self.batch_size:
            raise ValueError(
                f"expected at least {self.batch_size} training images, found {len(sampler)}: lower batch_size"
            )
        if self.trainer is not None:
            # Lightning starts the workers of a resumed run's first epoch before it tells the sampler the epoch, and
            # before `current_epoch` is right again; this is the number that it will tell.
            sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return DataLoader(
            dataset=dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=dataset.collate,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )


def item_of(
    record: Record, caption: int, other: Record, caption_mismatched: int, looks: tuple[Look, Look]
) -> dict[str, Any]:
    """All fields of one item: an image and one of its captions, another image and one of its captions."""
    image, view = seen(record, looks[0])
    image_mismatched, _ = seen(other, looks[1])
    item = {
        "id": record.id,
        "image": image,
        "caption": record.captions[caption],
        "caption_mismatched": other.captions[caption_mismatched],
        "image_mismatched": image_mismatched,
        "class_id": torch.tensor(record.class_id),
    }
    if record.parts:
        item["parts"] = coverage(record.parts, record.num_parts, view)
        item["attributes"] = record.attributes
        item["caption_attributes"] = record.caption_attributes[caption]
        item["caption_mismatched_attributes"] = other.caption_attributes[caption_mismatched]
    return item


def seen(record: Record, look: Look) -> tuple[Tensor, View]:
    """An image as (3, side, side) float32 in [-1, 1], and the view it was taken by.

    Raises:
        ValueError: the file is missing or damaged, or its box lies outside; names it.
    """
    picture = Image.fromarray(read_rgb(record.image).permute(1, 2, 0).numpy())
    try:
        region = square_around(record.box, *picture.size) if record.box else (0, 0, *picture.size)
    except ValueError as error:
        raise ValueError(f"{record.image}: {error}") from None
    view = look(region)
    return from_uint8(torch.from_numpy(view(picture).copy()).permute(2, 0, 1)), view


def coverage(parts: Path, num_parts: int, view: View) -> Tensor:
    """How much of each pixel each part covers, through the view of its image: (P, side, side) float32 in [0, 1]."""
    index = read_rgb(parts)[0].numpy()
    masks = [Image.fromarray(np.uint8(255) * (index == part)) for part in range(1, num_parts + 1)]
    return torch.from_numpy(np.stack([view(mask) for mask in masks])).float() / 255


class EpochSampler(DistributedSampler):
    """Pairs (epoch, index) in an order drawn for each epoch; each process of several gets its share.

    The epoch travels with the index, so that workers that outlive an epoch draw what belongs to the next. A
    `DistributedSampler`, so that Lightning tells it the epoch and does not replace it.
    """

    def __init__(self, size: int, seed: int) -> None:
        ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
        num_replicas = torch.distributed.get_world_size() if ranks else 1
        rank = torch.distributed.get_rank() if ranks else 0
        super().__init__(range(size), num_replicas, rank, seed=seed, drop_last=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = random_stream(self.seed, self.epoch, "order").permutation(len(self.dataset)).tolist()
        return iter([(self.epoch, index) for index in order[self.rank : self.total_size : self.num_replicas]])


class _Mismatched:
    """Chooses, for the image at a place of a split, one of another class; of another image where there is one class."""

    def __init__(self, records: Sequence[Record]) -> None:
        if len(records) < 2:
            raise ValueError(f"expected at least two images in a split, found {len(records)}: use more data")
        self.records = records
        self.classes = np.array([record.class_id for record in records])

    def __call__(self, place: int, rng: np.random.Generator) -> Record:
        others = np.flatnonzero(self.classes != self.classes[place])
        if not len(others):
            others = np.delete(np.arange(len(self.records)), place)
        return self.records[int(rng.choice(others))]


class _Training(Dataset):
    """Items by (epoch, index)."""

    def __init__(self, records: Sequence[Record], side: int, seed: int) -> None:
        self.records, self.side, self.seed = records, side, seed
        self.mismatched = _Mismatched(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record = self.records[index]
        draws = {
            purpose: random_stream(self.seed, epoch, record.id, purpose)
            for purpose in ("caption", "mismatched", "view", "view of mismatched")
        }
        other = self.mismatched(index, draws["mismatched"])
        look = partial(View.random, side=self.side)
        looks = (partial(look, rng=draws["view"]), partial(look, rng=draws["view of mismatched"]))
        caption = int(draws["caption"].integers(len(record.captions)))
        caption_mismatched = int(draws["mismatched"].integers(len(other.captions)))
        item = item_of(record, caption, other, caption_mismatched, looks)
        return {**item, "sample": Sample(record.id, caption, epoch)}

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(items)
        return {**batch, "noise": Noise(self.seed, batch["sample"])}


class _Items(Dataset):
    """Items of samples."""

    def __init__(self, pairs: Sequence[tuple[Sample, Record, Record]], side: int) -> None:
        self.pairs, self.look = pairs, partial(View.centred, side=side)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, record, other = self.pairs[index]
        item = item_of(record, sample.caption, other, sample.caption, (self.look, self.look))
        return {**item, "sample": sample}


class _Images(Dataset):
    """The images of records alone."""

    def __init__(self, records: Sequence[Record], side: int) -> None:
        self.records, self.look = records, partial(View.centred, side=side)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, _ = seen(self.records[index], self.look)
        return {"id": self.records[index].id, "image": image}
