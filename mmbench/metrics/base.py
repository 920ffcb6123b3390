"""What every metric is: what it needs, in which direction it is better, and a value with its spread and count."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torchmetrics
from torch import Tensor

from mmbench.core.images import to_uint8
from mmbench.metrics.features import Extractor

Batch = dict[str, Any]


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
    exactly 0.

    Attributes:
        needs: batch fields that `update` reads, beside the generated images and `sample`, which come with every
            evaluation.
        needs_reference: whether `compute` wants the real set. States of the real set have names that begin with
            `reference_`, so that they can be kept and given back.
        higher_is_better: the direction of the score.
        unit: what the value is counted in; empty where it has no unit.
        extractor: the learned network that the metric looks through; None where there is none.
    """

    needs: tuple[str, ...] = ()
    needs_reference: ClassVar[bool] = False
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str] = ""
    full_state_update = False

    def __init__(self, extractor: Extractor | None = None) -> None:
        super().__init__()
        self.extractor = extractor

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


class SampleMean(Metric):
    """A metric that is a mean over images; `std` is the sample standard deviation over them (None for one image).

    Keeps one float64 per image and sums without rounding error, so that the score depends neither on the batch size nor
    on the order of the images.
    """

    values: list[Tensor]

    def __init__(self, extractor: Extractor | None = None) -> None:
        super().__init__(extractor)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def record(self, values: Tensor) -> None:
        """Takes in one value for each image: (N,) float64.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        assert values.dtype == torch.float64
        self.values.append(finite(values, f"{type(self).__name__} values"))

    def compute(self) -> Score:
        return mean_score(type(self).__name__, joined(self.values))


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
    return torch.cat(values) if values else torch.empty(0, dtype=torch.float64)


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


def levels(images: Tensor) -> Tensor:
    """Images as (N, 3, H, W) uint8: real ones in [-1, 1] are rounded, generated ones are as they were read."""
    return images if images.dtype == torch.uint8 else to_uint8(images)


def compared(images: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """A pair of image batches as float64 levels 0 to 255.

    Raises:
        ValueError: their shapes differ.
    """
    real = levels(real)
    if images.shape != real.shape:
        raise ValueError(
            f"expected generated images of shape {tuple(real.shape)}, found {tuple(images.shape)}: "
            "evaluate at the size that the method generates"
        )
    return images.double(), real.to(images.device).double()
