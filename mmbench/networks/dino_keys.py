"""Keys of DINO's last attention, whose self-similarity is what Splice calls the structure of a picture.

DINO: Caron et al., ICCV 2021, arXiv:2104.14294. Keys as structure: Tumanyan et al., Splice, CVPR 2022,
arXiv:2201.00424.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmbench.core.weights import load_strictly, read_state
from mmbench.networks.vgg import IMAGENET_MEAN, IMAGENET_STD


class DINOKeys(nn.Module):
    """Images (N, 3, H, W) uint8 to `keys` (N, T, width): the class token's, then those of the patches, row by row.

    A key is that of all heads together, from the last block's attention. Images are resized to 224 x 224 (bilinear,
    without rounding; their sides' ratio is not kept) and normalised by ImageNet's mean and deviation.

    Args:
        white: what level 255 is where ImageNet's mean, of values in [0, 1], is taken off. 1 is what DINO was trained
            on. With 255 levels go in as they are, as in the evaluation of PIE-Bench: pictures are then 255 times as
            contrasty as any that DINO has seen.
        antialias: whether the resizing is anti-aliased; that of tensors was not before torchvision 0.17.
        width: of a token; with `depth` and `heads` that of ViT-B by default.
        depth: number of blocks.
        heads: of each attention.
    """

    size = 224

    def __init__(self, white: float, antialias: bool, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.white = white
        self.antialias = antialias
        self.network = VisionTransformer(
            self.size, patch_size=8, num_classes=0, embed_dim=width, depth=depth, num_heads=heads
        )
        mean, deviation = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def load(self, path: str | Path) -> None:
        """Fills the network from a file of DINO's weights, the authors' or timm's: they have the same keys.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self.network, read_state(path), str(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"keys": self.keys(self.preprocess(images))}

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, 3, 224, 224) float32 as the network is shown them."""
        values = images * (self.white / 255)
        if images.shape[-2:] != (self.size, self.size):
            values = F.interpolate(values, (self.size, self.size), mode="bilinear", antialias=self.antialias)
        return (values - self.mean) / self.deviation

    def keys(self, values: Tensor) -> Tensor:
        """Of normalised images (N, 3, 224, 224): (N, 785, width)."""
        before = len(self.network.blocks) - 2
        [(patches, first)] = self.network.forward_intermediates(
            values, [before], return_prefix_tokens=True, output_fmt="NLC", stop_early=True, intermediates_only=True
        )
        last = self.network.blocks[-1]
        mixed = last.attn.qkv(last.norm1(torch.cat((first, patches), dim=1)))  # (N, T, 3 width)
        return mixed.chunk(3, dim=-1)[1]  # queries, keys, values
