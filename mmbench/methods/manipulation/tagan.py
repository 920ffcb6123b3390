"""TAGAN: Text-Adaptive Generative Adversarial Networks: Manipulating Images with Natural Language.

Seonghyeon Nam, Yunji Kim, Seon Joo Kim. NeurIPS 2018. https://arxiv.org/abs/1810.11919
Authors' code: https://github.com/woozzu/tagan/tree/38a866c9613b289d4c79bd4817b5e0e9b44a9879

What the paper leaves open is as in the code: mismatched texts are those of the same batch, one row further, and edited
images are judged alone and with the text they were edited towards, but are no examples of a mismatch.

Deviations:
- A step computes nothing twice: one edited image for both networks, where the authors draw it again for the generator;
  one pass of the generator's encoder and of each text encoder. Losses and gradients are theirs for equal noise; running
  statistics of the generator's batch normalisation move once a pass, thus more slowly.
- Attention over words is a softmax with its maximum taken off, the product over words a sum of logarithms: the same
  values where the authors' do not overflow.
- Photographs are not turned by up to 10 degrees in training (see `data.views.Enlarged`).
- Vectors are those of fastText's text file, which rounds to five digits and lacks rare words: these are dropped. With
  `network/word_vectors@method.module.word_vectors=model` they are the authors', made of their letters where need be.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmbench.core.adversarial import Adversarial
from mmbench.core.fasttext import WordEmbedding, WordVectors
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.schedules import halved, set_learning_rates
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.core.text import Vocabulary
from mmbench.core.weights import KeyMap
from mmbench.layers.conditioning_augmentation import Condition
from mmbench.layers.convolution import ConvNorm
from mmbench.layers.initialisation import initialise_normally
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import row_before, sequence_before
from mmbench.losses.precision import in_float32


class TextEncoder(nn.Module):
    """A recurrent network over word vectors in both directions, averaged. Generator and discriminator have one each.

    Args:
        word_dim: size of the word vectors, 300.
        hidden_dim: size of the word states, 512.
    """

    def __init__(self, word_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.recurrence = nn.GRU(word_dim, hidden_dim, batch_first=True, bidirectional=True)

    def forward(self, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Word states (N, L, hidden_dim), zero beyond the end of a text, and their mean, the sentence (N, hidden_dim).

        Args:
            vectors: (N, L, word_dim).
            lengths: (N,) int64 on the CPU, words of each text, at least 1.
        """
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.recurrence(packed)[0], batch_first=True, total_length=vectors.shape[1])
        forward, backward = states.chunk(2, dim=2)
        words = (forward + backward) / 2  # (N, L, hidden_dim)
        return words, words.sum(dim=1) / lengths[:, None].to(words)


