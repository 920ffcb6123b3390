"""DINO and DINOv2: vision transformers that learned from images without labels, through timm.

Mathilde Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021,
https://arxiv.org/abs/2104.14294; Maxime Oquab et al., DINOv2: Learning Robust Visual Features without Supervision,
TMLR 2024, https://arxiv.org/abs/2304.07193. Weights are the authors' files, not timm's copies of them.
"""

import math
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly, read_state

OFFSET = 0.1  # patches a side that are added before positions are resized, in both of the authors' repositories


class DINO(nn.Module):
    """Images (N, 3, H, W) uint8 to `features` (N, D): the class token behind the last layer's norm.

    Pictures are normalised by the mean and deviation of ImageNet.

    Where weights were trained at another size, as DINOv2's, the positions of patches are resized once, when they are
    loaded, as the authors' code does in each pass: bicubic, without anti-aliasing, sampled at (n + 0.1) / m of a patch
    for n patches a side of m. timm resizes them in another way, and gives other features.
    Source: https://github.com/facebookresearch/dinov2/blob/027a9ac/dinov2/models/vision_transformer.py#L179.

    Args:
        architecture: timm's name, as `vit_small_patch16_224.dino`.
        resize: what makes squares of pictures (`networks/resizing.py`); their `size` is a number of whole patches.
        options: of timm's constructor: a smaller network, for tests.

    Attributes:
        num_features: D.
    """

    def __init__(self, architecture: str, resize: Callable[[Tensor], Tensor], **options: int) -> None:
        super().__init__()
        self.resize = resize
        self.network = timm.create_model(architecture, num_classes=0, img_size=resize.size, **options)  # type: ignore[attr-defined]
        self.num_features = self.network.num_features
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("deviation", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, 255 * torch.tensor(values)[:, None, None], persistent=False)

    def load(self, path: Path) -> None:
        """Fills the network from a file of the authors.

        Raises:
            ValueError: the file holds something else.
        """
        patches = self.network.patch_embed.num_patches
        keys = KeyMap(
            drop={"mask_token": "stands for hidden patches, of which there are none after training"},
            convert={"pos_embed": lambda positions: resized_positions(positions, patches)},
        )
        load_strictly(self.network, keys(read_state(path), self.network), str(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": self.network((self.resize(images) - self.mean) / self.deviation)}


def resized_positions(positions: Tensor, patches: int) -> Tensor:
    """Embeddings of positions, (1, 1 + M, D), the first one of the class token, for another number of patches.

    Both numbers are of squares.
    """
    old, new = (math.isqrt(count) for count in (positions.shape[1] - 1, patches))
    if old == new:
        return positions
    grid = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, D, m, m)
    scale = (new + OFFSET) / old
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", recompute_scale_factor=False)
    return torch.cat((positions[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
