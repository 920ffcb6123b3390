"""CLIP with OpenAI's weights, through open_clip."""

from collections.abc import Callable, Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.networks.resizing import ShorterSide
from mmbench.networks.torchscript import read_torchscript_state

OPENAI = KeyMap(
    drop={
        r"input_resolution|context_length|vocab_size": "numbers that OpenAI's archive lists among its tensors",
        r"(.*\.)?attn_mask": "the causal mask, which the network makes itself",
    },
    convert={r".*": lambda tensor: tensor.float()},  # published in half precision
)
TEXTS = 8  # that go through the network at once
STEP = 8  # places by which texts are cut to their length: few lengths, so that texts of a batch go together


class OpenCLIP(nn.Module):
    """Images (N, 3, H, W) uint8, or N texts, to `embedding` (N, D) of unit length; of images also as `features`.

    Images: made squares of the network's own size, normalised by CLIP's mean and deviation. Texts: open_clip's
    tokeniser, cut at its context length.

    Args:
        architecture: open_clip's name, e.g. `ViT-B-32-quickgelu`, which is how OpenAI's ViT-B/32 was trained.
        resize: what makes squares of pictures (`networks/resizing.py`). By default as OpenAI does: the shorter side to
            the network's own size, and the centre of it.

    Attributes:
        num_features: D.
    """

    def __init__(self, architecture: str, resize: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.network = open_clip.CLIP(**open_clip.get_model_config(architecture))
        self.tokenizer = open_clip.get_tokenizer(architecture)
        size = self.network.visual.image_size[0]
        self.resize = resize or ShorterSide(size, size)
        self.num_features = self.network.text_projection.shape[1]
        self.register_buffer("mean", 255 * torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None], persistent=False)
        self.register_buffer(
            "deviation", 255 * torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None], persistent=False
        )

    def load(self, path: Path) -> None:
        """Fills the network from a TorchScript archive as OpenAI publishes them.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self.network, OPENAI(read_torchscript_state(path), self.network), str(path))

    def forward(self, source: Tensor | list[str]) -> dict[str, Tensor]:
        if isinstance(source, Tensor):
            embedding = self.network.encode_image(self.preprocess(source), normalize=True)
            return {"embedding": embedding, "features": embedding}
        return {"embedding": self.encode_texts(source)}

    def encode_texts(self, texts: list[str]) -> Tensor:
        """N texts to (N, D): each different one once, and no longer than it is.

        Those of one length go through the network a few at a time, always as many, the last ones filled up: an
        embedding does not depend on the texts beside it, to the last bit.

        CLIP's text encoder is causal and read at the end token, so that what comes after it, most of its 77 places,
        changes nothing.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        tokens = self.tokenizer(list(places)).to(self.mean.device)  # (M, L)
        lengths = (tokens.argmax(dim=1) // STEP + 1) * STEP  # the end token has the highest number
        found = tokens.new_zeros(len(tokens), self.network.text_projection.shape[1], dtype=torch.float32)
        for length in lengths.unique().tolist():
            parts = tokens[lengths == length, :length].split(TEXTS)
            filled = [F.pad(part, (0, 0, 0, TEXTS - len(part))) for part in parts]
            found[lengths == length] = torch.cat(
                [self._encoded(whole)[: len(part)] for whole, part in zip(filled, parts, strict=True)]
            )
        return found[[places[text] for text in texts]]

    @property
    def limit(self) -> str:
        """How much of a text is read, in words."""
        return f"CLIP's {self.network.context_length} tokens"

    def is_cut(self, texts: Sequence[str]) -> Tensor:
        """Which of N texts have more tokens than are read: (N,) bool."""
        length = self.network.context_length
        tokens = self.tokenizer(list(texts), context_length=length + 1)  # (N, L + 1)
        return tokens.argmax(dim=1) == length  # the end token, which has the highest number, lies beyond

    def _encoded(self, tokens: Tensor) -> Tensor:
        network, length = self.network, tokens.shape[1]
        states = network.token_embedding(tokens) + network.positional_embedding[:length]  # (M, l, width)
        states = network.ln_final(network.transformer(states, attn_mask=network.attn_mask[:length, :length]))
        ends = states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]
        return F.normalize(ends @ network.text_projection, dim=-1)

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, 3, size, size) float32 as the network wants it."""
        return (self.resize(images) - self.mean) / self.deviation
