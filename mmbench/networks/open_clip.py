"""CLIP with OpenAI's weights, through open_clip."""

from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.networks.torchscript import read_torchscript_state

OPENAI = KeyMap(
    drop={
        r"input_resolution|context_length|vocab_size": "numbers that OpenAI's archive lists among its tensors",
        r"(.*\.)?attn_mask": "the causal mask, which the network makes itself",
    },
    convert={r".*": lambda tensor: tensor.float()},  # published in half precision
)


class OpenCLIP(nn.Module):
    """Images (N, 3, H, W) uint8, or N texts, to `embedding` (N, D) of unit length.

    Images: shorter side to the network's own size (bicubic, anti-aliased, rounded to 8 bits), centre crop, normalised
    by CLIP's mean and deviation. Texts: open_clip's tokeniser, cut at its context length.

    Args:
        architecture: open_clip's name, e.g. `ViT-B-32-quickgelu`, which is how OpenAI's ViT-B/32 was trained.
    """

    def __init__(self, architecture: str) -> None:
        super().__init__()
        self.network = open_clip.CLIP(**open_clip.get_model_config(architecture))
        self.tokenizer = open_clip.get_tokenizer(architecture)
        self.size = self.network.visual.image_size[0]
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
            return {"embedding": self.network.encode_image(self.preprocess(source), normalize=True)}
        tokens = self.tokenizer(source).to(self.mean.device)  # (N, L)
        return {"embedding": self.network.encode_text(tokens, normalize=True)}

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, 3, size, size) float32 as the network wants it."""
        height, width = images.shape[-2:]
        scale = self.size / min(height, width)
        shape = [max(self.size, int(height * scale)), max(self.size, int(width * scale))]
        resized = F.interpolate(images.float(), shape, mode="bicubic", antialias=True).round().clamp(0, 255)
        top, left = (round((side - self.size) / 2) for side in shape)
        crop = resized[..., top : top + self.size, left : left + self.size]
        return (crop - self.mean) / self.deviation
