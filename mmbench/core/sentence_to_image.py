"""The base of methods that draw an image of one vector, that of a sentence, and of noise."""

from torch import Tensor

from mmbench.core.adversarial import Adversarial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE


class SentenceToImage(Adversarial):
    """Text to image in two steps, which each paper writes: how a text becomes a sentence, and that an image."""

    task = TEXT_TO_IMAGE

    def encoded(self, texts: list[str]) -> Tensor:
        """N raw texts to sentences (N, D), without a gradient; each depends on its text alone."""
        raise NotImplementedError

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        """Sentences (N, D) to images (N, 3, H, W) in [-1, 1], as `generate` gives them."""
        raise NotImplementedError

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.images(self.encoded(batch["caption"]), noise)

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after sentences `share` (N,), in [0, 1], of the way from the batch's to those of N others."""
        sentence = self.encoded(batch["caption"])
        return self.images(sentence.lerp(self.encoded(others), share.to(sentence)[:, None]), noise)
