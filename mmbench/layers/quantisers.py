"""Quantisers: every vector of a map becomes one of a codebook's, and the gradient goes past that as if it had not.

Aäron van den Oord, Oriol Vinyals, Koray Kavukcuoglu. Neural Discrete Representation Learning. NeurIPS 2017.
https://arxiv.org/abs/1711.00937, section 3 and appendix A.1. Numbers as of VQGAN's code,
https://github.com/CompVis/taming-transformers/blob/3ba01b2/taming/modules/vqvae/quantize.py.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, einsum, nn

from mmbench.core.processes import gathered, summed


class Quantised(NamedTuple):
    """What a quantiser makes of a map.

    Attributes:
        codes: (N, D, h, w), vectors of the codebook, whose gradient goes to what was quantised.
        indices: (N, h, w) int64, which ones.
        loss: scalar, by which codebook and encoder find together.
    """

    codes: Tensor
    indices: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """What all quantisers share: K vectors, and looking them up.

    Attributes:
        vectors: (K, D), a parameter where gradients move it, else a buffer.
    """

    vectors: Tensor

    @property
    def num_codes(self) -> int:
        """K."""
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """D."""
        return self.vectors.shape[1]

    @property
    def in_channels(self) -> int:
        """Channels of the maps that are quantised."""
        return self.dim

    def nearest(self, z: Tensor) -> Tensor:
        """Maps (N, D, h, w) to the indices (N, h, w) of the vectors at the smallest squared distance."""
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            pixels = z.to(self.vectors.dtype).movedim(1, -1)
            # |z - e|^2 without |z|^2, which is the same for all e.
            return (self.vectors.square().sum(dim=1) - 2 * pixels @ self.vectors.T).argmin(dim=-1)

    def indices(self, z: Tensor) -> Tensor:
        """Maps (N, in_channels, h, w) to indices (N, h, w) without any randomness."""
        return self.nearest(z)

    def embedded(self, indices: Tensor) -> Tensor:
        """Indices (N, h, w) to vectors of the codebook (N, D, h, w)."""
        return F.embedding(indices, self.vectors).movedim(-1, 1)


class VectorQuantiser(Codebook):
    """The paper's, equation 3: the codebook moves to the encoder's vectors, and these stay near it by a weight beta.

    VQGAN's code has it as `legacy=False`.

    Args:
        num_codes: K.
        dim: D.
        beta: weight of the commitment.
        bound: vectors start uniform in [-bound, bound]; None: of 1 / K, as published.
    """

    def __init__(self, num_codes: int, dim: int, beta: float = 0.25, bound: float | None = None) -> None:
        super().__init__()
        bound = bound or 1 / num_codes
        self.vectors = nn.Parameter(torch.empty(num_codes, dim).uniform_(-bound, bound))
        self.beta = beta

    def forward(self, z: Tensor) -> Quantised:
        """Quantises maps (N, D, h, w)."""
        indices = self.nearest(z)
        with torch.autocast(z.device.type, enabled=False):
            z, codes = z.to(self.vectors.dtype), self.embedded(indices)
            loss = self.loss(F.mse_loss(z, codes.detach()), F.mse_loss(codes, z.detach()))
            return Quantised(straight_through(codes, z), indices, loss)

    def loss(self, commitment: Tensor, alignment: Tensor) -> Tensor:
        """Of how far the encoder is from a codebook that stands still, and the codebook from an encoder that does."""
        return self.beta * commitment + alignment


class LegacyVectorQuantiser(VectorQuantiser):
    """With beta before the codebook's term instead of the encoder's: what every released VQGAN was trained with."""

    def loss(self, commitment: Tensor, alignment: Tensor) -> Tensor:
        return commitment + self.beta * alignment


class EMAQuantiser(Codebook):
    """The codebook follows the moving mean of what is assigned to each vector (appendix A.1) and takes no gradient.

    Training calls `collect` for each part of a batch and `update` once at its end. A vector that nothing is assigned to
    is never looked for again.

    Vectors start as standard normal numbers times `spread`, with a count of 1. Those of VQGAN's code start with a count
    of 0, so that the first update throws each vector that nothing is assigned to a hundred thousandfold away.

    Args:
        num_codes: K.
        dim: D.
        beta: weight of the commitment.
        decay: of the moving means.
        spread: of the vectors at the start, in units of the encoder's output.
    """

    EPS = 1e-5
    counts: Tensor  # (K,)
    sums: Tensor  # (K, D)

    def __init__(self, num_codes: int, dim: int, beta: float = 0.25, decay: float = 0.99, spread: float = 1.0) -> None:
        super().__init__()
        self.beta, self.decay = beta, decay
        self.register_buffer("vectors", spread * torch.randn(num_codes, dim))
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("sums", self.vectors.clone())
        self.register_buffer("found_counts", torch.zeros(num_codes), persistent=False)
        self.register_buffer("found_sums", torch.zeros(num_codes, dim), persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        """Quantises maps (N, D, h, w), by the codebook as it is."""
        indices = self.nearest(z)
        with torch.autocast(z.device.type, enabled=False):
            z, codes = z.to(self.vectors.dtype), self.embedded(indices)
            return Quantised(straight_through(codes, z), indices, self.beta * F.mse_loss(z, codes))

    @torch.no_grad()
    def collect(self, z: Tensor, indices: Tensor) -> None:
        """Takes note of maps (N, D, h, w) of all processes and of their indices (N, h, w) until `update`."""
        pixels, indices = z.to(self.vectors.dtype).movedim(1, -1).flatten(0, -2), indices.flatten()
        counts = torch.zeros_like(self.counts).index_add_(0, indices, pixels.new_ones(len(pixels)))
        self.found_counts += summed(counts)
        self.found_sums += summed(torch.zeros_like(self.sums).index_add_(0, indices, pixels))

    @torch.no_grad()
    def update(self) -> None:
        """Moves the codebook by what was collected."""
        self.counts.lerp_(self.found_counts, 1 - self.decay)
        self.sums.lerp_(self.found_sums, 1 - self.decay)
        self.found_counts.zero_()
        self.found_sums.zero_()
        total = self.counts.sum()
        smoothed = (self.counts + self.EPS) / (total + self.num_codes * self.EPS) * total
        self.vectors.copy_(self.sums / smoothed[:, None])


class RevivingEMAQuantiser(EMAQuantiser):
    """A vector that is hardly used any more begins again as one of the encoder's, drawn from the batch.

    Prafulla Dhariwal et al., Jukebox, https://arxiv.org/abs/2005.00341, section 3 ("random restarts").

    Args:
        threshold: of the moving mean of how many pixels of a batch are assigned to a vector.
        others: as `EMAQuantiser`.
    """

    def __init__(self, *args: int, threshold: float = 1.0, **others: float) -> None:
        super().__init__(*args, **others)
        self.threshold = threshold

    @torch.no_grad()
    def revive(self, z: Tensor, order: Tensor) -> int:
        """Begins unused vectors again, in all processes alike; returns how many.

        Args:
            z: maps (N, D, h, w), of which this process has its part.
            order: (N, h, w) random numbers, of which the smallest are of the pixels that are taken.
        """
        dead = (self.counts < self.threshold).nonzero().flatten()
        pixels = gathered(z.to(self.vectors.dtype)).movedim(1, -1).flatten(0, -2)
        taken = gathered(order).flatten().argsort(stable=True)[: len(dead)]
        dead = dead[: len(taken)]
        self.vectors[dead] = pixels[taken]
        self.sums[dead] = self.threshold * pixels[taken]
        self.counts[dead] = self.threshold
        return len(dead)


class GumbelQuantiser(Codebook):
    """A vector is drawn by logits, with a gradient by the Gumbel-softmax relaxation.

    Eric Jang, Shixiang Gu, Ben Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR 2017.
    https://arxiv.org/abs/1611.01144

    Args:
        num_codes: K.
        dim: D.
        in_channels: channels of the maps.
        kl_weight: of the divergence of what is drawn from all vectors being as likely.
    """

    def __init__(self, num_codes: int, dim: int, in_channels: int, kl_weight: float) -> None:
        super().__init__()
        self.to_logits = nn.Conv2d(in_channels, num_codes, 1)
        self.vectors = nn.Parameter(torch.randn(num_codes, dim))
        self.kl_weight = kl_weight

    @property
    def in_channels(self) -> int:
        return self.to_logits.in_channels

    def indices(self, z: Tensor) -> Tensor:
        return self.to_logits(z).argmax(dim=1)

    def forward(self, z: Tensor, gumbel: Tensor, temperature: float) -> Quantised:
        """Draws one vector for each pixel of maps (N, in_channels, h, w); the gradient is that of the relaxed draw.

        Args:
            z: the maps.
            gumbel: (N, K, h, w) standard Gumbel noise.
            temperature: of the relaxation, above 0.
        """
        logits = self.to_logits(z)
        relaxed = self.relaxed(logits, gumbel, temperature)
        indices = relaxed.argmax(dim=1)
        drawn = straight_through(F.one_hot(indices, self.num_codes).movedim(-1, 1).to(relaxed), relaxed)
        return Quantised(self.mixed(drawn), indices, self.divergence(logits))

    def relaxed(self, logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
        """Logits and noise (N, K, h, w) to the share of each vector (N, K, h, w)."""
        return ((logits + gumbel).float() / temperature).softmax(dim=1).to(logits)

    def mixed(self, shares: Tensor) -> Tensor:
        """Shares (N, K, h, w) to their mean vectors (N, D, h, w)."""
        return einsum("nkhw, kd -> ndhw", shares, self.vectors)

    def divergence(self, logits: Tensor) -> Tensor:
        """The weighted divergence of softmax(logits) from the uniform distribution, a mean over all pixels."""
        likely = logits.to(self.vectors.dtype).softmax(dim=1)
        return self.kl_weight * (likely * (likely * self.num_codes + 1e-10).log()).sum(dim=1).mean()


def straight_through(value: Tensor, relaxed: Tensor) -> Tensor:
    """A value whose gradient goes to another tensor of its shape."""
    return relaxed + (value - relaxed).detach()


def perplexity(indices: Tensor, num_codes: int) -> Tensor:
    """Of indices (any shape), how many codes they use: the exponential of the entropy of their shares, a scalar."""
    counts = torch.zeros(num_codes, device=indices.device).index_add_(
        0, indices.flatten(), torch.ones(indices.numel(), device=indices.device)
    )
    shares = summed(counts) / summed(counts).sum()
    return (-(shares * (shares + 1e-10).log()).sum()).exp()
