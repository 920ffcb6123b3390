"""MirrorGAN: Learning Text-to-image Generation by Redescription.

Tingting Qiao, Jing Zhang, Duanqing Xu, Dacheng Tao. CVPR 2019. https://arxiv.org/abs/1903.05854
Authors' code: https://github.com/qiaott/MirrorGAN/tree/deb220fdae8f543c9260f6242fed9f78764eedc1. STEM, the text
encoder, is AttnGAN's DAMSM, in `mmbench.methods.synthesis.damsm`; the authors published no weights of their own.

Where paper and released code differ, this is the code, but for one weight:
- The redescription weighs 20, as in the paper, whose tables were made with it; the released configuration has 10
  (cfg/train_bird.yml#L31).
- The conditioning augmentation's divergence is a term of the generator's objective (trainer.py#L286).
- The sentence's attention is over the channels at each position, not over positions (GLAttention.py#L113: a softmax
  without an axis, of four dimensions, takes the second).

Deviations:
- An image does not depend on its batch. The authors mask words of the wrong caption when the lengths in a batch differ
  (GLAttention.py#L93 tiles the mask with the batch running fastest). Ours gives their result for a batch of one.
- STREAM, of which the authors say no more than that it was trained with yunjey's captioner on their own vocabulary
  (https://github.com/yunjey/pytorch-tutorial/tree/0500d3df5a2a8080ccfccbc00aca0eacc21818db, tutorials/03-advanced/
  image_captioning), sees images as the generator will show them, in [-1, 1], where that one normalises to ImageNet's
  mean and deviation. Captions end with a token, as there, and begin with none, as in MirrorGAN's code. A batch has
  some images with all their captions, not as many images as captions.
- Discriminators give logits, and the sigmoid is part of the loss.
- Smaller real images are resized from the full one with anti-aliasing, on the device.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from numpy.random import Generator
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import CAPTIONING
from mmbench.core.text import Vocabulary, padded
from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.layers.gated_convolution import GatedResidual, UpBlock
from mmbench.layers.word_attention import SpatialAttention, linear_from_convolution
from mmbench.losses.attngan import Discriminators, Reader, StagedGAN
from mmbench.losses.captioning import caption_cross_entropy
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.networks.attngan import GENERATOR_NAMES, Generated, StagedGenerator, Told
from mmbench.networks.damsm import EncodedText
from mmbench.networks.mirrorgan import StreamDecoder, StreamEncoder

END = 0  # of a caption


class MirrorGANStream(Learner):
    """STREAM, section 3.3: a captioner trained on the data set's images, by which generated ones are described again.

    Args:
        vocabulary: the words that it can say.
        trunk: of the encoder, pretrained and frozen.
        embedding_dim, hidden_dim: as `StreamDecoder`.
        max_words: captions are cut off after so many words in training.
        longest: the same of what it says.
        optimizer: partial of the optimiser.
    """

    task = CAPTIONING
    trains_on = frozenset({"image", "captions"})
    smallest_batch = 2  # the encoder ends in a batch normalisation

    def __init__(
        self,
        vocabulary: Vocabulary,
        trunk: nn.Module,
        embedding_dim: int,
        hidden_dim: int,
        max_words: int,
        longest: int,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer)
        self.vocabulary = vocabulary
        self.encoder = StreamEncoder(trunk, embedding_dim)
        self.decoder = StreamDecoder(len(vocabulary), embedding_dim, hidden_dim)
        self.max_words, self.longest = max_words, longest

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that it can say."""
        return {"vocabulary.json": self.vocabulary}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The likelihood of all captions of the images, with their ends."""
        captions = [caption for captions in batch["captions"] for caption in captions]
        # None is longer than its letters: all its words are there, in order.
        found = [self.vocabulary.encode(caption, len(caption)) for caption in captions]
        tokens, lengths = padded([[*words[: self.max_words], END] for words in found])
        tokens, lengths = tokens.to(self.device), lengths.to(self.device)
        counts = torch.tensor([len(captions) for captions in batch["captions"]], device=self.device)
        features = self.encoder(batch["image"]).repeat_interleave(counts, dim=0)
        return {"L": caption_cross_entropy(self.decoder(features, tokens), tokens, lengths)}

    def redescription(self, image: Tensor, captions: list[str], streams: Sequence[Generator], max_words: int) -> Tensor:
        """How unlikely it is that images (N, 3, H, W) are described by their captions, equation 7.

        Args:
            image: in [-1, 1].
            captions: N texts.
            streams: which words of a long caption are kept.
            max_words: how many.
        """
        words = [
            self.vocabulary.encode(caption, max_words, rng) for caption, rng in zip(captions, streams, strict=True)
        ]
        tokens, lengths = padded(words)
        tokens = tokens.to(image.device)
        return caption_cross_entropy(self.decoder(self.encoder(image), tokens), tokens, lengths.to(image.device))

    def generate(self, batch: Batch, noise: Noise) -> list[str]:
        """The likeliest words one after the other, in lower case without punctuation."""
        found = self.decoder.greedy(self.encoder(batch["image"]), self.longest, barred_first=(END,)).tolist()
        ended = [words[: words.index(END)] if END in words else words for words in found]
        return [" ".join(self.vocabulary.words[word] for word in words) for words in ended]


class SentenceAttention(nn.Module):
    """The global part of GLAM, equation 4: the sentence at every position, weighed by what is there.

    Args:
        channels: of the hidden features.
        condition_dim: of the condition drawn from the sentence.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(condition_dim, channels)
        self.mix = nn.Conv2d(channels, channels, kernel_size=1, bias=False)

    def forward(self, hidden: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden features (N, C, H, W) and conditions (N, condition_dim) to the weighed sentence and its attention.

        Both are (N, C, H, W); the attention sums to 1 over C.
        """
        sentence = self.project(condition)[:, :, None, None]  # (N, C, 1, 1)
        attention = self.mix(hidden * sentence).softmax(dim=1)
        return sentence * attention, attention


class NextStage(nn.Module):
    """GLAM and what follows it: hidden features look at the words and at the sentence and double their size.

    Args:
        width: channels of the hidden features.
        embedding_dim: size of words.
        condition_dim: of the condition drawn from the sentence.
        num_residual: residual blocks.
    """

    def __init__(self, width: int, embedding_dim: int, condition_dim: int, num_residual: int) -> None:
        super().__init__()
        self.spatial_attention = SpatialAttention(width, embedding_dim)
        self.sentence_attention = SentenceAttention(width, condition_dim)
        self.fuse = nn.Conv2d(3 * width, 2 * width, kernel_size=1, bias=False)
        self.residual = nn.Sequential(*(GatedResidual(2 * width, nn.BatchNorm2d) for _ in range(num_residual)))
        self.upsample = UpBlock(2 * width, width, norm=nn.BatchNorm2d)

    def forward(self, hidden: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """(N, width, s, s) to (N, width, 2s, 2s), and the attention to words (N, L, s, s)."""
        context, attention = self.spatial_attention(hidden, told.words, told.word_mask)  # equation 3
        sentence, _ = self.sentence_attention(hidden, told.condition)
        fused = self.fuse(torch.cat((hidden, context, sentence), dim=1))
        return self.upsample(self.residual(fused)), attention


class MirrorGenerator(StagedGenerator):
    """GLAM's cascade, section 3.2.

    Args:
        width: channels of hidden features, 32 for CUB.
        embedding_dim: size of words and sentences, 256.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 100.
        num_residual: residual blocks per stage, 2.
        base_size: size of the first stage's image; the others double it.
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int = 64,
    ) -> None:
        stages = (NextStage(width, embedding_dim, condition_dim, num_residual) for _ in range(2))
        super().__init__(width, embedding_dim, noise_dim, condition_dim, base_size, stages)


