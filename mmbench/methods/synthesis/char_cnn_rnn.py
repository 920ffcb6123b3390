"""Learning Deep Representations of Fine-grained Visual Descriptions: the char-CNN-RNN text encoder.

Scott Reed, Zeynep Akata, Honglak Lee, Bernt Schiele. CVPR 2016. https://arxiv.org/abs/1605.05395
Authors' code: https://github.com/reedscot/cvpr2016/tree/7988b42f3c2e41b6f7dc6c9ff8020b8681581259, in Lua; the encoders
that GAN-INT-CLS and StackGAN stand on come with https://github.com/reedscot/icml2016.

A text encoder that learns to meet features of images, which stay as they are. It generates nothing; what stands on it
holds it frozen.

Deviations:
- A batch is drawn from all images, and other images of a class in it are no negatives. The authors draw as many classes
  as a batch has places, and an image of each.
- Features come from torchvision's GoogLeNet, of images cut and mirrored at random; theirs from a GoogLeNet with batch
  normalisation that was not published, of ten such views of each.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.core.weights import KeyMap
from mmbench.losses.ranking import structured_joint_embedding_loss
from mmbench.networks.char_cnn_rnn import CharCNNGRU, spelt

REACH = 0.08  # parameters start within this of 0


class CharCNNRNN(Learner):
    """The text encoder and its training by a structured joint embedding with features of images.

    Args:
        text_encoder: the class of the text encoder, which lacks its `embedding_dim`.
        trunk: frozen; gives regions, which are not looked at, and (N, `global_channels`), the features of images.
        optimizer: partial of the optimiser, with the learning rate of the first epoch.
        decay: of the learning rate, each epoch.
        scale: of what methods that stand on it are given, 1 for the published encoder.

    Attributes:
        embedding_dim: of an encoded caption, that of the features of images.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption", "class_id"})
    smallest_batch = 2  # another pair is what a pair is compared with
    official: ClassVar[dict[str, KeyMap]] = {"text_encoder": CharCNNGRU.released}

    def __init__(
        self,
        text_encoder: Callable[..., nn.Module],
        trunk: Frozen,
        optimizer: OptimizerPartial,
        decay: float,
        scale: float,
    ) -> None:
        super().__init__(optimizer, schedule=lambda first, epoch: first * decay**epoch)
        self.embedding_dim: int = trunk.network.global_channels
        self.text_encoder = text_encoder(embedding_dim=self.embedding_dim)
        self.official = {"text_encoder": self.text_encoder.released}  # type: ignore[misc]
        self.trunk = trunk
        self.scale = scale
        for parameter in self.text_encoder.parameters():
            nn.init.uniform_(parameter, -REACH, REACH)

    def encode_text(self, captions: list[str]) -> Tensor:
        """N raw captions to (N, embedding_dim), `scale` times what the encoder says of them."""
        return self.scale * self.said(captions)

    def said(self, captions: list[str]) -> Tensor:
        """N raw captions to (N, embedding_dim), in the space of the images' features."""
        return self.text_encoder(spelt(captions).to(self.device))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Images are to be nearer to their captions than to those of other classes, and captions to images."""
        with torch.no_grad():
            _, image = self.trunk(batch["image"])
        text = self.said(batch["caption"])
        image_to_text, text_to_image = structured_joint_embedding_loss(image, text, batch["class_id"])
        return {"L_v": image_to_text, "L_t": text_to_image}  # equations 4 and 5

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """The encoder only reads.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "expected a method that makes images, found char_cnn_rnn: train it, then a method that stands on it"
        )
