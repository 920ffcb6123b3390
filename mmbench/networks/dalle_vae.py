"""DALL-E's discrete autoencoders: images as maps of codes, which a relaxation makes differentiable, and back.

Aditya Ramesh et al., Zero-Shot Text-to-Image Generation, ICML 2021, https://arxiv.org/abs/2102.12092, section 2.1 and
appendix A. `OpenAIEncoder` and `OpenAIDecoder` are those that OpenAI released,
https://github.com/openai/DALL-E/tree/5be4b23, dall_e/encoder.py and decoder.py; `DiscreteVAE` is that of
https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a, dalle_pytorch/dalle_pytorch.py.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import KeyMap

# From logits (N, K, h, w), Gumbel numbers of the same shape and a temperature to weights of the codes, (N, K, h, w).
Relaxation = Callable[[Tensor, Tensor, float], Tensor]


def soft(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """The Gumbel softmax: weights that sum to 1, the nearer to one code the lower the temperature.

    Jang et al., ICLR 2017, https://arxiv.org/abs/1611.01144.
    """
    return ((logits + gumbel) / temperature).softmax(dim=1)


def straight_through(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """The likeliest code alone, with the gradient of `soft`."""
    weights = soft(logits, gumbel, temperature)
    return _hard(weights) + weights - weights.detach()


def reinmax(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """The likeliest code alone, with a gradient of second order.

    Liu et al., Bridging Discrete and Backpropagation, NeurIPS 2023, https://arxiv.org/abs/2304.08612, algorithm 2.
    """
    chosen = _hard(logits + gumbel)
    middle = (chosen + (logits / temperature).softmax(dim=1)) / 2
    middle = ((middle.log() - logits).detach() + logits).softmax(dim=1)
    weights = 2 * middle - logits.softmax(dim=1) / 2
    return chosen + weights - weights.detach()


def _hard(weights: Tensor) -> Tensor:
    """1 where the largest of (N, K, h, w) is, 0 elsewhere."""
    return torch.zeros_like(weights).scatter(1, weights.argmax(dim=1, keepdim=True), 1.0)


class Residual(nn.Module):
    """Three convolutions beside an identity, of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x


