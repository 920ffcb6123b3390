"""What the ablations of ManiGAN's table change of its networks.

Bowen Li, Xiaojuan Qi, Thomas Lukasiewicz, Philip H. S. Torr. ManiGAN: Text-Guided Image Manipulation. CVPR 2020.
https://arxiv.org/abs/1912.06203

The released code has none of them. What the names of the rows leave open is decided here, so that each takes away one
thing and adds none, and held against the published numbers (`results/published/manipulation.csv`):

- "w/o ACM": no affine combination, and so no detail correction module. Image features enter by the affine combinations
  alone: without them the main module knows the input image as a whole only, at its first stage, and a correction module
  would see nothing of the details that it is to restore. On CUB the published IS is 4.01, near that of "w/o DCM" (3.84)
  and half of what is published with a correction module by affine combination (8.47, and 8.48 alone).
- "w/ Concat.": hidden features and image features are concatenated along the channels in the place of every affine
  combination, those of the correction module included. How as many channels come back: see `Concatenation`.
- "w/o main module": the correction module alone. Its own features of the input image take the place of the main
  module's hidden features: nothing else that it has is of their size, and nothing new is to be learned. The published
  diff is the lowest of the table, 0.235 on CUB and 0.169 on COCO: close to the input image, which noise, or the text
  alone, in that place would not suggest.
- "w/o DCM": the main module's largest image. It needs no network of its own.
"""

import torch
from torch import Tensor, nn

from mmbench.layers.convolution import conv3x3
from mmbench.networks.manigan import DetailCorrection, MainModule


class Concatenation(nn.Sequential):
    """Hidden and image features side by side, then two convolutions to as many channels as there were hidden ones.

    As in an affine combination there are two convolutions without bias or activation, and exactly as many weights: what
    differs is that the image cannot scale hidden features.

    Args:
        channels: channels of the hidden features.
        image_channels: channels of the image features.
        shared_channels: width between the convolutions. With less than the sum of both, something of them is lost.
    """

    def __init__(self, channels: int, image_channels: int, shared_channels: int) -> None:
        super().__init__(conv3x3(channels + image_channels, shared_channels), conv3x3(shared_channels, channels))

    def forward(self, hidden: Tensor, image_features: Tensor) -> Tensor:
        """(N, channels, H, W) and (N, image_channels, H, W) to (N, channels, H, W)."""
        return super().forward(torch.cat((hidden, image_features), dim=1))


class HiddenAlone(nn.Identity):
    """Hidden features as they are, whatever the image features: what is left without a combination."""

    def forward(self, hidden: Tensor, image_features: Tensor) -> Tensor:
        return hidden


class MainModuleWithoutACM(MainModule):
    """The main module whose stages see nothing of the image but what the first has of it as a whole."""

    combination = HiddenAlone

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)
        self.image_path = nn.ModuleList(nn.Identity() for _ in self.image_path)


class ConcatMainModule(MainModule):
    """The main module with concatenation."""

    combination = Concatenation


class ConcatDetailCorrection(DetailCorrection):
    """The detail correction module with concatenation."""

    combination = Concatenation


class DetailCorrectionAlone(DetailCorrection):
    """The detail correction module, whose image features stand in for the main module's hidden features."""

    def forward(self, words: Tensor, word_mask: Tensor, features: Tensor) -> Tensor:
        """The edited image; arguments as `DetailCorrection`."""
        image_features = self.upsample(features)
        return self.corrected(image_features, words, word_mask, image_features)
