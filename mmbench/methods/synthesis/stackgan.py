"""StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative Adversarial Networks.

Han Zhang, Tao Xu, Hongsheng Li, Shaoting Zhang, Xiaogang Wang, Xiaolei Huang, Dimitris Metaxas. ICCV 2017.
https://arxiv.org/abs/1612.03242
Authors' code: https://github.com/hanzhanggit/StackGAN-Pytorch/tree/e72ef88446e7bcd84a7b88060053edad72fecf6a

Two stages: Stage I draws a small image from a sentence and noise, Stage II draws it anew, four times as large, after
the same sentence. This is the authors' PyTorch code, whose weights for COCO were published. The paper's numbers come
from an older code in TensorFlow (https://github.com/hanzhanggit/StackGAN/tree/5db79d099ef2c13e7a8f40d1e2cf9647bc956a1a),
which differs: Stage I has bottlenecks, the condition leaky rectifiers, false pairs are images of other classes, and no
image is judged alone. Its checkpoints for birds and flowers are of those networks and do not fit these.

Where paper and released code differ, this is the code:
- The divergence is the mean over dimensions, not their sum, and weighs 2 (code/miscc/utils.py#L15).
- Mean and log variance of the condition are rectified, so that neither is negative (code/model.py#L43).

Deviations:
- While Stage II is trained, Stage I is as at evaluation; the authors' goes on to normalise by the batch and to change
  its running averages (code/trainer.py#L76 leaves it in training mode).
- Discriminators give logits, and the sigmoid is part of the loss.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping
from math import log2
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.schedules import halved, set_learning_rates
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.core.weights import KeyMap
from mmbench.layers.conditioning_augmentation import RectifiedAugmentation
from mmbench.layers.convolution import BATCHES_TRACKED, ConvNorm, conv3x3
from mmbench.layers.initialisation import initialise_normally
from mmbench.layers.rectified_convolution import RectifiedResidual, RectifiedUpBlock
from mmbench.losses.adversarial import (
    cross_entropy_real,
    matching_aware_discriminator,
    matching_aware_generator,
    matching_aware_pairs,
)
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.networks.attngan import ConditionalDiscriminator, Discriminator

ENLARGEMENT = 4  # of Stage II's images over Stage I's


class Drawn(NamedTuple):
    """What a stage's generator gives.

    Attributes:
        image: (N, 3, H, W) in [-1, 1].
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    image: Tensor
    mu: Tensor
    log_variance: Tensor


