"""Preservation: did everything that the text does not name stay as it was?"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean, compared, row_sums


class Preservation(SampleMean):
    """How much of the background and of the unnamed parts is left of the input image; 1 all, 0 nothing; toy data only.

    preservation = max(0, 1 - sum |output - input| / sum |input - m|), sums over the channels of the pixels outside the
    named parts, m the mean of the input's over these pixels. It compares with a picture that has kept nothing but the
    mean colour, so that it means the same on flat and on rich pictures, and a picture of something else scores about
    0, where 1 - mean |difference| would still be 0.7. Pixels that a named part touches, and their neighbours, are left
    out: outlines and blended borders change with the part. An image that a named part fills is passed over.

    Args:
        parts: names of the parts in the order of the batch's `parts`.
    """

    needs = ("image", "parts", "prompt_attributes")
    scored = "image with pixels outside the parts that its prompt names"
    higher_is_better = True

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__()
        self.parts = list(parts)

    def update(self, images: Tensor, batch: Batch) -> None:
        output, source = compared(images, batch["image"])
        named = torch.tensor([[part in names for part in self.parts] for names in batch["prompt_attributes"]])
        named = named.to(images.device)[:, :, None, None]
        touched = ((batch["parts"].to(images.device) * named) > 0).any(dim=1, keepdim=True).float()
        kept = F.max_pool2d(touched, 3, stride=1, padding=1) == 0  # (N, 1, H, W)
        count = kept.sum(dim=(2, 3), keepdim=True)
        mean = (source * kept).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
        changed = ((output - source).abs() * kept).sum(dim=(1, 2, 3))
        content = row_sums((source - mean).abs() * kept)
        # A flat picture has no content to lose: any change of it counts in full.
        scores = torch.where(changed == 0, 1.0, (1 - changed / content.clamp(min=1)).clamp(min=0))
        self.record(scores, judged=count.flatten() > 0)
