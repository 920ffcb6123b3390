"""SEGAN: Semantics-Enhanced Adversarial Nets for Text-to-Image Synthesis.

Hongchen Tan, Xiuping Liu, Xin Li, Yi Zhang, Baocai Yin. ICCV 2019. https://doi.org/10.1109/ICCV.2019.01060

No reference to compare with: the authors announced code and released none. Nor could the paper itself be had; what
stands here follows its abstract and section A of its supplement, and what neither says is ours, at AttnGAN's values
where AttnGAN has one:
- From the supplement: AttnGAN, whose L_DAMSM becomes L_ACM = L_DAMSM + lambda_1 L_c (equation 2), with the attention
  regularisation L_c = sum_ij min(r_ij, alpha)^2 (page 3; the threshold alpha is in its words, and lost from the formula
  in the copy that was read). Weights of words that matter grow beyond alpha and are kept; others shrink to zero.
- From the abstract: a Siamese network brings the generated image and the real one near each other in a space of
  semantic features, by two kinds of semantic similarity.

Ours, since the equations were not found:
- r_ij are the generator's attention weights, of every stage, whose maps the supplement seems to show; it can be read as
  of DAMSM's too, whose loss is said to raise those of words that matter. The sum is over words and positions, the mean
  over images.
- alpha, lambda_1, the weight of the Siamese term and its margin.
- The Siamese network is DAMSM's image encoder, frozen, which has a space of semantic features already; its two kinds
  of similarity are those of a generated image with the real one of the same caption and with another class's, and
  pull and push by the contrastive loss of Siamese networks (Hadsell et al., CVPR 2006, equation 4). Surveys tell of a
  "sliding loss" that weighs hard pairs more than easy ones, without its equation: every pair weighs the same here.
- Discriminators, conditioning augmentation and schedule are AttnGAN's, as its code has them.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vector_norm

from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.losses.attngan import Discriminators, Guide, StagedGAN
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import row_before
from mmbench.losses.precision import in_float32
from mmbench.networks.attngan import AttentionalGenerator, Generated
from mmbench.networks.damsm import EncodedText


@in_float32
def attention_regularisation(attention: Tensor, threshold: float) -> Tensor:
    """L_c of the supplement, averaged over images: the squares of weights, none counting for more than the threshold.

    Weights beyond it are left to themselves; since those of a position sum to 1, they take what the others lose.

    Args:
        attention: (N, L, h, w) in [0, 1], 0 at padding.
        threshold: alpha.
    """
    return attention.clamp(max=threshold).square().sum(dim=(1, 2, 3)).mean()


@in_float32
def semantic_consistency(fake: Tensor, real: Tensor, class_id: Tensor, margin: float) -> Tensor:
    """Squared distance of each generated image from its real one, and of what a wrong one's lacks of the margin.

    Hadsell et al., CVPR 2006, equation 4, without its halves. The wrong one is that of the row before; where it is of
    the same class, the two may be alike.

    Args:
        fake: (N, D), generated images; only their direction counts.
        real: (N, D), the real ones of the same captions.
        class_id: (N,).
        margin: between 0 and 2, how far those of different classes are to be apart.
    """
    fake, real = F.normalize(fake), F.normalize(real)
    pulled = (fake - real).square().sum(dim=1)
    lacking = F.relu(margin - vector_norm(fake - row_before(real), dim=1))
    pushed = lacking.square() * (class_id != row_before(class_id))
    return (pulled + pushed).mean()


class SEGAN(StagedGAN):
    """The generator and its training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size, num_sizes: as `AttentionalGenerator`.
        discriminator_width: channels after the discriminators' first convolution.
        max_words: captions longer than this keep so many of their words in training.
        max_prompt_words: the same where images are generated.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_acm: weight of L_ACM.
        lambda_attention: lambda_1, the weight of L_c within it.
        threshold: alpha, the attention beyond which a word is kept.
        lambda_scm: weight of the semantic consistency.
        margin: as `semantic_consistency`.
        decay: of the generator's moving average, which makes the images.
    """

    trains_on = frozenset({"image", "caption", "class_id"})

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
        lambda_acm: float,
        lambda_attention: float,
        threshold: float,
        lambda_scm: float,
        margin: float,
        decay: float,
    ) -> None:
        embedding_dim, sizes = damsm.embedding_dim, [base_size * 2**n for n in range(num_sizes)]
        super().__init__(
            optimizers,
            Guide(damsm, gamma1, gamma2, gamma3, lambda_acm, max_words, max_prompt_words),
            AttentionalGenerator(width, embedding_dim, noise_dim, condition_dim, num_residual, base_size, num_sizes),
            Discriminators(sizes, discriminator_width, embedding_dim),
            noise_dim,
            condition_dim,
            decay,
        )
        self.lambda_attention, self.threshold = lambda_acm * lambda_attention, threshold
        self.lambda_scm, self.margin = lambda_scm, margin

    def generator_terms(
        self, output: Generated, text: EncodedText, real: Tensor, class_id: Tensor
    ) -> dict[str, Tensor]:
        """The generator's objective: AttnGAN's, attention that decides between words, and the real image's meaning."""
        seen = self.guide.images(output.images[-1])
        with torch.no_grad():
            meant = self.guide.images(real)
        competition = sum(attention_regularisation(attention, self.threshold) for attention in output.attention)
        return {
            **self.discriminators.generator_terms(output.images, text.sentence),
            **self.guide.terms_of(seen, text, class_id),  # L_DAMSM of equation 2
            "L_c": self.lambda_attention * competition,
            "L_SCM": self.lambda_scm * semantic_consistency(seen.code, meant.code, class_id, self.margin),
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.discriminators.sizes)
        text = self.guide.captions(batch)
        output = self.drawn(self.generator, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        self.minimise("discriminators", terms)
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(output, text, real[-1], batch["class_id"]))
        self.follow(self.ema, self.generator)
