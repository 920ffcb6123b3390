"""VQ-VAE: Neural Discrete Representation Learning.

Aäron van den Oord, Oriol Vinyals, Koray Kavukcuoglu. NeurIPS 2017. https://arxiv.org/abs/1711.00937
The authors released no training code with it; the codebook follows moving means as in VQGAN's repository
(`mmbench.layers.quantisers.EMAQuantiser`), which is appendix A.1.

Two stages: an image becomes a map of codes and an image again, and a PixelCNN draws such maps.

Where the paper leaves it open:
- The reconstruction is scored by the squared error, the likelihood of a normal distribution of fixed variance.
- A convolution of one pixel brings the encoder's channels to those of the codebook.

Deviations:
- The prior is told a caption: the mean of its words and their neighbours, of the data set's own vocabulary, trained
  with it. The paper's knows a class at most. This is an extension of ours, and nothing of it was published.
- Images that are made are cut off at -1 and 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from mmbench.core.categorical import drawn, require_settings
from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import LONG_SAMPLING, Batch
from mmbench.core.noise import Noise
from mmbench.core.task import RECONSTRUCTION, TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary, padded
from mmbench.layers.quantisers import EMAQuantiser, Quantised, RevivingEMAQuantiser
from mmbench.networks.phrases import Sentence
from mmbench.networks.pixelcnn import PixelCNN
from mmbench.networks.vqgan import require_divisible


class ResidualBlock(nn.Module):
    """A 3x3 convolution and one of one pixel, each behind a rectifier, added to what went in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same shape."""
        return x + self.residual(x)


class Encoder(nn.Sequential):
    """Images (N, 3, H, W) to (N, dim, H / 2^halvings, W / 2^halvings), section 4.1.

    Args:
        width: channels of all features.
        num_halvings: convolutions of stride 2.
        num_residual: blocks behind them.
        dim: channels of what is quantised.
    """

    def __init__(self, width: int, num_halvings: int, num_residual: int, dim: int) -> None:
        halvings: list[nn.Module] = []
        for channels in (3, *[width] * (num_halvings - 1)):
            halvings += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]
        residual = (ResidualBlock(width) for _ in range(num_residual))
        # The first block begins with a rectifier itself.
        super().__init__(*halvings[:-1], *residual, nn.ReLU(), nn.Conv2d(width, dim, 1))


class Decoder(nn.Sequential):
    """The way back: (N, dim, h, w) to images, which are not bounded."""

    def __init__(self, width: int, num_halvings: int, num_residual: int, dim: int) -> None:
        doublings: list[nn.Module] = []
        for channels in (*[width] * (num_halvings - 1), 3):
            doublings += [nn.ReLU(), nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)]
        residual = (ResidualBlock(width) for _ in range(num_residual))
        super().__init__(nn.Conv2d(dim, width, 3, padding=1), *residual, *doublings)


class VQVAE(Learner):
    """The first stage: encoder, codebook and decoder.

    Args:
        quantiser: of the codes.
        optimizer: partial of the optimiser, of encoder and decoder.
        width, num_halvings, num_residual: as `Encoder`.
    """

    task = RECONSTRUCTION
    trains_on = frozenset({"image"})

    def __init__(
        self, quantiser: EMAQuantiser, optimizer: OptimizerPartial, width: int, num_halvings: int, num_residual: int
    ) -> None:
        super().__init__(optimizer)
        shape = (width, num_halvings, num_residual, quantiser.dim)
        self.encoder, self.decoder = Encoder(*shape), Decoder(*shape)
        self.quantiser = quantiser
        self.factor = 2**num_halvings

    @property
    def num_codes(self) -> int:
        """K, how many codes there are."""
        return self.quantiser.num_codes

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to codes (N, H / factor, W / factor) int64.

        Raises:
            ValueError: H or W is no multiple of `factor`.
        """
        return self.quantiser.indices(self.latent(images))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, h, w) to images (N, 3, h * factor, w * factor) in [-1, 1]."""
        return self.decoder(self.quantiser.embedded(codes)).clamp(-1, 1)

    def latent(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to what is quantised, (N, D, H / factor, W / factor)."""
        require_divisible(images, self.factor)
        return self.encoder(images)

    def quantised(self, latent: Tensor, noise: Noise) -> Quantised:
        """Codes of a training step, which the codebook will follow."""
        found = self.quantiser(latent)
        self.quantiser.collect(latent, found.indices)
        return found

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 3, whose second term is the codebook's moving mean."""
        image = batch["image"]
        found = self.quantised(self.latent(image), batch["noise"])
        return {"L_rec": F.mse_loss(self.decoder(found.codes), image), "L_commitment": found.loss}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.quantiser.update()

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.decode(self.encode(batch["image"]))


