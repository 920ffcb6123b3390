"""The base of what fills holes without training: one picture after another, in 8-bit levels."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmbench.core.images import from_uint8, to_uint8
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_INPAINTING


class Filler(Method):
    """A method of inpainting that learns nothing and reads no text.

    A subclass fills one picture of 8-bit levels. Known pixels are returned as they came, and a picture without a hole
    as a whole; where nothing is known nothing can be filled from, and the picture is grey, as that of `GreyHole`.
    """

    task = TEXT_GUIDED_INPAINTING

    def fill(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """Fills a picture of which some pixels are known and some are not.

        Args:
            image: (H, W, 3) uint8; what it has in the hole must not matter.
            hole: (H, W) bool, True where it is to be filled.

        Returns:
            (H, W, 3) uint8, of which the hole alone is looked at.
        """
        raise NotImplementedError

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        image, hole = batch["image"], batch["mask"] > 0
        if hole.shape[-2:] != image.shape[-2:]:
            raise ValueError(
                f"expected masks of the images' size {tuple(image.shape[-2:])}, found {tuple(hole.shape[-2:])}: "
                "resize them"
            )
        filled: list[Tensor] = []
        for row in range(len(image)):
            # Draws of one picture follow each other, and nothing is random: it is filled once.
            again = row and torch.equal(image[row], image[row - 1]) and torch.equal(hole[row], hole[row - 1])
            filled.append(filled[-1] if again else self._filled(image[row], hole[row, 0]))
        return torch.where(hole, torch.stack(filled).to(image), image)

    def _filled(self, image: Tensor, hole: Tensor) -> Tensor:
        """(3, H, W) float in [-1, 1], of which the hole alone is looked at."""
        if hole.all() or not hole.any():
            return torch.zeros_like(image)
        levels = to_uint8(torch.where(hole, 0.0, image))
        pixels = rearrange(levels.cpu().numpy(), "c h w -> h w c")
        filled = self.fill(np.ascontiguousarray(pixels), hole.cpu().numpy())
        return from_uint8(torch.from_numpy(rearrange(filled, "h w c -> c h w").copy()))
