"""Gated PixelCNN over maps of codes: each code's distribution, of the codes before it and of a condition.

Aäron van den Oord, Nal Kalchbrenner, Oriol Vinyals, Lasse Espeholt, Alex Graves, Koray Kavukcuoglu. Conditional Image
Generation with PixelCNN Decoders. NeurIPS 2016. https://arxiv.org/abs/1606.05328, figure 2 and equation 4.
No code was released with it.

Codes are in the order of reading. A vertical stack sees the rows above a code, a horizontal one those to its left in
the same row and what the vertical one says; so that no code is hidden from those behind it.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gated(x: Tensor) -> Tensor:
    """Twice as many channels (N, 2C, H, W) to (N, C, H, W): values, each with a gate."""
    value, gate = x.chunk(2, dim=1)
    return value.tanh() * gate.sigmoid()


class Layer(nn.Module):
    """One layer of both stacks; what comes along the row is added to what went in.

    Args:
        width: channels.
        kernel: odd height and width of the window that both stacks are halves of.
        condition_dim: size of the condition.
    """

    def __init__(self, width: int, kernel: int, condition_dim: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.seen))
        self.between = nn.Conv2d(2 * width, 2 * width, 1)
        self.condition = nn.Linear(condition_dim, 4 * width)
        self.exit = nn.Conv2d(width, width, 1)

    @property
    def seen(self) -> int:
        """Codes in the row that are seen: those to the left and the code's own features, which do not know it."""
        return self.reach + 1

    def above(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the vertical stack (N, width, H, W), of a row and those above it, to the next ones.

        Also what the horizontal stack gets from it, (N, 2 * width, H, W), of rows above alone.
        """
        x = self.vertical(F.pad(x, (self.reach, self.reach, self.reach, 0)))
        told, _ = self.told(condition)
        return gated(x + told), self.between(F.pad(x, (0, 0, 1, 0))[:, :, :-1])

    def along(self, x: Tensor, above: Tensor, condition: Tensor) -> Tensor:
        """Features of the horizontal stack (N, width, H, W), each of a code and those to its left, to the next ones."""
        _, told = self.told(condition)
        return x + self.exit(gated(self.horizontal(F.pad(x, (self.reach, 0))) + above + told))

    def told(self, condition: Tensor) -> Sequence[Tensor]:
        """The condition (N, D) as it is added to both stacks, (N, 2 * width, 1, 1) each."""
        return self.condition(condition)[..., None, None].chunk(2, dim=1)


class FirstLayer(Layer):
    """The first one, which sees codes and not features of them: not a code itself, and nothing is added to it."""

    @property
    def seen(self) -> int:
        return self.reach

    def along(self, x: Tensor, above: Tensor, condition: Tensor) -> Tensor:
        _, told = self.told(condition)
        return self.exit(gated(self.horizontal(F.pad(x, (self.reach, 0))[..., :-1]) + above + told))


class PixelCNN(nn.Module):
    """Maps of codes to logits of each code.

    Args:
        num_codes: K.
        width: channels of both stacks.
        kernel: odd height and width of windows; of the first layer 2 more.
        num_layers: of both stacks.
        condition_dim: D, size of the condition.
        out_width: channels behind the stacks.
    """

    def __init__(
        self, num_codes: int, width: int, kernel: int, num_layers: int, condition_dim: int, out_width: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_codes, width)
        self.layers = nn.ModuleList(
            [
                FirstLayer(width, kernel + 2, condition_dim),
                *(Layer(width, kernel, condition_dim) for _ in range(num_layers - 1)),
            ]
        )
        self.exit = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, out_width, 1), nn.ReLU(), nn.Conv2d(out_width, num_codes, 1)
        )

    def forward(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Codes (N, H, W) int64 and conditions (N, D) to logits (N, K, H, W), each of the codes before it alone."""
        x = self.embedded(codes)
        return self.along(x, self.above(x, condition), condition)

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes (N, H, W) to (N, width, H, W)."""
        return self.embedding(codes).movedim(-1, 1)

    def above(self, x: Tensor, condition: Tensor) -> list[Tensor]:
        """What each layer is told of the rows above, (N, 2 * width, H, W) each."""
        found = []
        for layer in self.layers:
            x, told = layer.above(x, condition)
            found.append(told)
        return found

    def along(self, x: Tensor, above: Sequence[Tensor], condition: Tensor) -> Tensor:
        """Rows of embedded codes (N, width, H, W), and what `above` says of them, to logits (N, K, H, W)."""
        for layer, told in zip(self.layers, above, strict=True):
            x = layer.along(x, told, condition)
        return self.exit(x)

    def drawn(self, condition: Tensor, size: tuple[int, int], draw: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Maps of codes (N, H, W) that are drawn one code after the other.

        The rows above are looked at once for a row, and a code costs no more than its row.

        Args:
            condition: (N, D).
            size: H and W.
            draw: from logits (N, K) and the place of a code in the order of reading to codes (N,).
        """
        height, width = size
        codes = torch.zeros(len(condition), height, width, dtype=torch.int64, device=condition.device)
        for row in range(height):
            # Of its own row nothing is known yet, and nothing told.
            above = [told[:, :, row:] for told in self.above(self.embedded(codes[:, : row + 1]), condition)]
            for column in range(width):
                logits = self.along(self.embedded(codes[:, row : row + 1]), above, condition)
                codes[:, row, column] = draw(logits[:, :, 0, column], row * width + column)
        return codes
