"""Semantic Image Synthesis via Adversarial Learning (SISGAN).

Hao Dong, Simiao Yu, Chao Wu, Yike Guo. ICCV 2017. https://arxiv.org/abs/1707.06873
Code: https://github.com/woozzu/dong_iccv_2017/tree/e7f371aefb3aa2208df832ed779c16027c8f3600, in PyTorch, made with the
advice of the first author. No weights were published.

Two stages: an embedding of images and captions in a common space, whose text half is kept, and an encoder-decoder that
paints an image anew after a caption.

Deviations:
- Words have fastText's published vectors and are dropped where there is none; the authors' vectors come from the model
  behind them, which makes one up for any word. Captions are whole; theirs end after 201 characters.
- A batch of one has no mismatched text, and its term is left out; the authors' takes the matching text for it.
- In a step, real images pass the discriminator's image path once for their two texts, and the image encoder once for
  the two images made of them. Batch statistics make it the same; running averages of these two paths, which nothing
  reads with the paper's encoder, move once.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmbench.core.adversarial import Adversarial
from mmbench.core.fasttext import WordEmbedding, WordVectors
from mmbench.core.frozen import Frozen
from mmbench.core.images import require_size
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import gathered, own
from mmbench.core.schedules import halved, set_learning_rates
from mmbench.core.task import TEXT_GUIDED_EDITING, TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary
from mmbench.core.weights import KeyMap
from mmbench.layers.conditioning_augmentation import Condition
from mmbench.layers.convolution import BATCHES_TRACKED, ConvNorm
from mmbench.layers.initialisation import initialise_normally
from mmbench.layers.rectified_convolution import RectifiedResidual, RectifiedUpBlock
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import row_before
from mmbench.losses.ranking import pairwise_ranking_loss

SIZE = 64  # of the images: the discriminator's last convolution covers 4x4, a sixteenth of it


class EmbeddingImageEncoder(nn.Module):
    """A trunk trained on another task, and a linear map into the common space.

    Args:
        trunk: maps images (N, 3, H, W) in [-1, 1] to anything and pooled features (N, global_channels).
        embedding_dim: of the common space.
    """

    def __init__(self, trunk: nn.Module, embedding_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.project = nn.Linear(trunk.global_channels, embedding_dim, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, embedding_dim)."""
        _, pooled = self.trunk(image)
        return self.project(pooled)


