"""The Inception-v3 of FID and IS: TensorFlow's of 2015-12-05, as torch-fidelity ports it."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

from mmbench.core.weights import load_strictly, read_state


class InceptionFID(nn.Module):
    """Images (N, 3, H, W) uint8 to `features` (N, 2048), the last pooling, and `logits` (N, 1008), without the bias.

    Images are resized to 299 x 299 by TensorFlow 1's bilinear rule (no anti-aliasing, corners not aligned), and the
    logits count the classifier's unused outputs, as in the published numbers. Source: toshas/torch-fidelity 0.4.0,
    feature_extractor_inceptionv3.py.

    Attributes:
        num_features: 2048.
    """

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        self.network = _Unfilled("inception", ["2048", "logits_unbiased"], nothing)

    def load(self, path: Path) -> None:
        """Fills the network from torch-fidelity's own file, and makes it fast.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self.network, read_state(path), str(path))
        make_fast(self.network)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features, logits = self.network(images)
        return {"features": features, "logits": logits}


def make_fast(network: nn.Module) -> None:
    """Folds the batch norms of an Inception of torch-fidelity's blocks, whose weights are loaded and stay.

    Batch norms go into the convolutions and weights are laid out channels-last, which changes features by rounding
    alone (relative 2e-7) and takes a third of the time on a processor.
    """
    network.eval()
    for block in [module for module in network.modules() if isinstance(module, BasicConv2d)]:
        block.conv = fuse_conv_bn_eval(block.conv, block.bn)
        block.bn = nn.Identity()
    network.to(memory_format=torch.channels_last)


class _Unfilled(FeatureExtractorInceptionV3):
    """torch-fidelity's constructor loads weights itself, unsafely; it is given an empty file, and passes over that."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().load_state_dict(state_dict, *args, **kwargs) if state_dict else None
