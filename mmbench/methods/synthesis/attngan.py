"""AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks.

Tao Xu, Pengchuan Zhang, Qiuyuan Huang, Han Zhang, Zhe Gan, Xiaolei Huang, Xiaodong He. CVPR 2018.
https://arxiv.org/abs/1711.10485
Authors' code: https://github.com/taoxugit/AttnGAN/tree/0d000e652b407e976cb88fab299e8566f3de8a37. DAMSM, the stage
before (section 3.2), is in `mmbench.methods.synthesis.damsm`.

Where paper and released code differ, this is the code:
- Discriminators also learn from mismatched pairs, which equation 5 lacks (code/miscc/losses.py#L149).
- The conditioning augmentation's divergence is a term of the generator's objective (code/trainer.py#L292).

Deviations:
- An image does not depend on its batch. The authors mask words of the wrong caption when the lengths in a batch differ
  (code/GlobalAttention.py#L107 tiles the mask with the batch running fastest). Ours gives their result for a batch of
  one.
- Discriminators give logits, and the sigmoid is part of the loss.
- Smaller real images are resized from the full one with anti-aliasing, on the device.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.layers.word_attention import linear_from_convolution
from mmbench.losses.attngan import ConditionalDiscriminators, Discriminators, Guide, StagedGAN
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.networks.attngan import GENERATOR_NAMES, AttentionalGenerator, Generated, StagedGenerator
from mmbench.networks.damsm import EncodedText


class DCGANGenerator(AttentionalGenerator):
    """AttnDCGAN's: only the last stage's features become an image."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.to_rgb = self.to_rgb[-1:]


CONVERSIONS = {r".*_attention\.project\.weight": linear_from_convolution}
GENERATOR = KeyMap(rename=GENERATOR_NAMES, convert=CONVERSIONS, fill=BATCHES_TRACKED)
DCGAN_GENERATOR = KeyMap(
    rename={**GENERATOR_NAMES, r"img_net\.img\.0\.weight": "to_rgb.0.weight"},
    convert=CONVERSIONS,
    fill=BATCHES_TRACKED,
)


class AttnGAN(StagedGAN):
    """The generator and its training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size, num_sizes: as `AttentionalGenerator`.
        discriminator_width: channels after the discriminators' first convolution.
        max_words: captions longer than this keep so many of their words in training, 18 for CUB and 12 for COCO.
        max_prompt_words: the same where images are generated, 25 for CUB and 20 for COCO.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms, equation 3.
        decay: of the generator's moving average, which makes the images.
    """

    trains_on = frozenset({"image", "caption", "class_id"})
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": GENERATOR}

    def __init__(
        self,
        damsm: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        num_sizes: int,
        discriminator_width: int,
        max_words: int,
        max_prompt_words: int,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        decay: float,
    ) -> None:
        generated = width, damsm.embedding_dim, noise_dim, condition_dim, num_residual, base_size, num_sizes
        sizes = [base_size * 2**n for n in range(num_sizes)]
        super().__init__(
            optimizers,
            Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words),
            *self.networks(generated, sizes, discriminator_width),
            noise_dim,
            condition_dim,
            decay,
        )

    def networks(
        self, generated: Sequence[int], sizes: Sequence[int], width: int
    ) -> tuple[StagedGenerator, Discriminators]:
        """The generator of its arguments, and discriminators of images of `sizes`."""
        _, embedding_dim, *_ = generated
        return AttentionalGenerator(*generated), Discriminators(sizes, width, embedding_dim)

    def matching_terms(self, fake: Tensor, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """How well the largest images show their captions."""
        return self.guide.terms(fake, text, class_id)

    def generator_terms(self, output: Generated, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """The generator's objective, equation 3: to be judged real at each size, and to match the caption."""
        return {
            **self.discriminators.generator_terms(output.images, text.sentence),
            **self.matching_terms(output.images[-1], text, class_id),
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.discriminators.sizes)
        text = self.guide.captions(batch)
        output = self.drawn(self.generator, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        self.minimise("discriminators", terms)
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(output, text, batch["class_id"]))
        self.follow(self.ema, self.generator)


class AttnGANWithoutDAMSM(AttnGAN):
    """The paper's "no DAMSM", a weight of 0: captions reach the generator through the discriminators alone."""

    official: ClassVar[dict[str, KeyMap]] = {}

    def matching_terms(self, fake: Tensor, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        return {}


class AttnDCGAN(AttnGAN):
    """Attention in a plain DCGAN: one image, and one discriminator, which judges it with its caption only.

    Code/model.py#L451 (G_DCGAN) and code/trainer.py#L85.
    """

    official: ClassVar[dict[str, KeyMap]] = {"ema.average": DCGAN_GENERATOR}

    def networks(
        self, generated: Sequence[int], sizes: Sequence[int], width: int
    ) -> tuple[StagedGenerator, Discriminators]:
        _, embedding_dim, *_ = generated
        return DCGANGenerator(*generated), ConditionalDiscriminators(sizes[-1:], width, embedding_dim)
