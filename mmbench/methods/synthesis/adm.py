"""ADM: Diffusion Models Beat GANs on Image Synthesis: images of a class, with a classifier's guidance, and larger ones.

Prafulla Dhariwal, Alex Nichol. NeurIPS 2021. https://arxiv.org/abs/2105.05233
Authors' code: https://github.com/openai/guided-diffusion/tree/22e0df8183507e13a7813f8d38d51b072ca1e67c. The networks
are in `networks/adm.py`, all that is diffusion in `mmbench/diffusion`.

A model is trained by L_hybrid of Improved Denoising Diffusion Probabilistic Models (Nichol, Dhariwal, ICML 2021,
https://arxiv.org/abs/2102.09672), all steps being equally likely, and makes images by fewer steps than it was trained
with: `num_steps` 250 with `by_ancestral_sampling`, or ddim25 with `by_ddim`.

Deviations:
- Timesteps, noise and what is left out belong to a sample, so that processes share a batch exactly.
- The classifier sees the pictures that the U-Net sees; the authors crop its at random (scripts/classifier_train.py).
  Its learning rate falls from epoch to epoch, theirs from step to step.
- What is enlarged is not rounded to 256 levels first, as the authors' files of small samples are.

`ADMText`, no reference to compare with: our own, for tables of text to image. A caption takes the place of the class
and classifier-free guidance that of the classifier's, as GLIDE has both (https://arxiv.org/abs/2112.10741, section 3),
which gives the caption to attention as well.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.learner import AveragedLearner, Learner, OptimizerPartial
from mmbench.core.method import LONG_SAMPLING, Batch
from mmbench.core.noise import Noise
from mmbench.core.schedules import Schedule as RateSchedule
from mmbench.core.task import CLASS_TO_IMAGE, IMAGE_SYNTHESIS, TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary, padded
from mmbench.core.weights import KeyMap
from mmbench.diffusion.denoisers import (
    Condition,
    Denoiser,
    Predicted,
    clipped,
    denoiser_of,
    learned_range,
    predicted_noise,
)
from mmbench.diffusion.guidance import (
    Gradient,
    classifier,
    classifier_ancestral,
    classifier_free,
    log_probability_gradient,
)
from mmbench.diffusion.objectives import hybrid
from mmbench.diffusion.samplers import Noise as StepNoise
from mmbench.diffusion.samplers import ancestral, ddim
from mmbench.diffusion.schedules import Schedule, respaced
from mmbench.layers.classes import Classes
from mmbench.networks.adm import Classifier, UNet, classifier_keys, unet_keys
from mmbench.networks.phrases import Sentence

NOTHING = [0]  # an empty caption: its end alone


def by_ancestral_sampling(
    denoiser: Denoiser,
    schedule: Schedule,
    start: Tensor,
    condition: Condition,
    noise: StepNoise,
    gradient: Gradient | None = None,
) -> Tensor:
    """Algorithm 1: `ancestral`, guided by the gradient of a classifier where there is one."""
    if gradient is not None:
        denoiser = classifier_ancestral(denoiser, schedule, gradient)
    return ancestral(denoiser, schedule, start, condition, noise)


def by_ddim(
    denoiser: Denoiser,
    schedule: Schedule,
    start: Tensor,
    condition: Condition,
    noise: StepNoise,
    gradient: Gradient | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Algorithm 2: `ddim`, guided by the gradient of a classifier where there is one."""
    if gradient is not None:
        denoiser = classifier(denoiser, schedule, gradient)
    return ddim(denoiser, schedule, start, condition, noise, eta)


