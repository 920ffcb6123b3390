"""Scores of the best of several completions, chosen against the truth: PICNet's evaluation and its followers'."""

from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbench.metrics.base import (
    Batch,
    Metric,
    Score,
    as_strings,
    finite,
    joined,
    levels,
    mean_score,
    prompt_keys,
    row_means,
    sample_keys,
    sample_order,
)

SIZE = 256
GREY = 127  # how the holes of masked inputs were written to file


class BestOfK(Metric):
    """A score of the candidate that is nearest to the truth, averaged over images (`std` is over them).

    Candidates of an image are its draws and, as in the scripts, the masked input (holes filled with level 127), whose
    file lies among theirs and can win. The candidate with the smallest l1 - PSNR + TV is taken, the first of equal
    ones. All are resized to 256 x 256 first (Pillow's bicubic, in 8 bits). By sample, an image's value is its first
    draw's.

    Two more habits of the scripts are no part of a metric but of a protocol: the list of images was cut to a multiple
    of the batch size, and the last file in the order of names, the truth itself, was left out of the candidates.
    """

    needs = ("image", "mask")
    column: ClassVar[int]  # of what `candidate` returns
    scale: ClassVar[float] = 1  # from the script's numbers to the printed ones
    errors: list[Tensor]
    keys: list[Tensor]
    prompts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("errors", "keys", "prompts"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def candidate(self, truth: Tensor, output: Tensor) -> Tensor:
        """l1, PSNR, TV and what else is scored of (N, 3, 256, 256) uint8 images: (N, columns) float64."""
        raise NotImplementedError

    def update(self, images: Tensor, batch: Batch) -> None:
        truth = levels(batch["image"]).to(images.device)
        masked = torch.where(batch["mask"].to(images.device) > 0, GREY, truth).byte()
        truth, masked, outputs = (resized(pictures) for pictures in (truth, masked, images))
        found = torch.stack((self.candidate(truth, masked), self.candidate(truth, outputs)), dim=1)  # (N, 2, columns)
        finite(found[..., :3], f"{type(self).__name__} values")  # what is chosen by
        self.errors.append(found)
        self.keys.append(sample_keys(batch["sample"]).to(images.device))
        self.prompts.append(prompt_keys(batch["sample"]).to(images.device))

    def compute(self) -> Score:
        keys = joined(self.keys)
        if not len(keys):
            return mean_score(type(self).__name__, keys)
        order = sample_order(keys, type(self).__name__).to(keys.device)
        errors, prompts = joined(self.errors)[order].cpu(), as_strings(joined(self.prompts)[order])
        starts = torch.from_numpy(np.unique(prompts, return_index=True)[1])
        chosen = torch.stack([best(candidates)[self.column] for candidates in errors.tensor_split(starts[1:])])
        if not torch.isfinite(chosen).all():
            raise ValueError(
                f"expected completions of more than one grey level for {type(self).__name__}, found a flat one: "
                "leave this metric out"
            )
        values = torch.full((len(keys),), torch.nan, dtype=torch.float64)
        values[order.cpu()[starts]] = self.scale * chosen
        return self.averaged(values)._replace(count=len(keys))


def best(candidates: Tensor) -> Tensor:
    """The scores of the chosen candidate, (columns,), of (draws, 2, columns): the masked input and the output."""
    every = torch.cat((candidates[:1, 0], candidates[:, 1]))
    return every[(every[:, 0] - every[:, 1] + every[:, 2]).argmin()]


def resized(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, 256, 256) uint8."""
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    pictures = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
    smaller = [np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(smaller)).permute(0, 3, 1, 2).to(images.device)


def gradient_length(images: Tensor) -> Tensor:
    """Mean of sqrt(gx^2 + gy^2) over (N, ..., H, W), forward differences that wrap around: (N,) float64."""
    right, down = (images - images.roll(-1, dims=dim) for dim in (-1, -2))
    return row_means(torch.hypot(right, down))


def signal_to_noise(error: Tensor, peak: float) -> Tensor:
    """PSNR in dB of mean squared errors (N,); 100 without error, as PICNet's script has it."""
    return torch.where(error > 0, 10 * torch.log10(peak**2 / error), 100.0)
