"""Agreement of images of several sizes in their colours."""

import torch.nn.functional as F
from torch import Tensor

from mmbench.losses.precision import in_float32

COVARIANCE_WEIGHT = 5  # beside the means; what both weigh together is the caller's


def colour_statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, 3) and covariance (N, 3, 3) of the colours of images (N, 3, H, W), over their pixels.

    Sums of products are divided by the number of pixels, H * W.
    """
    colours = image.flatten(2)  # (N, 3, H * W)
    mean = colours.mean(dim=2)
    centred = colours - mean[:, :, None]
    return mean, centred @ centred.mT / colours.shape[2]


@in_float32
def colour_consistency(image: Tensor, smaller: Tensor) -> Tensor:
    """Mean squared difference of the colours' means and, five times, of their covariances (StackGAN++, section 4.3).

    https://github.com/hanzhanggit/StackGAN-v2/blob/6228e347007198940898c3d0679d9698235d3c00/code/trainer.py#L629

    Args:
        image: (N, 3, H, W), which is to have the colours of the other.
        smaller: (N, 3, h, w), which is taken as it is: no gradient reaches it.
    """
    (mean, covariance), (wanted_mean, wanted_covariance) = map(colour_statistics, (image, smaller.detach()))
    return F.mse_loss(mean, wanted_mean) + COVARIANCE_WEIGHT * F.mse_loss(covariance, wanted_covariance)