class Denoising(AveragedLearner):
    """What all models share: a network that predicts noise and its variance, training and sampling.

    Args:
        unet: the network, of x_t (N, 3, H, W), timesteps (N,) and the condition of a model.
        noise_schedule: of training.
        num_steps: which of its steps make an image, a number or another text of `respaced`.
        sampler: `by_ancestral_sampling` or `by_ddim`.
        decay: of the network's moving average, which makes the images.
        optimizer: partial of the optimiser.
        predicts: what the network says beside its variance; None: the noise, as published.

    Raises:
        ValueError: the schedule has no such steps.
    """

    at_once = LONG_SAMPLING
    draws: ClassVar[str] = ""  # what the names of random numbers begin with, so that a stage's are others

    def __init__(
        self,
        unet: nn.Module,
        noise_schedule: Schedule,
        num_steps: int | str,
        sampler: Callable[..., Tensor],
        decay: float,
        optimizer: OptimizerPartial,
        predicts: Predicted | None = None,
    ) -> None:
        super().__init__(optimizer, unet, decay)
        self.unet = unet
        self.predicts = predicts or predicted_noise()
        self.noise_schedule, self.steps = noise_schedule, respaced(noise_schedule, num_steps)
        self.sampler = sampler

    @property
    def image_size(self) -> int:
        """Height and width of images."""
        return self.unet.image_size

    def condition(self, batch: Batch) -> Condition:
        """What the network is told of the images of a training batch."""
        return None

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        image, noise = batch["image"], batch["noise"]
        if image.shape[-1] != self.image_size:
            raise ValueError(
                f"expected images of {self.image_size} pixels, found {image.shape[-1]}: set data.module.image_size "
                "and method.module.unet.image_size to one value"
            )
        step = self.noise_schedule.drawn(noise.uniform("step"))
        eps = noise.normal("eps", *image.shape[1:])
        given = self.unet, self.noise_schedule, image, step, eps, self.condition(batch)
        return {"L_hybrid": hybrid(*given, predicts=self.predicts).mean()}

    @property
    def followed(self) -> nn.Module:
        return self.unet

    def denoiser(self) -> Denoiser:
        """The average's, estimates not clipped."""
        return denoiser_of(self.predicts, self.ema, self.steps, learned_range)

    def sampled(
        self, denoiser: Denoiser, condition: Condition, noise: Noise, gradient: Gradient | None = None
    ) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1]."""
        shape = 3, self.image_size, self.image_size
        start = noise.normal(f"{self.draws}start", *shape)

        def of_step(step: int) -> Tensor:
            return noise.normal(f"{self.draws}step {step}", *shape)

        return self.sampler(clipped(denoiser), self.steps, start, condition, of_step, gradient).clamp(-1, 1)


class ADMUnconditional(Denoising):
    """Images from noise alone.

    Args:
        unet: partial of `UNet` that lacks channels.
        noise_schedule, num_steps, sampler, decay, optimizer: as `Denoising`.
    """

    task = IMAGE_SYNTHESIS
    trains_on = frozenset({"image"})
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": unet_keys(head_dim=64)}

    def __init__(self, unet: Callable[..., UNet], **diffusion: Any) -> None:
        super().__init__(unet(in_channels=3, out_channels=6), **diffusion)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sampled(self.denoiser(), None, noise)


class ADM(Denoising):
    """Images of classes, which the network is told.

    Args:
        class_ids: the data set's numbers of the classes that are trained on.
        unet: partial of `UNet` that lacks channels and condition.
        noise_schedule, num_steps, sampler, decay, optimizer: as `Denoising`.
    """

    task = CLASS_TO_IMAGE
    trains_on = frozenset({"image", "class_id"})
    # Of 64 pixels, the one checkpoint whose attention is in the newer order.
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": unet_keys(head_dim=None)}
    in_channels: ClassVar[int] = 3

    def __init__(self, class_ids: Sequence[int], unet: Callable[..., UNet], **diffusion: Any) -> None:
        embedding = partial(nn.Embedding, len(class_ids))
        super().__init__(unet(in_channels=self.in_channels, out_channels=6, condition=embedding), **diffusion)
        self.classes = Classes(class_ids)

    def condition(self, batch: Batch) -> Condition:
        return self.classes(batch["class_id"])

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sampled(self.denoiser(), self.classes(batch["class_id"]), noise)


class GuidedADM(ADM):
    """ADM-G: a classifier's gradient leads to images that it is surer of (section 4).

    Args:
        classifier: the trained stage before, which gives logits of noisy images and timesteps.
        guidance: s, what the gradient is multiplied by; 0: none.
        more: as `ADM`.
    """

    official: ClassVar[dict[str, KeyMap]] = {"ema.average": unet_keys(head_dim=64)}

    def __init__(self, classifier: nn.Module, guidance: float, **more: Any) -> None:
        super().__init__(**more)
        self.classifier, self.guidance = Frozen(classifier), guidance

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        def logits(x: Tensor, timesteps: Tensor, label: Condition) -> Tensor:
            return self.classifier(x, timesteps)

        gradient = log_probability_gradient(logits, self.guidance) if self.guidance else None
        return self.sampled(self.denoiser(), self.classes(batch["class_id"]), noise, gradient)


class ADMUpsampler(ADM):
    """ADM-U: enlarges images of a class that a stage before makes (section 5.3).

    Args:
        low: the trained stage before, which generates small images, with `image_size`.
        unet: partial of `SuperResolutionUNet` that lacks channels and condition.
        more: as `ADM`.

    Raises:
        ValueError: small images do not become large ones by a whole factor.
    """

    official: ClassVar[dict[str, KeyMap]] = {}
    draws = "enlarging: "
    in_channels = 6  # the small image beside the noisy one

    def __init__(self, low: nn.Module, **more: Any) -> None:
        super().__init__(**more)
        if self.image_size % low.image_size:
            raise ValueError(
                f"expected images of a multiple of {low.image_size} pixels, those of the stage before, found "
                f"{self.image_size}: change stages.low.module.unet.image_size or method.module.unet.image_size"
            )
        self.low = Frozen(low)

    def condition(self, batch: Batch) -> Condition:
        return super().condition(batch), F.interpolate(batch["image"], self.low.network.image_size, mode="area")

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        small = self.low.network.generate(batch, noise)
        return self.sampled(self.denoiser(), (self.classes(batch["class_id"]), small), noise)


class ADMClassifier(Learner):
    """The classifier of noisy images that guides.

    Args:
        class_ids: the data set's numbers of the classes that are trained on.
        classifier: partial of `Classifier` that lacks channels and the number of classes.
        noise_schedule: that of the model which is guided.
        optimizer, schedule: as `Learner`.
    """

    task = CLASS_TO_IMAGE
    trains_on = frozenset({"image", "class_id"})
    official: ClassVar[dict[str, KeyMap]] = {"classifier": classifier_keys(head_dim=64)}

    def __init__(
        self,
        class_ids: Sequence[int],
        classifier: Callable[..., Classifier],
        noise_schedule: Schedule,
        optimizer: OptimizerPartial,
        schedule: RateSchedule,
    ) -> None:
        super().__init__(optimizer, schedule=schedule)
        self.classes = Classes(class_ids)
        self.classifier = classifier(in_channels=3, num_classes=len(class_ids))
        self.noise_schedule = noise_schedule

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy images (N, 3, H, W) at timesteps (N,) to logits (N, K)."""
        return self.classifier(x, timesteps)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        image, noise = batch["image"], batch["noise"]
        step = self.noise_schedule.drawn(noise.uniform("step"))
        x = self.noise_schedule.noised(image, step, noise.normal("eps", *image.shape[1:]))
        logits = self(x, self.noise_schedule.timesteps.to(x.device)[step])
        return {"L_class": F.cross_entropy(logits.to(x.dtype), self.classes(batch["class_id"]))}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """The classifier guides.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a method that makes images, found adm_classifier: train it, then adm")


class CaptionedUNet(nn.Module):
    """A U-Net and the text encoder that makes its condition, a sentence (N, D).

    Args:
        text_encoder: from tokens (N, T) and their lengths (N,) to sentences (N, D).
        unet: takes the sentence as its condition.
    """

    def __init__(self, text_encoder: nn.Module, unet: UNet) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet
        self.image_size = unet.image_size

    def sentence(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.text_encoder(tokens, lengths)

    def forward(self, x: Tensor, timesteps: Tensor, sentence: Tensor) -> Tensor:
        """As `UNet`."""
        return self.unet(x, timesteps, sentence)


class ADMText(Denoising):
    """ADM given captions, by a text encoder that is trained with it, and guided without a classifier.

    Args:
        vocabulary: of the captions.
        unet: partial of `UNet` that lacks channels and condition.
        sentence_dim: size of sentences.
        token_dim: size of a word.
        max_words: captions longer than this keep so many of their words.
        left_out: probability that an image is trained on without its caption.
        guidance: how far from what the image would be without a caption; 1: none.
        noise_schedule, num_steps, sampler, decay, optimizer, predicts: as `Denoising`.

    Raises:
        ValueError: guidance, where no caption is ever left out.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        vocabulary: Vocabulary,
        unet: Callable[..., UNet],
        sentence_dim: int,
        token_dim: int,
        max_words: int,
        left_out: float,
        guidance: float,
        **diffusion: Any,
    ) -> None:
        if guidance != 1 and not left_out:
            raise ValueError(
                f"expected guidance 1 where no caption is left out in training, found {guidance}: there is no image "
                "without a caption to lead away from; set method.module.left_out above 0, or guidance to 1"
            )
        condition = partial(nn.Linear, sentence_dim)
        text_encoder = Sentence(len(vocabulary), token_dim, sentence_dim)
        network = CaptionedUNet(text_encoder, unet(in_channels=3, out_channels=6, condition=condition))
        super().__init__(network, **diffusion)
        self.vocabulary, self.max_words = vocabulary, max_words
        self.left_out, self.guidance = left_out, guidance

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that its embedding knows."""
        return {"vocabulary.json": self.vocabulary}

    def tokens(self, texts: Sequence[str], streams: Sequence[Generator | None] | None = None) -> list[list[int]]:
        """Words of N texts; of a long one a part, as its stream or, without, the text itself decides."""
        streams = streams or [None] * len(texts)
        return [self.vocabulary.encode(text, self.max_words, rng) for text, rng in zip(texts, streams, strict=True)]

    def condition(self, batch: Batch) -> Condition:
        noise = batch["noise"]
        kept = noise.uniform("left out") >= self.left_out
        words = self.tokens(batch["caption"], noise.streams("words"))
        return self.sentences(self.unet, [own if keep else NOTHING for own, keep in zip(words, kept, strict=True)])

    def sentences(self, network: nn.Module, words: list[list[int]]) -> Tensor:
        """By one of both networks: (N, D)."""
        tokens, lengths = padded(words)
        return network.sentence(tokens.to(self.device), lengths)

    def encoded(self, texts: list[str]) -> Tensor:
        """N raw texts to sentences (N, D); each depends on its text alone."""
        return self.sentences(self.ema.average, self.tokens(texts))

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        """Sentences (N, D) to images (N, 3, H, W) in [-1, 1], as `generate` gives them."""
        nothing = self.sentences(self.ema.average, [NOTHING] * len(sentence))
        return self.sampled(classifier_free(self.denoiser(), self.guidance, nothing), sentence, noise)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.images(self.encoded(batch["caption"]), noise)

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after sentences `share` (N,), in [0, 1], of the way from the batch's to those of N others."""
        sentence = self.encoded(batch["caption"])
        return self.images(sentence.lerp(self.encoded(others), share.to(sentence)[:, None]), noise)
