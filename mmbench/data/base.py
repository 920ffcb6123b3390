"""The base of every data set: records of what is on disk, and the batches that training and evaluation are made of.

Every random choice (caption, mismatched image, crop, flip, order) derives from a seed, the epoch and the image's id,
never from a worker, a rank, a batch or the order of calls.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from mmbench.core.cards import MissingAsset
from mmbench.core.files import sha256_json, write_json
from mmbench.core.images import from_uint8, read_rgb
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.progress import track
from mmbench.core.task import BATCH_FIELDS
from mmbench.core.text import Vocabulary
from mmbench.data import marks, sources
from mmbench.data.archives import Archive, receipts
from mmbench.data.cache import prepared
from mmbench.data.records import Look, Reader, Record, Seen, decoded
from mmbench.data.views import Fast, Preprocessing, Region, ShorterSide, View

DECODED = 50  # images of a split that a quick check decodes


class Mask(Protocol):
    """Where an image is to be filled in: a protocol of `masks`."""

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        """(side, side) bool, True = hole."""


RAGGED = frozenset({"boxes", "box_labels"})  # tensors of which each image has its own number


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items as one batch: tensors are stacked, everything else becomes a list."""
    columns = {field: [item[field] for item in items] for field in items[0]}
    return {
        # Unlike `torch.stack`, it makes a worker's batch where the main process will read it.
        field: default_collate(column) if isinstance(column[0], Tensor) and field not in RAGGED else column
        for field, column in columns.items()
    }


