"""What every metric is: what it needs, in which direction it is better, and a value with its spread and count."""

import copy
import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from mmbench.core.images import to_uint8
from mmbench.core.noise import Sample
from mmbench.metrics.batch import Batch, CheckedBatch, check_batch, check_reference, warn_once
from mmbench.metrics.features import Extractor

KEY_BYTES = 256
LONGEST_ID = KEY_BYTES - 9  # bytes; the others are of an end, the caption and the draw
TURN_MASKS = "turn the masks round if 1 (white) is what was kept, or leave the metric out"
BLOCK = 16384  # numbers that a processor adds up in one thread


class Score(NamedTuple):
    """A metric's result.

    Attributes:
        value: the number that a table prints.
        std: its spread, over what the metric's docstring says; None where none is defined.
        count: number of generated images that it rests on.
    """

    value: float
    std: float | None
    count: int


class Metric(torchmetrics.Metric):
    """A score of generated images. One name, one meaning: what differs in value is another metric.

    `update` takes the generated images of a batch, `update_reference` a batch of the real set, `compute` gives a
    `Score`. Generated images are (N, 3, H, W) uint8, as read from PNG. Real images in a batch are float in [-1, 1]
    and are rounded by `core.images.to_uint8` before anything is compared, so that an unchanged image differs by
    exactly 0; uint8 levels are taken as they are.

    Every subclass looks at what it is shown before it counts it, and at its score before it gives it: ValueError for
    another type, shape, number of items or range than is said here (pixels up to 0.001 outside of it), for pixels that
    are no numbers, for a field that is not there, and for a score that is NaN or infinite. Real images as floats of
    which none is below 0 are scored with a `RangeWarning`, once.

    Attributes:
        of: the name of the output that it judges, in `core/outputs.py`.
        needs: batch fields that `update` reads, beside the generated images and `sample`, which come with every
            evaluation.
        needs_reference: whether `compute` wants the real set. States of the real set have names that begin with
            `reference_`, so that they can be kept and given back.
        higher_is_better: the direction of the score.
        unit: what the value is counted in; empty where it has no unit.
        extractor: the learned network that the metric looks through; None where there is none.
        told: the settings that are not those of the metric's file, or of its protocol's, as `(splits=1)`, a part of the
            name that a score is recorded under; empty where all are.
        fewer: what a user may do, in words, who has fewer images than `least_count`, beside adding some.
        least_size: height and width that pictures have at least, in pixels, for its own windows.
        scored: what an image is that it has a value of, in words, where it passes others over.
        otherwise: what a user may do, in words, who has no such image.
        holds: states that are what the extractor says of each generated image, by the name of that output; of a score
            of a whole set, which is no mean over images.
        sample_values: once computed, what the score is the mean of: (N,) float64, a value for each image in the order
            in which they were shown, those of all processes one after the other, NaN where there is none. None of a
            score that is no mean over images.
    """

    of: ClassVar[str] = "images"
    needs: tuple[str, ...] = ()
    needs_reference: ClassVar[bool] = False
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str] = ""
    told: str = ""
    least_size: int = 1
    fewer: ClassVar[str] = ""
    scored: str = "image that it has a value of"
    otherwise: str = "leave the metric out"
    holds: ClassVar[tuple[str, ...]] = ()
    sample_values: Tensor | None = None
    full_state_update = False
    warned = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, guarded in (("update", _checked), ("update_reference", _checked_reference), ("compute", _number)):
            if name in vars(cls):
                setattr(cls, name, guarded(vars(cls)[name]))

    def __init__(self, extractor: Extractor | None = None) -> None:
        super().__init__()
        self.extractor = extractor

    @classmethod
    def needed(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What `needs` of a metric with these settings will be, before it, and its network, is built."""
        return (*cls.needs, *([settings["against"]] if "against" in settings else []))

    def update(self, images: Tensor, batch: Batch) -> None:
        """Takes in the generated images of a batch: (N, 3, H, W) uint8, and the fields that `needs` names."""
        raise NotImplementedError

    def update_reference(self, batch: Batch) -> None:
        """Takes in a batch of the real set: `id`, and `image` (N, 3, H, W) float in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} compares with no real set")

    def compute(self) -> Score:
        """The score of all images taken in.

        Raises:
            ValueError: there are too few images, or no real set where one is needed.
        """
        raise NotImplementedError

    def averaged(self, values: Tensor) -> Score:
        """The mean of `values`, which are kept as `sample_values`: (N,) float64, NaN for an image without a value.

        Raises:
            ValueError: there are none, or none has a value.
        """
        self.sample_values = values.cpu()
        kept, name = values[~values.isnan()], type(self).__name__
        if len(values) and not len(kept):
            raise ValueError(
                f"expected at least one {self.scored} for {name}, found 0 of {len(values)}: {self.otherwise}"
            )
        return mean_score(name, kept)

    def part(self, samples: Sequence[Sample], held: Mapping[str, Tensor]) -> Self:
        """The metric with other generated images, as `holds` names them, beside the same real set.

        It is for `score` alone: it belongs to no other process, and shares what it has of the real set.

        Args:
            samples: N of them.
            held: (N, ...) of each state in `holds`.
        """
        part = copy.copy(self)
        for state in self.holds:
            setattr(part, state, [held[state]])
        if "keys" in self._defaults:
            part.keys = [sample_keys(samples)]
        return part

    def score(self) -> Score:
        """As `compute`, of the images of this process alone, and without keeping it."""
        return type(self).compute(self)

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.sample_values = None

    def require_size(self, width: int, height: int) -> None:
        """Refuses pictures that are too small for the metric's windows, or for the network that it looks through.

        Raises:
            ValueError: names metric and network, the least size and the one found.
        """
        network = None if self.extractor is None else self.extractor.network
        least = max(self.least_size, getattr(network, "least_size", 1))
        if min(width, height) < least:
            through = "" if network is None else f" on {type(network).__name__}"
            raise ValueError(
                f"expected {self.of} of at least {least} x {least} pixels for {type(self).__name__}{through}, found "
                f"{width} x {height}: evaluate at a larger size"
            )

    @property
    def least_count(self) -> int:
        """Number of generated images that it takes at least, and of real ones where it wants the real set."""
        return 1

    def require_count(self, generated: int, real: int | None) -> None:
        """Refuses fewer images than the score can rest on, before any of them is looked at.

        Args:
            generated: the number of generated ones.
            real: of real ones; None where nobody has counted them.

        Raises:
            ValueError: names the metric, its setting where that is the reason, the least number and the one found.
        """
        counts = {"generated": generated} | ({"real": real} if real is not None and self.needs_reference else {})
        for kind, found in counts.items():
            if found < self.least_count:
                raise ValueError(
                    f"expected at least {self.least_count} {kind} {self.of} for {type(self).__name__}, found {found}: "
                    f"add some{self.fewer}, or leave the metric out"
                )

    @property
    def reference_kind(self) -> str:
        """What is kept of the real set, in a word: metrics of one kind that look through one network keep the same."""
        return type(self).__name__

    def reference_states(self) -> dict[str, Tensor]:
        """What is kept of the real set: state to tensor."""
        return {state: joined(getattr(self, state)) for state in self._defaults if state.startswith("reference_")}

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes; one that has seen no image takes part with no rows.

        Alone, torchmetrics would offer a vector of floats in the place of a missing matrix, and the processes would
        fail or wait for each other.
        """
        lists = [state for state, default in self._defaults.items() if isinstance(default, list)]
        rows = {state: joined(getattr(self, state)) for state in lists}
        kinds = {state: (values.shape[1:], values.dtype) for state, values in rows.items() if len(values)}
        offered: list[dict[str, Any]] = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(offered, kinds)
        known = {state: kind for kinds in offered for state, kind in kinds.items()}
        for state, values in rows.items():
            shape, dtype = known.get(state, ((), torch.float64))
            mine = values if len(values) else torch.empty(0, *shape, dtype=dtype, device=self.device)
            setattr(self, state, [mine])
        super()._sync_dist(*args, **kwargs)


def _checked(update: Callable[..., None]) -> Callable[..., None]:
    """`update` that looks at its batch first, unless a suite has."""
    signature = inspect.signature(update)

    @functools.wraps(update)
    def checked(self: Metric, *args: Any, **kwargs: Any) -> None:
        _, made, batch = signature.bind(self, *args, **kwargs).args
        if not (isinstance(batch, CheckedBatch) and batch.made is made):
            batch = check_batch(made, batch, self.of, self.needs)
            warn_once(self, batch, stacklevel=3)  # torchmetrics stands between
        update(self, made, batch)

    return checked


def _checked_reference(update: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(update)
    def checked(self: Metric, batch: Batch) -> None:
        if not isinstance(batch, CheckedBatch):
            batch = check_reference(batch)
            warn_once(self, batch, stacklevel=2)
        self._computed = None  # torchmetrics keeps a score until `update` or `reset`
        update(self, batch)

    return checked


def _number(compute: Callable[..., Score]) -> Callable[..., Score]:
    @functools.wraps(compute)
    def checked(self: Metric) -> Score:
        score = compute(self)
        if not all(math.isfinite(number) for number in (score.value, score.std or 0.0)):
            raise ValueError(
                f"expected a finite score of {type(self).__name__}, found {score.value} (std {score.std}) over "
                f"{score.count}: leave this metric out, or look for pictures or features of no size"
            )
        return score

    return checked


class SampleMean(Metric):
    """A metric that is a mean over images; `std` is the sample standard deviation over them (None for one image).

    Keeps one float64 per image and sums without rounding error, so that the score depends neither on the batch size nor
    on the order of the images. An image that it passes over has no value and is not counted.
    """

    values: list[Tensor]

    def __init__(self, extractor: Extractor | None = None) -> None:
        super().__init__(extractor)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def record(self, values: Tensor, judged: Tensor | None = None) -> None:
        """Takes in one value for each image of a batch, (N,) float64.

        Args:
            values: one for each image, those that are passed over included.
            judged: (N,) bool, False for an image that is passed over; None where none is.

        Raises:
            ValueError: a value that counts is NaN or infinite.
        """
        assert values.dtype == torch.float64
        if judged is not None:
            finite(values[judged], f"{type(self).__name__} values")
            self.values.append(values.masked_fill(~judged, torch.nan))
        else:
            self.values.append(finite(values, f"{type(self).__name__} values"))

    def compute(self) -> Score:
        return self.averaged(joined(self.values))


class AgainstReal(SampleMean):
    """A mean over images of what compares each with a real one.

    Args:
        extractor: the learned network that it looks through; None where there is none.
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    def __init__(self, extractor: Extractor | None = None, *, against: str) -> None:
        super().__init__(extractor)
        self.against = against
        self.needs = (against,)


