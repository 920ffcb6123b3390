"""Convolutions without bias, plain and batch-normalised."""

from torch import nn

# For `KeyMap.fill`: what checkpoints of before PyTorch 0.4.1 lack of batch normalisation, and no image depends on.
BATCHES_TRACKED = {r".*num_batches_tracked": 0}


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size and has no bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)


class ConvNorm(nn.Sequential):
    """A convolution without bias, batch normalisation and, where one is given, an activation.

    Args:
        in_channels, out_channels, stride: of the convolution.
        kernel: its height and width: 3 or 1, which keep the size, or 4, which halves it at stride 2.
        activation: behind the normalisation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, activation: nn.Module | None = None
    ) -> None:
        padding = (kernel - 1) // 2
        convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out_channels), *([activation] if activation else []))
