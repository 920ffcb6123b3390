"""FaceNet's Inception-ResNet-v1: embeddings of faces that are near for one person.

Schroff et al., FaceNet, CVPR 2015, arXiv:1503.03832; the network: Szegedy et al., Inception-v4, AAAI 2017,
arXiv:1602.07261, in D. Sandberg's narrower version; as facenet-pytorch publishes it with weights of VGGFace2:
https://github.com/timesler/facenet-pytorch/blob/787da06/models/inception_resnet_v1.py
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d

from mmbench.core.weights import KeyMap, load_strictly, read_state

SIZE = 160
# Of a picture of 256 pixels that is aligned as CelebA-HQ and FFHQ are: the part that pSp's loss of identity looks at.
# https://github.com/eladrich/pixel2style2pixel/blob/2fba1b0/criteria/id_loss.py
TOP, LEFT, SIDE, WHOLE = 35, 32, 188, 256


class FaceNet(nn.Module):
    """Aligned faces (N, 3, S, S) uint8 to `embedding` (N, 512) float32 of unit length.

    No face is looked for: the pictures are to be square and aligned as CelebA-HQ's and FFHQ's are. Of them the rows 35
    to 223 and the columns 32 to 220 of 256, scaled to their size and rounded to whole pixels, are resized to 160 x 160
    (bilinear, anti-aliased, without rounding); levels become (x - 127.5) / 128. A picture without a face has an
    embedding too, which means nothing.

    Raises:
        ValueError: the pictures are not square.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            BasicConv2d(3, 32, kernel_size=3, stride=2),
            BasicConv2d(32, 32, kernel_size=3),
            BasicConv2d(32, 64, kernel_size=3, padding=1),
            nn.MaxPool2d(3, stride=2),
            BasicConv2d(64, 80, kernel_size=1),
            BasicConv2d(80, 192, kernel_size=3),
            BasicConv2d(192, 256, kernel_size=3, stride=2),
        )
        self.blocks_a = nn.Sequential(*(_Residual(0.17, *_branches_a()) for _ in range(5)))
        self.reduction_a = _Reduction(_chain(256, (384, 3, 2)), _chain(256, (192, 1, 1), (192, (3, 3), 1), (256, 3, 2)))
        self.blocks_b = nn.Sequential(*(_Residual(0.1, *_crossed(896, 128, 7)) for _ in range(10)))
        self.reduction_b = _Reduction(
            _chain(896, (256, 1, 1), (384, 3, 2)),
            _chain(896, (256, 1, 1), (256, 3, 2)),
            _chain(896, (256, 1, 1), (256, (3, 3), 1), (256, 3, 2)),
        )
        blocks_c = [_Residual(0.2, *_crossed(1792, 192, 3)) for _ in range(5)]
        self.blocks_c = nn.Sequential(*blocks_c, _Residual(1.0, *_crossed(1792, 192, 3), rectified=False))
        self.projection = nn.Linear(1792, 512, bias=False)
        self.norm = nn.BatchNorm1d(512, eps=1e-3)

    def load(self, path: str | Path) -> None:
        """Fills the network from facenet-pytorch's file.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, FACENET(read_state(path), self), str(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.embedding((face(images) - 127.5) / 128)}

    def embedding(self, faces: Tensor) -> Tensor:
        """Of faces (N, 3, 160, 160), levels less 127.5 by 128: (N, 512)."""
        values = self.reduction_a(self.blocks_a(self.stem(faces)))  # (N, 896, 8, 8)
        values = self.blocks_c(self.reduction_b(self.blocks_b(values)))  # (N, 1792, 3, 3)
        return F.normalize(self.norm(self.projection(values.mean(dim=(2, 3)))), dim=1)


class _Residual(nn.Module):
    """Branches side by side, merged to the width of what comes in and added to it."""

    def __init__(self, scale: float, width: int, branches: Sequence[nn.Sequential], rectified: bool = True) -> None:
        super().__init__()
        self.scale, self.rectified = scale, rectified
        self.branches = nn.ModuleList(branches)
        self.merge = nn.Conv2d(sum(branch[-1].conv.out_channels for branch in branches), width, 1)

    def forward(self, values: Tensor) -> Tensor:
        merged = self.merge(torch.cat([branch(values) for branch in self.branches], dim=1))
        values = values + self.scale * merged
        return values.relu() if self.rectified else values


class _Reduction(nn.Module):
    """Branches side by side that halve the size, and the maximum beside them."""

    def __init__(self, *branches: nn.Sequential) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, values: Tensor) -> Tensor:
        return torch.cat([*(branch(values) for branch in self.branches), F.max_pool2d(values, 3, stride=2)], dim=1)


def _chain(width: int, *layers: tuple[int, int | tuple[int, int], int]) -> nn.Sequential:
    """Convolutions one after another: (channels, kernel, stride); those with a kernel of two numbers keep the size."""
    chain = []
    for channels, kernel, stride in layers:
        padding = (kernel[0] // 2, kernel[1] // 2) if isinstance(kernel, tuple) else 0
        chain.append(BasicConv2d(width, channels, kernel_size=kernel, stride=stride, padding=padding))
        width = channels
    return nn.Sequential(*chain)


def _branches_a() -> tuple[int, list[nn.Sequential]]:
    one, same = (32, 1, 1), (32, (3, 3), 1)
    return 256, [_chain(256, one), _chain(256, one, same), _chain(256, one, same, same)]


def _crossed(width: int, channels: int, length: int) -> tuple[int, list[nn.Sequential]]:
    """Of the blocks B and C: a point, and a point with a row and a column of `length` behind it."""
    one, row, column = (channels, 1, 1), (channels, (1, length), 1), (channels, (length, 1), 1)
    return width, [_chain(width, one), _chain(width, one, row, column)]


def face(images: Tensor) -> Tensor:
    """The face of aligned pictures (N, 3, S, S) uint8: (N, 3, 160, 160) float32 levels.

    Raises:
        ValueError: the pictures are not square.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise ValueError(
            f"expected square pictures of faces, aligned as CelebA-HQ's are, found {width} x {height}: align them, or "
            "leave the metric of identity out"
        )
    top, bottom, left, right = (round(place * height / WHOLE) for place in (TOP, TOP + SIDE, LEFT, LEFT + SIDE))
    crop = images[..., top:bottom, left:right].float()
    return F.interpolate(crop, (SIZE, SIZE), mode="bilinear", antialias=True)


