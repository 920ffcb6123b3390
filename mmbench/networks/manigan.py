"""ManiGAN's networks: the main module and the detail correction module.

Bowen Li, Xiaojuan Qi, Thomas Lukasiewicz, Philip H. S. Torr. ManiGAN: Text-Guided Image Manipulation. CVPR 2020.
https://arxiv.org/abs/1912.06203
Authors' code: https://github.com/mrlibw/ManiGAN/tree/e4afc93d8c77e6bf3830f00b12237f585f329bba, code/model.py
What the paper's ablations change of them is in `mmbench.networks.manigan_ablations`.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.affine_combination import AffineCombination
from mmbench.layers.conditioning_augmentation import ConditioningAugmentation
from mmbench.layers.convolution import BATCHES_TRACKED, conv3x3
from mmbench.layers.first_stage import FirstStage
from mmbench.layers.gated_convolution import GatedConvolution, GatedResidual, ResizeBlock, UpBlock
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention, linear_from_convolution

# Makes what combines hidden features with image features from the channels of either and a width in between.
Combination = Callable[[int, int, int], nn.Module]


class Fusion(nn.Module):
    """Hidden features meet words and image: attention over words, combination with the image, residual blocks."""

    def __init__(
        self,
        width: int,
        image_width: int,
        size: int,
        embedding_dim: int,
        num_residual: int,
        shared_width: int,
        combination: Combination,
    ) -> None:
        super().__init__()
        self.spatial_attention = SpatialAttention(width, embedding_dim)
        self.channel_attention = ChannelAttention(size**2, embedding_dim)
        self.combination = combination(3 * width, image_width, shared_width)
        self.residual = nn.Sequential(*(GatedResidual(3 * width) for _ in range(num_residual)))

    def forward(self, hidden: Tensor, words: Tensor, word_mask: Tensor, image_features: Tensor) -> Tensor:
        """(N, width, size, size), (N, L, D), (N, L), (N, image_width, size, size) to (N, 3 * width, size, size)."""
        word_mask = word_mask[:, None]  # (N, 1, L)
        context, _ = self.spatial_attention(hidden, words, word_mask)
        channel_context, _ = self.channel_attention(context, words, word_mask)
        fused = torch.cat((hidden, context, channel_context), dim=1)  # (N, 3 * width, size, size)
        return self.residual(self.combination(fused, image_features))


class ImageHead(nn.Module):
    """Hidden features and image features to an image; the combination feeds the image only, not the next stage."""

    def __init__(self, width: int, shared_width: int, combination: Combination) -> None:
        super().__init__()
        self.combination = combination(width, width, shared_width)
        self.to_rgb = conv3x3(width, 3)

    def forward(self, hidden: Tensor, image_features: Tensor) -> Tensor:
        return self.to_rgb(self.combination(hidden, image_features)).tanh()


class MainOutput(NamedTuple):
    """What the main module gives.

    Attributes:
        images: (N, 3, s, s) in [-1, 1] for s = base_size, 2 * base_size, 4 * base_size.
        hidden: (N, width, 4 * base_size, 4 * base_size), features of the last stage, for the detail correction module.
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    images: list[Tensor]
    hidden: Tensor
    mu: Tensor
    log_variance: Tensor


