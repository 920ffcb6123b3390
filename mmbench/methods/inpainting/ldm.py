"""LDM's inpainting: section 4.5 of High-Resolution Image Synthesis with Latent Diffusion Models.

Robin Rombach, Andreas Blattmann, Dominik Lorenz, Patrick Esser, Björn Ommer. CVPR 2022. https://arxiv.org/abs/2112.10752
Authors' code: https://github.com/CompVis/latent-diffusion/tree/a506df5756472e2ebaf9078affdde2c4f1502cd4,
scripts/inpaint.py and models/ldm/inpainting_big/config.yaml.

The latent of the image with its hole, and the hole at the latent's size, stand beside the noisy latent. As in the code,
the hole is black, not grey, the mask is -1 and 1, and the noise is compared by absolute differences.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_INPAINTING
from mmbench.diffusion.denoisers import Condition
from mmbench.diffusion.latent import LatentDiffusion


class LDMInpainting(LatentDiffusion):
    """Fills holes; what is known is put back where images are made.

    Arguments are those of `LatentDiffusion`, `unet` being a `ConcatenatingUNet` that sees twice a latent's channels and
    one more.
    """

    task = TEXT_GUIDED_INPAINTING
    trains_on = frozenset({"image", "mask"})

    def known(self, batch: Batch, noise: Noise) -> Tensor:
        """Images (N, 3, H, W) and masks (N, 1, H, W), 1 = hole, to what the U-Net sees, (N, C + 1, h, w)."""
        image, mask = batch["image"], batch["mask"]
        latent = self.latent(image * (1 - mask) - mask, noise)
        return torch.cat((self.scale * latent, F.interpolate(2 * mask - 1, latent.shape[2:])), dim=1)

    def condition(self, batch: Batch) -> Tensor:
        """What is known of the images."""
        return self.known(batch, batch["noise"])

    def errors(self, latent: Tensor, step: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """Mean absolute differences from the noise, (N,)."""
        noisy = self.noise_schedule.noised(latent, step, noise)
        found = self.unet(noisy, self.noise_schedule.timesteps.to(step.device)[step], condition)
        return (found.to(noise) - noise).abs().flatten(1).mean(dim=1)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        image, mask = batch["image"], batch["mask"]
        made = self.sampled(self.known(batch, noise), None, noise, *image.shape[2:])
        return (1 - mask) * image + mask * made
