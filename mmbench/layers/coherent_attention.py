"""Coherent semantic attention: fills the hole of a feature map patch by patch, each after the one before.

Liu et al., ICCV 2019, https://arxiv.org/abs/1905.12384, section 3.2; patches are single positions, as in the code.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-8


def feature_mask(mask: Tensor, halvings: int) -> Tensor:
    """Which features belong to a hole: (N, 1, H / 2^halvings, W / 2^halvings) bool.

    A feature does where more than 5/16 of what it sees through as many 4 x 4 means of stride 2 is hole.

    Args:
        mask: (N, 1, H, W) float, 1 = hole.
        halvings: of the feature map.
    """
    for _ in range(halvings):
        mask = F.avg_pool2d(mask, kernel_size=4, stride=2, padding=1)
    return mask > 5 / 16


def coherent_attention(features: Tensor, hole: Tensor) -> Tensor:
    """Features whose hole is filled, (N, C, H, W) float32; see `fill`.

    Known features stay as they are. So does an image without any: there is nothing to fill it from.

    The gradient is the authors', who add to that of the identity what the weights hand back to the known patches, and
    round the weights towards zero on the way: of a hole only its first patch, whose weight is one, and weights outside
    (-1, 1) hand anything back.
    https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b07129adc6a231b7d68f9815d1adfe0c01eeff/models/CSAFunction.py

    Args:
        features: (N, C, H, W) float.
        hole: (N, 1, H, W) bool; every image may have its own.
    """
    with torch.autocast(features.device.type, enabled=False):
        return _CoherentAttention.apply(features.float(), hole)


class Filled(NamedTuple):
    """What the recursion gives; M is the largest number of patches that the hole of an image has.

    Attributes:
        places: (N, M) int64, raster index of each patch of the hole; beyond an image's own hole, of known patches.
        holes: (N, M) bool, False beyond an image's own.
        nearest: (N, M) int64, raster index of the most similar known patch.
        similarity: (N, M), to that one.
        previous: (N, M), similarity to what the patch before became; 0 for the first.
        shares: (N, M), of what the patch before became in what this one becomes; 0 for the first.
        patches: (N, C, M), what each becomes.
    """

    places: Tensor
    holes: Tensor
    nearest: Tensor
    similarity: Tensor
    previous: Tensor
    shares: Tensor
    patches: Tensor

    def weights(self, size: int) -> Tensor:
        """How much of each of the `size` patches of an image is in each that was filled: (N, M, size).

        They follow the recursion ``w_i = s_i w_{i-1} + (1 - s_i) e_i``, e_i one at the nearest known patch, which is a
        system of equations with ones on the diagonal and -s_i left of it.
        """
        fresh = F.one_hot(self.nearest, size) * (1 - self.shares)[:, :, None]
        system = torch.diag_embed(-self.shares, offset=-1)[:, 1:, 1:]
        return torch.linalg.solve_triangular(system, fresh, upper=False, unitriangular=True)


def fill(features: Tensor, hole: Tensor) -> Filled:
    """Each patch of a hole, in raster order, becomes a mixture of what the one before became and of a known one.

    The first becomes the known patch that is most similar to it. Patch x_i becomes ``s_i y_{i-1} + (1 - s_i) k_i``,
    ``s_i = a_i / (a_i + v_i)``, where k_i is the most similar known patch, ``v_i = <x_i, k_i> / |k_i|`` and
    ``a_i = <x_i, y_{i-1}> / |x_i|``. Neither is clamped, so that s_i may leave [0, 1]. "Before" is before in the order
    of the raster, above at the beginning of a row, where the paper's figure has a neighbour.

    Args:
        features: (N, C, H W), a patch in each column.
        hole: (N, H W) bool, not all of an image.
    """
    size = int(hole.sum(dim=1).max())
    places = hole.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
    norms = features.norm(dim=1) + EPS  # (N, H W)
    queries = _taken(features, places)  # (N, C, M)
    scores = queries.mT @ features / norms[:, None, :]  # (N, M, H W)
    similarity, nearest = scores.masked_fill_(hole[:, None, :], -torch.inf).max(dim=2)

    # Step first, so that what is read and written together lies together.
    sought, known = queries / norms.gather(1, places)[:, None, :], _taken(features, nearest)
    sought, known = (each.permute(2, 0, 1).contiguous() for each in (sought, known))  # (M, N, C)
    level = similarity.T.contiguous()
    filled, previous, shares = known.clone(), torch.zeros_like(level), torch.zeros_like(level)
    for step in range(1, size):
        torch.linalg.vecdot(sought[step], filled[step - 1], out=previous[step])
        torch.div(previous[step], previous[step] + level[step], out=shares[step])
        torch.lerp(known[step], filled[step - 1], shares[step, :, None], out=filled[step])
    return Filled(places, hole.gather(1, places), nearest, similarity, previous.T, shares.T, filled.permute(1, 2, 0))


class _CoherentAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, hole: Tensor) -> Tensor:
        flat, hole = features.flatten(2), hole.flatten(1)
        hole = hole & ~hole.all(dim=1, keepdim=True)
        filled = fill(flat, hole)
        made = torch.where(filled.holes[:, None, :], filled.patches, _taken(flat, filled.places))
        ctx.save_for_backward(hole, *filled)
        return flat.scatter(2, _indices(filled.places, flat), made).unflatten(2, features.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        hole, *rest = ctx.saved_tensors
        filled, flat = Filled(*rest), gradient.flatten(2)
        weights = filled.weights(hole.shape[1]).trunc().where(filled.holes[:, :, None], 0)  # (N, M, H W)
        own = flat * (2.0 - hole[:, None, :].float())  # the known ones copy themselves, with a weight of one
        handed_back = torch.baddbmm(own, _taken(flat, filled.places), weights)
        return handed_back.unflatten(2, gradient.shape[2:]), None


def _indices(places: Tensor, features: Tensor) -> Tensor:
    return places[:, None, :].expand(-1, features.shape[1], -1)


def _taken(features: Tensor, places: Tensor) -> Tensor:
    """Of (N, C, L) those at places (N, M): (N, C, M)."""
    return features.gather(2, _indices(places, features))