def finite(values: Tensor, what: str) -> Tensor:
    """The values themselves.

    Raises:
        ValueError: one of them is NaN or infinite.
    """
    if not torch.isfinite(values).all():
        raise ValueError(f"expected finite {what}, found NaN or infinity: check the extractor's weights")
    return values


def joined(values: list[Tensor] | Tensor) -> Tensor:
    """A list state as one tensor, whatever torchmetrics has made of it; an empty one has no rows."""
    if isinstance(values, Tensor):
        return values
    values = [part for part in values if len(part)]
    return torch.cat(values) if values else torch.empty(0, dtype=torch.float64)


def sample_keys(samples: Sequence[Sample]) -> Tensor:
    """Samples as rows of bytes that sort as the samples do, (N, 256) uint8: tensors can be gathered from devices.

    Of an id that is too long (paths are) the end is replaced by its hash: those that begin alike sort by that.
    """
    keys = torch.zeros(len(samples), KEY_BYTES, dtype=torch.uint8)
    for row, sample in enumerate(samples):
        name = sample.id.encode()
        if len(name) > LONGEST_ID:
            digest = hashlib.sha256(name).hexdigest().encode()
            name = name[: LONGEST_ID - len(digest)] + digest
        text = name + b"\0" + sample.caption.to_bytes(4) + sample.draw.to_bytes(4)
        keys[row, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return keys


def prompt_keys(samples: Sequence[Sample]) -> Tensor:
    """As `sample_keys`, the same for all draws of one prompt."""
    return sample_keys([sample._replace(draw=0) for sample in samples])


def as_strings(keys: Tensor) -> np.ndarray:
    """Keys as (N,) byte strings, which NumPy sorts and compares."""
    if not len(keys):
        return np.empty(0, f"S{KEY_BYTES}")
    return np.ascontiguousarray(keys.cpu().numpy()).view(f"S{KEY_BYTES}").ravel()


def sample_order(keys: Tensor, name: str) -> Tensor:
    """Where each sample is, in the order of samples: (N,) int64.

    Raises:
        ValueError: a sample came twice.
    """
    rows = as_strings(keys)
    ordered, order = np.unique(rows, return_index=True)
    if len(ordered) < len(rows):
        raise ValueError(
            f"expected each sample once for {name}, found {len(rows) - len(ordered)} again: reset the metric"
        )
    return torch.from_numpy(order)


def mean_score(name: str, values: Tensor) -> Score:
    """Mean and sample standard deviation of (N,) float64 values, free of rounding in the sums.

    Raises:
        ValueError: there are none.
    """
    numbers = values.tolist()
    if not numbers:
        raise ValueError(f"expected images to score by {name}, found none: generate samples first")
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) == 1:
        return Score(mean, None, 1)
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)
    return Score(mean, math.sqrt(variance), len(numbers))


def row_sums(values: Tensor) -> Tensor:
    """Sum over all but the first axis of (N, ...): (N,) float64, the same bits for any N and number of threads.

    A sum of a whole tensor is cut into parts by the number of threads, and on CUDA by the number of rows.
    """
    sums = [
        F.pad(row, (0, -len(row) % BLOCK)).unflatten(0, (-1, BLOCK)).sum(dim=1, dtype=torch.float64).sum()
        for row in values.flatten(1)
    ]
    return torch.stack(sums) if sums else values.new_empty(0, dtype=torch.float64)


def row_means(values: Tensor) -> Tensor:
    """As `row_sums`, divided by the number of values in a row."""
    return row_sums(values) / values[0].numel()


def levels(images: Tensor) -> Tensor:
    """Images as (N, 3, H, W) uint8: real ones in [-1, 1] are rounded, generated ones are as they were read."""
    return images if images.dtype == torch.uint8 else to_uint8(images)


def compared(images: Tensor, real: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A pair of image batches of one shape as levels 0 to 255 of a type that holds what is to be computed with them."""
    return images.to(dtype), levels(real).to(images.device, dtype)
