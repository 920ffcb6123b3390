"""DAMSM: text and image encoders with a common space for words and image regions, for sentences and images.

Tao Xu, Pengchuan Zhang, Qiuyuan Huang, Han Zhang, Zhe Gan, Xiaolei Huang, Xiaodong He. AttnGAN: Fine-Grained Text to
Image Generation with Attentional Generative Adversarial Networks. CVPR 2018. https://arxiv.org/abs/1711.10485
Authors' code: https://github.com/taoxugit/AttnGAN/tree/0d000e652b407e976cb88fab299e8566f3de8a37; ControlGAN and ManiGAN
use the same classes. Their losses are in `mmbench.losses.matching`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.networks.inception_v3 import INCEPTION_V3_NAMES


class EncodedText(NamedTuple):
    """Captions in the common space; L is the number of tokens of the longest one.

    Attributes:
        words: (N, L, D), exactly 0 at padding.
        word_mask: (N, L) bool, True at words.
        sentence: (N, D).
    """

    words: Tensor
    word_mask: Tensor
    sentence: Tensor

    def interpolated(self, share: Tensor) -> "EncodedText":
        """Texts between the first N / 2 and the other ones, each with the one N / 2 behind it: sentence and words.

        A word for which the shorter text has no counterpart is there, as it is, until the very end of that text.

        Args:
            share: (N / 2,) in [0, 1], how far each is on the way to the second.
        """
        (first, other), (there, then), (sentence, last) = (part.chunk(2) for part in self)
        share = share.to(first)[:, None]  # (N / 2, 1)
        words = torch.lerp(first, other, torch.where(there & then, share, then.to(first))[..., None])
        mask = (there & (share < 1)) | (then & (share > 0))
        return EncodedText(words * mask[..., None], mask, torch.lerp(sentence, last, share))


class TextEncoder(nn.Module):
    """Word embedding and one bidirectional LSTM layer.

    Args:
        num_tokens: size of the vocabulary, `<end>` (0, also the padding) included.
        embedding_dim: D of the common space, half of it for each direction.
        token_dim: width of the word embedding.
        dropout: share of the word embedding's values dropped in training.
    """

    def __init__(self, num_tokens: int, embedding_dim: int = 256, token_dim: int = 300, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, token_dim)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(token_dim, embedding_dim // 2, batch_first=True, bidirectional=True)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> EncodedText:
        """Encodes captions in any order of length.

        Args:
            tokens: (N, T) int64, padded at the end.
            lengths: (N,) int64, between 1 and T.

        Returns:
            The encoded captions; a sentence is the LSTM's last state forwards and its last state backwards.
        """
        packed = pack_padded_sequence(
            self.dropout(self.embedding(tokens)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, (state, _) = self.lstm(packed)
        words, _ = pad_packed_sequence(outputs, batch_first=True)  # (N, L, D)
        word_mask = torch.arange(words.shape[1], device=words.device) < lengths.to(words.device)[:, None]
        return EncodedText(words, word_mask, torch.cat((state[0], state[1]), dim=1))


class EncodedImage(NamedTuple):
    """Images in the common space.

    Attributes:
        regions: (N, D, h, w), 17 by 17 regions with the Inception-v3 trunk.
        code: (N, D), the image as a whole.
    """

    regions: Tensor
    code: Tensor


class ImageEncoder(nn.Module):
    """A trunk trained on another task, and linear maps of its features into the common space.

    Args:
        trunk: maps images (N, 3, H, W) in [-1, 1] to regions (N, region_channels, h, w) and pooled features
            (N, global_channels); has attributes of these names. `InceptionV3Trunk` in the paper.
        embedding_dim: D of the common space.
    """

    def __init__(self, trunk: nn.Module, embedding_dim: int = 256) -> None:
        super().__init__()
        self.trunk = trunk
        self.project_regions = nn.Conv2d(trunk.region_channels, embedding_dim, kernel_size=1, bias=False)
        self.project_image = nn.Linear(trunk.global_channels, embedding_dim)
        nn.init.uniform_(self.project_regions.weight, -0.1, 0.1)
        nn.init.uniform_(self.project_image.weight, -0.1, 0.1)

    def forward(self, image: Tensor) -> EncodedImage:
        """Encodes images (N, 3, H, W) in [-1, 1]; nothing is L2-normalised."""
        regions, pooled = self.trunk(image)
        return EncodedImage(self.project_regions(regions), self.project_image(pooled))


TEXT_ENCODER = KeyMap(rename={r"encoder\.(.*)": r"embedding.\1", r"rnn\.(.*)": r"lstm.\1"})

IMAGE_ENCODER = KeyMap(
    rename={
        r"emb_features\.(.*)": r"project_regions.\1",
        r"emb_cnn_code\.(.*)": r"project_image.\1",
        **{pattern: f"trunk.{name}" for pattern, name in INCEPTION_V3_NAMES.items()},
    },
    fill=BATCHES_TRACKED,
)