class RevivingVQVAE(VQVAE):
    """With revival: what is hardly used of the codebook begins again as vectors of the batch, before it is quantised.

    Args:
        quantiser: a `RevivingEMAQuantiser`.
        others: as `VQVAE`.
    """

    quantiser: RevivingEMAQuantiser

    def quantised(self, latent: Tensor, noise: Noise) -> Quantised:
        if self.first_part:
            self.quantiser.revive(latent, noise.uniform("revival", *latent.shape[2:]))
        return super().quantised(latent, noise)


class VQVAEPrior(Learner):
    """The second stage: a PixelCNN over maps of codes, that is told a caption.

    Args:
        first_stage: the trained stage before, with `encode`, `decode`, `num_codes` and `factor`.
        vocabulary: the words that captions are read by.
        optimizer: partial of the optimiser.
        image_size: height and width of images, a multiple of the first stage's factor.
        width, kernel, num_layers, out_width: as `PixelCNN`.
        token_dim, sentence_dim: size of a word, and of a sentence.
        max_words: captions longer than this keep so many of their words.
        temperature, top_k, top_p: how codes are drawn (`core.categorical.probabilities`).

    Raises:
        ValueError: codes cannot be drawn so, or images of this size have no map of codes.
    """

    at_once = LONG_SAMPLING
    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        first_stage: nn.Module,
        vocabulary: Vocabulary,
        optimizer: OptimizerPartial,
        image_size: int,
        width: int,
        kernel: int,
        num_layers: int,
        out_width: int,
        token_dim: int,
        sentence_dim: int,
        max_words: int,
        temperature: float,
        top_k: int | None,
        top_p: float,
    ) -> None:
        super().__init__(optimizer)
        require_settings(first_stage.num_codes, temperature, top_k, top_p)
        require_divisible(torch.empty(1, 3, image_size, image_size, device="meta"), first_stage.factor)
        self.first_stage = Frozen(first_stage)
        self.vocabulary, self.max_words = vocabulary, max_words
        self.size = (image_size // first_stage.factor,) * 2
        self.text_encoder = Sentence(len(vocabulary), token_dim, sentence_dim)
        self.prior = PixelCNN(first_stage.num_codes, width, kernel, num_layers, sentence_dim, out_width)
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that captions are read by."""
        return {"vocabulary.json": self.vocabulary}

    def sentences(self, words: Sequence[list[int]]) -> Tensor:
        """Words of N captions to their sentences (N, sentence_dim)."""
        tokens, lengths = padded(words)
        return self.text_encoder(tokens.to(self.device), lengths)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The likelihood of the images' codes, in nats for each."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            codes = self.first_stage.network.encode(batch["image"])
        streams = batch["noise"].streams("words")
        words = [
            self.vocabulary.encode(caption, self.max_words, rng)
            for caption, rng in zip(batch["caption"], streams, strict=True)
        ]
        return {"L": F.cross_entropy(self.prior(codes, self.sentences(words)), codes)}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        condition = self.sentences([self.vocabulary.encode(text, self.max_words) for text in batch["caption"]])

        def draw(logits: Tensor, place: int) -> Tensor:
            uniform = noise.uniform(f"token {place}")
            return drawn(logits, uniform, self.temperature, self.top_k, self.top_p)

        return self.first_stage.network.decode(self.prior.drawn(condition, self.size, draw))
