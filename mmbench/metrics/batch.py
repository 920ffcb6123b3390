"""What metrics are shown, looked at once: what would be scored wrongly and without a word is refused."""

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mmbench.core.noise import Sample
from mmbench.core.outputs import require_finite
from mmbench.core.task import BATCH_FIELDS

Batch = dict[str, Any]

SHAPES = {"images": ("N", "3", "H", "W"), "videos": ("N", "F", "3", "H", "W")}
PICTURES = {"image": "images", "image_mismatched": "images", "video": "videos"}  # real ones, of floats in [-1, 1]
SHARES = {"mask": "(N, 1, H, W)", "parts": "(N, P, H, W)"}  # of a pixel
TOLERANCE = 1e-3  # by which rounding may pass a bound: next to 1 in half precision is 1 + 2^-10


class RangeWarning(UserWarning):
    """Real pictures have no value below 0, which is likely in [0, 1] and not in [-1, 1]."""


class CheckedBatch(dict[str, Any]):
    """A batch that was looked at together with what was made of it.

    Attributes:
        made: what was generated; None beside a batch of the real set.
        is_bright: whether real pictures are there as floats, and none has a value below 0.
    """

    def __init__(self, batch: Batch, made: Tensor | Sequence[str] | None) -> None:
        super().__init__(batch)
        self.made = made
        self.is_bright = False

    def __missing__(self, field: str) -> Any:
        raise ValueError(
            f"expected `{field}` in the batch, found {', '.join(map(str, self)) or 'no field'}: add it, the `needs` of "
            "a metric say what it reads beside `sample`"
        )


class _Owner(Protocol):
    warned: bool


def check_batch(made: Tensor | Sequence[str], batch: Batch, of: str, needs: Collection[str]) -> CheckedBatch:
    """Looks at what was generated and at its batch; no pixel is looked at twice.

    Args:
        made: (N, 3, H, W) uint8 images, (N, F, 3, H, W) uint8 videos, or N texts.
        batch: fields of the vocabulary of `core/task.py`.
        of: which output `made` is to be: `images`, `videos` or `texts`.
        needs: the fields that metrics compare `made` with, pixel by pixel where they are pictures.

    Raises:
        ValueError: another type, shape, range or number of items, or pixels that are no numbers.
    """
    if of == "texts":
        require_texts(made, "generated texts")
    else:
        require_levels(made, of)
    checked = CheckedBatch(_mapping(batch), made)
    _require_fields(checked, len(made))
    for field in sorted(needs & batch.keys()) if of != "texts" else ():
        if PICTURES.get(field) == of:
            _require_shape(made, checked[field], of)
        elif field in SHARES and checked[field].shape[-2:] != made.shape[-2:]:
            raise ValueError(
                f"expected `{field}` of {_size(made)} pixels, as the generated {of} have, found "
                f"{_size(checked[field])}: resize it with them"
            )
    return checked


def check_reference(batch: Batch) -> CheckedBatch:
    """As `check_batch`, of a batch of the real set: `image`, and as many of everything else."""
    checked = CheckedBatch(_mapping(batch), None)
    _require_tensor(checked["image"], "`image`", "images")
    _require_fields(checked, len(checked["image"]))
    return checked


def warn_once(owner: _Owner, batch: CheckedBatch, stacklevel: int) -> None:
    """Warns of real pictures that are likely to be in another range, of each metric or suite once."""
    if batch.is_bright and not owner.warned:
        owner.warned = True
        warnings.warn(
            "expected real images in [-1, 1], found a batch of floats with no value below 0: if they are in [0, 1], "
            "show 2 * x - 1",
            RangeWarning,
            stacklevel=stacklevel + 1,
        )


def require_levels(made: Any, of: str) -> None:
    """Refuses what are no generated pictures of levels: (N, 3, H, W) uint8, or (N, F, 3, H, W) for videos."""
    if isinstance(made, Tensor) and made.dtype != torch.uint8:
        remedy = (
            "round them with mmbench.core.images.to_uint8, which takes [-1, 1]"
            if made.is_floating_point()
            else "give levels 0 to 255 as torch.uint8"
        )
        raise ValueError(f"expected generated {of} as uint8 levels, found {made.dtype}: {remedy}")
    _require_tensor(made, f"generated {of}", of)


def require_texts(texts: Any, what: str) -> None:
    """Refuses what is no list of texts."""
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ValueError(f"expected {what} as a list of texts, found {_kind(texts)}: put them into a list")
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"expected {what} as a list of texts, found {_kind(wrong[0])} in it: give one text an item")


def _mapping(batch: Any) -> Batch:
    if not isinstance(batch, Mapping):
        raise ValueError(f"expected a batch as a dict of fields, found {_kind(batch)}: name them, as `image`")
    return batch  # type: ignore[return-value]


def _require_tensor(pictures: Any, what: str, of: str) -> None:
    shape = SHAPES[of]
    if not isinstance(pictures, Tensor):
        raise ValueError(f"expected {what} as a tensor {_words(shape)}, found {_kind(pictures)}: stack them")
    if pictures.ndim != len(shape) or pictures.shape[-3] != 3 or not pictures.numel():
        raise ValueError(
            f"expected {what} of shape {_words(shape)}, found {tuple(pictures.shape)}: colours are the third dimension "
            "from the end, and grey has three equal ones"
        )


