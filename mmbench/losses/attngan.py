"""What AttnGAN and its descendants train a generator by: discriminators of several image sizes, and DAMSM as a guide.

Tao Xu et al. AttnGAN. CVPR 2018. https://arxiv.org/abs/1711.10485. The networks are in `mmbench.networks.attngan` and
`mmbench.networks.damsm`, the functions in `mmbench.losses.adversarial` and `mmbench.losses.matching`; equations are
those of this paper.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.method import Batch
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.matching import sentence_loss, word_level_term, words_loss
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText


class Discriminators(nn.ModuleList):
    """One discriminator for each size of image, and the adversarial part of both sides' objectives.

    Args:
        sizes: heights, which are widths, of the images.
        width, embedding_dim: as `Discriminator`.
    """

    def __init__(self, sizes: Sequence[int], width: int, embedding_dim: int) -> None:
        super().__init__(Discriminator(size, width, embedding_dim) for size in sizes)
        self.sizes = tuple(sizes)

    def discriminator_terms(
        self, real: Sequence[Tensor], fake: Sequence[Tensor], sentence: Tensor
    ) -> dict[str, Tensor]:
        """Images alone, and with their sentences (N, D); `real` and `fake` are (N, 3, s, s), one for each size."""
        return {
            # Equation 5, with mismatched pairs, which the code adds to it.
            f"L_D{size}": matching_aware_discriminator(*discriminator.judge_pairs(*images, sentence))
            for size, discriminator, *images in zip(self.sizes, self, real, fake, strict=True)
        }

    def generator_terms(self, fake: Sequence[Tensor], sentence: Tensor) -> dict[str, Tensor]:
        """Generated images (N, 3, s, s), one for each size, are to be judged real, alone and with their sentences."""
        return {
            f"L_G{size}": matching_aware_generator(*discriminator.judge(images, sentence))  # equation 4
            for size, discriminator, images in zip(self.sizes, self, fake, strict=True)
        }


class Guide(Frozen):
    """A trained DAMSM, which encodes what a generator is given and says how well its images show their captions.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of its terms.
        max_words: captions longer than this keep so many of their words in training; None: as in its own.
        max_prompt_words: the same of the texts that images are made from.
    """

    def __init__(
        self,
        damsm: nn.Module,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        max_words: int | None = None,
        max_prompt_words: int | None = None,
    ) -> None:
        super().__init__(damsm)
        self.gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}
        self.lambda_damsm = lambda_damsm
        self.max_words, self.max_prompt_words = max_words, max_prompt_words

    def captions(self, batch: Batch) -> EncodedText:
        """The images' own captions, in a training step."""
        return self.network.encode_text(batch["caption"], batch["noise"].streams("words"), self.max_words)

    def mismatched(self, batch: Batch) -> EncodedText:
        """The captions of other images, in a training step."""
        streams = batch["noise"].streams("mismatched words")
        return self.network.encode_text(batch["caption_mismatched"], streams, self.max_words)

    def prompts(self, texts: list[str]) -> EncodedText:
        """N texts that images are to be made from."""
        return self.network.encode_text(texts, max_words=self.max_prompt_words)

    def images(self, image: Tensor) -> EncodedImage:
        """Images (N, 3, H, W) in [-1, 1]."""
        return self.network.image_encoder(image)

    def terms(self, fake: Tensor, text: EncodedText, class_id: Tensor | None) -> dict[str, Tensor]:
        """How well generated images (N, 3, H, W) show their captions: a part of the generator's objective.

        Args:
            fake, text: the images and the captions that they are to show.
            class_id: (N,), other images of the same class are no negatives; None: every other image is one.
        """
        seen = self.images(fake)
        words = words_loss(seen.regions, text.words, text.word_mask, class_id, **self.gammas)
        sentence = sentence_loss(seen.code, text.sentence, class_id, self.gammas["gamma3"])
        return {  # equations 3 and 14
            "DAMSM_words": self.lambda_damsm * sum(words),
            "DAMSM_sentence": self.lambda_damsm * sum(sentence),
        }

    def word_level_term(self, batch: Batch, seen: EncodedImage, text: EncodedText) -> Tensor:
        """`matching.word_level_term` of a batch's encoded images and captions."""
        return word_level_term(seen, text, self.mismatched(batch), self.gammas["gamma1"], self.gammas["gamma2"])
