"""Layers whose weight is divided by an estimate of its largest singular value.

Takeru Miyato, Toshiki Kataoka, Masanori Koyama, Yuichi Yoshida. Spectral Normalization for Generative Adversarial
Networks. ICLR 2018. https://arxiv.org/abs/1802.05957, algorithm 1.

One step of the power iteration goes before every use of a weight, in evaluation too, as in the implementation that
PICNet, TDANet and BigGAN were trained with (PyTorch's own takes none there, and turns transposed convolutions). It
starts from the stored vector, and only training stores what it finds: in evaluation a result depends on no earlier
call. `Stored...` are as PyTorch's own, for methods that were trained with that.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralNorm(nn.Module):
    """A mix-in for modules with a `weight`, whose first dimension are the rows of the matrix, transposed or not.

    Attributes:
        u: (rows,), the left singular vector as the last training step left it.
    """

    weight: Tensor
    u: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("u", F.normalize(torch.randn(len(self.weight)), dim=0))

    def normalised(self) -> Tensor:
        """`weight` divided by u^T W v; no gradient flows through the vectors."""
        with torch.autocast(self.weight.device.type, enabled=False):
            matrix = self.weight.flatten(1)
            u, v = self.vectors(matrix)
            return self.weight / (u @ (matrix @ v))

    @torch.no_grad()
    def vectors(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Singular vectors of the weight (rows, columns) after a step from the stored one: (rows,) and (columns,)."""
        v = F.normalize(matrix.T @ self.u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
        if self.training:
            self.u.copy_(u)
        return u, v


class StoredSpectralNorm(SpectralNorm):
    """As `SpectralNorm`, and evaluation takes no step: the weight is divided by what both stored vectors give.

    Attributes:
        v: (columns,), the right singular vector as the last training step left it.
    """

    v: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("v", F.normalize(self.weight.detach().flatten(1).T @ self.u, dim=0))

    def vectors(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.u, self.v
        u, v = super().vectors(matrix)
        self.v.copy_(v)
        return u, v


class SpectralConv2d(SpectralNorm, nn.Conv2d):
    """`nn.Conv2d` with a normalised weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)


class SpectralConvTranspose2d(SpectralNorm, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a normalised weight, in groups of one and without dilation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.normalised(), self.bias, self.stride, self.padding, self.output_padding)


class SpectralLinear(SpectralNorm, nn.Linear):
    """`nn.Linear` with a normalised weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class SpectralEmbedding(SpectralNorm, nn.Embedding):
    """`nn.Embedding` with a normalised weight: all rows are divided by one number."""

    def forward(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.normalised())


class StoredSpectralConv2d(StoredSpectralNorm, SpectralConv2d):
    """`nn.Conv2d` as `torch.nn.utils.spectral_norm` makes it."""


class StoredSpectralLinear(StoredSpectralNorm, SpectralLinear):
    """`nn.Linear` as `torch.nn.utils.spectral_norm` makes it."""


def settle(network: nn.Module) -> None:
    """Takes a step in every layer that stores both vectors, as training does: for when their weights were replaced."""
    for module in network.modules():
        if isinstance(module, StoredSpectralNorm):
            training = module.training
            module.train().vectors(module.weight.flatten(1))
            module.train(training)