class DataModule(pl.LightningDataModule):
    """A data set with images and captions.

    A subclass says what it is made of (`archives`, `counts`, `num_captions`, `fields`) and reads it (`records`).

    Args:
        root: the folder that holds the data set, unpacked. Nothing is ever written into one that is not below `assets`.
        assets: the folder for what is fetched or made once: here, marks of data sets that were checked, and the cache.
        split_scheme: name of a way to split, a key of `counts`.
        image_size: side of the square images, in pixels.
        batch_size: images of a batch, in training and at evaluation.
        num_workers: processes that read images; 0 reads them in the main process. Changes no result.
        seed: of every random choice in training.
        complete: whether every image of the data set must be there. False reads what the tables list.
        preprocessing: how pictures become squares; `views.ShorterSide` by default.
        mask: the holes of inpainting (`masks`); None for none.
        cache: keep resized pictures below `assets/cache`, once for all epochs and runs (`cache`). Changes no result.

    Attributes:
        fields: the batch fields it can yield, of the vocabulary in `core/task.py`.
        training_fields: those of them that training batches have; all unless a method asks for fewer.

    Raises:
        ValueError: no such split scheme; a cache for pictures that are not resized whole.
    """

    fields: frozenset[str] = frozenset(
        {"id", "image", "caption", "caption_mismatched", "image_mismatched", "class_id"},
    )
    archives: ClassVar[tuple[Archive, ...]]  # what the data set consists of
    counts: ClassVar[dict[str, dict[str, int]]]  # split scheme to split to its number of images
    num_captions: ClassVar[int]  # those of an image that are used, the first ones

    def __init__(
        self,
        *,
        root: str | Path,
        assets: str | Path,
        split_scheme: str,
        image_size: int,
        batch_size: int,
        num_workers: int,
        seed: int,
        complete: bool = True,
        preprocessing: Preprocessing | None = None,
        mask: Mask | None = None,
        cache: bool = False,
    ) -> None:
        super().__init__()
        if split_scheme not in self.counts:
            raise ValueError(
                f"expected split_scheme of {', '.join(self.counts)}, found {split_scheme!r}: choose one of those"
            )
        self.root = Path(root).expanduser()
        self.assets = Path(assets).expanduser()
        self.split_scheme = split_scheme
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.complete = complete
        self.preprocessing = preprocessing or ShorterSide()
        self.mask = mask
        self.fields = type(self).fields | ({"mask"} if mask else set())
        assert self.fields <= BATCH_FIELDS.keys()
        self.training_fields = self.fields
        if cache and isinstance(self.preprocessing, Fast):
            raise ValueError(
                "expected an exact preprocessing with data.module.cache=true, found the fast one, which resizes no "
                "whole picture: choose one of the two"
            )
        self.cache = cache

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """Split name to its records, sorted by id; read once. `train` and `test` are always among the names.

        Raises:
            MissingAsset: the data set is not there.
            ValueError: files contradict one another, or one is missing or damaged; a split has another count than it
                should.
        """
        for archive in self.archives:
            if not archive.optional and not self.holds(archive):
                raise MissingAsset(sources.absence(archive, self.root))
        records = {split: sorted(found, key=lambda record: record.id) for split, found in self.read_records().items()}
        found = {split: len(records[split]) for split in records}
        if self.complete and found != (expected := self.counts[self.split_scheme]):
            raise ValueError(
                f"{self.root}: expected {_listed(expected)} images by the {self.split_scheme} split, found "
                f"{_listed(found)}: unpack the archives again, or set data.module.complete=false to use a part of the "
                "data set"
            )
        return records

    def read_records(self) -> dict[str, list[Record]]:
        """Split name to its records, in any order, as the files say.

        Raises:
            ValueError: files contradict one another, or one is missing or damaged; names the file, what was expected,
                what was found, and the remedy.
        """
        raise NotImplementedError

    def holds(self, archive: Archive) -> bool:
        """Whether what an archive holds lies unpacked below `root`."""
        return all((self.root / path).exists() for path in archive.contents)

    def prepare_data(self) -> None:
        """Checks the data set once, and remembers that it did: see `verify`.

        Raises:
            MissingAsset: it is not there.
            ValueError: it is damaged.
        """
        if not self.checked():
            self.verify()

    def checked(self) -> dict[str, Any] | None:
        """What `verify` wrote of these very files; None where it has not seen them, or not since they changed."""
        mark = marks.read(self._mark)
        return mark if mark and mark["fingerprint"] == self.fingerprint() else None

    def verify(self, full: bool = False) -> dict[str, Any]:
        """Checks every file that the splits name, decodes a part of the images, and writes a mark with the counts.

        Args:
            full: decode all images, not only some of each split.

        Returns:
            The mark: root, split scheme, counts, fingerprint, archives with sizes and sums, number of images decoded.

        Raises:
            MissingAsset: the data set is not there.
            ValueError: it is damaged; names the first file that is.
        """
        images = [
            record.image
            for records in self.records.values()
            for record in (records if full else records[:: max(1, len(records) // DECODED)])
        ]
        for image in track(images, "decoding images"):
            read_rgb(image)
        mark = {
            "root": str(self.root.resolve()),
            "split_scheme": self.split_scheme,
            "counts": {split: len(records) for split, records in self.records.items()},
            "fingerprint": self.fingerprint(),
            "decoded": len(images),
            "archives": receipts(self.root),
        }
        write_json(self._mark, mark)
        return mark

    @property
    def _mark(self) -> Path:
        return marks.place(self.assets, self.root, self.split_scheme)

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
                [(instance.class_id, instance.box) for instance in record.instances],
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
        """What there is, for a person: folder, counts, and the fingerprint."""
        counts = {f"{split} images": len(records) for split, records in self.records.items()}
        classes = {
            f"{split} classes": len({record.class_id for record in records}) for split, records in self.records.items()
        }
        captions = sum(len(record.captions) for records in self.records.values() for record in records)
        facts = {"folder": str(self.root), "split scheme": self.split_scheme}
        return {**facts, **counts, **classes, "captions": captions, "fingerprint": self.fingerprint()}

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
        num_captions = self.num_captions
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

    def evaluation(
        self, split: str, samples: Sequence[Sample], seed: int, fields: Set[str] | None = None
    ) -> "Dataset[dict[str, Any]]":
        """Item i has `id`, `sample` and the fields asked for, for the i-th sample; preprocessing is deterministic.

        The mismatched image comes from another class of the split (from the same class only where there is no other),
        by (seed, id): the same for every caption and draw of an image. `caption` and `caption_mismatched` are both
        number `sample.caption` of their image. Only images that some field shows are read.

        Args:
            fields: of the items; all of `fields` by default.

        Raises:
            ValueError: a sample is not of this split.
        """
        return _Evaluation(self, split, self._pairs(split, samples, seed), seed, fields or self.fields)

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
        """Every real image of a split (`id`, `image`, `sample`), preprocessed as at evaluation."""
        samples = [Sample(record.id, 0, 0) for record in self.split(split)]
        pairs = [(sample, record, record) for sample, record in zip(samples, self.split(split), strict=True)]
        return _Evaluation(self, split, pairs, 0, {"image"})

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Lightning's hook, on the device: images in [-1, 1]."""
        return as_floats(batch)

    def reader(self, split: str, look: Look, purpose: str) -> Reader:
        """Where pictures of a split come from: their files, or the cache, which is filled here if need be.

        Args:
            look: any look of the kind that is going to be read.
            purpose: `training` or `evaluation`, whose sizes differ.

        Raises:
            ValueError: as `cache.prepared`.
        """
        if not self.cache:
            return decoded
        kind = type(self.preprocessing)
        rule = [f"{kind.__module__}.{kind.__qualname__}", vars(self.preprocessing), purpose, self.image_size]
        name = f"{self.root.name}-{split}-{purpose}-{self.image_size}"
        cropped = sorted({record.cropped for record in self.split(split)})
        identity = [self.fingerprint(), split, cropped, rule]
        return prepared(self.assets / "cache", name, identity, self.split(split), look, self.num_workers)

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches with a random caption, crop, flip and mismatched image for each image and epoch.

        They have `training_fields`, and `id`, `sample` and `noise`, where the draw is the epoch. Images are uint8, a
        quarter of the bytes for workers to hand on; `on_after_batch_transfer` makes floats of them. The last partial
        batch of an epoch is dropped.

        Raises:
            ValueError: there are fewer images than a batch holds.
        """
        dataset = _Training(self)
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


# Fields that show a record's own image, or a map of it.
_SHOWN = frozenset({"image", "mask", "layout", "instances", "boxes", "box_labels", "parts"})

Choice = tuple[Record, int, Look]  # an image, the number of one of its captions, and how it is looked at


@dataclass(frozen=True)
class _Recipe:
    """How records become items. Workers are handed this and no data module, which holds the trainer.

    Calling it gives the fields of one item: of an image and one of its captions, and of another image and one of its
    captions. What no field shows is neither drawn nor read.
    """

    fields: frozenset[str]
    read: Reader
    mask: Mask | None

    def __call__(
        self, own: Choice, mismatched: Callable[[], Choice], holes: Callable[[], np.random.Generator]
    ) -> dict[str, Any]:
        record, caption, look = own
        item = {"id": record.id} | {
            field: know(record, caption) for field, know in _KNOWN.items() if field in self.fields
        }
        if self.fields & _OTHER.keys():
            other = mismatched()
            item |= {field: show(self.read, *other) for field, show in _OTHER.items() if field in self.fields}
        if not self.fields & _SHOWN:
            return item
        seen = self.read(record, look)
        item |= {field: show(record, seen) for field, show in _SHOW.items() if field in self.fields}
        if "mask" in self.fields:
            assert self.mask is not None
            item["mask"] = torch.from_numpy(self.mask(record, seen, holes())[None]).float()
        return item


def _recipe(data: DataModule, fields: Set[str], split: str, look: Look, purpose: str) -> _Recipe:
    reads = not fields.isdisjoint({*_SHOWN, "image_mismatched"})
    return _Recipe(frozenset(fields), data.reader(split, look, purpose) if reads else decoded, data.mask)


def _as_levels(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) as (3, H, W) uint8, in memory of its own."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def as_floats(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch, or an item, with its images in [-1, 1]."""
    return batch | {field: from_uint8(batch[field]) for field in ("image", "image_mismatched") if field in batch}


def _layout(record: Record, seen: Seen) -> Tensor:
    assert record.layout is not None
    return torch.from_numpy(seen.view.nearest(record.layout(seen.size)).astype(np.int64))


def _instances(record: Record, seen: Seen) -> Tensor:
    """Where objects overlap the later one shows: crowds are drawn first, smaller ones last."""
    index = np.zeros(seen.size[::-1], np.uint8)
    order = [(not one.is_crowd, -one.box[2] * one.box[3], place) for place, one in enumerate(record.instances)]
    for _, _, place in sorted(order)[:255]:
        index[record.instances[place].mask(seen.size) > 0] = place + 1
    return torch.from_numpy(seen.view.nearest(index).astype(np.int64))


def _boxes(record: Record, seen: Seen) -> Tensor:
    boxes = np.array([instance.box for instance in record.instances], np.float64).reshape(-1, 4)
    return torch.from_numpy(seen.view.boxes(boxes)).float()


def _box_labels(record: Record, seen: Seen) -> Tensor:
    return torch.tensor([instance.class_id for instance in record.instances], dtype=torch.int64)


def _parts(record: Record, seen: Seen) -> Tensor:
    assert record.parts is not None
    return coverage(record.parts, record.num_parts, seen.view)


_KNOWN: dict[str, Callable[[Record, int], Any]] = {
    "caption": lambda record, caption: record.captions[caption],
    "class_id": lambda record, caption: torch.tensor(record.class_id),
    "attributes": lambda record, caption: record.attributes,
    "caption_attributes": lambda record, caption: record.caption_attributes[caption],
}
_OTHER: dict[str, Callable[[Reader, Record, int, Look], Any]] = {
    "caption_mismatched": lambda read, record, caption, look: record.captions[caption],
    "image_mismatched": lambda read, record, caption, look: _as_levels(read(record, look).pixels),
    "caption_mismatched_attributes": lambda read, record, caption, look: record.caption_attributes[caption],
}
_SHOW: dict[str, Callable[[Record, Seen], Tensor]] = {
    "image": lambda record, seen: _as_levels(seen.pixels),
    "layout": _layout,
    "instances": _instances,
    "boxes": _boxes,
    "box_labels": _box_labels,
    "parts": _parts,
}


def coverage(parts: Path, num_parts: int, view: View) -> Tensor:
    """How much of each pixel each part covers, through the view of its image: (P, side, side) float32 in [0, 1]."""
    index = read_rgb(parts)[0].numpy()
    masks = [Image.fromarray(np.uint8(255) * (index == part)) for part in range(1, num_parts + 1)]
    return torch.from_numpy(np.stack([view(mask) for mask in masks])).float() / 255


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))


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

    def __init__(self, data: DataModule) -> None:
        self.records = data.split("train")
        self.mismatched = _Mismatched(self.records)
        self.seed, self.num_captions = data.seed, data.num_captions
        self.look = partial(data.preprocessing.training, side=data.image_size)
        self.recipe = _recipe(data, data.training_fields, "train", self._any_look, "training")

    def _any_look(self, region: Region) -> View:
        return self.look(region, rng=random_stream("any"))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record = self.records[index]
        draws = partial(random_stream, self.seed, epoch, record.id)

        def mismatched() -> Choice:
            rng = draws("mismatched")
            other, caption = self.mismatched(index, rng), int(rng.integers(self.num_captions))
            return other, caption, partial(self.look, rng=draws("view of mismatched"))

        caption = int(draws("caption").integers(self.num_captions))
        own = record, caption, partial(self.look, rng=draws("view"))
        return {**self.recipe(own, mismatched, partial(draws, "mask")), "sample": Sample(record.id, caption, epoch)}

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(items)
        return {**batch, "noise": Noise(self.seed, batch["sample"])}


class _Evaluation(Dataset):
    """Items of samples."""

    def __init__(
        self,
        data: DataModule,
        split: str,
        pairs: Sequence[tuple[Sample, Record, Record]],
        seed: int,
        fields: Set[str],
    ) -> None:
        self.pairs, self.seed = pairs, seed
        self.look = partial(data.preprocessing.evaluation, side=data.image_size)
        self.recipe = _recipe(data, fields, split, self.look, "evaluation")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, record, other = self.pairs[index]
        own, mismatched = (record, sample.caption, self.look), (other, sample.caption, self.look)
        holes = partial(random_stream, self.seed, sample.id, "mask")
        return {**as_floats(self.recipe(own, lambda: mismatched, holes)), "sample": sample}
