"""Videos of toy birds that fly in a captioned direction at a captioned speed (`toy.moving_birds`); there are no others.

On disk: `videos/<id>.png`, animated and lossless; `masks/<id>.png`, where the bird is, frame below frame;
`videos.jsonl`, a line of what is true of each video.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbench.core.outputs import VIDEOS
from mmbench.core.progress import track
from mmbench.data.base import DECODED
from mmbench.data.fields import Field, Item
from mmbench.data.records import Record
from mmbench.data.sources.moving_birds import ARCHIVES
from mmbench.data.toy import moving_birds as toy
from mmbench.data.toy.base import TRUTH, Toy
from mmbench.data.views import Preprocessing, Region, View

FACTS = frozenset(
    {"id", "split", "frames", "frame_rate", "class", "attributes", "motion", "captions", "caption_attributes"}
)


class WholeFrame(Preprocessing):
    """Every frame whole, in training too: a mirrored bird does not fly where its caption says."""

    def evaluation(self, region: Region, side: int) -> View:
        return View.centred(region, side)

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        return View.centred(region, side)


def _video(item: Item) -> Tensor:
    """(F, 3, side, side) uint8: all frames through the view of the first."""
    view, known = item.seen.view, item.record.extra
    if view.flipped:
        raise ValueError(
            "expected videos as they are, found mirrored ones, which do not move as their captions say: leave out "
            "data.module.preprocessing"
        )
    frames = read_video(known["video"], known["frames"]).permute(0, 2, 3, 1).numpy()  # (F, H, W, 3)
    return torch.from_numpy(np.stack([view(Image.fromarray(frame)) for frame in frames])).permute(0, 3, 1, 2)


def _frame_rate(item: Item) -> float:
    return float(item.record.extra["frame_rate"])


def _motion(item: Item) -> dict[str, str]:
    return dict(item.record.extra["motion"])


class MovingBirds(Toy):
    """Videos, the captions of each, and what is true of them. `image` is the first frame.

    A quarter of the videos are for tests. `class_id` is the bird's.

    Args:
        source: where they are from; `toy`, or they are refused when they are wanted.
        num_frames: of each video, 8 to 16.
        num_images: how many videos.
        common: as `Toy`.
    """

    archives = ARCHIVES
    counts: ClassVar = {"fourths": {}}
    num_captions = toy.NUM_CAPTIONS
    version = toy.VERSION
    fields = Toy.fields | (TRUTH - {"parts"})
    own_fields: ClassVar[dict[str, Field]] = {"video": _video, "frame_rate": _frame_rate, "motion": _motion}

    def __init__(self, *, source: str, num_frames: int, **common: Any) -> None:
        super().__init__(**{"preprocessing": WholeFrame(), **common})
        self.source = source
        self.num_frames = num_frames
        self.write = partial(toy.write, num_frames=num_frames)

    def make(self) -> None:
        """As every toy data set's.

        Raises:
            ValueError: real videos are wanted; or as every toy data set's.
        """
        if self.source != "toy":
            raise ValueError(
                f"expected data.source=toy for moving_birds, whose videos are drawn, found {self.source!r}: set it to "
                "toy"
            )
        super().make()

    def read_records(self) -> dict[str, list[Record]]:
        path = self.root / "videos.jsonl"
        records: dict[str, list[Record]] = {"train": [], "test": []}
        for line in path.read_bytes().splitlines():
            try:
                facts = json.loads(line)
                assert facts.keys() >= FACTS
            except (ValueError, AttributeError, AssertionError):
                raise ValueError(
                    f"{path}: expected what is known of a video on each line, found {line[:60]!r}: remove "
                    f"{self.root}, it is made again"
                ) from None
            records[facts["split"]].append(self._record(facts))
        return records

    def _record(self, facts: dict[str, Any]) -> Record:
        video = self.root / "videos" / f"{facts['id']}.png"
        if facts["frames"] != self.num_frames:
            raise ValueError(
                f"{self.root}: expected videos of {self.num_frames} frames, found {facts['frames']} in {facts['id']}: "
                "set data.frames to that, or data.root to another folder"
            )
        if not video.is_file():
            raise ValueError(
                f"{video}: expected a video that videos.jsonl lists, found none: remove {self.root}, it is made again"
            )
        return Record(
            facts["id"],
            video,
            tuple(facts["captions"]),
            facts["class"],
            attributes=facts["attributes"],
            caption_attributes=tuple(facts["caption_attributes"]),
            extra={"video": video, **{key: facts[key] for key in ("frames", "frame_rate", "motion")}},
        )

    def verify(self, full: bool = False) -> dict[str, Any]:
        """As every data set's, with all frames of the videos that are decoded."""
        for records in self.records.values():
            some = records if full else records[:: max(1, len(records) // DECODED)]
            for record in track(some, "decoding videos"):
                read_video(record.image, record.extra["frames"])
        return super().verify(full)


def read_video(path: Path, num_frames: int) -> Tensor:
    """(F, 3, H, W) uint8.

    Raises:
        ValueError: the file is missing or damaged, or has another number of frames; names it.
    """
    frames = VIDEOS.read(path).frames
    if len(frames) != num_frames:
        raise ValueError(
            f"{path}: expected a video of {num_frames} frames, found {len(frames)}: remove the data set, it is made "
            "again"
        )
    return frames
