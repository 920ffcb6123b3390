"""MirrorGAN's STREAM: the captioner that describes a generated image again.

Tingting Qiao, Jing Zhang, Duanqing Xu, Dacheng Tao. MirrorGAN. CVPR 2019. https://arxiv.org/abs/1903.05854,
section 3.3.
Authors' code: https://github.com/qiaott/MirrorGAN/tree/deb220fdae8f543c9260f6242fed9f78764eedc1, model.py, classes
CAPTION_CNN and CAPTION_RNN.
"""

from typing import Self

import torch
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.layers.lstm import LSTM
from mmbench.networks.resnet152 import LAYERS


class StreamEncoder(nn.Module):
    """An image as one vector, in the place of the word before the first.

    Args:
        trunk: maps images (N, 3, H, W) in [-1, 1] to regions and pooled features (N, `global_channels`). In the paper
            `ResNet152Trunk`, trained on another task; may be `Frozen`.
        embedding_dim: size of the vector, which is that of the decoder's words.
    """

    def __init__(self, trunk: nn.Module, embedding_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.project = nn.Linear((trunk.network if isinstance(trunk, Frozen) else trunk).global_channels, embedding_dim)
        self.norm = nn.BatchNorm1d(embedding_dim, momentum=0.01)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, embedding_dim)."""
        _, pooled = self.trunk(image)
        return self.norm(self.project(pooled))


class DifferentiableLSTM(LSTM):
    """An LSTM that is never in evaluation mode: cuDNN has no gradients there, and without dropout nothing else differs.

    Generators learn through it while it is frozen.
    """

    def train(self, mode: bool = True) -> Self:
        return super().train(True)


class StreamDecoder(nn.Module):
    """What comes after an image and the words so far; there is no token for the beginning of a caption.

    Args:
        num_words: V.
        embedding_dim: size of words and images.
        hidden_dim: of the LSTM.
    """

    def __init__(self, num_words: int, embedding_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_words, embedding_dim)
        self.lstm = DifferentiableLSTM(embedding_dim, hidden_dim, batch_first=True)
        self.logits = nn.Linear(hidden_dim, num_words)

    def forward(self, feature: Tensor, tokens: Tensor) -> Tensor:
        """Logits of every word of a caption, each from the image and the words before it.

        Args:
            feature: (N, embedding_dim), of images.
            tokens: (N, T) int64; the last word is looked for and never read.

        Returns:
            (N, T, V), where place t is about word t.
        """
        before = torch.cat((feature[:, None], self.embedding(tokens[:, :-1])), dim=1)
        return self.logits(self.lstm(before)[0])

    def greedy(self, feature: Tensor, num_words: int, barred_first: tuple[int, ...] = ()) -> Tensor:
        """The likeliest word after an image and the likeliest words before it, again and again.

        Args:
            feature: (N, embedding_dim), of images.
            num_words: T.
            barred_first: words that no caption begins with.

        Returns:
            (N, T) int64.
        """
        given, state, found = feature[:, None], None, []
        for place in range(num_words):
            hidden, state = self.lstm(given, state)
            logits = self.logits(hidden[:, 0])
            if place == 0:
                logits[:, list(barred_first)] = -torch.inf
            found.append(logits.argmax(dim=1))
            given = self.embedding(found[-1])[:, None]
        return torch.stack(found, dim=1)


STREAM_ENCODER = KeyMap(
    rename={
        **{rf"resnet\.{place}\.(.*)": rf"trunk.layers.{name}.\1" for place, name in LAYERS.items()},
        r"linear\.(.*)": r"project.\1",
        r"bn\.(.*)": r"norm.\1",
    },
    fill=BATCHES_TRACKED,
)
STREAM_DECODER = KeyMap(rename={r"embed\.(.*)": r"embedding.\1", r"linear\.(.*)": r"logits.\1"})
