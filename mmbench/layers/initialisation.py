"""How parameters start."""

from torch import nn


def initialise_orthogonally(network: nn.Module) -> None:
    """Orthogonal weights, linear layers without shift, batch normalisation with scales N(1, 0.02^2) and shifts 0.

    How AttnGAN and its descendants start generators and discriminators. Biases of convolutions stay at PyTorch's
    default, as there.
    https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/miscc/utils.py#L283
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
        if isinstance(module, nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
