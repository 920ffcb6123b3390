"""How records become the fields of a batch: a function of an item for each name of the vocabulary in `core/task.py`."""

from collections.abc import Callable
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbench.core.images import read_rgb
from mmbench.data.masks import Mask
from mmbench.data.records import Look, Reader, Record, Seen
from mmbench.data.views import View


class Choice:
    """An image and one of its captions, and how the image is looked at.

    Attributes:
        record: what is known of the image.
        caption: number of the caption; 0 where there are none.
        seen: the image as it is looked at, read when it is first asked for.
    """

    def __init__(self, record: Record, caption: int, read: Reader, look: Look) -> None:
        self.record, self.caption = record, caption
        self._read, self._look = read, look

    @cached_property
    def seen(self) -> Seen:
        return self._read(self.record, self._look)

    @property
    def text(self) -> str:
        """The caption."""
        return self.record.captions[self.caption]

    @property
    def named(self) -> dict[str, str]:
        """The attributes that the caption names."""
        return self.record.caption_attributes[self.caption]

    @property
    def levels(self) -> Tensor:
        """(3, side, side) uint8, in memory of its own."""
        return torch.from_numpy(self.seen.pixels.transpose(2, 0, 1).copy())


class Item(Choice):
    """What the fields of one item are made of: an image with a caption, and another that does not match it.

    Args:
        mismatched: chooses the other one.
        draws: gives a stream of random numbers of this item for each purpose.

    Attributes:
        other: the other image, with a caption of its own, chosen when it is first asked for.
    """

    def __init__(
        self,
        record: Record,
        caption: int,
        read: Reader,
        look: Look,
        mismatched: Callable[[], Choice],
        draws: Callable[[str], np.random.Generator],
    ) -> None:
        super().__init__(record, caption, read, look)
        self._mismatched, self.draws = mismatched, draws

    @cached_property
    def other(self) -> Choice:
        return self._mismatched()


# Gives one field of an item, without the axis of the batch. Workers are handed it: a module's own function, no lambda.
Field = Callable[[Item], Any]


def _captions(item: Item) -> list[str]:
    return list(item.record.captions)


def _class_id(item: Item) -> Tensor:
    return torch.tensor(item.record.class_id)


def _layout(item: Item) -> Tensor:
    assert item.record.layout is not None
    return torch.from_numpy(item.seen.view.nearest(item.record.layout(item.seen.size)).astype(np.int64))


def _instances(item: Item) -> Tensor:
    """Where objects overlap the later one shows: crowds are drawn first, smaller ones last."""
    objects, seen = item.record.instances, item.seen
    index = np.zeros(seen.size[::-1], np.uint8)
    order = [(not one.is_crowd, -one.box[2] * one.box[3], place) for place, one in enumerate(objects)]
    for _, _, place in sorted(order)[:255]:
        index[objects[place].mask(seen.size) > 0] = place + 1
    return torch.from_numpy(seen.view.nearest(index).astype(np.int64))


def _boxes(item: Item) -> Tensor:
    boxes = np.array([instance.box for instance in item.record.instances], np.float64).reshape(-1, 4)
    return torch.from_numpy(item.seen.view.boxes(boxes)).float()


def _box_labels(item: Item) -> Tensor:
    return torch.tensor([instance.class_id for instance in item.record.instances], dtype=torch.int64)


def _parts(item: Item) -> Tensor:
    assert item.record.parts is not None
    return coverage(item.record.parts, item.record.num_parts, item.seen.view)


def coverage(parts: Path, num_parts: int, view: View) -> Tensor:
    """How much of each pixel each part covers, through the view of its image: (P, side, side) float32 in [0, 1]."""
    index = read_rgb(parts)[0].numpy()
    masks = [Image.fromarray(np.uint8(255) * (index == part)) for part in range(1, num_parts + 1)]
    return torch.from_numpy(np.stack([view(mask) for mask in masks])).float() / 255


def holes(item: Item, mask: Mask) -> Tensor:
    """(1, side, side) float32, 1 = hole."""
    return torch.from_numpy(mask(item.record, item.seen, item.draws("mask"))[None]).float()


TEXTS: dict[str, Field] = {
    "caption": attrgetter("text"),
    "captions": _captions,
    "caption_mismatched": attrgetter("other.text"),
    "caption_attributes": attrgetter("named"),
    "caption_mismatched_attributes": attrgetter("other.named"),
}
# Fields that are known without a look at the picture; any other makes an item read it.
KNOWN: dict[str, Field] = TEXTS | {
    "id": attrgetter("record.id"),
    "class_id": _class_id,
    "attributes": attrgetter("record.attributes"),
}
# Right and wrong edits of an image, of data that can draw it again.
EDITED = ("image_edited", "image_edited_elsewhere", "image_edited_everywhere")
FIELDS: dict[str, Field] = KNOWN | {
    "image": attrgetter("levels"),
    "image_mismatched": attrgetter("other.levels"),
    "layout": _layout,
    "instances": _instances,
    "boxes": _boxes,
    "box_labels": _box_labels,
    "parts": _parts,
}
