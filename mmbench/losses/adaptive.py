"""How much a discriminator counts beside a reconstruction, from their gradients."""

import torch
from torch import Tensor, nn

from mmbench.core.processes import num_processes, summed
from mmbench.losses.precision import in_float32

LARGEST = 1e4


@in_float32
def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: nn.Parameter | Tensor) -> Tensor:
    """By what factor the gradient of an adversarial loss is as large as that of a reconstruction, at most 10,000.

    VQGAN, https://arxiv.org/abs/2012.09841, equation 7, with the code's 1e-4 for the paper's 1e-6. The gradients are
    those of the whole batch where processes share one.

    Args:
        reconstruction, adversarial: scalars, means over this process's part of a batch; their graphs are kept.
        last: the weight of the decoder's last layer, by which both are differentiated.

    Returns:
        A scalar without a gradient.
    """
    fit, fooled = (
        summed(torch.autograd.grad(loss, last, retain_graph=True)[0]).norm() / num_processes()
        for loss in (reconstruction, adversarial)
    )
    return (fit / (fooled + 1e-4)).clamp(0, LARGEST).detach()
