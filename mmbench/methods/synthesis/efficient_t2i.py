"""Efficient-T2I: Efficient Neural Architecture for Text-to-Image Synthesis.

Douglas M. Souza, Jonatas Wehrmann, Duncan D. Ruiz. IJCNN 2020. https://arxiv.org/abs/2004.11437
Authors' code: https://github.com/dougsouza/efficient-t2i/tree/c6c383b2310218d187db121bad33687d60b39431

BigGAN-deep, of which a sentence takes the place of a class: the networks are `mmbench.networks.biggan_deep`, of the
layers that stand here.

Where paper and released code differ, this is the code:
- The moving average goes through a list of weights in which blocks and attention stand twice, so that they forget twice
  as fast; attention's gain is no average but the latest (trainer.py, update_EMA).

Deviations:
- Before they evaluate, the authors send 100 batches of training captions through the average in training mode, so that
  batch normalisation knows its own statistics (eval.py, warmup_generator); here it has those of the generator.
- Sizes below 256 pixels have BigGAN's channels of that size.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, einsum, nn

from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.core.weights import KeyMap
from mmbench.layers.initialisation import initialise_weights_orthogonally
from mmbench.layers.spectral_norm import StoredSpectralConv2d, StoredSpectralLinear, settle
from mmbench.losses.adversarial import hinge_fake, hinge_real
from mmbench.networks.biggan import ATTENTION, Layers
from mmbench.networks.biggan_deep import DEPTH, DeepDiscriminator, DeepGeneratorTrunk
from mmbench.networks.sentences import Sentences

LAYERS = Layers(StoredSpectralConv2d, StoredSpectralLinear, slope=0.01, projected_bias=True)
SPREAD = 10.0  # numbers that weigh captions against each other are uniform between 0 and this, before a softmax


class Generator(DeepGeneratorTrunk):
    """Noise begins the image; the sentence reaches every block, and the noise with it.

    Args:
        image_size, width, attention_size: as `GeneratorTrunk`; 256, 96 and 64.
        latent_dim: size of the noise, 128.
        sentence_dim: size of sentence embeddings, 256.
    """

    def __init__(self, image_size: int, width: int, latent_dim: int, sentence_dim: int, attention_size: int) -> None:
        super().__init__(image_size, width, latent_dim, sentence_dim + latent_dim, attention_size, LAYERS)

    def forward(self, latent: Tensor, sentence: Tensor) -> Tensor:
        """(N, latent_dim) and (N, sentence_dim) to images (N, 3, H, W) in [-1, 1]."""
        condition = torch.cat((sentence, latent), dim=1)
        return self.grown(latent, [condition] * len(self.stages))


def discriminator(image_size: int, width: int, sentence_dim: int, attention_size: int) -> DeepDiscriminator:
    """Judges images (N, 3, H, W) with sentences (N, sentence_dim): logits (N,)."""
    embed = partial(StoredSpectralLinear, sentence_dim)
    return DeepDiscriminator(image_size, width, attention_size, embed, LAYERS)


TENSORS = {"weight_orig": "weight", "bias": "bias", "weight_u": "u", "weight_v": "v"}
BLOCKS = range(2, 14)


def _named(theirs: str, ours: str) -> dict[str, str]:
    return {rf"{theirs}\.{one}": f"{ours}.{other}" for one, other in TENSORS.items()}


def _block(theirs: str, ours: str) -> dict[str, str]:
    found = _named(rf"{theirs}\.conv_sc", f"{ours}.shortcut")
    for n in range(1, 5):
        found |= _named(rf"{theirs}\.conv{n}", f"{ours}.convolution{n}")
        found |= _named(rf"{theirs}\.bn{n}\.gammas_projection", f"{ours}.norm{n}.scale")
        found |= _named(rf"{theirs}\.bn{n}\.betas_projection", f"{ours}.norm{n}.shift")
        found[rf"{theirs}\.bn{n}\.bn\.(.*)"] = rf"{ours}.norm{n}.norm.\1"
    return found


def _blocks_and_attention(attention: str) -> dict[str, str]:
    """The blocks, which the authors count through, and attention, whose place in our network is given."""
    found = {r"non_local\.gamma": f"{attention}.gamma"}
    for one, other in ATTENTION.items():
        found |= _named(rf"non_local\.{one}", f"{attention}.{other}")
    for number in BLOCKS:
        stage, place = divmod(number - BLOCKS[0], DEPTH)
        found |= _block(f"block{number}", f"stages.{stage}.{place}")
    return found


LISTED_TWICE = {r"main\..*": "the tensors of blocks and attention, listed a second time"}
GENERATOR = KeyMap(
    rename={
        **_named("block1", "project"),
        **_blocks_and_attention("attention"),
        r"bn\.(.*)": r"norm.\1",
        **_named("block14", "to_rgb"),
    },
    drop=LISTED_TWICE,
)
# At 256 pixels attention stands behind the blocks of the second stage.
DISCRIMINATOR = KeyMap(
    rename={
        **_named("block1", "entry"),
        **_blocks_and_attention(f"stages.1.{DEPTH}"),
        **_named("emb_proj", "embed"),
        **_named("linear_out", "score"),
    },
    drop=LISTED_TWICE,
)


class ReleasedEMA(EMA):
    """The moving average as the released code takes it: see the top of this file."""

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        super().update(network)
        for (name, average), latest in zip(self.average.named_parameters(), network.parameters(), strict=True):
            if name.endswith("gamma"):
                average.copy_(latest)
            elif name.startswith(("stages.", "attention.")):
                average.lerp_(latest, 1 - self.decay)


def shares(uniform: Tensor) -> Tensor:
    """How much of each caption a sentence has: uniform numbers in [0, 1) (N, K) to weights (N, K), which sum to 1."""
    return (SPREAD * uniform).softmax(dim=1)


def interpolated(embeddings: Tensor, weights: Tensor) -> Tensor:
    """K sentence embeddings of each image (N, K, D) and their weights (N, K) to one: (N, D), section III-C."""
    return einsum("nkd, nk -> nd", embeddings, weights)


class EfficientT2IPlain(SentenceToImage):
    """The generator and its training, each image with one of its captions: without sentence interpolation.

    Args:
        damsm: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminator`.
        image_size: height and width of images, 32, 64, 128 or 256.
        width: what channels of both networks are multiples of.
        latent_dim: size of the noise.
        attention_size: size of the features that attend to themselves, in both networks.
        max_words: captions longer than this keep so many of their words.
        sentence_scale: what sentence embeddings are multiplied by, 1 as published.
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
        attention_size: int,
        max_words: int,
        sentence_scale: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.encoder = Sentences(damsm, max_words, sentence_scale)
        self.latent_dim = latent_dim
        self.generator = Generator(image_size, width, latent_dim, self.encoder.dim, attention_size)
        self.discriminator = discriminator(image_size, width, self.encoder.dim, attention_size)
        for network in (self.generator, self.discriminator):
            initialise_weights_orthogonally(network)
            settle(network)
        self.ema = ReleasedEMA(self.generator, decay)

    def sentences(self, batch: Batch) -> Tensor:
        """What images are made after in a training step: (N, D)."""
        return self.encoder.captions(batch)

    def discriminator_terms(self, real: Tensor, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) with their sentences (N, D); no image is shown with a false one (equation 1)."""
        # Generated ones first, as the authors' power iterations go.
        fake_logits = self.discriminator(fake, sentence)
        return {"L_D_real": hinge_real(self.discriminator(real, sentence)), "L_D_fake": hinge_fake(fake_logits)}

    def generator_terms(self, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Generated images (N, 3, H, W) are to be judged to match their sentences (N, D) (equation 2)."""
        return {"L_G": -self.discriminator(fake, sentence).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        sentence, noise = self.sentences(batch), batch["noise"]
        with torch.no_grad():
            fake = self.generator(noise.normal("z of the discriminator", self.latent_dim), sentence)
        self.minimise("discriminator", self.discriminator_terms(batch["image"], fake, sentence))
        with self.held(self.discriminator):
            fake = self.generator(noise.normal("z of the generator", self.latent_dim), sentence)
            self.minimise("generator", self.generator_terms(fake, sentence))
        self.follow(self.ema, self.generator)

    def encoded(self, texts: list[str]) -> Tensor:
        return self.encoder.prompts(texts)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.ema(noise.normal("z", self.latent_dim), sentence)


class EfficientT2I(EfficientT2IPlain):
    """With sentence interpolation: each image is made after a mixture of all its captions, drawn anew each time.

    Args:
        num_captions: captions of each image that are mixed, two or more.
        others: as `EfficientT2IPlain`.

    Raises:
        ValueError: there is nothing to mix.
    """

    trains_on = frozenset({"image", "captions"})
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": GENERATOR}

    def __init__(self, num_captions: int, **others: object) -> None:
        if num_captions < 2:
            raise ValueError(
                f"expected num_captions from 2 to interpolate between, found {num_captions}: raise it, or train "
                "efficient_t2i_plain"
            )
        super().__init__(**others)
        self.num_captions = num_captions

    def sentences(self, batch: Batch) -> Tensor:
        embeddings = self.encoder.several([captions[: self.num_captions] for captions in batch["captions"]])
        return interpolated(embeddings, shares(batch["noise"].uniform("shares", self.num_captions)))
