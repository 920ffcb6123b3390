"""DALL-E 2, or unCLIP: Hierarchical Text-Conditional Image Generation with CLIP Latents.

Aditya Ramesh, Prafulla Dhariwal, Alex Nichol, Casey Chu, Mark Chen. 2022. https://arxiv.org/abs/2204.06125
OpenAI released no code. Networks, the prior's loss and its sampling are those of the re-implementation whose priors
LAION trained, https://github.com/lucidrains/DALLE2-pytorch/tree/680dfc4d93b70f9ab23c814a22ca18017a738ef6; its networks
are in `networks/dalle2.py`, all else that is diffusion in `mmbench/diffusion`.

A prior makes CLIP's embedding of an image from a text (section 2.2), a decoder the image from that (section 2.1).

Where the paper and the re-implementation differ, this is
- the paper: two candidates of the prior, of which the one that the text's embedding is nearer to is taken; the decoder
  learns its variance, and forgets embeddings and captions with the probabilities of section 2.1;
- the re-implementation: the prior is guided towards its text from a branch that lacks the noised embedding as well, so
  that is forgotten in training, too; estimates of embeddings have the length that CLIP's have, an option there.

Deviations:
- Words are CLIP's own features of them in the decoder as well, for which the paper trains a second text encoder.
- The two networks that enlarge the decoder's images (64 to 256 to 1024 pixels) are left out: images are enlarged
  bilinearly to the size that CLIP looks at.
- Timesteps, noise and what is forgotten belong to a sample, so that processes share a batch exactly.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.learner import AveragedLearner, OptimizerPartial
from mmbench.core.method import LONG_SAMPLING, Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.diffusion.denoisers import (
    Condition,
    Denoiser,
    Predicted,
    Prediction,
    clipped,
    denoiser_of,
    learned_range,
    noise_from_denoised,
    predicts_denoised,
)
from mmbench.diffusion.guidance import classifier_free
from mmbench.diffusion.objectives import hybrid, simple_denoised
from mmbench.diffusion.samplers import Noise as StepNoise
from mmbench.diffusion.samplers import finite
from mmbench.diffusion.schedules import Schedule, gathered, respaced
from mmbench.networks.dalle2 import CausalTransformer, DecoderCondition, DecoderUNet, Prior, PriorCondition


def on_sphere(embedding: Tensor) -> Tensor:
    """Embeddings (N, D) with the length sqrt(D), so that their entries deviate by about 1, as noise does."""
    return F.normalize(embedding, dim=1) * embedding.shape[1] ** 0.5


def of_embeddings(denoiser: Denoiser) -> Denoiser:
    """A denoiser whose estimates are `on_sphere`, as embeddings are. Guidance goes inside."""

    def within(x: Tensor, step: Tensor, condition: Condition) -> Prediction:
        return Prediction(on_sphere(denoiser(x, step, condition).denoised))

    return within


def shifted_ddim(
    denoiser: Denoiser, schedule: Schedule, num_steps: int, start: Tensor, condition: Condition, noise: StepNoise
) -> Tensor:
    """DDIM with eta 1 as the re-implementation draws from a prior, by fewer steps than it was trained with.

    The noise in x_t is told from the level of the step t, but x_t is taken to be at the level below: of 1000 steps the
    two hardly differ, but for the noisiest. The step that leads to no noise gives the network's estimate.

    Args:
        denoiser: of steps of the whole schedule.
        schedule: of training.
        num_steps: into which it is divided; the network is asked once less.
        start: (N, D), x_T.
        noise: from a step to its standard normal numbers (N, D).

    Raises:
        ValueError: the schedule has fewer steps, or an estimate is not finite.
    """
    require_steps(schedule, num_steps)
    steps = torch.linspace(-1, len(schedule), num_steps + 1)[:-1].int().tolist()
    x, below = start, schedule.alphas_cumprod_previous
    for index, following in pairwise(reversed(steps)):
        step = torch.full((len(x),), index, device=x.device)
        denoised = finite(denoiser(x, step, condition).denoised, index)
        if following < 0:
            return denoised
        level, next_level = (gathered(below, torch.full_like(step, place), x) for place in (index, following))
        variance = (1 - level / next_level) * (1 - next_level) / (1 - level)
        direction = (1 - next_level - variance).clamp(min=0).sqrt() * noise_from_denoised(schedule, x, step, denoised)
        x = next_level.sqrt() * denoised + direction
        if following > 0:
            x = x + variance.sqrt() * noise(index)
    raise AssertionError("the last step leads to no noise")


def require_steps(schedule: Schedule, num_steps: int) -> None:
    """Raises ValueError unless a schedule can be divided into so many steps."""
    if not 2 <= num_steps <= len(schedule):
        raise ValueError(
            f"expected from 2 to {len(schedule)} sampling steps, as many as the schedule has, found {num_steps}: take "
            "fewer"
        )


def require_unconditional(guidance: float, forgotten: float) -> None:
    """Raises ValueError where samples are to be guided from a branch that training never sees."""
    if guidance != 1 and not forgotten:
        raise ValueError(
            f"expected conditions that are forgotten in training for guidance, found a guidance of {guidance} and a "
            "probability of 0: take the guidance 1, or forget some"
        )


def kept(noise: Noise, name: str, forgotten: float) -> Tensor:
    """(N,) bool, false with the probability `forgotten`."""
    return noise.uniform(name) >= forgotten


class Denoising(AveragedLearner):
    """What prior and decoder share: a network, its average, which samples, and a schedule.

    Args:
        network: of noisy tensors, timesteps and a condition.
        noise_schedule: of training.
        decay: of the network's moving average.
        optimizer: partial of the optimiser.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})

    def __init__(self, network: nn.Module, noise_schedule: Schedule, decay: float, optimizer: OptimizerPartial) -> None:
        super().__init__(optimizer, network, decay)
        self.network = network
        self.noise_schedule = noise_schedule

    @property
    def followed(self) -> nn.Module:
        return self.network


