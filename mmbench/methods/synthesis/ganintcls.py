"""Generative Adversarial Text to Image Synthesis: GAN-CLS, GAN-INT and both, GAN-INT-CLS.

Scott Reed, Zeynep Akata, Xinchen Yan, Lajanugen Logeswaran, Bernt Schiele, Honglak Lee. ICML 2016.
https://arxiv.org/abs/1605.05396
Authors' code: https://github.com/reedscot/icml2016/tree/db3f0c6d7c9ef3ef138cb15bf36592c7e19eb9a0, in Lua.
`GANCLSFeatures` has the networks and terms of its rewriting in PyTorch:
https://github.com/aelnouby/Text-to-Image-Synthesis/tree/f6d47e4da06defa974390ce813f734dbee75c885. Its discriminator's
logit is one of the image and one of the text, added up: whether they match, such a sum cannot say, and its generator is
taught no more of a text than which pictures go with texts on the whole.

Where paper and authors' code differ, this is the code:
- A caption is the mean of the embeddings of several captions of an image, and a mismatched pair is a caption with the
  image of another class, not the other way round.
- The discriminator has no residual block: the code released with the paper builds one and leaves it out (`skipD` at
  4f57c3b of June 2016). What is cited above has it since ed4e6d0 of October 2016, after the paper's numbers.

Deviations:
- Their generator's objective is a weighted mean over captions and interpolated captions; ours adds two means up, the
  same but for a factor that Adam does not see.
- Pictures keep their aspect and are cut; theirs are squashed.
- Linear maps start as convolutions do (deviation 0.02), not as Torch starts them, which is 0.018 where a sentence has
  1,024 numbers, and more where it has fewer. Batch normalisation follows the discriminator's, and not the generator's.
- The discriminator gives logits, and the sigmoid is part of the loss.
- Learning rates are halved after 100 epochs and so on; theirs before the last of each hundred.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.images import require_size
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import averaged, batch_mean, gathered, own
from mmbench.core.schedules import halved, set_learning_rates
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import BATCHES_TRACKED, ConvNorm
from mmbench.layers.initialisation import initialise_normally
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.precision import in_float32

SIZE = 64  # of the images: the discriminator's last convolution covers 4x4, a sixteenth of it


class ProjectedText(nn.Sequential):
    """A sentence embedding (N, embedding_dim) in few numbers (N, text_dim), normalised."""

    def __init__(self, embedding_dim: int, text_dim: int) -> None:
        super().__init__(nn.Linear(embedding_dim, text_dim), nn.BatchNorm1d(text_dim), nn.LeakyReLU(0.2))


class Refined(nn.Module):
    """Features (N, channels, H, W) and what a narrow block makes of them, added up and rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 4
        self.block = nn.Sequential(
            ConvNorm(channels, narrow, kernel=1, activation=nn.ReLU()),
            ConvNorm(narrow, narrow, activation=nn.ReLU()),
            ConvNorm(narrow, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.block(x)).relu()


class Deconvolution(nn.Sequential):
    """A transposed 4x4 convolution, which makes 4x4 of one place or doubles the size, normalised and rectified."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, refined: bool = False) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, 4, stride, padding=stride // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            Refined(out_channels) if refined else nn.ReLU(),
        )


class Generator(nn.Module):
    """DCGAN's generator, which is given a sentence beside the noise; features of 4 and 8 pixels are refined.

    Args:
        embedding_dim: of sentences, 1024.
        text_dim: of the numbers that a sentence is brought to, 128.
        noise_dim: 100.
        width: channels of the last hidden features, 128; the first have eight times as many.
    """

    refined = True

    def __init__(self, embedding_dim: int, text_dim: int, noise_dim: int, width: int) -> None:
        super().__init__()
        self.project = self.projected(embedding_dim, text_dim)
        self.decoder = nn.Sequential(
            Deconvolution(text_dim + noise_dim, 8 * width, stride=1, refined=self.refined),
            Deconvolution(8 * width, 4 * width, refined=self.refined),
            *(Deconvolution(2 * n * width, n * width) for n in (2, 1)),
        )
        self.to_rgb = nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1, bias=False)

    def projected(self, embedding_dim: int, text_dim: int) -> nn.Module:
        """What brings a sentence to its numbers."""
        return nn.Sequential(nn.Linear(embedding_dim, text_dim), nn.LeakyReLU(0.2))

    def forward(self, sentence: Tensor, noise: Tensor) -> Tensor:
        """Sentences (N, embedding_dim) and noise (N, noise_dim), standard normal, to (N, 3, 64, 64) in [-1, 1]."""
        hidden = torch.cat((self.project(sentence), noise), dim=1)[:, :, None, None]
        return self.to_rgb(self.decoder(hidden)).tanh()


class RewrittenGenerator(Generator):
    """The rewriting's: nothing is refined, and the sentence's numbers are normalised. Its width is 64."""

    refined = False

    def projected(self, embedding_dim: int, text_dim: int) -> nn.Module:
        return ProjectedText(embedding_dim, text_dim)


class Discriminator(nn.Module):
    """Judges images of 64 x 64 pixels together with sentences.

    Args:
        embedding_dim, text_dim: as of `Generator`.
        width: channels after the first convolution, 64; features have eight times as many.
    """

    # The authors go from the third convolution to the fourth without a kink.
    rectified = (True, False, True)

    def __init__(self, embedding_dim: int, text_dim: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, 2, 1, bias=False)
        self.halvings = nn.ModuleList(ConvNorm(n * width, 2 * n * width, kernel=4, stride=2) for n in (1, 2, 4))
        self.project = ProjectedText(embedding_dim, text_dim)
        self.judge(8 * width + text_dim, 8 * width)

    def judge(self, both: int, channels: int) -> None:
        """Makes what looks at features and text together, and then says a logit."""
        self.joint: nn.Module = ConvNorm(both, channels, kernel=1, activation=nn.LeakyReLU(0.2))
        self.to_logit = nn.Conv2d(channels, 1, 4, bias=False)

    def features(self, image: Tensor) -> Tensor:
        """(N, 3, 64, 64) in [-1, 1] to (N, 8 * width, 4, 4)."""
        hidden = F.leaky_relu(self.first(image), 0.2)
        for halving, rectified in zip(self.halvings, self.rectified, strict=True):
            hidden = halving(hidden)
            if rectified:
                hidden = F.leaky_relu(hidden, 0.2)
        return hidden

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Features (N, 8 * width, 4, 4) and sentences (N, embedding_dim) to logits (N,)."""
        text = self.project(sentence)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return self.to_logit(self.joint(torch.cat((features, text), dim=1))).flatten()


class RewrittenDiscriminator(Discriminator):
    """The rewriting's: the logit is a linear function of features and text side by side, a sum of one of each."""

    rectified = (True, True, True)

    def judge(self, both: int, channels: int) -> None:
        self.joint = nn.Identity()
        self.to_logit = nn.Conv2d(both, 1, 4, bias=False)


def _pairs(theirs: str, places: Sequence[int], ours: str) -> dict[str, str]:
    """Places of convolutions in a list, each before its normalisation, to the names of our pairs of both."""
    return {rf"{theirs}\.{place + k}\.(.*)": rf"{ours}.{n}.{k}.\1" for n, place in enumerate(places) for k in (0, 1)}


GENERATOR = KeyMap(
    rename={
        r"projection\.(.*)": r"project.\1",
        **_pairs("netG", (0, 3, 6, 9), "decoder"),
        r"netG\.12\.weight": "to_rgb.weight",
    },
    fill=BATCHES_TRACKED,
)
DISCRIMINATOR = KeyMap(
    rename={
        r"netD_1\.0\.weight": "first.weight",
        **_pairs("netD_1", (2, 5, 8), "halvings"),
        r"projector\.projection\.(.*)": r"project.\1",
        r"netD_2\.0\.weight": "to_logit.weight",
    },
    fill=BATCHES_TRACKED,
)


def interpolated(sentence: Tensor) -> Tensor:
    """Half way between sentences of the first half of (N, D) and those of the second: (N // 2, D).

    Where a batch is divided among processes, halves are those of the whole batch, and each has its part of the results.
    """
    whole = gathered(sentence)
    half = len(whole) // 2
    return own((whole[:half] + whole[half : 2 * half]) / 2)


class GANINTCLS(SentenceToImage):
    """The generator and its training against a discriminator that also sees real images with wrong captions.

    A term whose weight is 0 is left out: GAN-CLS has no interpolation, GAN-INT no wrong captions.

    Args:
        text_encoder: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminator`.
        text_dim, noise_dim, width: as of `Generator`.
        discriminator_width: as of `Discriminator`.
        num_captions: of each image, drawn in training; a sentence is the mean of their embeddings.
        lambda_mismatched, lambda_fake: weights of the discriminator's two negative terms.
        lambda_interpolated: weight of the generator's term of interpolated sentences.
        halving_epochs: after so many epochs, and again, learning rates are halved.
    """

    generator_type: ClassVar[type[Generator]] = Generator
    discriminator_type: ClassVar[type[Discriminator]] = Discriminator
    trains_on = frozenset({"image", "captions", "image_mismatched"})
    smallest_batch = 2  # whose sentences are normalised, and interpolated

    def __init__(
        self,
        text_encoder: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        text_dim: int,
        noise_dim: int,
        width: int,
        discriminator_width: int,
        num_captions: int,
        lambda_mismatched: float,
        lambda_fake: float,
        lambda_interpolated: float,
        halving_epochs: int,
    ) -> None:
        super().__init__(optimizers)
        self.text_encoder = Frozen(text_encoder)
        self.noise_dim, self.num_captions = noise_dim, num_captions
        self.lambda_mismatched, self.lambda_fake = lambda_mismatched, lambda_fake
        self.lambda_interpolated = lambda_interpolated
        self.halving_epochs = halving_epochs
        self.generator = self.generator_type(text_encoder.embedding_dim, text_dim, noise_dim, width)
        self.discriminator = self.discriminator_type(text_encoder.embedding_dim, text_dim, discriminator_width)
        initialise_normally(self.generator)
        initialise_normally(self.discriminator)

    def judged(self, image: Tensor, sentence: Tensor) -> Tensor:
        """Logits (N,) of images (N, 3, 64, 64) with sentences (N, embedding_dim)."""
        return self.discriminator(self.discriminator.features(image), sentence)

    def sentences(self, batch: Batch) -> Tensor:
        """Of each image, the mean of the embeddings of captions drawn from its own: (N, embedding_dim)."""
        drawn = []
        for captions, stream in zip(batch["captions"], batch["noise"].streams("captions"), strict=True):
            drawn += [captions[place] for place in stream.integers(len(captions), size=self.num_captions)]
        return self.encoded(drawn).unflatten(0, (-1, self.num_captions)).mean(dim=1)

    def discriminator_terms(self, real: Tensor, wrong: Tensor, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Images of sentences are told from images of another class, and from generated ones (algorithm 1)."""
        terms = {"L_D_real": self.real_term(self.judged(real, sentence))}
        if self.lambda_mismatched:
            terms["L_D_mismatched"] = self.lambda_mismatched * cross_entropy_fake(self.judged(wrong, sentence))
        terms["L_D_fake"] = self.lambda_fake * cross_entropy_fake(self.judged(fake, sentence))
        return terms

    def real_term(self, logits: Tensor) -> Tensor:
        """What the discriminator minimises of real images with their sentences, by logits (N,)."""
        return cross_entropy_real(logits)

    def generator_terms(self, batch: Batch, sentence: Tensor) -> dict[str, Tensor]:
        """Generated images are to be taken for real ones of their sentences, interpolated ones among them."""
        if not self.lambda_interpolated:
            return {"L_G": cross_entropy_real(self.judged(self.drawn(sentence, batch["noise"]), sentence))}
        count = len(sentence)
        sentence = torch.cat((sentence, interpolated(sentence)))
        noise = torch.cat([batch["noise"].normal(name, self.noise_dim) for name in ("z", "z interpolated")])
        logits = self.judged(self.generator(sentence, noise[: len(sentence)]), sentence)
        return {
            "L_G": cross_entropy_real(logits[:count]),
            # Equation 5; processes that share a batch can have one more or less of them.
            "L_G_interpolated": self.lambda_interpolated * averaged(in_float32(F.softplus)(-logits[count:])),
        }

    def drawn(self, sentence: Tensor, noise: Noise, name: str = "z") -> Tensor:
        """Images (N, 3, 64, 64) of sentences, from the noise of that name."""
        return self.generator(sentence, noise.normal(name, self.noise_dim))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        require_size(batch["image"], SIZE, "GAN-INT-CLS")
        sentence = self.sentences(batch)
        with torch.no_grad():
            fake = self.drawn(sentence, batch["noise"], "z shown")
        terms = self.discriminator_terms(batch["image"], batch["image_mismatched"], fake, sentence)
        self.minimise("discriminator", terms)
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(batch, sentence))

    def on_train_epoch_start(self) -> None:
        set_learning_rates(self.optimizers(), halved(self.halving_epochs), self.current_epoch)

    def encoded(self, texts: list[str]) -> Tensor:
        return self.text_encoder.network.encode_text(texts)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.drawn(sentence, noise)


class GANCLSFeatures(GANINTCLS):
    """GAN-CLS as its PyTorch code trains it: the generator is also to meet real images, and their mean features.

    Args:
        real_label: what the discriminator is to say of real images.
        lambda_features: weight of the distance of features, averaged over the batch, from those of real images.
        lambda_pixels: weight of the distance of images from real ones.
        common: as `GANINTCLS`.
    """

    generator_type = RewrittenGenerator
    discriminator_type = RewrittenDiscriminator

    def __init__(self, *, real_label: float, lambda_features: float, lambda_pixels: float, **common: Any) -> None:
        super().__init__(**common)
        self.real_label, self.lambda_features, self.lambda_pixels = real_label, lambda_features, lambda_pixels

    def real_term(self, logits: Tensor) -> Tensor:
        """Cross-entropy against a label below 1: one-sided label smoothing (https://arxiv.org/abs/1606.03498)."""
        return self.real_label * cross_entropy_real(logits) + (1 - self.real_label) * cross_entropy_fake(logits)

    def generator_terms(self, batch: Batch, sentence: Tensor) -> dict[str, Tensor]:
        """Generated images are to be taken for real ones, and to resemble those of their sentences."""
        image, real = self.drawn(sentence, batch["noise"]), batch["image"]
        features = self.discriminator.features(image)
        with torch.no_grad():
            wanted = batch_mean(self.discriminator.features(real))
        return {
            "L_G": cross_entropy_real(self.discriminator(features, sentence)),
            "features": self.lambda_features * F.mse_loss(batch_mean(features), wanted),
            "pixels": self.lambda_pixels * F.l1_loss(image, real),
        }