GENERATOR = KeyMap(
    rename={
        **GENERATOR_NAMES,
        **{
            rf"h_net{n + 2}\.{theirs}\.(.*)": rf"next_stages.{n}.{ours}.\1"
            for n in range(2)
            for theirs, ours in (
                (r"att\.linear", "sentence_attention.project"),
                (r"att\.conv_sentence_vis", "sentence_attention.mix"),
                ("conv", "fuse"),
            )
        },
    },
    convert={r".*spatial_attention\.project\.weight": linear_from_convolution},
    fill=BATCHES_TRACKED,
)


class MirrorGAN(StagedGAN):
    """The generator and its training.

    Args:
        damsm: the trained text encoder, STEM: a stage with `encode_text` and `embedding_dim`.
        stream: the trained captioner, with `redescription`.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size: as `MirrorGenerator`.
        discriminator_width: channels after the discriminators' first convolution.
        max_words: captions longer than this keep so many of their words in training, 18 for CUB.
        max_prompt_words: the same where images are generated, 25 for CUB.
        lambda_stream: weight of the redescription, equation 10.
        decay: of the generator's moving average, which makes the images.
    """

    official: ClassVar[dict[str, KeyMap]] = {"ema.average": GENERATOR}

    def __init__(
        self,
        damsm: nn.Module,
        stream: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        discriminator_width: int,
        max_words: int,
        max_prompt_words: int,
        lambda_stream: float,
        decay: float,
    ) -> None:
        sizes, embedding_dim = (base_size, 2 * base_size, 4 * base_size), damsm.embedding_dim
        super().__init__(
            optimizers,
            Reader(damsm, max_words, max_prompt_words),
            MirrorGenerator(width, embedding_dim, noise_dim, condition_dim, num_residual, base_size),
            Discriminators(sizes, discriminator_width, embedding_dim),
            noise_dim,
            condition_dim,
            decay,
        )
        self.stream = Frozen(stream)
        self.lambda_stream = lambda_stream

    def redescription(self, fake: Tensor, batch: Batch) -> Tensor:
        """How unlikely the captioner finds the captions, in the words that the generator was told."""
        streams = batch["noise"].streams("words")
        return self.stream.network.redescription(fake, batch["caption"], streams, self.guide.max_words)

    def generator_terms(self, output: Generated, text: EncodedText, batch: Batch) -> dict[str, Tensor]:
        """The generator's objective, equation 10: to be judged real at each size, and to be described as asked for."""
        return {
            **self.discriminators.generator_terms(output.images, text.sentence),
            "L_stream": self.lambda_stream * self.redescription(output.images[-1], batch),
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.discriminators.sizes)
        text = self.guide.captions(batch)
        output = self.drawn(self.generator, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        self.minimise("discriminators", terms)
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(output, text, batch))
        self.follow(self.ema, self.generator)
