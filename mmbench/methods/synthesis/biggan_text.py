"""Text-conditioned BigGAN: Large Scale GAN Training for High Fidelity Natural Image Synthesis, given sentences.

Andrew Brock, Jeff Donahue, Karen Simonyan. ICLR 2019. https://arxiv.org/abs/1809.11096

No reference to compare with: BigGAN is given classes, and no released code is known that gives it sentences. The
networks are `mmbench.networks.biggan`, equal to the authors'; this file follows, equation by equation:
- the hinge loss that the paper trains by (Lim and Ye, https://arxiv.org/abs/1705.02894, equations 3 and 4), as the
  authors' code has it;
- the projection discriminator (Miyato and Koyama, https://arxiv.org/abs/1802.05637, equation 3), of which a linear
  function of the sentence takes the place of the class's row: y V with y a sentence embedding and not one of many;
- the embedding that all stages share (appendix B), a linear function of the sentence likewise;
- orthogonal regularisation of the generator, off the diagonal (equation 3), but for that shared embedding.

What is ours to say:
- Sentences are DAMSM's. Real and generated images of a step have the same ones, and no image is shown with a false one.
- Learning rates and one step of the discriminator for each of the generator are those of the authors' code; batches are
  of 32 where they are of 2,048. The average begins at once.
- The average has the generator's batch statistics, in the place of standing ones.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.layers.initialisation import initialise_weights_orthogonally
from mmbench.layers.spectral_norm import SpectralLinear
from mmbench.losses.adversarial import hinge_fake, hinge_real
from mmbench.losses.penalties import off_diagonal_penalty
from mmbench.networks.biggan import Discriminator, Generator
from mmbench.networks.sentences import Sentences


class BigGANText(SentenceToImage):
    """The generator and its training.

    Args:
        damsm: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminator`.
        image_size: height and width of images, 32, 64, 128 or 256.
        width: what channels of both networks are multiples of.
        latent_dim: size of the noise, a multiple of the number of stages and one.
        shared_dim: size of the embedding that all stages share.
        attention_size: size of the features that attend to themselves, in both networks.
        max_words: captions longer than this keep so many of their words.
        sentence_scale: what sentence embeddings are multiplied by, 1 as published.
        lambda_orthogonal: weight of orthogonal regularisation.
        decay: of the generator's moving average, which makes the images.
    """

    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        damsm: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        image_size: int,
        width: int,
        latent_dim: int,
        shared_dim: int,
        attention_size: int,
        max_words: int,
        sentence_scale: float,
        lambda_orthogonal: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.sentences = Sentences(damsm, max_words, sentence_scale)
        self.latent_dim, self.lambda_orthogonal = latent_dim, lambda_orthogonal
        embed = nn.Linear(self.sentences.dim, shared_dim, bias=False)
        self.generator = Generator(image_size, width, latent_dim, embed, shared_dim, attention_size)
        projected = partial(SpectralLinear, self.sentences.dim, bias=False)
        self.discriminator = Discriminator(image_size, width, attention_size, projected)
        initialise_weights_orthogonally(self.generator)
        initialise_weights_orthogonally(self.discriminator)
        self.ema = EMA(self.generator, decay)

    def discriminator_terms(self, real: Tensor, fake: Tensor, y_real: Tensor, y_fake: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) and what they are given with; both kinds go through the discriminator at once."""
        logits = self.discriminator(torch.cat((fake, real)), torch.cat((y_fake, y_real)))
        fake_logits, real_logits = logits.split([len(fake), len(real)])
        return {"L_D_real": hinge_real(real_logits), "L_D_fake": hinge_fake(fake_logits)}

    def generator_terms(self, fake: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Generated images (N, 3, H, W) are to be judged to be what they were given with."""
        return {"L_G": -self.discriminator(fake, y).mean()}

    def orthogonal_terms(self) -> dict[str, Tensor]:
        """Equation 3, of every matrix of the generator but the shared embedding."""
        matrices = [
            parameter
            for name, parameter in self.generator.named_parameters()
            if parameter.dim() > 1 and not name.startswith("embed.")
        ]
        return {"L_orthogonal": self.lambda_orthogonal * sum(map(off_diagonal_penalty, matrices))}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        sentence, noise = self.sentences.captions(batch), batch["noise"]
        with torch.no_grad():
            fake = self.generator(noise.normal("z of the discriminator", self.latent_dim), sentence)
        self.minimise("discriminator", self.discriminator_terms(batch["image"], fake, sentence, sentence))
        with self.held(self.discriminator):
            fake = self.generator(noise.normal("z of the generator", self.latent_dim), sentence)
            self.minimise("generator", {**self.generator_terms(fake, sentence), **self.orthogonal_terms()})
        self.follow(self.ema, self.generator)

    def encoded(self, texts: list[str]) -> Tensor:
        return self.sentences.prompts(texts)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.ema(noise.normal("z", self.latent_dim), sentence)
