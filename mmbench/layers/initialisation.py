"""How parameters start."""

from torch import nn

NORMALISED = nn.BatchNorm1d | nn.BatchNorm2d
NORMAL = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | NORMALISED


def initialise_normally(network: nn.Module) -> None:
    """Weights N(0, 0.02^2), batch normalisation with scales N(1, 0.02^2), all shifts 0; what is frozen stays as it is.

    How DCGAN starts, and StackGAN, SISGAN and TAGAN with it; recurrent layers stay at PyTorch's default.
    https://github.com/woozzu/dong_iccv_2017/blob/e7f371aefb3aa2208df832ed779c16027c8f3600/model.py#L9
    """
    for module in network.modules():
        if isinstance(module, NORMAL) and module.weight.requires_grad:
            nn.init.normal_(module.weight, float(isinstance(module, NORMALISED)), 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_orthogonally(network: nn.Module) -> None:
    """Orthogonal weights, linear layers without shift, batch normalisation with scales N(1, 0.02^2) and shifts 0.

    How AttnGAN and its descendants start generators and discriminators. Biases of convolutions stay at PyTorch's
    default, as there. A normalisation that something else scales and shifts has nothing to start.
    https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/miscc/utils.py#L283
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
        elif isinstance(module, NORMALISED) and module.affine:
            nn.init.normal_(module.weight, 1, 0.02)
        if isinstance(module, nn.Linear | NORMALISED) and module.bias is not None:
            nn.init.zeros_(module.bias)


def initialise_weights_orthogonally(network: nn.Module) -> None:
    """Orthogonal weights of convolutions, linear layers and embeddings; everything else stays at PyTorch's default.

    How BigGAN starts, and Efficient-T2I with it.
    https://github.com/ajbrock/BigGAN-PyTorch/blob/98459431a5d618d644d54cd1e9fceb1e5045648d/BigGAN.py#L209
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