class MainModule(nn.Module):
    """The main module: three stages, each of which combines text, image and what the last stage made.

    Args:
        width: channels of hidden features, 32 for CUB and 48 for COCO.
        embedding_dim: size of words, sentences and image regions, 256.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 100.
        num_residual: residual blocks per stage, 2 for CUB and 3 for COCO.
        base_size: size of the first stage's image; the others double it.
        shared_width: channels inside the affine combinations.
    """

    combination: ClassVar[Combination] = AffineCombination

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int = 64,
        shared_width: int = 128,
    ) -> None:
        super().__init__()
        sizes = (base_size, 2 * base_size)
        self.augmentation = ConditioningAugmentation(embedding_dim, condition_dim)
        self.first_stage = FirstStage(condition_dim + noise_dim + embedding_dim, width, base_size)
        self.fusions = nn.ModuleList(
            Fusion(width, width, size, embedding_dim, num_residual, shared_width, self.combination) for size in sizes
        )
        self.upsample = nn.ModuleList(UpBlock(3 * width, width) for _ in sizes)
        # The authors upsample 17x17 regions by 3.8, which in PyTorch before 1.6 reads pixel floor(i * 17 / 64), as
        # resizing to 64 does; later versions read floor(i / 3.8).
        # https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/model.py#L65
        self.image_path = nn.ModuleList(
            [ResizeBlock(embedding_dim, width, base_size), UpBlock(width, width), UpBlock(width, width)]
        )
        self.heads = nn.ModuleList(ImageHead(width, shared_width, self.combination) for _ in range(3))

    def forward(
        self,
        noise: Tensor,
        eps: Tensor,
        sentence: Tensor,
        words: Tensor,
        word_mask: Tensor,
        image_code: Tensor,
        regions: Tensor,
    ) -> MainOutput:
        """Edits images towards captions.

        Args:
            noise: (N, noise_dim), standard normal.
            eps: (N, condition_dim), standard normal.
            sentence: (N, embedding_dim).
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.
            image_code: (N, embedding_dim), the input images as a whole, from DAMSM's image encoder.
            regions: (N, embedding_dim, h, w), their regions.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        stages = self.stages(torch.cat((condition, noise, image_code), dim=1), words, word_mask, regions)
        images = []
        for head, (hidden, image_features) in zip(self.heads, stages, strict=True):
            images.append(head(hidden, image_features))
        return MainOutput(images, hidden, mu, log_variance)

    def hidden(
        self,
        noise: Tensor,
        eps: Tensor,
        sentence: Tensor,
        words: Tensor,
        word_mask: Tensor,
        image_code: Tensor,
        regions: Tensor,
    ) -> Tensor:
        """The `hidden` of `forward` alone, for the detail correction module, which needs no image of this one."""
        condition, _, _ = self.augmentation(sentence, eps)
        stages = self.stages(torch.cat((condition, noise, image_code), dim=1), words, word_mask, regions)
        for hidden, _ in stages:  # noqa: B007  (the last is returned)
            pass
        return hidden

    def stages(
        self, vector: Tensor, words: Tensor, word_mask: Tensor, regions: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden features and image features of each size, both (N, width, s, s), one stage after another."""
        hidden, image_features = self.first_stage(vector), self.image_path[0](regions)
        yield hidden, image_features
        for n in range(2):
            hidden = self.upsample[n](self.fusions[n](hidden, words, word_mask, image_features))
            image_features = self.image_path[n + 1](image_features)
            yield hidden, image_features


class DetailCorrection(nn.Module):
    """The detail correction module: restores details that the text does not speak of.

    Args:
        width: channels of the main module's hidden features.
        size: height and width of the image, 256.
        embedding_dim: size of words, 256.
        feature_channels: channels of the input image's features, 128 for VGG-16's relu2_2.
        num_residual: residual blocks, 2 for CUB and 3 for COCO.
        shared_width: channels inside the affine combinations.
    """

    combination: ClassVar[Combination] = AffineCombination

    def __init__(
        self,
        width: int,
        size: int,
        embedding_dim: int,
        feature_channels: int,
        num_residual: int,
        shared_width: int = 128,
    ) -> None:
        super().__init__()
        self.upsample = UpBlock(feature_channels, width)
        self.fusion = Fusion(width, width, size, embedding_dim, num_residual, shared_width, self.combination)
        self.narrow = GatedConvolution(3 * width, width)
        self.head = ImageHead(width, shared_width, self.combination)

    def forward(self, hidden: Tensor, words: Tensor, word_mask: Tensor, features: Tensor) -> Tensor:
        """The edited image.

        The authors' network also takes the sentence and the condition, and uses neither.
        https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/model.py#L554

        Args:
            hidden: (N, width, size, size), from the main module.
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.
            features: (N, feature_channels, size / 2, size / 2), VGG features of the input image.

        Returns:
            (N, 3, size, size) in [-1, 1].
        """
        return self.corrected(hidden, words, word_mask, self.upsample(features))

    def corrected(self, hidden: Tensor, words: Tensor, word_mask: Tensor, image_features: Tensor) -> Tensor:
        """As `forward`, from image features (N, width, size, size)."""
        fused = self.fusion(hidden, words, word_mask, image_features)
        return self.head(self.narrow(fused), image_features)