def _blocks(theirs: str, ours: str) -> dict[str, str]:
    """Keys of branches, of which the authors number those of several convolutions only."""
    return {
        rf"{theirs}\.branch(\d)\.(\d)\.(.*)": rf"{ours}.branches.\1.\2.\3",
        rf"{theirs}\.branch(\d)\.(.*)": rf"{ours}.branches.\1.0.\2",
        rf"{theirs}\.conv2d\.(.*)": rf"{ours}.merge.\1",
    }


STEM = ("conv2d_1a", "conv2d_2a", "conv2d_2b", None, "conv2d_3b", "conv2d_4a", "conv2d_4b")
BLOCKS = {
    f"repeat_{number}.{place}": f"blocks_{letter}.{place}"
    for number, letter, count in ((1, "a", 5), (2, "b", 10), (3, "c", 5))
    for place in range(count)
}
OTHERS = {"mixed_6a": "reduction_a", "mixed_7a": "reduction_b", "block8": "blocks_c.5"}
FACENET = KeyMap(
    rename={
        **{rf"{name}\.(.*)": rf"stem.{place}.\1" for place, name in enumerate(STEM) if name},
        **{
            pattern: new for theirs, ours in (BLOCKS | OTHERS).items() for pattern, new in _blocks(theirs, ours).items()
        },
        r"last_linear\.(.*)": r"projection.\1",
        r"last_bn\.(.*)": r"norm.\1",
    },
    drop={r"logits\..*": "the people of the training set"},
)
