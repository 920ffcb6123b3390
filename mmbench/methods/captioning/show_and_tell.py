"""Show and Tell: A Neural Image Caption Generator (NIC).

Oriol Vinyals, Alexander Toshev, Samy Bengio, Dumitru Erhan. CVPR 2015. https://arxiv.org/abs/1411.4555
No code came with the paper. The decoder, its training and its search are those of ShowTellModel in
https://github.com/ruotianluo/ImageCaptioning.pytorch/tree/4c48a3304932d58c5349434e7b0085f48dcb4be4, and with another
cell (`MaxoutLSTM`) those of its NewFCModel, the "FC" model of Rennie et al., Self-Critical Sequence Training, CVPR
2017, https://arxiv.org/abs/1612.00563, before it is trained by a reward.

Deviations: Inception-v3 is the image encoder, as in the authors' later im2txt, where the paper has its predecessor and
the code has ResNet-101; images are seen whole and square. Captions are split into runs of letters and digits, where the
code takes Karpathy's words; of data with more than five captions of an image all are shown. No word of the model's own
is fed back in training (scheduled sampling, which is not in the paper). A caption has one word at least.
"""

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim import Optimizer

from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.schedules import Schedule
from mmbench.core.task import CAPTIONING
from mmbench.core.text import Vocabulary, padded, tokenise
from mmbench.core.weights import KeyMap
from mmbench.layers.lstm import LSTM, State
from mmbench.losses.captioning import caption_negative_log_likelihood

END = 0  # also what a caption begins with, and padding


def lstm(input_dim: int, hidden_dim: int) -> LSTM:
    """The paper's layer, equations 4 to 8: no biases."""
    return LSTM(input_dim, hidden_dim, bias=False, batch_first=True)


class MaxoutLSTM(nn.Module):
    """One LSTM layer whose candidate is the larger of two linear maps, without a tanh; called as `lstm`'s is.

    Args:
        input_dim: E.
        hidden_dim: H.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(input_dim, 5 * hidden_dim)
        self.from_hidden = nn.Linear(hidden_dim, 5 * hidden_dim)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(N, T, E) and the state before, zeros if None, to (N, T, H) and the state after."""
        if state is None:
            zeros = inputs.new_zeros(1, len(inputs), self.from_hidden.in_features)
            state = zeros, zeros
        hidden, cell = state[0][0], state[1][0]
        outputs = []
        for sums in self.from_input(inputs).unbind(1):
            enter, forget, leave, first, second = (sums + self.from_hidden(hidden)).chunk(5, dim=1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * torch.maximum(first, second)
            hidden = leave.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1), (hidden[None], cell[None])


