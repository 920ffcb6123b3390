"""The Inception-v3 that StackGAN's authors fine-tuned on birds and on flowers, for the Inception score on these sets.

Source: https://github.com/hanzhanggit/StackGAN-inception-model/tree/971a2ef8e9cda83fc62eba92c1a62c4df3176509,
inception_score.py and inception/slim/inception_model.py. The papers on CUB and Oxford-102 from StackGAN to ManiGAN
print scores of these networks, which do not compare with those of the ImageNet one.
"""

import math
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE_1,
)

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.networks.inception_fid import make_fast
from mmbench.networks.tf_checkpoint import read_tf_checkpoint

SIZE = 299
PRECISION = 22  # bits after the point in Pillow's weights


class InceptionStackGAN(nn.Module):
    """Images (N, 3, H, W) uint8 to `features` (N, 2048), the last pooling, and `logits` (N, num_classes).

    Images are resized to 299 x 299 as Pillow does it (bilinear, anti-aliased, rounded to 8 bits). The classifier has
    one more output, for a background that no image shows; it is left out, as the authors' softmax leaves it out.

    Args:
        num_classes: of the test split that the network was fine-tuned on: 50 of CUB, 20 of Oxford-102.

    Attributes:
        num_features: 2048.
    """

    num_features = 2048

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # torch-fidelity's blocks pool like TensorFlow: what lies outside the image does not count in an average.
        self.trunk = nn.ModuleDict(
            {
                "Conv2d_1a_3x3": BasicConv2d(3, 32, kernel_size=3, stride=2),
                "Conv2d_2a_3x3": BasicConv2d(32, 32, kernel_size=3),
                "Conv2d_2b_3x3": BasicConv2d(32, 64, kernel_size=3, padding=1),
                "MaxPool_1": nn.MaxPool2d(3, stride=2),
                "Conv2d_3b_1x1": BasicConv2d(64, 80, kernel_size=1),
                "Conv2d_4a_3x3": BasicConv2d(80, 192, kernel_size=3),
                "MaxPool_2": nn.MaxPool2d(3, stride=2),
                "Mixed_5b": InceptionA(192, pool_features=32),
                "Mixed_5c": InceptionA(256, pool_features=64),
                "Mixed_5d": InceptionA(288, pool_features=64),
                "Mixed_6a": InceptionB(288),
                "Mixed_6b": InceptionC(768, channels_7x7=128),
                "Mixed_6c": InceptionC(768, channels_7x7=160),
                "Mixed_6d": InceptionC(768, channels_7x7=160),
                "Mixed_6e": InceptionC(768, channels_7x7=192),
                "Mixed_7a": InceptionD(768),
                "Mixed_7b": InceptionE_1(1280),
                "Mixed_7c": InceptionE_1(2048),
            }
        )
        self.classifier = nn.Linear(self.num_features, num_classes + 1)

    def load(self, path: Path) -> None:
        """Fills the network from a checkpoint of the authors', and makes it fast.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, STACKGAN_INCEPTION(read_tf_checkpoint(path), self), str(path))
        make_fast(self.trunk)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = resized_as_pillow(images, SIZE) / 127.5 - 1
        for block in self.trunk.values():
            features = block(features)
        pooled = features.mean(dim=(2, 3))  # (N, 2048)
        return {"features": pooled, "logits": self.classifier(pooled)[:, 1:]}


def resized_as_pillow(images: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, size, size) int32: the very levels of Pillow's bilinear resize.

    It goes along rows and then along columns, in whole numbers, and rounds after each. (A Pillow of today begins with
    the columns of some oblong images, which changes levels by one.) Of an image of 256 x 256 every 600th level is a tie
    that its rounded weights decide.
    Source: https://github.com/python-pillow/Pillow/blob/4.3.0/libImaging/Resample.c
    """
    return _resized_rows(_resized_rows(images.int(), size).mT, size).mT


