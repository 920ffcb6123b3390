"""Batches: in which order and by which draws records become the items of training and evaluation, and items a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, default_collate

from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample, TrainingNoise, random_stream
from mmbench.core.task import BATCH_FIELDS
from mmbench.data.fields import Choice, Field, Item
from mmbench.data.records import Look, Reader, Record
from mmbench.data.views import View

# Tensors of which each image has its own number: the vocabulary has them as lists.
RAGGED = frozenset(field for field, meaning in BATCH_FIELDS.items() if meaning.startswith("list[("))


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items as one batch: tensors are stacked, everything else becomes a list.

    Raises:
        ValueError: tensors of a field differ in shape; names the first item whose tensor is not as those before.
    """
    columns = {field: [item[field] for item in items] for field in items[0]}
    stacked = {field for field, column in columns.items() if isinstance(column[0], Tensor) and field not in RAGGED}
    for field in sorted(stacked):
        shapes = [tuple(value.shape) for value in columns[field]]
        if other := next((place for place, shape in enumerate(shapes) if shape != shapes[0]), None):
            raise ValueError(
                f"expected {field} of shape {shapes[0]} of every item, found {shapes[other]} of {items[other]['id']}: "
                "make or fetch it again"
            )
    return {
        # Unlike `torch.stack`, it makes a worker's batch where the main process will read it.
        field: default_collate(column) if field in stacked else column
        for field, column in columns.items()
    }


def as_floats(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch, or an item, with its images, which are its uint8 tensors, in [-1, 1]."""
    return {
        field: from_uint8(value) if isinstance(value, Tensor) and value.dtype == torch.uint8 else value
        for field, value in batch.items()
    }


class EpochSampler(DistributedSampler):
    """Pairs (epoch, index) in an order drawn for each epoch; each process of several gets its share.

    The k-th batches of w processes are together the k-th batch, w times as large, of a single one. The epoch travels
    with the index, so that workers that outlive an epoch draw what belongs to the next. A `DistributedSampler`, so that
    Lightning tells it the epoch and does not replace it.

    Args:
        size: number of images.
        seed: of the order.
        batch: images of a step, of all processes together; a pass over the images ends with its last whole batch.
        steps: number of batches of a virtual epoch, which goes through one pass after another and ends anywhere in one;
            None: an epoch is a pass.
    """

    def __init__(self, size: int, seed: int, batch: int = 1, steps: int | None = None) -> None:
        ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
        num_replicas = torch.distributed.get_world_size() if ranks else 1
        rank = torch.distributed.get_rank() if ranks else 0
        super().__init__(range(size), num_replicas, rank, seed=seed, drop_last=True)
        batch = max(batch, num_replicas)
        self.of_a_pass = size // batch * batch
        self.total_size = steps * batch if steps else self.of_a_pass // num_replicas * num_replicas
        self.num_samples = self.total_size // num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        places = range(self.epoch * self.total_size, (self.epoch + 1) * self.total_size)[self.rank :: self.num_replicas]
        passes = range(places[0] // self.of_a_pass, places[-1] // self.of_a_pass + 1)
        orders = {
            number: random_stream(self.seed, number, "order").permutation(len(self.dataset)).tolist()
            for number in passes
        }
        return iter([(at // self.of_a_pass, orders[at // self.of_a_pass][at % self.of_a_pass]) for at in places])


class Mismatched:
    """Chooses, for the image at a place of a split, one of another class; of another image where there is one class.

    Raises:
        ValueError: when it is to choose where there is no other image.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.classes = np.array([record.class_id for record in records])

    def __call__(self, place: int, rng: np.random.Generator) -> Record:
        if len(self.records) < 2:
            raise ValueError(f"expected at least two images in a split, found {len(self.records)}: use more data")
        others = np.flatnonzero(self.classes != self.classes[place])
        if not len(others):
            others = np.delete(np.arange(len(self.records)), place)
        return self.records[int(rng.choice(others))]


class Training(Dataset):
    """Items by (epoch, index).

    Args:
        records: of the split.
        fields: of the items. Workers are handed these and no data module, which holds the trainer.
        read: where pictures come from.
        look: gives a random view of a region by a generator `rng`.
        seed: of all draws.
        num_captions: of an image; 0 where there are none.
    """

    def __init__(
        self,
        records: Sequence[Record],
        fields: Mapping[str, Field],
        read: Reader,
        look: Callable[..., View],
        seed: int,
        num_captions: int,
    ) -> None:
        self.records, self.fields, self.read, self.look = records, fields, read, look
        self.seed, self.num_captions = seed, num_captions
        self.mismatched = Mismatched(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record = self.records[index]
        draws = partial(random_stream, self.seed, epoch, record.id)

        def mismatched() -> Choice:
            rng = draws("mismatched")
            other, caption = self.mismatched(index, rng), self._caption(rng)
            return Choice(other, caption, self.read, partial(self.look, rng=draws("view of mismatched")))

        caption = self._caption(draws("caption"))
        item = Item(record, caption, self.read, partial(self.look, rng=draws("view")), mismatched, draws)
        return {**_made(item, self.fields), "sample": Sample(record.id, caption, epoch)}

    def _caption(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.num_captions)) if self.num_captions else 0

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As `collate`, with the random numbers of the batch."""
        batch = collate(items)
        return {**batch, "noise": TrainingNoise(self.seed, batch["sample"])}


class Evaluation(Dataset):
    """Items of samples.

    Args:
        records: of the split.
        samples: what the items are of, in order.
        places: of each sample's image among the records.
        fields, read: as of `Training`.
        look: gives the view of a region.
        seed: of all draws.
    """

    def __init__(
        self,
        records: Sequence[Record],
        samples: Sequence[Sample],
        places: Sequence[int],
        fields: Mapping[str, Field],
        read: Reader,
        look: Look,
        seed: int,
    ) -> None:
        self.records, self.samples, self.places = records, samples, places
        self.fields, self.read, self.look, self.seed = fields, read, look, seed
        self.mismatched = Mismatched(records)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, place = self.samples[index], self.places[index]
        draws = partial(random_stream, self.seed, sample.id)

        def mismatched() -> Choice:
            return Choice(self.mismatched(place, draws("mismatched")), sample.caption, self.read, self.look)

        item = Item(self.records[place], sample.caption, self.read, self.look, mismatched, draws)
        return {**as_floats(_made(item, self.fields)), "sample": sample}


def _made(item: Item, fields: Mapping[str, Field]) -> dict[str, Any]:
    return {field: make(item) for field, make in fields.items()}
