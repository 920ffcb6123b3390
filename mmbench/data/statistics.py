"""What a data set consists of, in numbers, beside those that were published."""

from collections.abc import Iterator
from statistics import fmean, median

import numpy as np
import pandas as pd

from mmbench.core.images import opened
from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.core.text import tokenise
from mmbench.data.base import DataModule
from mmbench.data.masks import Centre, LargestObject, Mask, Rectangles, Salient, Strokes
from mmbench.data.records import Record, Seen, region_of

MASKS: dict[str, Mask] = {
    "centre": Centre(),
    "object": Salient(),
    "largest object": LargestObject(),
    "rectangles": Rectangles(),
    "strokes": Strokes(),
}
MASKED = (
    2000  # images of the test split, spread evenly, whose holes are measured; all where it has fewer than twice that
)

# The table of data sets in the slides of the survey that this project reproduces, as its brief quotes it. It does not
# say which protocol its mask area is of; TDANet's object masks, which it describes, are the nearest.
PUBLISHED = {
    "CUB": {"vocabulary": 5450, "words of a caption, mean": 15.23, "mask area, object (%)": 34.59},
    "COCO": {
        "vocabulary": 27297,
        "words of a caption, mean": 10.45,
        "mask area, object (%)": 19.62,
        "objects of an image": 7.3,
    },
}


def measured(data: DataModule) -> dict[str, float]:
    """Every number by its name, integers where it is a count; what a data set does not have is left out.

    Words are those of `core.text.tokenise`, the vocabulary has `<end>` among them, and only the captions that are used
    count, the first `num_captions`. Holes are measured as the data module shows its images at evaluation, with seed 0.
    Objects, crowds among them, are counted over images that have any.

    Raises:
        MissingAsset, ValueError: as `DataModule.records`; a picture that is none, which is named.
    """
    records = [record for split in data.records.values() for record in split]
    lengths = [len(tokenise(caption)) for record in records for caption in record.captions[: data.num_captions]]
    sizes = [_size(record) for record in track(records, "reading sizes of images")]
    objects = [len(record.instances) for record in records if len(record.instances)]
    return {
        **{f"{split} images": len(found) for split, found in data.records.items()},
        **(_wording(data, lengths) if lengths else {}),
        **_spread("image width", [width for width, _ in sizes]),
        **_spread("image height", [height for _, height in sizes]),
        **_areas(data),
        **({"objects of an image": fmean(objects)} if objects else {}),
    }


def report(data: DataModule) -> str:
    """`measured` beside the published numbers, in Markdown; toy data have none to compare with."""
    published = PUBLISHED.get(type(data).__name__, {})
    rows = [
        {"": name, "measured": _text(value), "published": _text(published[name]) if name in published else ""}
        for name, value in measured(data).items()
    ]
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, colalign=("left", "right", "right"))


def _size(record: Record) -> tuple[int, int]:
    """Width and height, from the head of the file."""
    with opened(record.image) as picture:
        return picture.size


def _wording(data: DataModule, lengths: list[int]) -> dict[str, float]:
    """Of captions of these numbers of words."""
    return {
        "captions": len(lengths),
        "vocabulary": len(data.vocabulary()),
        "words of a caption, mean": fmean(lengths),
        "words of a caption, most": max(lengths),
    }


def _spread(name: str, values: list[int]) -> dict[str, float]:
    return {f"{name}, least": min(values), f"{name}, median": median(values), f"{name}, most": max(values)}


def _areas(data: DataModule) -> dict[str, float]:
    """Share of the picture that is hole, on average, by protocol."""
    records = data.split("test")
    records = records[:: max(1, len(records) // MASKED)]
    areas: dict[str, list[float]] = {name: [] for name in MASKS}
    for record in track(records, "measuring holes"):
        for name in _known(record):
            hole = MASKS[name](record, _seen(data, record), random_stream(0, record.id, "mask"))
            areas[name].append(float(hole.mean()))
    return {f"mask area, {name} (%)": 100 * fmean(found) for name, found in areas.items() if found}


def _known(record: Record) -> Iterator[str]:
    """The protocols for which an image does not fall back on rectangles for want of an object."""
    for name in MASKS:
        if name == "object" and not record.salient:
            continue
        if name == "largest object" and all(instance.is_crowd for instance in record.instances):
            continue
        yield name


def _seen(data: DataModule, record: Record) -> Seen:
    """As at evaluation, but for the pixels, which no hole depends on."""
    size = _size(record)
    view = data.preprocessing.evaluation(region_of(record, size), data.image_size)
    return Seen(np.empty((0, 0, 3), np.uint8), view, size)


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
