"""ManiGAN trained directly on the edits it is asked for: a variant of ours, in no paper, for runs of minutes.

What it varies: ManiGAN, Bowen Li et al., CVPR 2020 (https://arxiv.org/abs/1912.06203), which is in `manigan.py`. On toy
birds its published recipe learns within minutes a coarse copy of the image, and hardly edits. This one edits in that
time, and its edits leak onto parts that the caption does not name. Together, and not each shown to be needed, these
changes do it:

- Most of each batch is to follow a caption of another image. In the published recipe the generator is only ever given
  an image with its own caption, so returning the image is all that its losses ask for.
- The generator's last convolution starts at zero and its output is added to the input image. The image need not be
  learned to be drawn again, and an edit is what the losses have to pay for. (A blend by a learned mask does not do: the
  discriminator closes the mask before the text can open it.)
- The image enters by its pixels at half its size, beside DAMSM's regions: regions tell parts apart, and colours and
  borders are in the pixels.
- One stage and one discriminator, for time. The discriminator's false captions are those of other images that the batch
  brings with it.

Word attention, affine combination, the perceptual and the DAMSM terms, and the matching-aware discriminator are
ManiGAN's.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import num_processes, own_of_first
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.layers.affine_combination import AffineCombination
from mmbench.layers.convolution import conv3x3
from mmbench.layers.gated_convolution import GatedConvolution, GatedResidual, ResizeBlock
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.layers.word_attention import SpatialAttention
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.attngan import Guide
from mmbench.losses.perceptual import perceptual_loss
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedText


class DirectEditor(nn.Module):
    """Image, regions and words to an edited image, in one stage at half the image's size.

    Args:
        width: channels of the image features; hidden features have twice as many.
        size: height and width of the image.
        embedding_dim: size of words and image regions.
        num_residual: residual blocks after the affine combination.
        shared_width: channels inside the affine combination.
    """

    def __init__(self, width: int, size: int, embedding_dim: int, num_residual: int, shared_width: int) -> None:
        super().__init__()
        self.pixel_path = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2), conv3x3(width, width), nn.LeakyReLU(0.2)
        )
        self.region_path = ResizeBlock(embedding_dim, width, size // 2)
        self.join = nn.Sequential(GatedConvolution(2 * width, width), GatedResidual(width))
        self.spatial_attention = SpatialAttention(width, embedding_dim)
        self.affine_combination = AffineCombination(2 * width, width, shared_width)
        self.residual = nn.Sequential(*(GatedResidual(2 * width) for _ in range(num_residual)))
        self.to_change = conv3x3(2 * width, 3)
        initialise_orthogonally(self)
        nn.init.zeros_(self.to_change.weight)

    def forward(self, image: Tensor, regions: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """The image and what changes of it.

        Args:
            image: (N, 3, size, size) in [-1, 1].
            regions: (N, embedding_dim, h, w), the image's regions.
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.

        Returns:
            (N, 3, size, size), not confined to [-1, 1], so that a gradient comes back from everywhere.
        """
        pixels = self.pixel_path(image)  # (N, width, size / 2, size / 2)
        hidden = self.join(torch.cat((pixels, self.region_path(regions)), dim=1))
        context, _ = self.spatial_attention(hidden, words, word_mask[:, None])
        fused = self.affine_combination(torch.cat((hidden, context), dim=1), pixels)
        change = self.to_change(self.residual(fused))  # (N, 3, size / 2, size / 2)
        # Drawn at half the size: finer changes are patterns that please the losses and no eye.
        return image + F.interpolate(change, scale_factor=2, mode="bilinear")


class ManiGANDirect(Adversarial):
    """The editor and its training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
        optimizers: partials for `generator` and `discriminator`.
        width, num_residual, shared_width: as `DirectEditor`.
        image_size: height and width of the images.
        discriminator_width: channels after the discriminator's first convolution.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms.
        lambda_perceptual: weight of the perceptual term.
        own_share: share of a batch that is given with its own captions, one image at least.
        decay: of the generator's moving average, which makes the images.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
    smallest_batch = 2  # one image follows its own caption, one another's

    def __init__(
        self,
        damsm: nn.Module,
        perceptual: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        image_size: int,
        num_residual: int,
        shared_width: int,
        discriminator_width: int,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        lambda_perceptual: float,
        own_share: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.guide = Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm)
        self.perceptual = perceptual
        self.lambda_perceptual = lambda_perceptual
        self.own_share = own_share
        self.generator = DirectEditor(width, image_size, damsm.embedding_dim, num_residual, shared_width)
        self.discriminator = Discriminator(image_size, discriminator_width, damsm.embedding_dim)
        initialise_orthogonally(self.discriminator)
        self.ema = EMA(self.generator, decay)

    def discriminator_terms(
        self, real: Tensor, fake: Tensor, text: EncodedText, mismatched: EncodedText, prompt: EncodedText
    ) -> dict[str, Tensor]:
        """Real images alone, with their own and with others' captions; generated ones alone and with their prompts."""
        judge = self.discriminator
        real_features, fake_features = judge(real), judge(fake.detach())
        loss = matching_aware_discriminator(
            real=judge.unconditional(real_features),
            real_matched=judge.conditional(real_features, text.sentence),
            real_mismatched=judge.conditional(real_features, mismatched.sentence),
            fake=judge.unconditional(fake_features),
            fake_matched=judge.conditional(fake_features, prompt.sentence),
        )
        return {"L_D": loss}

    def generator_terms(self, real: Tensor, fake: Tensor, prompt: EncodedText) -> dict[str, Tensor]:
        """The generator's objective on images edited to follow `prompt`."""
        return {
            "L_G": matching_aware_generator(*self.discriminator.judge(fake, prompt.sentence)),
            # Without classes: a caption of another image has none among the images of the batch.
            **self.guide.terms(fake, prompt, class_id=None),
            "L_per": self.lambda_perceptual * perceptual_loss(self.perceptual, fake, real),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch["image"]
        num_own = own_of_first(max(1, round(self.own_share * len(real) * num_processes())))
        text, mismatched = self.guide.captions(batch), self.guide.mismatched(batch)
        prompt = first_of(text, mismatched, num_own)
        fake = self.generator(real, self.guide.images(real).regions, prompt.words, prompt.word_mask)
        self.minimise("discriminator", self.discriminator_terms(real, fake, text, mismatched, prompt))
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(real, fake, prompt))
        self.follow(self.ema, self.generator)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        seen, text = self.guide.images(batch["image"]), self.guide.prompts(batch[self.task.prompt])
        return self.ema(batch["image"], seen.regions, text.words, text.word_mask).clamp(-1, 1)


def first_of(one: EncodedText, other: EncodedText, count: int) -> EncodedText:
    """The first `count` captions of one batch and the rest of another, the shorter padded to the longer."""
    length = max(one.words.shape[1], other.words.shape[1])
    words, mask, sentence = (
        torch.cat((a[:count], b[count:]))
        for a, b in zip(_lengthened(one, length), _lengthened(other, length), strict=True)
    )
    return EncodedText(words, mask, sentence)


def _lengthened(text: EncodedText, length: int) -> EncodedText:
    missing = length - text.words.shape[1]
    return EncodedText(F.pad(text.words, (0, 0, 0, missing)), F.pad(text.word_mask, (0, missing)), text.sentence)