class TextEncoder(nn.Module):
    """Word vectors and one layer of a GRU, whose state after the last word is the caption.

    Args:
        words: captions to sequences of vectors.
        dim: of a vector, and of an encoded caption.
    """

    def __init__(self, words: nn.Module, dim: int) -> None:
        super().__init__()
        self.words = words
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, captions: list[str]) -> Tensor:
        """N raw captions to (N, dim).

        Raises:
            ValueError: a caption has no word with a vector.
        """
        return self.encode(*self.words(captions))

    def encode(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Vectors (N, L, dim), padded at the end, and numbers of words (N,) on the CPU to (N, dim)."""
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.gru(packed)
        return state[0]


class PlainEncoder(nn.Module):
    """The image encoder without VGG, trained with the generator: the paper's comparison, and ours on toy data.

    Args:
        width: channels of the first convolution, 128; the features have four times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = 4 * width
        self.layers = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU()),
            nn.Sequential(ConvNorm(width, 2 * width, kernel=4, stride=2), nn.ReLU()),
            nn.Sequential(ConvNorm(2 * width, 4 * width, kernel=4, stride=2), nn.ReLU()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, 4 * width, H/4, W/4)."""
        return self.layers(image)


class Synthesis(NamedTuple):
    """What the generator gives.

    Attributes:
        image: (N, 3, H, W) in [-1, 1].
        mu: (N, condition_dim), mean of the condition.
        log_sigma: (N, condition_dim), logarithm of its deviation.
    """

    image: Tensor
    mu: Tensor
    log_sigma: Tensor


class Generator(nn.Module):
    """Image features and a caption to an image; nothing but these features comes from the input image.

    Args:
        encoder: images (N, 3, H, W) in [-1, 1] to features (N, channels, H/4, W/4); has the attribute `channels`.
        text_dim: of an encoded caption, 300.
        condition_dim: of the condition drawn from it, 128.
        num_residual: residual blocks, 4.
    """

    def __init__(self, encoder: nn.Module, text_dim: int, condition_dim: int, num_residual: int) -> None:
        super().__init__()
        channels: int = (encoder.network if isinstance(encoder, Frozen) else encoder).channels
        self.encoder = encoder
        self.condition = Condition(text_dim, condition_dim, bias=False)
        self.join = ConvNorm(channels + condition_dim, channels)
        self.residual = nn.Sequential(*(RectifiedResidual(channels) for _ in range(num_residual)))
        self.decoder = nn.Sequential(
            RectifiedUpBlock(channels, channels // 2), RectifiedUpBlock(channels // 2, channels // 4)
        )
        self.to_rgb = nn.Conv2d(channels // 4, 3, 3, padding=1)

    def forward(self, image: Tensor, text: Tensor, eps: Tensor) -> Synthesis:
        """Paints images anew after captions.

        Args:
            image: (N, 3, H, W) in [-1, 1]; H and W are multiples of 4.
            text: (N, text_dim).
            eps: (N, condition_dim), standard normal. The authors draw it at evaluation too.
        """
        return self.paint(self.encoder(image), text, eps)

    def paint(self, features: Tensor, text: Tensor, eps: Tensor) -> Synthesis:
        """As `forward`, from the encoder's features (N, channels, H/4, W/4)."""
        condition, mu, log_sigma = self.condition(text, eps)
        everywhere = condition[:, :, None, None].expand(-1, -1, *features.shape[2:])
        hidden = self.residual(self.join(torch.cat((features, everywhere), dim=1)))
        return Synthesis(self.to_rgb(self.decoder(hidden)).tanh(), mu, log_sigma)


class Discriminator(nn.Module):
    """Judges images of 64 x 64 pixels together with captions; features of an image serve for several captions.

    Args:
        text_dim: of an encoded caption, 300.
        compressed_dim: to which it is brought, 128.
        width: channels after the first convolution, 64; features have eight times as many.
    """

    def __init__(self, text_dim: int, compressed_dim: int, width: int) -> None:
        super().__init__()
        channels, narrow = 8 * width, 2 * width
        self.first = nn.Conv2d(3, width, 4, 2, 1)
        self.halvings = nn.ModuleList(ConvNorm(n * width, 2 * n * width, kernel=4, stride=2) for n in (1, 2, 4))
        self.residual = nn.ModuleList(
            (ConvNorm(channels, narrow, kernel=1), ConvNorm(narrow, narrow), ConvNorm(narrow, channels))
        )
        self.compress = nn.Linear(text_dim, compressed_dim)
        self.join = ConvNorm(channels + compressed_dim, channels, kernel=1)
        self.to_logit = nn.Conv2d(channels, 1, 4)

    def features(self, image: Tensor) -> Tensor:
        """(N, 3, 64, 64) in [-1, 1] to (N, 8 * width, 4, 4)."""
        hidden = self.first(image)
        for halving in self.halvings:
            hidden = halving(F.leaky_relu(hidden, 0.2))
        change = hidden
        for n, convolution in enumerate(self.residual):
            change = convolution(F.leaky_relu(change, 0.2) if n else change)
        return F.leaky_relu(hidden + change, 0.2)

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Features (N, 8 * width, 4, 4) and encoded captions (N, text_dim) to logits (N,)."""
        compressed = F.leaky_relu(self.compress(text), 0.2)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        joint = F.leaky_relu(self.join(torch.cat((features, compressed), dim=1)), 0.2)
        return self.to_logit(joint).flatten()


def _keys(names: Mapping[str, str]) -> dict[str, str]:
    """The authors' names of layers to ours, for whatever a layer holds."""
    return {rf"{theirs}\.(\w+)": rf"{ours}.\1" for theirs, ours in names.items()}