def _resized_rows(levels: Tensor, size: int) -> Tensor:
    """(..., W) to (..., size)."""
    width = levels.shape[-1]
    scale = width / size
    reach = max(scale, 1.0)
    centres = (torch.arange(size, dtype=torch.float64, device=levels.device) + 0.5) * scale
    first = (centres - reach + 0.5).clamp(min=0).long()
    last = (centres + reach + 0.5).long().clamp(max=width)
    places = first + torch.arange(math.ceil(reach) * 2 + 1, device=levels.device)[:, None]  # (taps, size)
    weights = (1 - (places - centres + 0.5).abs() / reach).clamp(min=0) * (places < last)
    whole = (weights / weights.sum(dim=0) * 2**PRECISION + 0.5).int()
    resized = torch.full((*levels.shape[:-1], size), 2 ** (PRECISION - 1), dtype=torch.int32, device=levels.device)
    for place, weight in zip(places.clamp(max=width - 1), whole, strict=True):
        resized += levels[..., place] * weight
    return resized >> PRECISION


_BLOCKS = {
    "mixed_35x35x256a": "Mixed_5b",
    "mixed_35x35x288a": "Mixed_5c",
    "mixed_35x35x288b": "Mixed_5d",
    "mixed_17x17x768a": "Mixed_6a",
    "mixed_17x17x768b": "Mixed_6b",
    "mixed_17x17x768c": "Mixed_6c",
    "mixed_17x17x768d": "Mixed_6d",
    "mixed_17x17x768e": "Mixed_6e",
    "mixed_17x17x1280a": "Mixed_7a",
    "mixed_8x8x2048a": "Mixed_7b",
    "mixed_8x8x2048b": "Mixed_7c",
}
_STEM = {
    "conv0": "Conv2d_1a_3x3",
    "conv1": "Conv2d_2a_3x3",
    "conv2": "Conv2d_2b_3x3",
    "conv3": "Conv2d_3b_1x1",
    "conv4": "Conv2d_4a_3x3",
}
# The n-th convolution of a branch in blocks of a kind: what our name adds to the branch's.
_CONVOLUTIONS = {
    ("Mixed_[567].", "branch1x1|branch_pool"): [""],
    ("Mixed_5.", "branch5x5|branch3x3dbl"): ["_1", "_2", "_3"],
    ("Mixed_6a", "branch3x3"): [""],
    ("Mixed_6a", "branch3x3dbl"): ["_1", "_2", "_3"],
    ("Mixed_6[b-e]", "branch7x7|branch7x7dbl"): ["_1", "_2", "_3", "_4", "_5"],
    ("Mixed_7a", "branch3x3|branch7x7x3"): ["_1", "_2", "_3", "_4"],
    ("Mixed_7[bc]", "branch3x3"): ["_1", "_2a", "_2b"],
    ("Mixed_7[bc]", "branch3x3dbl"): ["_1", "_2", "_3a", "_3b"],
}
_VARIABLES = {
    "weights": "conv.weight",
    "BatchNorm/beta": "bn.bias",
    "BatchNorm/moving_mean": "bn.running_mean",
    "BatchNorm/moving_variance": "bn.running_var",
}
_AVERAGE = "/ExponentialMovingAverage"


def _names() -> dict[str, str]:
    """Patterns of the authors' names, to which a slash joins scopes and TensorFlow adds numbers, to our names."""
    convolutions = dict(_STEM)
    for (kind, branches), suffixes in _CONVOLUTIONS.items():
        for theirs, ours in _BLOCKS.items():
            if re.fullmatch(kind, ours):
                for number, suffix in enumerate(suffixes):
                    scope = f"Conv_{number}" if number else "Conv"
                    convolutions[f"{theirs}/({branches})/{scope}"] = rf"{ours}.\1{suffix}"
    return {
        f"{convolution}/{variable}{_AVERAGE}": f"trunk.{ours}.{part}"
        for convolution, ours in convolutions.items()
        for variable, part in _VARIABLES.items()
    }


STACKGAN_INCEPTION = KeyMap(
    drop={
        rf"(?!.*{_AVERAGE}$).*": "the authors evaluate with the moving averages, not with what they are averages of",
        r"aux_logits/.*": "the auxiliary classifier is for training",
    },
    rename={
        **_names(),
        f"logits/logits/weights{_AVERAGE}": "classifier.weight",
        f"logits/logits/biases{_AVERAGE}": "classifier.bias",
    },
    convert={
        r".*conv\.weight": lambda kernel: kernel.permute(3, 2, 0, 1),  # from (height, width, in, out)
        r"classifier\.weight": torch.t,
    },
    fill={r".*bn\.weight": 1, **BATCHES_TRACKED},  # slim's batch norm has no scale
)