class Residual(nn.Module):
    """x + f(x), with nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*ConvNorm(width, width, activation=nn.ReLU(inplace=True)), *ConvNorm(width, width))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Edited(NamedTuple):
    """What the generator gives.

    Attributes:
        image: (N, 3, H, W) in [-1, 1].
        mu, log_sigma: (N, condition_dim), of the condition.
    """

    image: Tensor
    mu: Tensor
    log_sigma: Tensor


class Generator(nn.Module):
    """An encoder of images, residual blocks that see the text, and a decoder of their sum.

    Args:
        width: channels after the first convolution, 64.
        word_dim, hidden_dim: as `TextEncoder`.
        condition_dim: size of the condition drawn from a sentence, 128.
    """

    def __init__(self, width: int, word_dim: int, hidden_dim: int, condition_dim: int) -> None:
        super().__init__()
        channels = [width * 2**n for n in range(4)]
        deepest = channels[-1]
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.ReLU(inplace=True))
        for n in range(3):
            self.encoder.extend(ConvNorm(channels[n], channels[n + 1], 4, 2, nn.ReLU(inplace=True)))
        self.text_encoder = TextEncoder(word_dim, hidden_dim)
        self.condition = Condition(hidden_dim, condition_dim, bias=True)
        self.fusion = nn.Sequential(
            *ConvNorm(deepest + condition_dim, deepest, activation=nn.ReLU(inplace=True)),
            *(Residual(deepest) for _ in range(4)),
        )
        self.decoder = nn.Sequential()
        for n in reversed(range(3)):
            convolution = UpsamplingConvolution(channels[n + 1], channels[n])
            self.decoder.extend([convolution, nn.BatchNorm2d(channels[n]), nn.ReLU(inplace=True)])
        self.decoder.append(nn.Conv2d(width, 3, 3, 1, 1))

    def forward(self, image: Tensor, vectors: Tensor, lengths: Tensor, eps: Tensor) -> Edited:
        """Edits images towards texts.

        Args:
            image: (N, 3, H, W) in [-1, 1], sides of a multiple of 8.
            vectors: (N, L, word_dim).
            lengths: (N,) int64 on the CPU.
            eps: (N, condition_dim), standard normal.
        """
        _, sentence = self.text_encoder(vectors, lengths)
        return self.edit(self.encoder(image), sentence, eps)

    def edit(self, features: Tensor, sentence: Tensor, eps: Tensor) -> Edited:
        """From encoded images (N, 8 * width, H / 8, W / 8) and sentences (N, hidden_dim) to edited images."""
        condition, mu, log_sigma = self.condition(sentence, eps)
        planes = condition[:, :, None, None].expand(-1, -1, *features.shape[2:])
        fused = self.fusion(torch.cat((features, planes), dim=1))
        return Edited(self.decoder(features + fused).tanh(), mu, log_sigma)


class WordJudges(NamedTuple):
    """The local discriminators that texts ask for, one for each word and level of image features.

    Attributes:
        filters: for each level (N, L, C + 1); the last number is a shift.
        level_weights: (N, L, levels), of sum 1 over the levels.
        attention: (N, L), of sum 1 over the words; 0 beyond the end of a text.
    """

    filters: Sequence[Tensor]
    level_weights: Tensor
    attention: Tensor

    def rolled(self) -> Self:
        """The judges of the text one row before, for each row."""
        weights, attention = (sequence_before(tensor) for tensor in (self.level_weights, self.attention))
        return type(self)([sequence_before(level) for level in self.filters], weights, attention)


class Discriminator(nn.Module):
    """The text-adaptive discriminator: judges an image alone, and word by word with a text.

    Args:
        image_size: height and width of the images, 128 in the paper; a multiple of 32.
        width: channels after the first convolution, 64.
        word_dim, hidden_dim: as `TextEncoder`.
    """

    eps = 1e-7

    def __init__(self, image_size: int, width: int, word_dim: int, hidden_dim: int) -> None:
        super().__init__()
        channels = [4 * width, 8 * width, 8 * width]
        slope = nn.LeakyReLU(0.2, inplace=True)
        self.encoders = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(3, width, 4, 2, 1),
                    slope,
                    *ConvNorm(width, 2 * width, 4, 2, slope),
                    *ConvNorm(2 * width, channels[0], 4, 2, slope),
                ),
                ConvNorm(channels[0], channels[1], 4, 2, slope),
                ConvNorm(channels[1], channels[2], 4, 2, slope),
            ]
        )
        self.pools = nn.ModuleList(ConvNorm(each, each, activation=slope) for each in channels)
        self.text_encoder = TextEncoder(word_dim, hidden_dim)
        self.filters = nn.ModuleList(nn.Linear(hidden_dim, each + 1) for each in channels)
        self.level_weights = nn.Sequential(nn.Linear(hidden_dim, len(channels)), nn.Softmax(dim=-1))
        self.classifier = nn.Conv2d(channels[-1], 1, image_size // 32)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (N,) of images (N, 3, image_size, image_size) alone, and their features at each level."""
        features = [image]
        for encoder in self.encoders:
            features.append(encoder(features[-1]))
        return self.classifier(features[-1])[:, 0, 0, 0], features[1:]

    def pooled(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What judges of words see of the features: (N, C) for each level."""
        return [pool(level).mean(dim=(2, 3)) for pool, level in zip(self.pools, features, strict=True)]

    def judges(self, vectors: Tensor, lengths: Tensor) -> WordJudges:
        """What texts ask of images; arguments as `TextEncoder`."""
        words, sentence = self.text_encoder(vectors, lengths)  # (N, L, D), (N, D)
        beyond = torch.arange(words.shape[1]) >= lengths[:, None]
        scores = (words @ sentence[:, :, None])[:, :, 0].masked_fill(beyond.to(words.device), -torch.inf)
        return WordJudges([each(words) for each in self.filters], self.level_weights(words), scores.softmax(dim=1))

    def level_scores(self, pooled: Sequence[Tensor], judges: WordJudges) -> Tensor:
        """How well each level of an image shows each word: (N, L, levels) in (0, 1)."""
        logits = [
            (filters[:, :, :-1] @ level[:, :, None])[:, :, 0] + filters[:, :, -1]
            for filters, level in zip(judges.filters, pooled, strict=True)
        ]
        return torch.stack(logits, dim=2).sigmoid()

    def word_scores(self, pooled: Sequence[Tensor], judges: WordJudges) -> Tensor:
        """How well an image shows each word: (N, L) in (0, 1)."""
        return (judges.level_weights * self.level_scores(pooled, judges)).sum(dim=2)

    @in_float32
    def match(self, pooled: Sequence[Tensor], judges: WordJudges) -> Tensor:
        """Probability (N,) in (0, 1] that each image shows its text: the words' scores, each to its attention."""
        scores = (self.word_scores(pooled, judges) + self.eps).clamp(max=1)  # (N, L)
        return (judges.attention * scores.log()).sum(dim=1).exp()


TEXT_ENCODER = {
    r"txt_encoder_f\.(.*)": r"text_encoder.recurrence.\1_l0",
    r"txt_encoder_b\.(.*)": r"text_encoder.recurrence.\1_l0_reverse",
}

GENERATOR = KeyMap(
    rename={
        **TEXT_ENCODER,
        r"(mu|log_sigma)\.0\.(.*)": r"condition.\1.\2",
        r"residual_blocks\.(\d+)\.encoder\.(.*)": r"fusion.\1.layers.\2",
        r"residual_blocks\.(.*)": r"fusion.\1",
        # Theirs upsamples in a layer of its own.
        **{rf"decoder\.{4 * n + k + 1}\.(.*)": rf"decoder.{3 * n + k}.\1" for n in range(3) for k in (0, 1)},
        r"decoder\.12\.(.*)": r"decoder.9.\1",
    }
)

DISCRIMINATOR = KeyMap(
    rename={
        **TEXT_ENCODER,
        **{rf"encoder_{n + 1}\.(.*)": rf"encoders.{n}.\1" for n in range(3)},
        **{rf"GAP_{n + 1}\.(.*)": rf"pools.{n}.\1" for n in range(3)},
        r"gen_filter\.(.*)": r"filters.\1",
        r"gen_weight\.(.*)": r"level_weights.\1",
    }
)


@in_float32
def matched(probability: Tensor) -> Tensor:
    """Mean of -log p, of (N,) probabilities that an image shows its text."""
    return F.binary_cross_entropy(probability, torch.ones_like(probability))


@in_float32
def mismatched(probability: Tensor) -> Tensor:
    """Mean of -log(1 - p), of (N,) probabilities that an image shows a text."""
    return F.binary_cross_entropy(probability, torch.zeros_like(probability))


class TAGAN(Adversarial):
    """The generator and its training against the text-adaptive discriminator.

    Args:
        vocabulary: the words that captions may have.
        word_vectors: where their vectors come from.
        optimizers: partials for `generator` and `discriminator`.
        image_size: height and width of the images, as `Discriminator`.
        width, hidden_dim, condition_dim: as `Generator`.
        lambda_match: weight of the match of image and text, the paper's lambda_1.
        lambda_reconstruction: weight of the reconstruction, the paper's lambda_2.
        lambda_kl: weight of each of the two KL terms.
        halving_epochs: the learning rates are halved each time so many epochs are done.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption"})
    smallest_batch = 2  # images are edited after the text of another
    official: ClassVar[dict[str, KeyMap]] = {"generator": GENERATOR}

    def __init__(
        self,
        vocabulary: Vocabulary,
        word_vectors: WordVectors,
        optimizers: Mapping[str, OptimizerPartial],
        image_size: int,
        width: int,
        hidden_dim: int,
        condition_dim: int,
        lambda_match: float,
        lambda_reconstruction: float,
        lambda_kl: float,
        halving_epochs: int,
    ) -> None:
        super().__init__(optimizers)
        self.image_size, self.condition_dim = image_size, condition_dim
        self.lambda_match, self.lambda_reconstruction = lambda_match, lambda_reconstruction
        self.lambda_kl = lambda_kl
        self.halving_epochs = halving_epochs
        self.words = WordEmbedding(vocabulary, word_vectors)
        self.generator = Generator(width, word_vectors.dim, hidden_dim, condition_dim)
        self.discriminator = Discriminator(image_size, width, word_vectors.dim, hidden_dim)
        initialise_normally(self.generator)
        initialise_normally(self.discriminator)

    def discriminator_terms(
        self, real: Tensor, real_match: Tensor, real_mismatch: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """Real images alone, with their own and with others' texts; edited images alone, and never with a text.

        Args:
            real, fake: (N,) logits of images alone.
            real_match, real_mismatch: (N,) probabilities that real images show their own, and others', texts.
        """
        return {
            "L_D_real": cross_entropy_real(real),
            # https://github.com/woozzu/tagan/blob/38a866c9613b289d4c79bd4817b5e0e9b44a9879/train.py#L136
            "L_D_match": self.lambda_match * (matched(real_match) + mismatched(real_mismatch)) / 2,
            "L_D_fake": cross_entropy_fake(fake),
        }

    def generator_terms(
        self, real: Tensor, fake_logits: Tensor, fake_match: Tensor, fake: Edited, reconstructed: Edited
    ) -> dict[str, Tensor]:
        """Images edited towards others' texts are to be real and to show them; with their own texts they are to stay.

        Args:
            real: (N, 3, H, W), the images.
            fake_logits: (N,), of the edited images alone.
            fake_match: (N,) probabilities that they show the texts they were edited towards.
            fake: the images edited towards others' texts.
            reconstructed: the images edited towards their own texts.
        """
        return {
            "L_G": cross_entropy_real(fake_logits),
            "L_G_match": self.lambda_match * matched(fake_match),
            "L_rec": self.lambda_reconstruction * in_float32(F.l1_loss)(reconstructed.image, real),
            "KL": self.lambda_kl * kl_to_standard_normal(fake.mu, 2 * fake.log_sigma),
            "KL_rec": self.lambda_kl * kl_to_standard_normal(reconstructed.mu, 2 * reconstructed.log_sigma),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, noise = self.sized(batch["image"]), batch["noise"]
        text = self.words(batch["caption"])
        features = self.generator.encoder(real)
        _, sentence = self.generator.text_encoder(*text)
        fake = self.generator.edit(features, row_before(sentence), noise.normal("eps", self.condition_dim))

        judge = self.discriminator
        judges = judge.judges(*text)
        logits, levels = judge(real)
        pooled = judge.pooled(levels)
        matches = judge.match(pooled, judges), judge.match(pooled, judges.rolled())
        self.minimise("discriminator", self.discriminator_terms(logits, *matches, judge(fake.image.detach())[0]))

        reconstructed = self.generator.edit(features, sentence, noise.normal("own eps", self.condition_dim))
        with self.held(judge):
            logits, levels = judge(fake.image)
            match = judge.match(judge.pooled(levels), judge.judges(*text).rolled())
            self.minimise("generator", self.generator_terms(real, logits, match, fake, reconstructed))

    def on_train_epoch_start(self) -> None:
        set_learning_rates(self.optimizers(), halved(self.halving_epochs), self.current_epoch)

    def sized(self, image: Tensor) -> Tensor:
        """The images.

        Raises:
            ValueError: they are of another size than the method was built for.
        """
        if image.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"expected images of {self.image_size} x {self.image_size}, found {image.shape[2]} x {image.shape[3]}: "
                f"set data.module.image_size={self.image_size}, or method.module.image_size"
            )
        return image

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        text = self.words(batch[self.task.prompt])
        return self.generator(self.sized(batch["image"]), *text, noise.normal("eps", self.condition_dim)).image