class DALLE2Prior(Denoising):
    """The diffusion prior: CLIP's embedding of an image from that of its caption and from the caption's words.

    Args:
        clip: the trained stage before, with `encode_image` and `encode_text`, which give unit vectors (N, D),
            `encode_words`, which gives (N, L, D), zeros behind a text's end, `embedding_dim` and `max_words`.
        transformer: partial of `CausalTransformer` that lacks the size of tokens.
        noise_schedule, decay, optimizer: as `Denoising`.
        num_steps: into which sampling divides the schedule.
        num_candidates: embeddings that are drawn for a text, of which the nearest to it is taken.
        guidance: scale of classifier-free guidance, 1: none.
        forgotten: probability that a text, and that a noised embedding, is dropped in training.

    Raises:
        ValueError: there are more sampling steps than steps, guidance without anything forgotten, or words that are of
            another size than embeddings.
    """

    def __init__(
        self,
        clip: nn.Module,
        transformer: Callable[..., CausalTransformer],
        noise_schedule: Schedule,
        num_steps: int,
        num_candidates: int,
        guidance: float,
        forgotten: float,
        decay: float,
        optimizer: OptimizerPartial,
    ) -> None:
        require_steps(noise_schedule, num_steps)
        require_unconditional(guidance, forgotten)
        if clip.word_dim != clip.embedding_dim:
            raise ValueError(
                f"expected words of CLIP of the size of its embeddings, {clip.embedding_dim}, found {clip.word_dim}: "
                "give stages.clip.module.text_dim and embedding_dim one value"
            )
        network = Prior(transformer(clip.embedding_dim), clip.max_words, len(noise_schedule))
        super().__init__(network, noise_schedule, decay, optimizer)
        self.clip = Frozen(clip)
        self.num_steps, self.num_candidates = num_steps, num_candidates
        self.guidance, self.forgotten = guidance, forgotten

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 2: the squared error of the embedding without noise."""
        clip, noise = self.clip.network, batch["noise"]
        with torch.no_grad():
            clean = on_sphere(clip.encode_image(batch["image"]))
            text, words = clip.encode_text(batch["caption"]), clip.encode_words(batch["caption"])
        keep = (kept(noise, f"{name} kept", self.forgotten) for name in ("text", "image"))
        eps, step = noise.normal("eps", clean.shape[1]), self.noise_schedule.drawn(noise.uniform("step"))
        condition = PriorCondition(text, words, *keep)
        return {"L_prior": simple_denoised(self.network, self.noise_schedule, clean, step, eps, condition).mean()}

    def embeddings(self, texts: list[str], noise: Noise) -> Tensor:
        """Image embeddings (N, D), unit vectors, that N texts may have; row n is drawn by sample n's noise."""
        clip, count = self.clip.network, self.num_candidates
        text, words = clip.encode_text(texts), clip.encode_words(texts)
        everywhere = torch.ones(count * len(text), dtype=torch.bool, device=text.device)
        condition = PriorCondition(text.repeat(count, 1), words.repeat(count, 1, 1), everywhere, everywhere)
        denoiser = predicts_denoised(self.ema, self.noise_schedule)
        guided = of_embeddings(classifier_free(denoiser, self.guidance, condition.dropped()))

        def drawn(name: str) -> Tensor:
            return torch.cat([noise.normal(f"prior {k}: {name}", text.shape[1]) for k in range(count)])

        start, of_step = drawn("start"), lambda step: drawn(f"step {step}")
        found = shifted_ddim(guided, self.noise_schedule, self.num_steps, start, condition, of_step)
        candidates = F.normalize(found, dim=1).unflatten(0, (count, -1))  # (K, N, D)
        nearest = (candidates * text).sum(dim=2).argmax(dim=0)
        return candidates[nearest, torch.arange(len(text), device=text.device)]

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """A prior makes embeddings.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a method that makes images, found dalle2_prior: train it, then dalle2")


class Decoder(Denoising):
    """A U-Net that makes an image of a CLIP embedding; which one, a subclass says.

    Args:
        clip: as of `DALLE2Prior`, trained.
        image_size: height and width of images as they come and go.
        decoder_size: those at which they are denoised.
        unet: partial of `DecoderUNet` that lacks the sizes of CLIP's.
        noise_schedule, decay, optimizer: as `Denoising`.
        num_steps: how many of its steps make an image, and which (`respaced`).
        sampler: partial of `ancestral` or `ddim`.
        guidance: scale of classifier-free guidance, 1: none.
        forgotten: probability that an embedding is dropped in training.
        captions_forgotten: that a caption's words are.
        predicts: what the U-Net says beside its variance, noise as published, or the velocity.

    Raises:
        ValueError: there are more sampling steps than steps, guidance without anything forgotten, or images of a size
            that cannot be halved as often as the U-Net halves it.
    """

    at_once = LONG_SAMPLING

    def __init__(
        self,
        clip: nn.Module,
        image_size: int,
        decoder_size: int,
        unet: Callable[..., DecoderUNet],
        noise_schedule: Schedule,
        num_steps: str | int,
        sampler: Callable[..., Tensor],
        guidance: float,
        forgotten: float,
        captions_forgotten: float,
        predicts: Predicted,
        decay: float,
        optimizer: OptimizerPartial,
    ) -> None:
        require_unconditional(guidance, min(forgotten, captions_forgotten))
        network = unet(image_dim=clip.embedding_dim, text_dim=clip.word_dim, max_words=clip.max_words)
        if decoder_size % network.stride:
            raise ValueError(
                f"expected a decoder_size that is a multiple of {network.stride}, found {decoder_size}: choose one, or "
                "fewer multipliers of the U-Net"
            )
        super().__init__(network, noise_schedule, decay, optimizer)
        self.image_size, self.decoder_size = image_size, decoder_size
        self.steps, self.sampler = respaced(noise_schedule, num_steps), sampler
        self.guidance, self.forgotten, self.captions_forgotten = guidance, forgotten, captions_forgotten
        self.predicts = predicts

    @property
    def reader(self) -> nn.Module:
        """The trained CLIP."""
        raise NotImplementedError

    def of_images(self, batch: Batch) -> Tensor:
        """The embeddings (N, D), unit vectors, that images of a training batch are decoded from."""
        raise NotImplementedError

    def of_texts(self, texts: list[str], noise: Noise) -> Tensor:
        """The embeddings (N, D), unit vectors, that N texts are decoded from."""
        raise NotImplementedError

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The decoder's objective, that of Improved DDPM."""
        noise = batch["noise"]
        (image,) = pyramid(batch["image"], [self.decoder_size])
        with torch.no_grad():
            embedding, words = on_sphere(self.of_images(batch)), self.reader.encode_words(batch["caption"])
        image_keep = kept(noise, "image kept", self.forgotten)
        text_keep = kept(noise, "text kept", self.captions_forgotten)
        condition = DecoderCondition(embedding, words, image_keep, text_keep)
        eps, step = noise.normal("eps", *image.shape[1:]), self.noise_schedule.drawn(noise.uniform("step"))
        given = self.network, self.noise_schedule, image, step, eps, condition
        return {"L_hybrid": hybrid(*given, predicts=self.predicts).mean()}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        texts = batch["caption"]
        embedding, words = on_sphere(self.of_texts(texts, noise)), self.reader.encode_words(texts)
        everywhere = torch.ones(len(texts), dtype=torch.bool, device=words.device)
        condition = DecoderCondition(embedding, words, everywhere, everywhere)
        denoiser = denoiser_of(self.predicts, self.ema, self.steps, learned_range)
        guided = clipped(classifier_free(denoiser, self.guidance, condition.dropped()))
        shape = 3, self.decoder_size, self.decoder_size
        start = noise.normal("start", *shape)
        image = self.sampler(guided, self.steps, start, condition, lambda step: noise.normal(f"step {step}", *shape))
        return F.interpolate(image, self.image_size, mode="bilinear").clamp(-1, 1)