class DiscreteVAE(nn.Module):
    """An encoder to logits of K codes, a codebook, and a decoder.

    Args:
        num_codes: K.
        code_dim: of the codebook's vectors.
        num_layers: each halves the map.
        num_residual: blocks in encoder and in decoder.
        width: channels of both.
    """

    def __init__(self, num_codes: int, code_dim: int, num_layers: int, num_residual: int, width: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(num_codes, code_dim)
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(width if n else 3, width, 4, stride=2, padding=1), nn.ReLU())
                for n in range(num_layers)
            ),
            *(Residual(width) for _ in range(num_residual)),
            nn.Conv2d(width, num_codes, 1),
        )
        entry = [nn.Conv2d(code_dim, width, 1), *(Residual(width) for _ in range(num_residual))] if num_residual else []
        self.decoder = nn.Sequential(
            *entry,
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(width if n or entry else code_dim, width, 4, stride=2, padding=1), nn.ReLU()
                )
                for n in range(num_layers)
            ),
            nn.Conv2d(width, 3, 1),
        )

    def logits(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to logits of codes (N, K, h, w)."""
        return self.encoder(image)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, h, w) int64 to images (N, 3, H, W), not bounded."""
        return self.decoder(self.codebook(codes).movedim(-1, 1))

    def decode_relaxed(self, weights: Tensor) -> Tensor:
        """Weights of codes (N, K, h, w) to images (N, 3, H, W), not bounded."""
        return self.decoder(torch.einsum("nkhw, kd -> ndhw", weights, self.codebook.weight))


KEYS = KeyMap(rename={r"(encoder|decoder)\.(\d+)\.net\.(.*)": r"\1.\2.layers.\3"})


class ScaledResidual(nn.Module):
    """Four convolutions, each behind a rectifier, beside an identity: (N, C, H, W) to (N, D, H, W).

    Args:
        in_channels, out_channels: C and D.
        kernels: sides of the convolutions.
        gain: what they are scaled by.
    """

    def __init__(self, in_channels: int, out_channels: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        hidden = out_channels // 4
        channels = [in_channels, hidden, hidden, hidden, out_channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*channels[n : n + 2], kernel, padding=kernel // 2) for n, kernel in enumerate(kernels)
        )
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for convolution in self.convolutions:
            residual = convolution(residual.relu())
        return self.skip(x) + self.gain * residual


NUM_GROUPS, BLOCKS_PER_GROUP = 4, 2


def _groups(widths: Sequence[int], kernels: Sequence[int]) -> nn.ModuleList:
    """Groups of blocks, of which the first n-th takes `widths[n]` channels and gives `widths[n + 1]`."""
    gain = 1 / (NUM_GROUPS * BLOCKS_PER_GROUP) ** 2
    return nn.ModuleList(
        nn.Sequential(
            *(
                ScaledResidual(before if block == 0 else after, after, kernels, gain)
                for block in range(BLOCKS_PER_GROUP)
            )
        )
        for before, after in pairwise(widths)
    )


class OpenAIEncoder(nn.Module):
    """Images to logits of codes, an eighth as wide.

    Args:
        width: channels of the first group.
        num_codes: K.
    """

    def __init__(self, width: int = 256, num_codes: int = 8192) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, width, 7, padding=3)
        self.groups = _groups([width, width, 2 * width, 4 * width, 8 * width], kernels=(3, 3, 3, 1))
        self.exit = nn.Conv2d(8 * width, num_codes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) as `squeezed` gives them, to (N, num_codes, H / 8, W / 8)."""
        x = self.entry(pixels)
        for number, group in enumerate(self.groups):
            x = group(x)
            if number < NUM_GROUPS - 1:
                x = F.max_pool2d(x, 2)
        return self.exit(x.relu())


class OpenAIDecoder(nn.Module):
    """Weights of codes to a distribution of each pixel, eight times as wide.

    Args:
        width: channels of the last group.
        num_codes: K.
        entry_width: channels that codes become first.
    """

    def __init__(self, width: int = 256, num_codes: int = 8192, entry_width: int = 128) -> None:
        super().__init__()
        self.entry = nn.Conv2d(num_codes, entry_width, 1)
        self.groups = _groups([entry_width, 8 * width, 4 * width, 2 * width, width], kernels=(1, 3, 3, 3))
        self.exit = nn.Conv2d(width, 6, 1)

    def forward(self, weights: Tensor) -> Tensor:
        """(N, num_codes, h, w) to (N, 6, 8 * h, 8 * w): three locations and three logarithms of scales."""
        x = self.entry(weights)
        for number, group in enumerate(self.groups):
            x = group(x)
            if number < NUM_GROUPS - 1:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.exit(x.relu())


MARGIN = 0.1  # of pixels in [0, 1], by which the logit-Laplace distribution keeps away from its ends


def squeezed(image: Tensor) -> Tensor:
    """Images in [-1, 1] as OpenAI's networks see them, in [0.1, 0.9]."""
    return (1 - 2 * MARGIN) * (image + 1) / 2 + MARGIN


def widened(pixels: Tensor) -> Tensor:
    """The inverse of `squeezed`, cut off at -1 and 1."""
    return (2 * (pixels - MARGIN) / (1 - 2 * MARGIN) - 1).clamp(-1, 1)


def logit_laplace(pixels: Tensor, statistics: Tensor) -> Tensor:
    """Negative log-likelihood of pixels (N, 3, H, W) in (0, 1), of each: (N, 3, H, W). Appendix A.3, equation 2.

    Args:
        pixels: as `squeezed` gives them.
        statistics: (N, 6, H, W), as `OpenAIDecoder` gives them.
    """
    location, log_scale = statistics.chunk(2, dim=1)
    return (2 * pixels * (1 - pixels)).log() + log_scale + (pixels.logit() - location).abs() / log_scale.exp()


def _openai_keys() -> KeyMap:
    """Both networks'. Theirs count from 1, and call weights w and biases b."""
    rename = {}
    for short, kind in (("w", "weight"), ("b", "bias")):
        rename[rf"blocks\.input\.{short}"] = f"entry.{kind}"
        rename[rf"blocks\.output\.conv\.{short}"] = f"exit.{kind}"
        for group, block in product(range(NUM_GROUPS), range(BLOCKS_PER_GROUP)):
            stem, ours = rf"blocks\.group_{group + 1}\.block_{block + 1}", f"groups.{group}.{block}"
            rename[rf"{stem}\.id_path\.{short}"] = f"{ours}.skip.{kind}"
            for n in range(4):
                rename[rf"{stem}\.res_path\.conv_{n + 1}\.{short}"] = f"{ours}.convolutions.{n}.{kind}"
    return KeyMap(rename=rename)


OPENAI = _openai_keys()
