"""Zero-Shot Text-to-Image Generation (DALL-E).

Aditya Ramesh, Mikhail Pavlov, Gabriel Goh, Scott Gray, Chelsea Voss, Alec Radford, Mark Chen, Ilya Sutskever.
ICML 2021. https://arxiv.org/abs/2102.12092
OpenAI released the autoencoder, https://github.com/openai/DALL-E/tree/5be4b23, and neither the transformer nor any
training. These, and a smaller autoencoder, are those of the re-implementation
https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a: dalle_pytorch/dalle_pytorch.py, train_vae.py, train_dalle.py.

Stages: an autoencoder gives images as maps of codes; CLIP learns which caption belongs to which image; a transformer
learns the sequence of words and codes. Of several images drawn for a caption, the one that CLIP finds closest is kept.

Deviations:
- Words are those of the data set's captions, where theirs are pieces of words.
- A code is drawn by one uniform number and the distribution function, which gives what their Gumbel noise gives. How
  many of the likeliest may be drawn is counted among codes; theirs counts a share of words and codes together.
- The autoencoder's temperature and learning rate follow from the step alone, so that a resumed run is the same run.
- The weights that OpenAI averaged in training (appendix A.2) are not.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.core.categorical import gumbel
from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.processes import averaged, summed
from mmbench.core.schedules import set_learning_rates
from mmbench.core.task import RECONSTRUCTION
from mmbench.core.text import Vocabulary
from mmbench.core.weights import KeyMap
from mmbench.losses.kl import kl_to_uniform
from mmbench.networks import dalle_vae
from mmbench.networks.dalle import DALLETransformer, Pattern
from mmbench.networks.dalle_vae import OPENAI, OpenAIDecoder, OpenAIEncoder, Relaxation
from mmbench.networks.text_to_codes import TextToCodes
from mmbench.networks.token_transformer import token_cross_entropy

EVERY = 100  # steps, between changes of temperature and learning rate


class CodingStage(Learner):
    """An autoencoder between images and maps of codes, which is trained through a relaxation.

    Attributes:
        num_codes: K.
        factor: by which a map of codes is smaller than its image.
    """

    task = RECONSTRUCTION
    trains_on = frozenset({"image"})
    num_codes: int
    factor: int

    def code_logits(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to logits (N, num_codes, H / factor, W / factor).

        Raises:
            ValueError: the sides of the images are no multiples of `factor`.
        """
        if images.shape[2] % self.factor or images.shape[3] % self.factor:
            raise ValueError(
                f"expected images whose sides are multiples of {self.factor} pixels, found "
                f"{images.shape[3]}x{images.shape[2]}: choose another data.module.image_size"
            )
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """As `code_logits`, of images of a size that fits."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to their likeliest codes (N, H / factor, W / factor) int64."""
        return self.code_logits(images).argmax(dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, h, w) int64 to images (N, 3, h * factor, w * factor) in [-1, 1]."""
        raise NotImplementedError

    def drawn_gumbel(self, noise: Noise, logits: Tensor) -> Tensor:
        """Gumbel numbers of the samples, of the shape of logits (N, K, h, w)."""
        return gumbel(noise.uniform("gumbel", *logits.shape[1:]))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.decode(self.encode(batch["image"]))


class DiscreteVAE(CodingStage):
    """The autoencoder of the re-implementation: squared distances, and a temperature that falls.

    Args:
        num_codes, code_dim, num_layers, num_residual, width: see `networks.dalle_vae.DiscreteVAE`.
        relaxation: how codes are drawn so that there is a gradient.
        distance: of reconstructions from images, called as losses of PyTorch are.
        lambda_kl: weight of the divergence of codes from uniform ones, a sum over all codes of a batch.
        least_temperature: where it ends; it begins at 1.
        annealing: how fast it falls.
        decay: what the learning rate is multiplied by each 100 steps.
        optimizer: partial of the optimiser.
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        num_layers: int,
        num_residual: int,
        width: int,
        relaxation: Relaxation,
        distance: Callable[..., Tensor],
        lambda_kl: float,
        least_temperature: float,
        annealing: float,
        decay: float,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer)
        self.network = dalle_vae.DiscreteVAE(num_codes, code_dim, num_layers, num_residual, width)
        self.num_codes, self.factor = num_codes, 2**num_layers
        self.relaxation, self.distance, self.lambda_kl = relaxation, distance, lambda_kl
        self.least_temperature, self.annealing, self.decay = least_temperature, annealing, decay

    @property
    def temperature(self) -> float:
        """Of the step: each 100 steps it is multiplied by exp(-annealing * step), so that it falls ever faster."""
        done = max(self.global_step - 1, 0) // EVERY
        return max(math.exp(-self.annealing * EVERY * done * (done + 1) / 2), self.least_temperature)

    def logits(self, images: Tensor) -> Tensor:
        return self.network.logits(images)

    def decode(self, codes: Tensor) -> Tensor:
        return self.network.decode(codes).clamp(-1, 1)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        image = batch["image"]
        logits = self.code_logits(image)
        weights = self.relaxation(logits, self.drawn_gumbel(batch["noise"], logits), self.temperature)
        made = self.network.decode_relaxed(weights)
        return {
            "L_rec": averaged(self.distance(made, image, reduction="none")),
            "L_kl": self.lambda_kl * summed(kl_to_uniform(logits).sum()),
        }

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        set_learning_rates(
            [self.optimizers()],
            lambda first, step: first * self.decay ** ((step + EVERY - 1) // EVERY),
            self.global_step,
        )


class OpenAIVAE(CodingStage):
    """The autoencoder that OpenAI released, with the training that the paper describes (section 2.1, appendix A.2).

    Args:
        width, entry_width, num_codes: of encoder and decoder.
        beta: weight of the divergence from uniform codes, at last.
        beta_steps: until it is there.
        least_temperature: of the relaxation, at last; it begins at 1.
        temperature_steps: until it is there.
        optimizer: partial of the optimiser.
        last_rate: the learning rate at last.
        rate_steps: until it is there.
    """

    official: ClassVar[dict[str, KeyMap]] = {"encoder": OPENAI, "decoder": OPENAI}

    def __init__(
        self,
        width: int,
        entry_width: int,
        num_codes: int,
        beta: float,
        beta_steps: int,
        least_temperature: float,
        temperature_steps: int,
        optimizer: OptimizerPartial,
        last_rate: float,
        rate_steps: int,
    ) -> None:
        super().__init__(optimizer)
        self.encoder = OpenAIEncoder(width, num_codes)
        self.decoder = OpenAIDecoder(width, num_codes, entry_width)
        self.num_codes, self.factor = num_codes, 8
        self.beta, self.beta_steps = beta, beta_steps
        self.least_temperature, self.temperature_steps = least_temperature, temperature_steps
        self.last_rate, self.rate_steps = last_rate, rate_steps

    def logits(self, images: Tensor) -> Tensor:
        return self.encoder(dalle_vae.squeezed(images))

    def decode(self, codes: Tensor) -> Tensor:
        weights = F.one_hot(codes, self.num_codes).movedim(-1, 1).to(self.dtype)
        return dalle_vae.widened(self.decoder(weights)[:, :3].sigmoid())

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound, divided by the number of values of an image."""
        image, step = batch["image"], self.global_step
        logits = self.code_logits(image)
        temperature = cosine(1.0, self.least_temperature, step, self.temperature_steps)
        weights = dalle_vae.soft(logits, self.drawn_gumbel(batch["noise"], logits), temperature)
        beta = cosine(0.0, self.beta, step, self.beta_steps)
        return {
            "L_rec": averaged(dalle_vae.logit_laplace(dalle_vae.squeezed(image), self.decoder(weights))),
            "L_kl": beta * averaged(kl_to_uniform(logits)) / image[0].numel(),
        }

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        set_learning_rates(
            [self.optimizers()],
            lambda first, step: cosine(first, self.last_rate, step, self.rate_steps),
            self.global_step,
        )


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """From the first value to the last along half a cosine, in so many steps."""
    return last + (first - last) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


class DALLE(TextToCodes):
    """The transformer over words and codes.

    Args:
        vocabulary, first_stage, image_size, max_words, text_dropout, temperature, top_k, guidance, optimizer,
            gradient_clip: as of `TextToCodes`.
        clip: trained; has `encode_text` and `encode_image`.
        dim, depth, num_heads, head_dim, patterns, shifted, sandwiched, stable, shared: of the transformer, see
            `networks.dalle.DALLETransformer`.
        lambda_image: what codes weigh beside words.
        num_candidates: images drawn for a caption, of which CLIP keeps one.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        first_stage: Method,
        clip: Method,
        image_size: int,
        max_words: int,
        dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        patterns: Sequence[Pattern],
        shifted: bool,
        sandwiched: bool,
        stable: bool,
        shared: bool,
        lambda_image: float,
        num_candidates: int,
        **others: Any,
    ) -> None:
        super().__init__(vocabulary, first_stage, image_size, max_words, **others)
        self.clip = Frozen(clip)
        self.network = DALLETransformer(
            len(vocabulary),
            max_words,
            self.num_codes,
            self.side,
            dim,
            depth,
            num_heads,
            head_dim,
            patterns,
            shifted,
            sandwiched,
            stable,
            shared,
        )
        self.lambda_image = lambda_image
        self.num_candidates = num_candidates

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The likelihood of words and of codes, weighed (section 2.2)."""
        text, codes = self.shown_tokens(batch), self.codes(batch["image"])
        words, pictures = self.network(text, codes)
        share = 1 / (1 + self.lambda_image)
        return {
            "L_text": share * averaged(token_cross_entropy(words, self.network.word_targets(text))),
            "L_image": (1 - share) * averaged(token_cross_entropy(pictures, codes)),
        }

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """The candidate whose picture CLIP finds closest to the caption (section 2.6)."""
        captions = batch["caption"]
        text = self.tokens(captions)
        best = self.candidate(text, noise, 0)
        if self.num_candidates == 1:
            return best
        wanted = self.clip.network.encode_text(captions)
        closeness = self.closeness(best, wanted)
        for number in range(1, self.num_candidates):
            other = self.candidate(text, noise, number)
            found = self.closeness(other, wanted)
            best = torch.where((found > closeness)[:, None, None, None], other, best)
            closeness = torch.maximum(closeness, found)
        return best

    def candidate(self, text: Tensor, noise: Noise, number: int) -> Tensor:
        """One image for each of (N, max_words) texts, (N, 3, H, W) in [-1, 1]; each number gives others."""
        uniform = noise.uniform(f"candidate {number}", self.side**2)
        return self.decoded(self.network.sample(text, uniform, self.temperature, self.top_k, self.guidance))

    def closeness(self, images: Tensor, wanted: Tensor) -> Tensor:
        """Cosines of images (N, 3, H, W) and of embedded captions (N, D), (N,)."""
        return (self.clip.network.encode_image(images) * wanted).sum(dim=1)