class DALLE2(Decoder):
    """unCLIP: decodes the image embedding that a prior draws for a text.

    Args:
        embedder: the trained prior, with `embeddings` and the CLIP that it stands on.
        more: as `Decoder`, but for `clip`.
    """

    def __init__(self, embedder: nn.Module, **more: Any) -> None:
        super().__init__(embedder.clip.network, **more)
        self.prior = Frozen(embedder)

    @property
    def reader(self) -> nn.Module:
        return self.prior.network.clip.network

    def of_images(self, batch: Batch) -> Tensor:
        return self.reader.encode_image(batch["image"])

    def of_texts(self, texts: list[str], noise: Noise) -> Tensor:
        return self.prior.network.embeddings(texts, noise)


class DALLE2Text(Decoder):
    """Without a prior, the ablation of section 5.1: the decoder learns to decode the caption's embedding instead.

    Args:
        embedder: the trained CLIP.
        more: as `Decoder`, but for `clip`.
    """

    def __init__(self, embedder: nn.Module, **more: Any) -> None:
        super().__init__(embedder, **more)
        self.clip = Frozen(embedder)

    @property
    def reader(self) -> nn.Module:
        return self.clip.network

    def of_images(self, batch: Batch) -> Tensor:
        return self.reader.encode_text(batch["caption"])

    def of_texts(self, texts: list[str], noise: Noise) -> Tensor:
        return self.reader.encode_text(texts)