# The authors' names. Their SAIN is the affine combination, whose conv_bias is the convolution that makes the shift.
AFFINE_COMBINATION = {"conv": "shared", "conv_weight": "scale", "conv_bias": "shift"}


def affine_keys(theirs: str, ours: str) -> dict[str, str]:
    """Patterns for `KeyMap.rename` of an affine combination, from the authors' name to ours."""
    return {rf"{theirs}\.{a}\.weight": rf"{ours}.{b}.weight" for a, b in AFFINE_COMBINATION.items()}


def fusion_keys(theirs: str, ours: str, combination: str = "SAIN") -> dict[str, str]:
    """Patterns for `KeyMap.rename` of a `Fusion` but for its channel attention, whose name changes with the stage."""
    return {
        rf"{theirs}\.att\.conv_context\.weight": rf"{ours}.spatial_attention.project.weight",
        rf"{theirs}\.residual\.(\d+)\.block\.0\.weight": rf"{ours}.residual.\1.gated.convolution.weight",
        rf"{theirs}\.residual\.(\d+)\.block\.3\.weight": rf"{ours}.residual.\1.convolution.weight",
        **affine_keys(rf"{theirs}\.{combination}", f"{ours}.combination"),
    }


MAIN_MODULE = KeyMap(
    rename={
        r"ca_net\.fc\.(.*)": r"augmentation.project.\1",
        r"h_net1\.fc\.0\.weight": r"first_stage.project.weight",
        r"h_net1\.fc\.1\.(.*)": r"first_stage.norm.\1",
        **{rf"h_net1\.upsample{n + 1}\.1\.weight": f"first_stage.upsample.{n}.convolution.weight" for n in range(4)},
        r"h_net2\.channel_att\.conv_context2\.weight": "fusions.0.channel_attention.project.weight",
        r"h_net3\.channel_att\.conv_context3\.weight": "fusions.1.channel_attention.project.weight",
        **fusion_keys("h_net2", "fusions.0"),
        **fusion_keys("h_net3", "fusions.1"),
        r"h_net2\.upsample\.1\.weight": "upsample.0.convolution.weight",
        r"h_net3\.upsample\.1\.weight": "upsample.1.convolution.weight",
        r"imgUpSample\.1\.weight": "image_path.0.1.convolution.weight",
        r"imgUpSample2\.1\.weight": "image_path.1.convolution.weight",
        r"imgUpSample3\.1\.weight": "image_path.2.convolution.weight",
        **{rf"img_net{n + 1}\.img\.0\.weight": f"heads.{n}.to_rgb.weight" for n in range(3)},
        **affine_keys("SAIN1", "heads.0.combination"),
        **affine_keys("SAIN2", "heads.1.combination"),
        **affine_keys("SAIN3", "heads.2.combination"),
    },
    drop={
        r"h_net2\.channel_att\.conv_context3\.weight": "the projection for the other stage's size, never used",
        r"h_net3\.channel_att\.conv_context2\.weight": "the projection for the other stage's size, never used",
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
    fill=BATCHES_TRACKED,
)

DETAIL_CORRECTION = KeyMap(
    rename={
        r"upsample\.1\.weight": "upsample.convolution.weight",
        r"h_net\.color_channel_att\.conv_context\.weight": "fusion.channel_attention.project.weight",
        **fusion_keys("h_net", "fusion"),
        r"h_net\.block\.0\.weight": "narrow.convolution.weight",
        r"img_net\.img\.0\.weight": "head.to_rgb.weight",
        **affine_keys("SAIN", "head.combination"),
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
)
