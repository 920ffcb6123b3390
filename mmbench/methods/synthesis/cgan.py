"""Conditional Generative Adversarial Nets, on the embedding of a sentence.

Mehdi Mirza, Simon Osindero. 2014. https://arxiv.org/abs/1411.1784, section 4.1. No code was published with the paper;
there is no reference to compare with.

Noise and condition pass a layer each, and one together, before an image is made of them or judged; nothing is a
convolution.

Deviations:
- The condition is a sentence where the paper has one of ten digits, and images have colours and 64 x 64 pixels where
  theirs are grey and have 28 x 28.
- The generator minimises -log D(G(z|y)), as the paper that theirs follows advises (https://arxiv.org/abs/1406.2661,
  section 3), not log(1 - D(G(z|y))) of equation 2, whose gradient fades as the discriminator learns.
- Optimised by Adam; by the paper's stochastic gradient descent at a rate of 0.1 images of this size do not start.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.images import require_size
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real


class Rectified(nn.Sequential):
    """A linear layer (N, in_dim) to (N, out_dim), rectified, some of it dropped in training."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__(nn.Linear(in_dim, out_dim), nn.ReLU(), nn.Dropout(dropout))


class Maxout(nn.Module):
    """The largest of several linear maps, unit by unit (https://arxiv.org/abs/1302.4389), some dropped in training.

    Args:
        in_dim: of the input.
        num_units: of the output.
        num_pieces: linear maps of each unit.
        dropout: share of units.
    """

    def __init__(self, in_dim: int, num_units: int, num_pieces: int, dropout: float) -> None:
        super().__init__()
        self.maps = nn.Linear(in_dim, num_units * num_pieces)
        self.num_pieces = num_pieces
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) to (N, num_units)."""
        return self.dropout(self.maps(x).unflatten(1, (-1, self.num_pieces)).amax(dim=2))


class Generator(nn.Module):
    """Noise and a sentence to an image.

    Args:
        embedding_dim: of sentences.
        noise_dim: 100.
        widths: of the layer of noise, that of the sentence and that of both: (200, 1000, 1200).
        image_size: height and width of the images.
        dropout: share of units, 0.5.
    """

    def __init__(
        self, embedding_dim: int, noise_dim: int, widths: tuple[int, int, int], image_size: int, dropout: float
    ) -> None:
        super().__init__()
        of_noise, of_sentence, of_both = widths
        self.from_noise = Rectified(noise_dim, of_noise, dropout)
        self.from_sentence = Rectified(embedding_dim, of_sentence, dropout)
        self.join = Rectified(of_noise + of_sentence, of_both, dropout)
        self.to_rgb = nn.Linear(of_both, 3 * image_size**2)
        self.image_size = image_size

    def forward(self, sentence: Tensor, noise: Tensor) -> Tensor:
        """Sentences (N, embedding_dim) and noise (N, noise_dim), uniform in [0, 1), to (N, 3, H, W) in [-1, 1]."""
        hidden = self.join(torch.cat((self.from_noise(noise), self.from_sentence(sentence)), dim=1))
        return 2 * self.to_rgb(hidden).sigmoid().unflatten(1, (3, self.image_size, self.image_size)) - 1


class Discriminator(nn.Module):
    """Judges images together with sentences.

    Args:
        embedding_dim, image_size, dropout: as of `Generator`.
        units: of the layer of images, that of sentences and that of both: (240, 50, 240).
        pieces: linear maps of each of their units: (5, 5, 4).
    """

    def __init__(
        self,
        embedding_dim: int,
        image_size: int,
        units: tuple[int, int, int],
        pieces: tuple[int, int, int],
        dropout: float,
    ) -> None:
        super().__init__()
        of_image, of_sentence, of_both = units
        self.from_image = Maxout(3 * image_size**2, of_image, pieces[0], dropout)
        self.from_sentence = Maxout(embedding_dim, of_sentence, pieces[1], dropout)
        self.join = Maxout(of_image + of_sentence, of_both, pieces[2], dropout)
        self.to_logit = nn.Linear(of_both, 1)

    def forward(self, image: Tensor, sentence: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] and sentences (N, embedding_dim) to logits (N,)."""
        hidden = torch.cat((self.from_image(image.flatten(1)), self.from_sentence(sentence)), dim=1)
        return self.to_logit(self.join(hidden)).flatten()


class CGAN(SentenceToImage):
    """The generator and its training against a discriminator that is told the same sentence.

    Args:
        text_encoder: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminator`.
        noise_dim, widths, image_size, dropout: as of `Generator`.
        units, pieces: as of `Discriminator`.
    """

    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        text_encoder: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        noise_dim: int,
        widths: tuple[int, int, int],
        image_size: int,
        units: tuple[int, int, int],
        pieces: tuple[int, int, int],
        dropout: float,
    ) -> None:
        super().__init__(optimizers)
        embedding_dim: int = text_encoder.embedding_dim
        self.text_encoder = Frozen(text_encoder)
        self.noise_dim, self.image_size = noise_dim, image_size
        self.generator = Generator(embedding_dim, noise_dim, widths, image_size, dropout)
        self.discriminator = Discriminator(embedding_dim, image_size, units, pieces, dropout)

    def discriminator_terms(self, real: Tensor, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Equation 2, by the discriminator."""
        return {
            "L_D_real": cross_entropy_real(self.discriminator(real, sentence)),
            "L_D_fake": cross_entropy_fake(self.discriminator(fake, sentence)),
        }

    def generator_terms(self, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Equation 2, by the generator."""
        return {"L_G": cross_entropy_real(self.discriminator(fake, sentence))}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch["image"]
        require_size(real, self.image_size, "cgan")
        sentence = self.encoded(batch["caption"])
        fake = self.images(sentence, batch["noise"])
        self.minimise("discriminator", self.discriminator_terms(real, fake.detach(), sentence))
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(fake, sentence))

    def encoded(self, texts: list[str]) -> Tensor:
        return self.text_encoder.network.encode_text(texts)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.generator(sentence, noise.uniform("z", self.noise_dim))