EMBEDDING = KeyMap(
    rename={
        r"txt_encoder\.(.*)": r"text_encoder.gru.\1",
        r"img_encoder\.features\.(.*)": r"image_encoder.trunk.convolutions.\1",
        **_keys({r"feat_extractor\.0": "image_encoder.trunk.fc6.0", r"feat_extractor\.3": "image_encoder.trunk.fc7.0"}),
        r"W\.weight": "image_encoder.project.weight",
    },
    drop={
        r"img_encoder\.classifier\.[03]\..*": "the tensors of feat_extractor, listed twice",
        r"img_encoder\.classifier\.6\..*": "ImageNet's classes",
    },
)
_PAINTING = {
    **{rf"{name}\.0": f"condition.{name}" for name in ("mu", "log_sigma")},
    **{rf"residual_blocks\.{n}": f"join.{n}" for n in (0, 1)},
    **{rf"residual_blocks\.{n + 2}\.encoder\.{k}": f"residual.{n}.first.{k}" for n in range(4) for k in (0, 1)},
    **{rf"residual_blocks\.{n + 2}\.encoder\.{k + 3}": f"residual.{n}.second.{k}" for n in range(4) for k in (0, 1)},
    **{rf"decoder\.{4 * n + k + 1}": f"decoder.{n}.{k}" for n in (0, 1) for k in (0, 1)},
    r"decoder\.8": "to_rgb",
}
GENERATOR = KeyMap(
    rename=_keys(_PAINTING),
    drop={r"encoder\..*": "torchvision's VGG-16 as it was, which loads itself"},
    fill=BATCHES_TRACKED,
)
PLAIN_GENERATOR = KeyMap(
    rename=_keys(
        {
            **_PAINTING,
            r"encoder\.0": "encoder.layers.0.0",
            **{rf"encoder\.{3 * n + k - 1}": f"encoder.layers.{n}.0.{k}" for n in (1, 2) for k in (0, 1)},
        }
    ),
    fill=BATCHES_TRACKED,
)
DISCRIMINATOR = KeyMap(
    rename=_keys(
        {
            r"encoder\.0": "first",
            **{rf"encoder\.{3 * n + k + 2}": f"halvings.{n}.{k}" for n in range(3) for k in (0, 1)},
            **{rf"residual_branch\.{3 * n + k}": f"residual.{n}.{k}" for n in range(3) for k in (0, 1)},
            r"compression\.0": "compress",
            **{rf"classifier\.{k}": f"join.{k}" for k in (0, 1)},
            r"classifier\.3": "to_logit",
        }
    ),
    fill=BATCHES_TRACKED,
)


def relevant_texts(text: Tensor) -> Tensor:
    """What the generator is asked for: the first half of (N, D) shifted by one within itself, the rest as it is.

    Where a batch is divided among processes, halves are those of the whole batch.
    """
    whole = gathered(text)
    half = len(whole) // 2
    return own(torch.cat((whole[:half].roll(-1, dims=0), whole[half:])))


