"""Texts in the place of an image's caption: prompts that none was captioned with, wrong captions, and none at all."""

import copy
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mmbench.core.prompts import read_prompts
from mmbench.core.task import Task
from mmbench.data.archives import Archive
from mmbench.data.base import DataModule
from mmbench.data.fields import EDITED, FIELDS, Field, Item
from mmbench.data.records import Record

OF_CAPTIONS = frozenset({"captions", "caption_attributes", "caption_mismatched_attributes", "text_embedding", *EDITED})


def following(data: DataModule, prompts: Sequence[str], task: Task) -> DataModule:
    """A data set at evaluation, with a protocol's prompts in the place of its captions.

    Where the task has a picture for an input, each picture is paired with prompts as it was with captions; elsewhere
    there is one sample for each prompt, and no picture belongs to it. The real set of distribution metrics stays.

    Args:
        data: the data set, prepared.
        prompts: the texts.
        task: of the method.

    Raises:
        ValueError: the task follows no text.
    """
    if task.prompt is None:
        raise ValueError(f"expected a task that follows texts with protocol.prompts, found {task.name}: leave them out")
    seen = copy.copy(data)
    seen.origin = data
    if set(task.inputs) <= {"caption"}:
        records = _records(prompts, data.root)
        seen.num_captions = 1  # type: ignore[misc]
        seen.fields = frozenset({"id", "caption"})
        vars(seen)["records"] = dict.fromkeys(data.records, records)
    else:
        seen.num_captions = len(prompts)  # type: ignore[misc]
        seen.fields = data.fields - OF_CAPTIONS
        vars(seen)["records"] = {
            split: [replace(record, captions=tuple(prompts), caption_attributes=()) for record in found]
            for split, found in data.records.items()
        }
    return seen


def _nothing(item: Item) -> str:
    return ""


# The caption that a protocol has a method told in the place of the right one.
TOLD: dict[str, Field] = {"mismatched": FIELDS["caption_mismatched"], "none": _nothing}
# Which of them there are for what the methods of a task follow: an image's caption, or that of another one.
TELLABLE: dict[str | None, Set[str]] = {"caption": TOLD.keys(), "caption_mismatched": {"own"}}


def _of_itself(item: Item, make: Field) -> Any:
    """A field of an item that is its own other image."""
    alone = copy.copy(item)
    alone.other = item
    return make(alone)


def telling(data: DataModule, caption: str, task: Task) -> DataModule:
    """A data set as a method is to see it, with another caption in the place of the right one, or with none.

    An editor that is told an image's own caption is told it in the place of the other one's: for it, the image that the
    caption was written for is the image itself, and so is the right edit.

    Args:
        data: the data set, prepared.
        caption: `right`, `mismatched`, `own` or `none`, as `Protocol.caption`.
        task: of the method.

    Raises:
        ValueError: the task follows no such caption, or the data set has none.
    """
    if caption == "right":
        return data
    if caption not in TELLABLE.get(task.prompt, set()) or "caption" not in data.fields:
        raise ValueError(
            f"expected a task and data that have captions with protocol.caption={caption}, found {task.name} on "
            f"{data.root}: leave protocol.caption out"
        )
    seen = copy.copy(data)
    if caption == "own":
        seen._makers = {field: partial(_of_itself, make=make) for field, make in data._makers.items()}
    else:
        seen._makers = {**data._makers, "caption": TOLD[caption]}
    return seen


def _records(prompts: Sequence[str], file: Path) -> list[Record]:
    return [Record(f"prompt-{place:05d}", file, (prompt,), place) for place, prompt in enumerate(prompts)]


class Prompts(DataModule):
    """A file of prompts alone: what to make pictures of, and no pictures.

    `root` is the file: a prompt in each line, or a JSON list of texts.
    """

    archives: ClassVar[tuple[Archive, ...]] = ()
    counts: ClassVar[dict[str, dict[str, int]]] = {"all": {}}
    num_captions = 1
    fields = frozenset({"id", "caption"})

    def read_records(self) -> dict[str, list[Record]]:
        """All of the file is the split `test`."""
        return {"train": [], "test": _records(read_prompts(self.root), self.root)}

    def verify(self, full: bool = False) -> dict[str, Any]:
        """There is nothing to decode.

        Raises:
            ValueError: as `read_prompts`.
        """
        return {"counts": {split: len(records) for split, records in self.records.items()}}

    def checked(self) -> dict[str, Any] | None:
        """A text is read each time."""
        return None