class Stage1Generator(nn.Module):
    """Stage I: a sentence and noise become a small image, by way of 4x4.

    Args:
        width: an eighth of the channels at 4x4 for images of 64: 192 for COCO, 128 otherwise.
        embedding_dim: size of sentences, 1024.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 128.
        base_size: height and width of the image, 4 times a power of two.
    """

    def __init__(self, width: int, embedding_dim: int, noise_dim: int, condition_dim: int, base_size: int) -> None:
        super().__init__()
        num_doublings = int(log2(base_size // 4))
        assert base_size == 4 * 2**num_doublings, f"not 4 times a power of two: {base_size}"
        channels = [width * 2**n // 2 for n in reversed(range(num_doublings + 1))]
        self.augmentation = RectifiedAugmentation(embedding_dim, condition_dim)
        self.project = nn.Linear(noise_dim + condition_dim, 4 * 4 * channels[0], bias=False)
        self.norm = nn.BatchNorm1d(4 * 4 * channels[0])
        self.upsample = nn.Sequential(*(RectifiedUpBlock(channels[n], channels[n + 1]) for n in range(num_doublings)))
        self.to_rgb = conv3x3(channels[-1], 3)

    def forward(self, sentence: Tensor, noise: Tensor, eps: Tensor) -> Drawn:
        """Draws images (N, 3, base_size, base_size) for sentences.

        Args:
            sentence: (N, embedding_dim).
            noise: (N, noise_dim), standard normal.
            eps: (N, condition_dim), standard normal.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        hidden = self.norm(self.project(torch.cat((noise, condition), dim=1))).relu()
        return Drawn(self.to_rgb(self.upsample(hidden.unflatten(1, (-1, 4, 4)))).tanh(), mu, log_variance)


class Stage2Generator(nn.Module):
    """Stage II: encodes the small image, joins it with a condition of its own, and draws it four times as large.

    Args:
        width: channels at the size of the small image, as in Stage I.
        embedding_dim, condition_dim: as in Stage I.
        num_residual: residual blocks: 2 for COCO, 4 otherwise.
    """

    def __init__(self, width: int, embedding_dim: int, condition_dim: int, num_residual: int) -> None:
        super().__init__()
        self.augmentation = RectifiedAugmentation(embedding_dim, condition_dim)
        self.encoder = nn.Sequential(
            nn.Sequential(conv3x3(3, width), nn.ReLU()),
            ConvNorm(width, 2 * width, kernel=4, stride=2, activation=nn.ReLU()),
            ConvNorm(2 * width, 4 * width, kernel=4, stride=2, activation=nn.ReLU()),
        )
        self.join = ConvNorm(4 * width + condition_dim, 4 * width, activation=nn.ReLU())
        self.residual = nn.Sequential(*(RectifiedResidual(4 * width) for _ in range(num_residual)))
        channels = [4 * width, 2 * width, width, width // 2, width // 4]
        self.upsample = nn.Sequential(*(RectifiedUpBlock(channels[n], channels[n + 1]) for n in range(4)))
        self.to_rgb = conv3x3(channels[-1], 3)

    def forward(self, image: Tensor, sentence: Tensor, eps: Tensor) -> Drawn:
        """Draws small images anew.

        Args:
            image: (N, 3, size, size) in [-1, 1], Stage I's; the result is (N, 3, 4 * size, 4 * size).
            sentence: (N, embedding_dim).
            eps: (N, condition_dim), standard normal.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        encoded = self.encoder(image)  # (N, 4 * width, size / 4, size / 4)
        everywhere = condition[:, :, None, None].expand(-1, -1, *encoded.shape[2:])
        hidden = self.residual(self.join(torch.cat((encoded, everywhere), dim=1)))
        return Drawn(self.to_rgb(self.upsample(hidden)).tanh(), mu, log_variance)


CONVOLUTION_AND_NORM = {1: 0, 2: 1}  # the authors' places in a list behind an upsampling, and ours
_UPSAMPLING = {
    rf"upsample{n + 1}\.{theirs}\.(.*)": rf"upsample.{n}.{ours}.\1"
    for n in range(4)
    for theirs, ours in CONVOLUTION_AND_NORM.items()
}
_BOTH_STAGES = {r"ca_net\.fc\.(.*)": r"augmentation.project.\1", **_UPSAMPLING, r"img\.0\.weight": "to_rgb.weight"}
_STAGE1 = {**_BOTH_STAGES, r"fc\.0\.weight": "project.weight", r"fc\.1\.(.*)": r"norm.\1"}
STAGE1_GENERATOR = KeyMap(rename=_STAGE1, fill=BATCHES_TRACKED)
STAGE1_GENERATOR_WITHIN = KeyMap(
    rename={rf"STAGE1_G\.{theirs}": ours for theirs, ours in _STAGE1.items()},
    drop={r"(?!STAGE1_G\.).*": "Stage II, which was published in one file with Stage I"},
    fill=BATCHES_TRACKED,
)
STAGE2_GENERATOR = KeyMap(
    rename={
        **_BOTH_STAGES,
        r"encoder\.0\.weight": "encoder.0.0.weight",
        **{rf"encoder\.{3 * n + k - 1}\.(.*)": rf"encoder.{n}.{k}.\1" for n in (1, 2) for k in (0, 1)},
        r"hr_joint\.(.*)": r"join.\1",
        **{rf"residual\.(\d+)\.block\.{k}\.(.*)": rf"residual.\1.first.{k}.\2" for k in (0, 1)},
        **{rf"residual\.(\d+)\.block\.{k + 3}\.(.*)": rf"residual.\1.second.{k}.\2" for k in (0, 1)},
    },
    drop={r"STAGE1_G\..*": "Stage I, which is a stage of its own"},
    fill=BATCHES_TRACKED,
)
# Their one list of layers has three places for each block of ours, but two for the first, which is not normalised.
DISCRIMINATOR = KeyMap(
    rename={
        r"encode_img\.0\.(.*)": r"blocks.0.0.\1",
        **{rf"encode_img\.{3 * n + k - 1}\.(.*)": rf"blocks.{n}.{k}.\1" for n in range(1, 8) for k in (0, 1)},
        **{rf"get_cond_logits\.outlogits\.{k}\.(.*)": rf"joint.{k}.\1" for k in (0, 1)},
        r"get_cond_logits\.outlogits\.3\.(.*)": r"paired.\1",
        r"get_uncond_logits\.outlogits\.0\.(.*)": r"alone.\1",
    },
    fill=BATCHES_TRACKED,
)


class StackGANStage1(SentenceToImage):
    """Stage I and its training against a discriminator of pairs.

    Args:
        text_encoder: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminator`.
        width, noise_dim, condition_dim, base_size: as `Stage1Generator`.
        discriminator_width: channels after the discriminator's first convolution, 96 for COCO, 64 otherwise.
        lambda_kl: weight of the condition's divergence from a standard normal.
        halving_epochs: after so many epochs, and again, learning rates are halved.
    """

    trains_on = frozenset({"image", "caption"})
    smallest_batch = 2  # the next image's caption is what the discriminator takes for a false one
    official: ClassVar[dict[str, KeyMap]] = {"generator": STAGE1_GENERATOR_WITHIN}

    def __init__(
        self,
        text_encoder: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        noise_dim: int,
        condition_dim: int,
        base_size: int,
        discriminator_width: int,
        lambda_kl: float,
        halving_epochs: int,
    ) -> None:
        super().__init__(optimizers)
        self.text_encoder = Frozen(text_encoder)
        self.embedding_dim, self.base_size = text_encoder.embedding_dim, base_size
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        self.lambda_kl, self.halving_epochs = lambda_kl, halving_epochs
        self.generator = Stage1Generator(width, self.embedding_dim, noise_dim, condition_dim, base_size)
        self.discriminator = ConditionalDiscriminator(base_size, discriminator_width, condition_dim)
        initialise_normally(self.generator)
        initialise_normally(self.discriminator)

    def encoded(self, texts: list[str]) -> Tensor:
        return self.text_encoder.network.encode_text(texts)

    def drawn(self, sentence: Tensor, noise: Noise) -> Drawn:
        """What Stage I draws for sentences (N, embedding_dim)."""
        return self.generator(sentence, noise.normal("z", self.noise_dim), noise.normal("eps", self.condition_dim))

    def discriminator_terms(self, real: Tensor, output: Drawn) -> dict[str, Tensor]:
        """Real images with their captions and the next ones', generated ones with theirs: equation 3, with GAN-CLS."""
        logits = self.discriminator.judge_matches(real, output.image, output.mu.detach())
        return {"L_D0": matching_aware_pairs(*logits)}

    def generator_terms(self, output: Drawn) -> dict[str, Tensor]:
        """Generated images are to be judged real with their captions, and conditions to be normal: equation 4."""
        judge = self.discriminator
        return {
            "L_G0": cross_entropy_real(judge.conditional(judge(output.image), output.mu.detach())),
            "KL": self.lambda_kl * kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        output = self.drawn(self.encoded(batch["caption"]), batch["noise"])
        self.minimise("discriminator", self.discriminator_terms(batch["image"], output))
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(output))

    def on_train_epoch_start(self) -> None:
        set_learning_rates(self.optimizers(), halved(self.halving_epochs), self.current_epoch)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.drawn(sentence, noise).image


class StackGAN(SentenceToImage):
    """Stage II and its training against a discriminator of images alone and of pairs.

    Args:
        first: the trained Stage I, which stays as it is.
        optimizers, discriminator_width, lambda_kl, halving_epochs: as `StackGANStage1`.
        width, condition_dim, num_residual: as `Stage2Generator`.
    """

    trains_on = frozenset({"image", "caption"})
    smallest_batch = 2  # the next image's caption is what the discriminator takes for a false one
    official: ClassVar[dict[str, KeyMap]] = {"generator": STAGE2_GENERATOR}

    def __init__(
        self,
        first: StackGANStage1,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        condition_dim: int,
        num_residual: int,
        discriminator_width: int,
        lambda_kl: float,
        halving_epochs: int,
    ) -> None:
        super().__init__(optimizers)
        self.first = Frozen(first)
        self.condition_dim = condition_dim
        self.lambda_kl, self.halving_epochs = lambda_kl, halving_epochs
        self.generator = Stage2Generator(width, first.embedding_dim, condition_dim, num_residual)
        self.discriminator = Discriminator(ENLARGEMENT * first.base_size, discriminator_width, condition_dim)
        initialise_normally(self.generator)
        initialise_normally(self.discriminator)

    def encoded(self, texts: list[str]) -> Tensor:
        return self.first.network.encoded(texts)

    def drawn(self, sentence: Tensor, noise: Noise) -> tuple[Tensor, Drawn]:
        """Stage I's images (N, 3, base_size, base_size) for sentences (N, embedding_dim), and what is made of them."""
        with torch.no_grad():
            small = self.first.network.drawn(sentence, noise).image
        return small, self.generator(small, sentence, noise.normal("eps stage 2", self.condition_dim))

    def discriminator_terms(self, real: Tensor, output: Drawn) -> dict[str, Tensor]:
        """Images alone, and with captions as in Stage I: equation 5, to which the code adds the former."""
        logits = self.discriminator.judge_pairs(real, output.image, output.mu.detach())
        return {"L_D": matching_aware_discriminator(*logits)}

    def generator_terms(self, output: Drawn) -> dict[str, Tensor]:
        """Generated images are to be judged real, alone and with their captions: equation 6."""
        judged = self.discriminator.judge(output.image, output.mu.detach())
        return {
            "L_G": matching_aware_generator(*judged),
            "KL": self.lambda_kl * kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        _, output = self.drawn(self.encoded(batch["caption"]), batch["noise"])
        self.minimise("discriminator", self.discriminator_terms(batch["image"], output))
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(output))

    def on_train_epoch_start(self) -> None:
        set_learning_rates(self.optimizers(), halved(self.halving_epochs), self.current_epoch)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.drawn(sentence, noise)[1].image

    def generate_stages(self, batch: Batch, noise: Noise) -> list[Tensor]:
        """As `generate`: the images of both stages."""
        small, output = self.drawn(self.encoded(batch[self.task.prompt]), noise)
        return [small, output.image]
