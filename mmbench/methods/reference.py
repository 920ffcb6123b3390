"""Rows that bound every table: what doing nothing scores, and what the truth scores. No paper, nothing to train."""

from dataclasses import replace

import torch
from torch import Tensor

from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_EDITING, TEXT_GUIDED_INPAINTING, TEXT_TO_IMAGE


class Identity(Method):
    """Returns its input unchanged: an editor that never edits (diff 0, preservation 1)."""

    task = TEXT_GUIDED_EDITING

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image"]


class EditOracle(Method):
    """Returns the right edit: the named parts in the named colours, all else as it was. Of data that can draw it."""

    task = replace(TEXT_GUIDED_EDITING, inputs=("image_edited", *TEXT_GUIDED_EDITING.inputs))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image_edited"]


class EditMisplaced(Method):
    """Returns the right colours in the wrong place: on parts that the text does not name."""

    task = replace(TEXT_GUIDED_EDITING, inputs=("image_edited_elsewhere", *TEXT_GUIDED_EDITING.inputs))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image_edited_elsewhere"]


class EditEverything(Method):
    """Returns the right edit with everything else changed, too: every other part, and the background."""

    task = replace(TEXT_GUIDED_EDITING, inputs=("image_edited_everywhere", *TEXT_GUIDED_EDITING.inputs))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image_edited_everywhere"]


class EditHalf(Method):
    """Returns the mean of its input and the right edit: an editor that keeps everything and does things by halves."""

    task = replace(TEXT_GUIDED_EDITING, inputs=("image_edited", *TEXT_GUIDED_EDITING.inputs))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return (batch["image"] + batch["image_edited"]) / 2


class EditBlank(Method):
    """Returns the mean colour of its input: what an editor that keeps nothing of it still knows.

    A network that is no nearer to its input after the input's own caption cannot reconstruct.
    """

    task = TEXT_GUIDED_EDITING

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        image = batch["image"]
        return image.double().mean(dim=(2, 3), keepdim=True).to(image.dtype).expand_as(image)


class Real(Method):
    """Returns the photograph that the prompt was written for: the best text-image similarity a data set offers.

    It shows another object, so it preserves nothing of the input.
    """

    task = replace(TEXT_GUIDED_EDITING, inputs=(TEXT_GUIDED_EDITING.target, "caption_mismatched"))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch[self.task.target]


class RealImage(Method):
    """Returns the photograph that the caption was written for: what a synthesis can reach."""

    task = replace(TEXT_TO_IMAGE, inputs=(TEXT_TO_IMAGE.target, *TEXT_TO_IMAGE.inputs))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image"]


class OtherImage(Method):
    """Returns a photograph that another caption was written for: a perfect picture that follows no text.

    What it scores for following the text is chance.
    """

    task = replace(TEXT_TO_IMAGE, inputs=("image_mismatched", *TEXT_TO_IMAGE.inputs))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image_mismatched"]


class GreyHole(Method):
    """Leaves the hole grey: an inpainter that paints nothing."""

    task = TEXT_GUIDED_INPAINTING

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return torch.where(batch["mask"] > 0, 0.0, batch["image"])


class MeanColour(Method):
    """Fills the hole with the mean colour of what is known of the picture; grey where nothing is.

    What a learned method that learned nothing still knows: one that is no better inside the hole does not inpaint.
    """

    task = TEXT_GUIDED_INPAINTING

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        image, known = batch["image"], (batch["mask"] == 0).double()
        count = known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        mean = (image * known).sum(dim=(2, 3), keepdim=True) / count  # (N, 3, 1, 1)
        return torch.where(known > 0, image, mean.to(image.dtype))