class Decoder(nn.Module):
    """A recurrent network that sees an image once, before the first word, and then the words so far.

    Args:
        num_words: V, with `END`, which is index 0.
        image_dim: F of the image's features.
        embedding_dim: width of the embeddings of images and words, E.
        hidden_dim: H.
        cell: makes a recurrent layer of E and H, batch first.
        dropout: share of the layer's outputs dropped in training.
    """

    def __init__(
        self,
        num_words: int,
        image_dim: int,
        embedding_dim: int,
        hidden_dim: int,
        cell: Callable[[int, int], nn.Module],
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image = nn.Linear(image_dim, embedding_dim)
        self.embedding = nn.Embedding(num_words, embedding_dim)
        self.cell = cell(embedding_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(hidden_dim, num_words)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.logits.weight, -0.1, 0.1)
        nn.init.zeros_(self.logits.bias)

    def begin(self, features: Tensor) -> State:
        """The state after images with features (N, F): x_-1 = CNN(I), equation 10."""
        return self.cell(self.image(features)[:, None])[1]

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """Log-probabilities of what comes after words (N,) int64: (N, V), equations 11 and 12; and the next state."""
        log_probabilities, state = self.read(words[:, None], state)
        return log_probabilities[:, 0], state

    def read(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """As `step`, of (N, T) words one after the other: (N, T, V)."""
        outputs, state = self.cell(self.embedding(words), state)
        return self.logits(self.dropout(outputs)).log_softmax(dim=-1), state

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """Log-probabilities (N, T, V) of what comes after each of (N, T) words, of which the first is `END`."""
        return self.read(words, self.begin(features))[0]


# Names of both of their models, ShowTellModel and NewFCModel, and of the older FCModel.
DECODER = KeyMap(
    rename={
        r"(?:img|fc)_embed\.(.*)": r"image.\1",
        r"embed\.(.*)": r"embedding.\1",
        r"_?core\.i2h\.(.*)": r"cell.from_input.\1",
        r"_?core\.h2h\.(.*)": r"cell.from_hidden.\1",
        r"core\.(weight_.*)": r"cell.\1",
        r"logit\.(.*)": r"logits.\1",
    }
)


class Found(NamedTuple):
    """Captions that a search has found, the best of an image first.

    Attributes:
        words: (N, K, T) int64, `END` and 0 behind it from where a caption ends.
        scores: (N, K) float, sums of log-probabilities.
    """

    words: Tensor
    scores: Tensor


def beam_search(
    decoder: Decoder,
    features: Tensor,
    beam_size: int,
    max_words: int,
    least_words: int = 0,
    barred: tuple[int, ...] = (),
    by_length: bool = False,
    repeats: bool = True,
) -> Found:
    """Captions of large probability; with a beam of one, each next word is the likeliest: greedy search.

    In each step the best `beam_size` ways to go on are kept. One that ends is put aside and falls back by 1000, so that
    others take its place.
    https://github.com/ruotianluo/ImageCaptioning.pytorch/blob/4c48a3304932d58c5349434e7b0085f48dcb4be4/captioning/models/CaptionModel.py

    Args:
        decoder: what knows the probabilities.
        features: of images, (N, F).
        beam_size: K.
        max_words: T; longer captions are cut off.
        least_words: before which none ends.
        barred: words that are never said.
        by_length: whether finished captions are compared by their score for each word and not by their score.
        repeats: whether a word may follow itself.
    """
    state, words = decoder.begin(features), features.new_zeros((len(features), 1), dtype=torch.int64)
    scores, written = features.new_zeros(words.shape), words[..., None][..., :0]  # (N, K), (N, K, words so far)
    ends: list[tuple[Tensor, Tensor]] = []
    for place in range(max_words):
        after, state = decoder.step(words.flatten(), state)
        after = after.unflatten(0, words.shape)  # (N, K, V)
        after[..., list(barred)] = -math.inf
        if place < least_words:
            after[..., END] = -math.inf
        if place and not repeats:
            after = after.scatter(2, words[..., None], -math.inf)
        ways = (scores[..., None] + after).flatten(1)
        scores, chosen = ways.topk(min(beam_size, ways.shape[1]))
        parents, words = chosen // after.shape[2], chosen % after.shape[2]
        written = torch.cat((written.take_along_dim(parents[..., None], 1), words[..., None]), dim=2)
        state = tuple(_kept(part, parents) for part in state)
        ended = words == END
        value = scores / (place + 1) if by_length else scores
        aside = value if place == max_words - 1 else value.masked_fill(~ended, -math.inf)
        ends.append((nn.functional.pad(written, (0, max_words - 1 - place)), aside))
        if ended.all():
            break
        scores = scores - 1000 * ended
    everything, values = (torch.cat(parts, dim=1) for parts in zip(*ends, strict=True))
    best, order = values.topk(min(beam_size, values.shape[1]))
    return Found(everything.take_along_dim(order[..., None], 1), best)


def _kept(part: Tensor, parents: Tensor) -> Tensor:
    """A part of the state, (1, N * K, H), of the beams that go on."""
    beams = part[0].unflatten(0, (len(parents), -1))
    return beams.take_along_dim(parents[..., None], 1).flatten(0, 1)[None].contiguous()


class ShowAndTell(Learner):
    """An image encoder that is trained already, and a decoder trained by the likelihood of captions.

    Args:
        vocabulary: the words that it can say; others are one unknown word in training.
        trunk: the image encoder, which gives regions and (N, `global_channels`); frozen in the paper.
        embedding_dim, hidden_dim, dropout: of the decoder.
        cell: makes its recurrent layer.
        max_words: captions are cut off after so many words in training.
        longest: captions are cut off after so many words at evaluation.
        beam_size: of the search; 1 takes the likeliest word each time.
        by_length, repeats: of the search, see `beam_search`.
        largest_gradient: each number of the gradient is clipped to this size.
        optimizer: partial of the optimiser.
        schedule: of the learning rate.
    """

    task = CAPTIONING
    trains_on = frozenset({"image", "captions"})
    official: ClassVar[dict[str, KeyMap]] = {"decoder": DECODER}

    def __init__(
        self,
        vocabulary: Vocabulary,
        trunk: nn.Module,
        embedding_dim: int,
        hidden_dim: int,
        dropout: float,
        cell: Callable[[int, int], nn.Module],
        max_words: int,
        longest: int,
        beam_size: int,
        by_length: bool,
        repeats: bool,
        largest_gradient: float,
        optimizer: OptimizerPartial,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule=schedule)
        self.vocabulary = vocabulary
        self.unknown = len(vocabulary)  # behind the words, as in released vocabularies
        self.trunk = trunk
        image_dim = (trunk.network if isinstance(trunk, Frozen) else trunk).global_channels
        self.decoder = Decoder(len(vocabulary) + 1, image_dim, embedding_dim, hidden_dim, cell, dropout)
        self.max_words = max_words
        self.longest = longest
        self.beam_size = beam_size
        self.by_length, self.repeats = by_length, repeats
        self.largest_gradient = largest_gradient

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that it can say."""
        return {"vocabulary.json": self.vocabulary}

    def encode(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Captions between two `END`: (N, T) int64, filled up with 0, and how many there are to be told, (N,) int64.

        Raises:
            ValueError: a caption has no known word; names it.
        """
        found = []
        for caption in captions:
            if not self.vocabulary.knows(caption):
                raise ValueError(f"expected captions of known words, found none in {caption!r}: reword it")
            words = [self.vocabulary.index.get(word, self.unknown) for word in tokenise(caption)]
            found.append([END, *words[: self.max_words], END])
        tokens, lengths = padded(found)
        return tokens.to(self.device), lengths.to(self.device) - 1

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 13 of all captions, averaged over the words of the batch of all processes, ends among them."""
        tokens, lengths = self.encode([caption for captions in batch["captions"] for caption in captions])
        counts = torch.tensor([len(captions) for captions in batch["captions"]], device=self.device)
        features = self.trunk(batch["image"])[1].repeat_interleave(counts, dim=0)
        log_probabilities = self.decoder(features, tokens[:, :-1])
        return {"L": caption_negative_log_likelihood(log_probabilities, tokens[:, 1:], lengths)}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        clip_grad_value_(self.clipped(), self.largest_gradient)

    def generate(self, batch: Batch, noise: Noise) -> list[str]:
        """The best caption of each image, in lower case without punctuation."""
        found = beam_search(
            self.decoder,
            self.trunk(batch["image"])[1],
            self.beam_size,
            self.longest,
            least_words=1,
            barred=(self.unknown,),
            by_length=self.by_length,
            repeats=self.repeats,
        )
        return [self.text(words) for words in found.words[:, 0].tolist()]

    def text(self, words: list[int]) -> str:
        """The caption that indices stand for."""
        ended = words.index(END) if END in words else len(words)
        return " ".join(self.vocabulary.words[word] for word in words[:ended])


def decayed(rate: float, every: int) -> Schedule:
    """The learning rate times `rate` each time so many epochs are done."""
    return lambda first, epoch: first * rate ** (epoch // every)
