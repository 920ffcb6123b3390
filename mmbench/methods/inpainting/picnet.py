"""PICNet: Pluralistic Image Completion.

Chuanxia Zheng, Tat-Jen Cham, Jianfei Cai. CVPR 2019. https://arxiv.org/abs/1903.04227
Code: https://github.com/lyndonzheng/Pluralistic-Inpainting/tree/034a7588957adff1edb027af44f48a35d1c949d3.

Two paths through one generator: reconstruction draws its latent variables from what the hole hides, generation from
what is known; each draw of a sample is another completion. Blocks and discriminator are in
`mmbench.networks.pluralistic`.

Training is as in the code: the generation path is compared with the image where pixels are known alone, and its mean is
over all of them; the reconstruction's discriminator is a distance, too, of logits of images and their reconstructions.

Deviations:
- The power iteration of spectral normalisation is stored in training alone: what is made of an image, and how it is
  judged, depends on no earlier call (`layers.spectral_norm`).
- What discriminators say for the generator is computed without gradients for them; the true image's logits are constant
  to the generator anyway.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.holes import require_mask, require_sides
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_INPAINTING
from mmbench.core.weights import KeyMap
from mmbench.layers.spectral_norm import SpectralConv2d
from mmbench.losses.adversarial import least_squares_fake, least_squares_real
from mmbench.losses.kl import kl_between_normals
from mmbench.losses.precision import in_float32
from mmbench.networks.pluralistic import (
    DECODER_NAMES,
    DISCRIMINATOR,
    DROPPED,
    SLOPE,
    TRUNK_NAMES,
    Decoder,
    Discriminator,
    Gaussian,
    GaussianHead,
    ImageBlock,
    ResidualBlock,
    Trunk,
    block_names,
    targets,
)


def widths(width: int, max_width: int, depth: int) -> list[int]:
    """Channels behind each halving."""
    return [min(width * 2**level, max_width) for level in range(depth)]


class Encoded(NamedTuple):
    """What is known of an image.

    Attributes:
        prior: of the latent variables (N, latent_dim, h, w).
        features: at every height, before the prior's own blocks.
    """

    prior: Gaussian
    features: list[Tensor]


class Encoder(nn.Module):
    """The known pixels of an image, or its hidden ones, to the distribution of latent variables.

    Args:
        width, max_width: channels of the first features, and the most that any have; doubled with each halving.
        depth: halvings.
        latent_dim: channels of the latent variables.
        num_refining: residual blocks that only the known pixels' last features pass.
    """

    def __init__(self, width: int, max_width: int, depth: int, latent_dim: int, num_refining: int) -> None:
        super().__init__()
        self.trunk = Trunk(widths(width, max_width, depth))
        last = widths(width, max_width, depth)[-1]
        self.refine = nn.Sequential(*(ResidualBlock(last, last, last) for _ in range(num_refining)))
        self.posterior = GaussianHead(last, latent_dim, hidden=last)
        self.prior = GaussianHead(last, latent_dim, hidden=last)

    def forward(self, known: Tensor) -> Encoded:
        """Images (N, 3, H, W) with zeros in the hole."""
        return self._known(self.trunk(known))

    def both(self, known: Tensor, hidden: Tensor) -> tuple[Encoded, Gaussian]:
        """Also the posterior, of images with zeros outside the hole; both pass the trunk as one batch."""
        pairs = [features.chunk(2) for features in self.trunk(torch.cat((known, hidden)))]
        return self._known([of_known for of_known, _ in pairs]), self.posterior(pairs[-1][1])

    def _known(self, features: list[Tensor]) -> Encoded:
        return Encoded(self.prior(self.refine(features[-1])), features)


class Generator(nn.Module):
    """Latent variables and features of what is known to images of several sizes.

    Args:
        width, max_width, depth: of its last features, as `Encoder`'s first.
        latent_dim: channels of the latent variables.
        num_images: of the last sizes.

    Raises:
        ValueError: features that attention compares have other channels than those that they are compared with.
    """

    def __init__(self, width: int, max_width: int, depth: int, latent_dim: int, num_images: int = 4) -> None:
        super().__init__()
        # Attention is of one size with the encoder's third last features, and is to be of one width.
        if max_width > (most := width * 2 ** (depth - 3)):
            raise ValueError(
                f"expected max_width of {most} at most, with width={width} and depth={depth}, found {max_width}: "
                "lower it"
            )
        self.depth = depth
        self.decoder = Decoder(width, max_width, depth, num_images)
        self.from_latent = ResidualBlock(latent_dim, self.decoder.channels, hidden=self.decoder.channels)

    def forward(self, z: Tensor, features: list[Tensor], keep: Tensor) -> list[Tensor]:
        """Images (N, 3, s, s') in [-1, 1], from small to full.

        Args:
            z: (N, latent_dim, H / 2^depth, W / 2^depth).
            features: of what is known, of `Encoder`.
            keep: (N, 1, H, W), 1 = known.
        """
        return self.decoder(self.from_latent(z) + features[-1], features[self.depth - 3], keep)


class PlainDiscriminator(Discriminator):
    """Without spectral normalisation in its blocks; attention and the last convolution keep theirs, as in the code."""

    def __init__(self, width: int, max_width: int, depth: int) -> None:
        super().__init__(width, max_width, depth)
        for block in self:
            if isinstance(block, ResidualBlock):
                for name in ("conv1", "conv2", "bypass"):
                    normalised = block.get_submodule(name)
                    plain = nn.Conv2d(
                        normalised.in_channels,
                        normalised.out_channels,
                        normalised.kernel_size,
                        padding=normalised.padding,
                    )
                    setattr(block, name, plain)


class NormedBlock(ResidualBlock):
    """With instance normalisation before each activation."""

    def __init__(self, in_channels: int, out_channels: int, hidden: int) -> None:
        super().__init__(in_channels, out_channels, hidden)
        self.norm1 = nn.InstanceNorm2d(in_channels, affine=True)
        self.norm2 = nn.InstanceNorm2d(hidden, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.activation(self.norm1(x)))
        return self.conv2(self.activation(self.norm2(hidden))) + self.bypass(x)


class NormedImageBlock(ImageBlock):
    """With instance normalisation before its activation."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(out_channels)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv2(self.activation(self.norm(self.conv1(image))))
        return F.avg_pool2d(features, 2) + self.bypass(F.avg_pool2d(image, 2))


class NormedDiscriminator(nn.Sequential):
    """Normalised within each image, and without attention; arguments and result as `Discriminator`."""

    def __init__(self, width: int, max_width: int, depth: int) -> None:
        blocks: list[nn.Module] = [NormedImageBlock(width)]
        for into, out in pairwise(widths(width, max_width, depth)):
            blocks += [NormedBlock(into, out, hidden=into), nn.AvgPool2d(2)]
        last = widths(width, max_width, depth)[-1]
        super().__init__(*blocks, NormedBlock(last, last, last), nn.LeakyReLU(SLOPE), SpectralConv2d(last, 1, 3))


class PatchDiscriminator(nn.Sequential):
    """Images (N, 3, H, W) to logits (N, 1, H / 2^depth - 2, W / 2^depth - 2) by convolutions alone, without shifts.

    Args:
        width, max_width, depth: as `Discriminator`.
    """

    def __init__(self, width: int, max_width: int, depth: int) -> None:
        channels = widths(width, max_width, depth)
        layers: list[nn.Module] = []
        for into, out in pairwise([3, *channels]):
            layers += [SpectralConv2d(into, out, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(SLOPE)]
        last = channels[-1]
        # As many channels as before: in the code the number that doubles them is not raised for this one.
        layers += [SpectralConv2d(last, last, 4, padding=1, bias=False), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, SpectralConv2d(last, 1, 4, padding=1, bias=False))


ENCODER = KeyMap(
    rename={
        **TRUNK_NAMES,
        **block_names(
            {f"infer_prior{n}": f"refine.{n}" for n in range(6)} | {"posterior": "posterior", "prior": "prior"}
        ),
    },
    drop=DROPPED,
)

GENERATOR = KeyMap(rename={**block_names({"generator": "from_latent"}), **DECODER_NAMES}, drop=DROPPED)


class Paths(NamedTuple):
    """What a training step makes; images from small to full.

    Attributes:
        reconstructed: (N, 3, s, s) each, from what the hole hides.
        generated: the same, from what is known.
        posterior: of the latent variables, of what the hole hides.
        prior: of what is known.
    """

    reconstructed: list[Tensor]
    generated: list[Tensor]
    posterior: Gaussian
    prior: Gaussian


@in_float32
def assumed_sigma(keep: Tensor) -> Tensor:
    """Deviation (N, 1, 1, 1) that latent variables of a hole are assumed to have: near one if it is large.

    Args:
        keep: (N, 1, H, W), 1 = known. A logistic of their share falls from 1 at none to 0.17 at all, a half at 0.8.
    """
    share = keep.mean(dim=(1, 2, 3), keepdim=True) - 1e-5
    return torch.sigmoid(8 * (0.8 - share))


@in_float32
def distance(made: list[Tensor], real: Tensor, keep: Tensor) -> Tensor:
    """L1 of images of several sizes to an image (N, 3, H, W), where `keep` is 1, summed over the sizes.

    Each is a mean over all pixels. `keep` (N, 1, H, W) is resized as the image is, and not rounded.
    """
    pairs = zip(made, targets(real, made), targets(keep, made), strict=True)
    return torch.stack([F.l1_loss(kept * one, kept * true) for one, true, kept in pairs]).sum()


class PICNet(Adversarial):
    """Encoder, generator and their training against two discriminators.

    Args:
        judge: partial of the discriminator, of which there is one for each path.
        optimizers: partials for `encoder`, `generator`, `discriminator` and `discriminator_rec`.
        width, max_width, depth, latent_dim, num_refining: as `Encoder`; images are a multiple of 2^depth pixels high
            and wide.
        lambda_rec: weight of L1 on either path, the paper's alpha_app.
        lambda_kl: weight of the KL divergences, times the number of sizes; the paper's alpha_KL.
        lambda_gan: weight of the adversarial terms, the paper's alpha_ad.
    """

    task = TEXT_GUIDED_INPAINTING
    trains_on = frozenset({"image", "mask"})
    official: ClassVar[dict[str, KeyMap]] = {
        "encoder": ENCODER,
        "generator": GENERATOR,
        "discriminator": DISCRIMINATOR,
        "discriminator_rec": DISCRIMINATOR,
    }

    def __init__(
        self,
        judge: Callable[[], nn.Module],
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        max_width: int,
        depth: int,
        latent_dim: int,
        num_refining: int,
        lambda_rec: float,
        lambda_kl: float,
        lambda_gan: float,
    ) -> None:
        super().__init__(optimizers)
        self.depth = depth
        self.lambda_rec, self.lambda_kl, self.lambda_gan = lambda_rec, lambda_kl, lambda_gan
        self.encoder = Encoder(width, max_width, depth, latent_dim, num_refining)
        self.generator = Generator(width, max_width, depth, latent_dim)
        self.discriminator, self.discriminator_rec = judge(), judge()

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), and which of their pixels are known (N, 1, H, W): the authors' masks are 1 there.

        Raises:
            ValueError: the network does not work at this size.
        """
        # The decoder normalises each image over the places of its last features, of which there are to be two.
        require_sides(batch["image"], 2**self.depth, 2)
        return batch["image"], 1 - batch["mask"]

    def paths(self, image: Tensor, keep: Tensor, noise: Noise) -> Paths:
        """Both paths, which pass the generator as one batch."""
        known, posterior = self.encoder.both(keep * image, (1 - keep) * image)
        shape = posterior.mu.shape[1:]
        z = torch.cat(
            (posterior.draw(noise.normal("posterior", *shape)), known.prior.draw(noise.normal("prior", *shape)))
        )
        features = [torch.cat((each, each)) for each in known.features]
        images = self.generator(z, features, torch.cat((keep, keep)))
        reconstructed, generated = zip(*(image.chunk(2) for image in images), strict=True)
        return Paths(list(reconstructed), list(generated), posterior, known.prior)

    def discriminator_terms(self, real: Tensor, fake: Tensor, real_rec: Tensor, fake_rec: Tensor) -> dict[str, Tensor]:
        """Each discriminator sees images and its own path's: logits (N, 1, h, w)."""
        return {
            "L_D": (least_squares_real(real) + least_squares_fake(fake)) / 2,
            "L_D_rec": (least_squares_real(real_rec) + least_squares_fake(fake_rec)) / 2,
        }

    def generator_terms(
        self, real: Tensor, keep: Tensor, made: Paths, fake: Tensor, fake_rec: Tensor, real_rec: Tensor
    ) -> dict[str, Tensor]:
        """Equations 5 to 8 of the paper, as in the code.

        Args:
            real: (N, 3, H, W).
            keep: (N, 1, H, W).
            fake: logits of the generated images.
            fake_rec, real_rec: logits of the reconstructions and of the images.
        """
        assumed = torch.zeros_like(made.posterior.mu), assumed_sigma(keep).expand_as(made.posterior.mu)
        kl = self.lambda_kl * len(made.generated)
        return {
            "KL_rec": kl * kl_between_normals(*assumed, *made.posterior),
            "KL_gen": kl * kl_between_normals(*made.posterior.detach(), *made.prior),
            "L_app_rec": self.lambda_rec * distance(made.reconstructed, real, torch.ones_like(keep)),
            "L_app_gen": self.lambda_rec * distance(made.generated, real, keep),
            "L_ad_gen": self.lambda_gan * least_squares_real(fake),
            "L_ad_rec": self.lambda_gan * in_float32(F.mse_loss)(fake_rec, real_rec),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        image, keep = self.given(batch)
        made = self.paths(image, keep, batch["noise"])
        judge, judge_rec = self.discriminator, self.discriminator_rec
        generated, reconstructed = made.generated[-1], made.reconstructed[-1]
        logits = judge(image), judge(generated.detach()), judge_rec(image), judge_rec(reconstructed.detach())
        self.minimise(["discriminator", "discriminator_rec"], self.discriminator_terms(*logits))
        with self.held(judge, judge_rec):
            terms = self.generator_terms(
                image, keep, made, judge(generated), judge_rec(reconstructed), judge_rec(image)
            )
            self.minimise(["encoder", "generator"], terms)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """Images with their known pixels untouched; every draw of a sample is another one."""
        require_mask(batch["image"], batch["mask"])
        image, keep = self.given(batch)
        known = self.encoder(keep * image)
        z = known.prior.draw(noise.normal("prior", *known.prior.mu.shape[1:]))
        return keep * image + (1 - keep) * self.generator(z, known.features, keep)[-1]
