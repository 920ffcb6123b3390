"""CLIP, small enough to be trained with what it is to rank: texts and images in one space.

Alec Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
https://arxiv.org/abs/2103.00020, as DALL-E's re-implementation has it for re-ranking:
https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a, dalle_pytorch/dalle_pytorch.py, class CLIP. (OpenAI's own
released networks, which judge, are in `mmbench.networks.open_clip`.)
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.scaled_transformer import ScaledBlock

HEAD_DIM = 64


class CLIP(nn.Module):
    """A transformer over words and one over patches, each averaged over its tokens and projected to a unit vector.

    Args:
        num_words: of the text encoder's embedding.
        max_words: positions that it knows.
        text_dim, text_depth, text_heads: of the text encoder.
        image_size: side of the images, in pixels.
        patch_size: side of a patch.
        image_dim, image_depth, image_heads: of the image encoder.
        embedding_dim: D of the common space.
        log_scale: what the logarithm of the cosines' factor starts at.

    Raises:
        ValueError: the image is no whole number of patches wide.
    """

    def __init__(
        self,
        num_words: int,
        max_words: int,
        text_dim: int,
        text_depth: int,
        text_heads: int,
        image_size: int,
        patch_size: int,
        image_dim: int,
        image_depth: int,
        image_heads: int,
        embedding_dim: int,
        log_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(
                f"expected an image_size that patches of {patch_size} pixels fill, found {image_size}: choose a "
                "multiple of it, or another patch_size"
            )
        self.image_size, self.patch_size = image_size, patch_size
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))
        self.words = nn.Embedding(num_words, text_dim)
        self.word_positions = nn.Embedding(max_words, text_dim)
        self.text_encoder = _encoder(text_dim, text_depth, text_heads)
        self.from_text = nn.Linear(text_dim, embedding_dim, bias=False)
        self.patches = nn.Linear(3 * patch_size**2, image_dim)
        self.patch_positions = nn.Embedding((image_size // patch_size) ** 2, image_dim)
        self.image_encoder = _encoder(image_dim, image_depth, image_heads)
        self.from_image = nn.Linear(image_dim, embedding_dim, bias=False)

    def encode_text(self, tokens: Tensor, known: Tensor | None = None) -> Tensor:
        """Texts as unit vectors, (N, D).

        Args:
            tokens: (N, L) int64, L at most `max_words`.
            known: (N, L) bool, False at padding, which has no influence. None: there is no padding.
        """
        x = self.encode_words(tokens, known)
        if known is None:
            return F.normalize(self.from_text(x.mean(dim=1)), dim=-1)
        weights = known.to(x.dtype)[..., None]
        return F.normalize(self.from_text((x * weights).sum(dim=1) / weights.sum(dim=1)), dim=-1)

    def encode_words(self, tokens: Tensor, known: Tensor | None = None) -> Tensor:
        """What the text encoder makes of each word, (N, L, text_dim); arguments as `encode_text`."""
        x = self.words(tokens) + self.word_positions.weight[: tokens.shape[1]]
        for block in self.text_encoder:
            x = block(x, None if known is None else known[:, None, None])
        return x

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] as unit vectors, (N, D).

        Raises:
            ValueError: they are not of `image_size`.
        """
        if image.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"expected images of {self.image_size}x{self.image_size} pixels, which this CLIP looks at, found "
                f"{image.shape[3]}x{image.shape[2]}: train it with method.module.image_size of that size"
            )
        pixels = rearrange(image, "n c (h p) (w q) -> n (h w) (p q c)", p=self.patch_size, q=self.patch_size)
        x = self.patches(pixels) + self.patch_positions.weight
        for block in self.image_encoder:
            x = block(x)
        return F.normalize(self.from_image(x.mean(dim=1)), dim=-1)


def _encoder(dim: int, depth: int, num_heads: int) -> nn.ModuleList:
    return nn.ModuleList(ScaledBlock(dim, num_heads, HEAD_DIM, layer) for layer in range(1, depth + 1))


def block_keys(authors: str, ours: str) -> dict[str, str]:
    """Renames the parts of blocks; `fn`, once or more, are the authors' wrappers of what a branch computes."""
    stem = rf"{authors}\.layers\.layers\.(\d+)"
    return {
        pattern: name
        for branch, part in enumerate(("attention", "feed_forward"))
        for pattern, name in {
            rf"{stem}\.{branch}\.scale": rf"{ours}.\1.{part}.scale",
            rf"{stem}\.{branch}\.fn\.norm\.(.*)": rf"{ours}.\1.{part}.norm.\2",
            rf"{stem}\.{branch}\.fn\.norm_out\.(.*)": rf"{ours}.\1.{part}.norm_after.\2",
            rf"{stem}\.{branch}\.(?:fn\.)+to_qkv\.(.*)": rf"{ours}.\1.{part}.function.qkv.\2",
            rf"{stem}\.{branch}\.(?:fn\.)+to_out\.0\.(.*)": rf"{ours}.\1.{part}.function.out.\2",
            rf"{stem}\.{branch}\.(?:fn\.)+net\.0\.(.*)": rf"{ours}.\1.{part}.function.widen.\2",
            rf"{stem}\.{branch}\.(?:fn\.)+net\.3\.(.*)": rf"{ours}.\1.{part}.function.narrow.\2",
        }.items()
    }


AS_VECTOR = {r".*\.scale": torch.Tensor.flatten}  # theirs has two axes of length 1 before

KEYS = KeyMap(
    rename={
        "temperature": "log_scale",
        **block_keys("text_transformer", "text_encoder"),
        **block_keys("visual_transformer", "image_encoder"),
        r"text_emb\.(.*)": r"words.\1",
        r"text_pos_emb\.(.*)": r"word_positions.\1",
        r"to_text_latent\.(.*)": r"from_text.\1",
        r"to_visual_embedding\.(.*)": r"patches.\1",
        r"visual_pos_emb\.(.*)": r"patch_positions.\1",
        r"to_visual_latent\.(.*)": r"from_image.\1",
    },
    convert=AS_VECTOR,
)