def _require_shape(made: Tensor, real: Tensor, of: str) -> None:
    if made.shape[:-3] != real.shape[:-3]:  # as many of them there are
        raise ValueError(
            f"expected generated videos of {real.shape[1]} frames, as the real ones have, found {made.shape[1]}: "
            "generate as many"
        )
    if made.shape != real.shape:
        raise ValueError(
            f"expected generated {of} of shape {tuple(real.shape)}, found {tuple(made.shape)}: "
            "evaluate at the size that the method generates"
        )


def _require_fields(batch: CheckedBatch, count: int) -> None:
    shown = [field for field in PICTURES if field in batch]
    for field in shown:
        _require_tensor(batch[field], f"`{field}`", PICTURES[field])
    for field in [field for field in batch if field in BATCH_FIELDS and field != "noise"]:
        _require_count(batch[field], field, count)
    names = batch.get("id") or [f"row {row}" for row in range(count)]
    for field, require in ITEMS.items():
        if field in batch:
            require(batch[field], field)
    lowest = [_lowest(batch[field], field, names) for field in shown]
    batch.is_bright = any(value >= 0 for value in lowest)


def _require_count(value: Any, field: str, count: int) -> None:
    if (
        isinstance(value, str | Mapping)
        or not hasattr(value, "__len__")
        or (isinstance(value, Tensor) and not value.ndim)
    ):
        raise ValueError(f"expected `{field}` of {count} items, found {_kind(value)}: give one for each item shown")
    if len(value) != count:
        raise ValueError(
            f"expected `{field}` of {count} items, found {len(value)}: give one for each item shown, in the same order"
        )


def _lowest(pictures: Tensor, field: str, names: Sequence[str]) -> float:
    """The lowest value of real pictures, that of levels taken for -1."""
    if pictures.dtype == torch.uint8:
        return -1.0
    if not pictures.is_floating_point():
        raise ValueError(
            f"expected `{field}` as floats in [-1, 1] or as uint8 levels, found {pictures.dtype}: convert levels 0 to "
            "255 to torch.uint8"
        )
    lowest, highest = torch.stack(torch.aminmax(pictures.detach())).tolist()
    if not (lowest >= -1 - TOLERANCE and highest <= 1 + TOLERANCE):  # NaN is neither
        require_finite(pictures, names)
        raise ValueError(
            f"expected `{field}` in [-1, 1], found values from {lowest:g} to {highest:g}: scale levels by "
            "x / 127.5 - 1, and clamp what resizing adds"
        )
    return lowest


def _require_mask(mask: Any, field: str) -> None:
    _require_maps(mask, field)
    if mask.shape[1] != 1:
        raise ValueError(f"expected `mask` of shape {SHARES[field]}, found {tuple(mask.shape)}: give one channel")
    if not ((mask == 0) | (mask == 1)).all():
        found = mask.unique().tolist()
        some = ", ".join(f"{value:g}" for value in found[:4]) + (", ..." if len(found) > 4 else "")
        raise ValueError(f"expected `mask` of 0 (known) and 1 (hole), found {some}: threshold it")


def _require_parts(parts: Any, field: str) -> None:
    _require_maps(parts, field)
    lowest, highest = (float(value) for value in torch.aminmax(parts)) if parts.numel() else (0.0, 0.0)
    if not (lowest >= -TOLERANCE and highest <= 1 + TOLERANCE):
        raise ValueError(f"expected `parts` in [0, 1], found values from {lowest:g} to {highest:g}: give shares")


def _require_maps(maps: Any, field: str) -> None:
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        found = tuple(maps.shape) if isinstance(maps, Tensor) else _kind(maps)
        raise ValueError(f"expected `{field}` of shape {SHARES[field]}, found {found}: reshape it")


def _require_samples(samples: Any, field: str) -> None:
    if wrong := [sample for sample in samples if not isinstance(sample, Sample)]:
        raise ValueError(
            f"expected `{field}` of mmbench.core.noise.Sample(id, caption, draw), found {_kind(wrong[0])}: make them so"
        )


def _require_lists(lists: Any, field: str) -> None:
    for texts in lists:
        require_texts(texts, f"each item of `{field}`")


def _require_mappings(values: Any, field: str) -> None:
    if wrong := [value for value in values if not isinstance(value, Mapping)]:
        raise ValueError(f"expected `{field}` as a list of dicts, found {_kind(wrong[0])} in it: give one an item")


def _require_rates(rates: Any, field: str) -> None:
    if wrong := [float(rate) for rate in rates if not (math.isfinite(rate) and rate > 0)]:
        raise ValueError(f"expected `{field}` above 0, found {wrong[0]:g}: give frames a second")


ITEMS: Mapping[str, Callable[[Any, str], None]] = {
    "mask": _require_mask,
    "parts": _require_parts,
    "sample": _require_samples,
    "captions": _require_lists,
    "frame_rate": _require_rates,
    **dict.fromkeys(
        ("id", "caption", "caption_mismatched", "prompt"), lambda value, field: require_texts(value, f"`{field}`")
    ),
    **dict.fromkeys([field for field, text in BATCH_FIELDS.items() if "list[dict" in text], _require_mappings),
}


def _kind(value: Any) -> str:
    return "a single text" if isinstance(value, str) else type(value).__name__


def _words(shape: Sequence[str]) -> str:
    return f"({', '.join(shape)})"


def _size(maps: Tensor) -> str:
    return " x ".join(map(str, maps.shape[-2:]))
