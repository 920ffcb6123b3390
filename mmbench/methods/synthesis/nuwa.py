"""NÜWA: Visual Synthesis Pre-training for Neural visUal World creAtion.

Chenfei Wu, Jian Liang, Lei Ji, Fan Yang, Yuejian Fang, Daxin Jiang, Nan Duan. ECCV 2022.
https://arxiv.org/abs/2111.12417
Microsoft published no code. Attention, token shift and the mixing of heads are those of the re-implementation
https://github.com/lucidrains/nuwa-pytorch/tree/a3e3a6d (see `mmbench.networks.nuwa`).

Text to image: an image is a video of one frame. A first stage gives it as a map of codes, an encoder reads the words,
and a decoder tells code by code, each from the codes near it and from all words.

Deviations:
- Words are those of the data set's captions, where theirs are pieces of words.
- Branches are scaled by a learned vector, as DALL-E's are here, which the re-implementation has not.
- One task is learned, not several at once.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.processes import averaged
from mmbench.core.text import Vocabulary
from mmbench.networks import nuwa
from mmbench.networks.text_to_codes import TextToCodes
from mmbench.networks.token_transformer import token_cross_entropy


class NUWA(TextToCodes):
    """Encoder and decoder, trained by the likelihood of codes (equation 11).

    Args:
        vocabulary, first_stage, image_size, max_words, text_dropout, temperature, top_k, guidance, optimizer,
            gradient_clip: as of `TextToCodes`.
        kernel: rows and columns of the neighbourhood, which ends at a code.
        dilations: distances of its codes, of the decoder's layers in turn.
        dim, num_heads, head_dim, text_depth, depth: of encoder and decoder.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        first_stage: Method,
        image_size: int,
        max_words: int,
        kernel: int,
        dilations: Sequence[int],
        dim: int,
        num_heads: int,
        head_dim: int,
        text_depth: int,
        depth: int,
        **others: Any,
    ) -> None:
        super().__init__(vocabulary, first_stage, image_size, max_words, **others)
        self.network = nuwa.NUWA(
            len(vocabulary),
            max_words,
            self.num_codes,
            (1, self.side, self.side),
            (1, kernel, kernel),
            [(1, dilation, dilation) for dilation in dilations],
            dim,
            num_heads,
            head_dim,
            text_depth,
            depth,
        )

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        codes = self.codes(batch["image"])
        return {"L": averaged(token_cross_entropy(self.network(self.shown_tokens(batch), codes), codes))}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        text, uniform = self.tokens(batch["caption"]), noise.uniform("codes", self.side**2)
        codes = self.network.sample(text, uniform, self.temperature, self.top_k, self.guidance)
        return self.decoded(codes[:, 0])