class SISGANEmbedding(Learner):
    """The visual-semantic embedding: encoders of images and captions, trained by pairwise ranking (Kiros et al.).

    Args:
        vocabulary: of the captions.
        vectors: where the vectors of words come from; their dimension is that of the common space.
        trunk: of the image encoder, pretrained; its parameters stay.
        margin: of the ranking loss.
        optimizer: partial of the optimiser.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})
    smallest_batch = 2  # another pair is what a pair is to be nearer than

    def __init__(
        self,
        vocabulary: Vocabulary,
        vectors: WordVectors,
        trunk: nn.Module,
        margin: float,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer)
        self.vocabulary = vocabulary
        self.text_encoder = TextEncoder(WordEmbedding(vocabulary, vectors), vectors.dim)
        self.image_encoder = EmbeddingImageEncoder(trunk.requires_grad_(False), vectors.dim)
        self.embedding_dim = vectors.dim
        self.margin = margin

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that its embedding knows."""
        return {"vocabulary.json": self.vocabulary}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Every image is to be nearer to its own caption than to others', and the other way round."""
        image, text = self.image_encoder(batch["image"]), self.text_encoder(batch["caption"])
        return {"ranking": pairwise_ranking_loss(image, text, self.margin)}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """The embedding only reads.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a method that makes images, found sisgan_embedding: train it, then sisgan")


class SISGAN(Adversarial):
    """The generator and its training against a discriminator that also sees real images with wrong captions.

    Args:
        embedding: the trained stage before, of which the text encoder is kept.
        encoder: of images, for the generator: frozen VGG features, or a network that is trained with it.
        optimizers: partials for `generator` and `discriminator`.
        condition_dim, num_residual: as `Generator`.
        discriminator_width, compressed_dim: as `Discriminator`.
        lambda_mismatched, lambda_fake: weights of the discriminator's two negative terms.
        lambda_kl: weight of the condition's divergence from a standard normal.
        halving_epochs: after so many epochs, and again, learning rates are halved.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        embedding: SISGANEmbedding,
        encoder: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        condition_dim: int,
        num_residual: int,
        discriminator_width: int,
        compressed_dim: int,
        lambda_mismatched: float,
        lambda_fake: float,
        lambda_kl: float,
        halving_epochs: int,
    ) -> None:
        super().__init__(optimizers)
        self.text_encoder = Frozen(embedding.text_encoder)
        self.generator = Generator(encoder, embedding.embedding_dim, condition_dim, num_residual)
        self.discriminator = Discriminator(embedding.embedding_dim, compressed_dim, discriminator_width)
        initialise_normally(self.generator)
        initialise_normally(self.discriminator)
        self.condition_dim = condition_dim
        self.lambda_mismatched, self.lambda_fake, self.lambda_kl = lambda_mismatched, lambda_fake, lambda_kl
        self.halving_epochs = halving_epochs

    def discriminator_terms(self, real: Tensor, fake: Tensor, text: Tensor, relevant: Tensor) -> dict[str, Tensor]:
        """Real images with their captions, and with others' (where there are any); generated ones with theirs."""
        judge = self.discriminator
        seen = judge.features(real)
        terms = {"L_D_real": cross_entropy_real(judge(seen, text))}
        if len(gathered(text)) > 1:
            wrong = judge(seen, row_before(text))
            terms["L_D_mismatched"] = self.lambda_mismatched * cross_entropy_fake(wrong)
        terms["L_D_fake"] = self.lambda_fake * cross_entropy_fake(judge(judge.features(fake), relevant))
        return terms

    def generator_terms(self, output: Synthesis, relevant: Tensor) -> dict[str, Tensor]:
        """Images that are to be taken for real ones of their captions; nothing compares them with the input."""
        logits = self.discriminator(self.discriminator.features(output.image), relevant)
        return {
            "L_G": cross_entropy_real(logits),
            "KL": self.lambda_kl * kl_to_standard_normal(output.mu, 2 * output.log_sigma),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        noise, real = batch["noise"], batch["image"]
        require_size(real, SIZE, "sisgan")
        with torch.no_grad():
            text = self.text_encoder(batch["caption"])
        relevant = relevant_texts(text)
        features = self.generator.encoder(real)
        with torch.no_grad():
            shown = self.generator.paint(features, relevant, noise.normal("eps shown", self.condition_dim))
        self.minimise("discriminator", self.discriminator_terms(real, shown.image, text, relevant))
        output = self.generator.paint(features, relevant, noise.normal("eps", self.condition_dim))
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(output, relevant))

    def on_train_epoch_start(self) -> None:
        set_learning_rates(self.optimizers(), halved(self.halving_epochs), self.current_epoch)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        text = self.text_encoder(batch[self.task.prompt])
        return self.generator(batch["image"], text, noise.normal("eps", self.condition_dim)).image
