"""The base of every data set: records of what is on disk, and the batches that training and evaluation are made of.

Every random choice (caption, mismatched image, crop, flip, order) derives from a seed, the epoch and the image's id,
never from a worker, a rank, a batch or the order of calls.
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmbench.core.cards import MissingAsset
from mmbench.core.files import sha256_json, write_json
from mmbench.core.images import read_rgb
from mmbench.core.noise import Sample, random_stream
from mmbench.core.progress import track
from mmbench.core.task import BATCH_FIELDS
from mmbench.core.text import Vocabulary
from mmbench.data import marks, sources
from mmbench.data.archives import Archive, receipts
from mmbench.data.batches import EpochSampler, Evaluation, Training, as_floats
from mmbench.data.cache import prepared
from mmbench.data.fields import FIELDS, KNOWN, TEXTS, Field, holes
from mmbench.data.masks import Mask
from mmbench.data.records import Look, Reader, Record, decoded
from mmbench.data.views import Fast, Preprocessing, ShorterSide

DECODED = 50  # images of a split that a quick check decodes


class DataModule(pl.LightningDataModule):
    """A data set with images and, mostly, captions.

    A subclass says what it is made of (`archives`, `counts`, `num_captions`, `fields`) and reads it (`read_records`).
    Pictures are shown as they lie in their files, never turned as EXIF says: boxes and masks belong to those pixels.

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
        fields: the batch fields it can yield, of the vocabulary in `core/task.py`; texts where there are captions.
        own_fields: those of them that `fields.FIELDS` does not have, and how each is made.
        num_captions: captions of an image that are used, the first ones; 0 for data without.
        origin: the data set whose captions gave way to other prompts here (`prompts.following`); None: this is it.
        training_fields: those of them that training batches have; all unless a method asks for fewer.
        whole_batch: images of a step of training, where processes or parts share them; None: `batch_size`.
        steps_per_epoch: batches of an epoch of training; None: as many as the images make.

    Raises:
        ValueError: no such split scheme; a size that is no whole number; a cache for pictures that are not resized
            whole.
    """

    fields: frozenset[str] = frozenset(
        {"id", "image", "caption", "captions", "caption_mismatched", "image_mismatched", "class_id"},
    )
    archives: ClassVar[tuple[Archive, ...]]  # what the data set consists of
    counts: ClassVar[dict[str, dict[str, int]]]  # split scheme to split to its number of images
    num_captions: ClassVar[int]
    own_fields: ClassVar[Mapping[str, Field]] = {}

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
        for name, value, least in (
            ("image_size", image_size, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if type(value) is not int or value < least:
                raise ValueError(
                    f"expected data.module.{name} as a whole number from {least}, found {value!r}: correct it"
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
        self._makers = {**FIELDS, **self.own_fields, **({"mask": partial(holes, mask=mask)} if mask else {})}
        texts = set() if self.num_captions else TEXTS.keys()
        self.fields = (type(self).fields | self.own_fields.keys() | ({"mask"} if mask else set())) - texts
        assert self.fields <= BATCH_FIELDS.keys() & self._makers.keys()
        self.training_fields = self.fields
        self.origin: DataModule | None = None
        self.whole_batch: int | None = None
        self.steps_per_epoch: int | None = None
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
            ValueError: files contradict one another, or one is missing or damaged; an image is listed twice; a split
                has another count than it should.
        """
        for archive in self.archives:
            if not archive.optional and not self.holds(archive):
                raise MissingAsset(sources.absence(archive, self.root))
        records = {split: sorted(found, key=lambda record: record.id) for split, found in self.read_records().items()}
        self._require_each_once(records)
        found = {split: len(records[split]) for split in records}
        if self.complete and found != (expected := self.counts[self.split_scheme]):
            raise ValueError(
                f"{self.root}: expected {_listed(expected)} images by the {self.split_scheme} split, found "
                f"{_listed(found)}: unpack the archives again, or set data.module.complete=false to use a part of the "
                "data set"
            )
        return records

    def _require_each_once(self, records: Mapping[str, Sequence[Record]]) -> None:
        """Refuses an image that is there twice: it would count twice, or be trained on and be a test as well."""
        splits: dict[str, str] = {}
        for split, found in records.items():
            for record in found:
                if record.id in splits:
                    where = f"{splits[record.id]} and {split}" if splits[record.id] != split else f"{split}, twice"
                    raise ValueError(
                        f"{self.root}: expected each image once, found {record.id} in {where}: unpack the archives "
                        "again"
                    )
                splits[record.id] = split

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
                *([{name: _fact(value) for name, value in record.extra.items()}] if record.extra else []),
            ]
            for split, records in sorted(self.records.items())
            for record in records
        ]
        return sha256_json(facts)

    def fingerprint(self) -> str:
        """SHA-256 that identifies the input data: ids, splits, captions, classes, boxes, attributes, sizes of files.

        And what single data sets have more, `Record.extra`.
        """
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

    def vocabulary(self, splits: Sequence[str] | None = None, min_count: int = 1) -> Vocabulary:
        """The words of captions; by default every word of all splits, as the AttnGAN family makes it.

        Args:
            splits: names of those whose captions are looked at, so that a captioner need not see the test words.
            min_count: how often a word must occur.
        """
        records = [record for split in splits or sorted(self.records) for record in self.split(split)]
        return Vocabulary.from_captions((caption for record in records for caption in record.captions), min_count)

    def class_ids(self, splits: Sequence[str]) -> list[int]:
        """The class numbers of all images of splits, each once, in order."""
        return sorted({record.class_id for split in splits for record in self.split(split)})

    def caption_embeddings(self) -> Callable[[Sequence[str]], Tensor]:
        """Embeddings that were published of captions: N of their texts to (N, D) float32, with the attribute `dim`.

        Raises:
            ValueError: there are none.
        """
        raise ValueError(
            f"{self.root}: expected published embeddings of the captions, found none: name their folder as "
            "data.module.embeddings (of CUB or Oxford-102)"
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
        self,
        split: str,
        count: int | None = None,
        captions_per_image: int = 1,
        draws: int = 1,
        seed: int = 0,
        classes: Collection[int] | None = None,
    ) -> list[Sample]:
        """The samples that a table is made of, sorted.

        Which captions an image is paired with depends on (seed, id) alone; more captions add to fewer.

        Args:
            split: `train` or `test`.
            count: number of images, a fixed pseudo-random choice by id of which a smaller one is a part; None for all.
            captions_per_image: prompts for each image.
            draws: images to generate for each prompt.
            seed: of the choices.
            classes: only images of these class numbers; None: all.

        Raises:
            ValueError: there are fewer images or captions than asked for, or none of the classes.
        """
        records = self._of_classes(split, classes)
        if count is not None:
            if not 1 <= count <= len(records):
                raise ValueError(f"expected count from 1 to {len(records)} images of {split}, found {count}: change it")
            records = sorted(records, key=lambda record: random_stream(seed, record.id, "subset").random())[:count]
        num_captions = self.num_captions
        if not num_captions and captions_per_image != 1:
            raise ValueError(
                f"expected captions_per_image of 1 for data with 0 captions of an image, found {captions_per_image}: "
                "set it to 1"
            )
        if not 1 <= captions_per_image <= max(1, num_captions):
            raise ValueError(f"expected captions_per_image from 1 to {num_captions}, found {captions_per_image}")
        return sorted(
            Sample(record.id, caption, draw)
            for record in records
            for caption in random_stream(seed, record.id, "captions")
            .permutation(max(1, num_captions))[:captions_per_image]
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
            fields: of the items, those that the data set has; all of `fields` by default.

        Raises:
            ValueError: a sample is not of this split.
        """
        records = self.split(split)
        places = {record.id: place for place, record in enumerate(records)}
        if strangers := [sample.id for sample in samples if sample.id not in places]:
            raise ValueError(f"expected images of {split}, found {strangers[0]!r}: take the samples from this data set")
        look = partial(self.preprocessing.evaluation, side=self.image_size)
        making = self._making(split, self.fields if fields is None else fields, look, "evaluation")
        return Evaluation(records, samples, [places[sample.id] for sample in samples], *making, look, seed)

    def texts(self, split: str, samples: Sequence[Sample], seed: int) -> dict[str, list[str]]:
        """`caption` and `caption_mismatched` of each sample, as `evaluation` pairs them; reads no image.

        Nothing where the data set has no captions.
        """
        fields = {"caption", "caption_mismatched"} & self.fields
        items = self.evaluation(split, samples, seed, fields)
        found = [items[index] for index in range(len(samples))]
        return {field: [item[field] for item in found] for field in sorted(fields)}

    def reference(self, split: str, classes: Collection[int] | None = None) -> Dataset:
        """Every real image of a split (`id`, `image`, `sample`), preprocessed as at evaluation.

        Args:
            split: its name.
            classes: only images of these class numbers; None: all.

        Raises:
            ValueError: there is no such split, or no image of the classes, or no image at all.
        """
        data = self.origin or self
        if "image" not in data.fields:
            raise ValueError(
                f"{data.root}: expected real images to compare with, found a data set without: choose "
                "another, or metrics that compare with none"
            )
        samples = [Sample(record.id, 0, 0) for record in data._of_classes(split, classes)]
        return data.evaluation(split, samples, 0, {"image"})

    def _of_classes(self, split: str, classes: Collection[int] | None) -> list[Record]:
        if classes is None:
            return self.split(split)
        found = [record for record in self.split(split) if record.class_id in classes]
        if missing := sorted(set(classes) - {record.class_id for record in found}):
            raise ValueError(
                f"expected images of class {missing[0]} in {split}, found none: choose class numbers of this data set"
            )
        return found

    def _making(self, split: str, fields: Set[str], look: Look, purpose: str) -> tuple[dict[str, Field], Reader]:
        """How the items of a split are made: the functions of their fields, and where pictures come from.

        `id` is always among the fields.
        """
        wanted = {field: make for field, make in self._makers.items() if field in (fields & self.fields) | {"id"}}
        return wanted, decoded if wanted.keys() <= KNOWN.keys() else self.reader(split, look, purpose)

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

    def require_batch(self, size: int) -> None:
        """Refuses training batches of more images than there are.

        Raises:
            ValueError: says how many there are.
        """
        if (found := len(self.split("train"))) < size:
            raise ValueError(f"expected at least {size} training images, found {found}: lower batch_size")

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches with a random caption, crop, flip and mismatched image for each image and epoch.

        They have `training_fields`, and `id`, `sample` and `noise`, where the draw is the epoch. Images are uint8, a
        quarter of the bytes for workers to hand on; `on_after_batch_transfer` makes floats of them. The last partial
        batch of an epoch is dropped.

        Raises:
            ValueError: there are fewer images than a batch holds.
        """
        look = partial(self.preprocessing.training, side=self.image_size)
        making = self._making("train", self.training_fields, partial(look, rng=random_stream("any")), "training")
        dataset = Training(self.split("train"), *making, look, self.seed, self.num_captions)
        whole = self.whole_batch or self.batch_size
        self.require_batch(whole)
        sampler = EpochSampler(len(dataset), self.seed, whole, self.steps_per_epoch)
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


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))


def _fact(value: Any) -> Any:
    return value.stat().st_size if isinstance(value, Path) else value
