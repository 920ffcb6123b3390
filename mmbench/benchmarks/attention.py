"""How fast coherent semantic attention is: ours beside a plain transcription of its definition, as a ratio in one run.

The transcription does what the released layer does: image by image and position by position, with a row of weights
carried along in Python, the known patches as filters of a convolution that searches them and of one that pastes them,
and a backward pass that gathers the weights' matrix position by position.
https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b07129adc6a231b7d68f9815d1adfe0c01eeff/models/CSAFunction.py

Both are asked for the same features and the hole of CSA's centre mask, and take turns; different values end the run.
Times are those of the processor on one core, which others on the machine hardly change.
"""

import sys
import time
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.data.masks import middle
from mmbench.layers.coherent_attention import EPS, coherent_attention, feature_mask

HELP = """usage: python -m mmbench.benchmarks.attention [CHANNELS]

Prints what coherent semantic attention takes of 32 x 32 features in a batch of 4, forwards and both ways, beside a
plain transcription, on one core; exits with 1 where their values differ. 512 channels by default, as published.
"""
BATCH, SIDE, HALVINGS, ROUNDS = 4, 32, 3, 5
TOLERANCE = 1e-4  # of the largest value


class Measured(NamedTuple):
    """Seconds of the processor for one pass forwards, and for one backwards, and what they gave."""

    forwards: float
    backwards: float
    output: Tensor
    gradient: Tensor


def plain_forwards(feature: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """One image's features (C, H, W) and hole (H, W) bool: what is filled, and weights (H W, H W), row by row."""
    height, width = hole.shape
    known = [place for place in range(height * width) if not hole.flatten()[place]]
    patches = feature.flatten(1).T
    filters = torch.stack([patches[place] for place in known])[:, :, None, None]
    unit = torch.stack([each / (each.norm() + EPS) for each in filters])
    scores = F.conv2d(feature[None], unit)[0].flatten(1)  # (known, H W)
    best, nearest = scores.max(dim=0)
    weights, before = torch.zeros(height * width, len(known)), None
    for place in range(height * width):
        row = torch.zeros(len(known))
        if not hole[place // width, place % width]:
            row[nearest[place]] = 1
        elif before is None:
            row[nearest[place]] = 1
            before = patches[known[int(nearest[place])]], row
        else:
            x = patches[place]
            likeness = (before[0] * (x / (x.norm() + EPS))).sum()
            share = likeness / (likeness + best[place])
            mixed = share * before[0] + (1 - share) * patches[known[int(nearest[place])]]
            row = share * before[1]
            row[nearest[place]] += 1 - share
            before = mixed, row
        weights[place] = row
    output = F.conv_transpose2d(weights.T.reshape(1, len(known), height, width), filters)[0]
    whole = torch.zeros(height * width, height * width)
    whole[:, known] = weights
    return output, whole


def plain_backwards(gradient: Tensor, weights: Tensor) -> Tensor:
    """One image's (C, H, W): what the weights, cut to integers, hand back, and the gradient itself."""
    rounded = torch.zeros_like(weights)
    for place in range(len(weights)):
        rounded[place] = weights[place].long()
    return gradient + (rounded.T @ gradient.flatten(1).T).T.view_as(gradient)


def plain(features: Tensor, hole: Tensor, cotangent: Tensor) -> Measured:
    """The transcription, timed: features and cotangent (N, C, H, W), hole (N, 1, H, W) bool."""
    start = time.process_time()
    filled = [plain_forwards(*image) for image in zip(features, hole[:, 0], strict=True)]
    output = torch.stack([image for image, _ in filled])
    middle_of_it = time.process_time()
    pairs = zip(cotangent, (weights for _, weights in filled), strict=True)
    gradient = torch.stack([plain_backwards(*image) for image in pairs])
    return Measured(middle_of_it - start, time.process_time() - middle_of_it, output, gradient)


def ours(features: Tensor, hole: Tensor, cotangent: Tensor) -> Measured:
    """The layer, timed."""
    features = features.clone().requires_grad_()
    start = time.process_time()
    output = coherent_attention(features, hole)
    middle_of_it = time.process_time()
    (gradient,) = torch.autograd.grad(output, features, cotangent)
    return Measured(middle_of_it - start, time.process_time() - middle_of_it, output.detach(), gradient)


def inputs(channels: int, side: int = SIDE) -> tuple[Tensor, Tensor, Tensor]:
    """Features with mostly positive products, a hole in the middle, and a cotangent."""
    generator = torch.Generator().manual_seed(0)
    features = 2 * torch.rand(BATCH, channels, side, side, generator=generator) - 0.5
    size = side * 2**HALVINGS
    mask = torch.from_numpy(middle(size, size, margin=size // 64))[None, None].float()
    hole = feature_mask(mask, HALVINGS).expand(BATCH, -1, -1, -1)
    return features, hole, torch.randn(features.shape, generator=generator)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, in units of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def report(rows: dict[str, tuple[list[float], list[float]]]) -> None:
    for name, (first, second) in rows.items():
        ratios = [slow / fast for fast, slow in zip(first, second, strict=True)]
        print(
            f"{name}: ours {1000 * median(first):.1f} ms, plain {1000 * median(second):.1f} ms, "
            f"{median(ratios):.0f} times as fast ({min(ratios):.0f} to {max(ratios):.0f})"
        )


def main(words: list[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(HELP, end="")
        return 0
    torch.set_num_threads(1)
    channels = int(words[0]) if words else 512
    given = inputs(channels)
    print(f"{BATCH} x {channels} x {SIDE} x {SIDE} features, {int(given[1][0].sum())} of {SIDE**2} in the hole")
    found: list[tuple[Measured, Measured]] = [(ours(*given), plain(*given)) for _ in range(1 + ROUNDS)]
    apart = {
        name: difference(getattr(found[0][0], name), getattr(found[0][1], name)) for name in ("output", "gradient")
    }
    print(", ".join(f"{name} differs by {value:.1e}" for name, value in apart.items()))
    if max(apart.values()) > TOLERANCE:
        return 1
    timed = found[1:]  # the first warms up
    forwards = [fast.forwards for fast, _ in timed], [slow.forwards for _, slow in timed]
    both = [sum(fast[:2]) for fast, _ in timed], [sum(slow[:2]) for _, slow in timed]
    report({"forwards": forwards, "forwards and backwards": both})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
