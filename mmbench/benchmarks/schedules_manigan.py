"""ManiGAN's schedule of both stages, after the authors' training loops.

The image encoder looks at real images once more for each discriminator; VGG goes on to its last layer, though relu2_2
alone is read; the generator's loss leaves gradients in the discriminators; the average is a list of copies. The main
module keeps the whole graph of its images through each discriminator's backward pass; the correction module's loss
goes back through the main module, which is not trained.
https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/trainer.py#L250, trainerDCM.py
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from mmbench.benchmarks.schedules import Losses, TheirsGuided, adam, averaged, drawn, is_fake, is_real, texts_of
from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.method import Batch
from mmbench.methods.manipulation.manigan import ManiGAN, ManiGANMain
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText
from mmbench.networks.vgg import LAYERS, VGG16


class WholeVGG(nn.Module):
    """VGG-16 to its end, of which relu2_2 is handed out; another network as it is."""

    def __init__(self, beginning: Frozen) -> None:
        super().__init__()
        self.beginning = beginning
        published = isinstance(beginning.network, VGG16)
        self.rest = drawn(make_layers(cfgs["D"])[LAYERS["relu2_2"] + 1 :]) if published else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        features = self.beginning(image)
        self.rest(features)
        return features


class TheirsManiGANStage(TheirsGuided):
    """What the trainings of ManiGAN's stages share: the frozen encoders, a discriminator's loss, the matching terms."""

    def __init__(self, method: Any) -> None:
        super().__init__(method)
        self.vgg = WholeVGG(method.perceptual).to(next(method.parameters()))

    def encoded(self, batch: Batch) -> tuple[EncodedText, EncodedText, EncodedImage]:
        noise = batch["noise"]
        text = self.damsm.encode_text(batch["caption"], noise.streams("words"))
        mismatched = self.damsm.encode_text(batch["caption_mismatched"], noise.streams("mismatched words"))
        return text, mismatched, self.damsm.image_encoder(batch["image"])

    def discriminator_loss(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, text: EncodedText, mismatched: EncodedText
    ) -> tuple[Tensor, Tensor]:
        adversarial = self.adversarial_loss(discriminator, real, fake, text.sentence)
        regions = self.damsm.image_encoder(real).regions
        word_level = is_real(self.correlation(regions, text)) + is_fake(self.correlation(regions, mismatched))
        return adversarial, word_level / 2

    def correlation(self, regions: Tensor, text: EncodedText) -> Tensor:
        """Probabilities (N,) that images show their texts word by word; plain numbers."""
        scores = [self.word_score(regions[n][None], words) for n, words in enumerate(texts_of(text))]
        return torch.tensor([float(score.sigmoid()) for score in scores], device=regions.device)


class TheirsManiGANMain(TheirsManiGANStage):
    method: ManiGANMain

    def __init__(self, method: ManiGANMain) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, "discriminators", each) for each in method.discriminators]
        self.optimizer = adam(method, "generator", method.generator)
        self.average = copy.deepcopy([parameter.data for parameter in method.generator.parameters()])

    def step(self, batch: Batch) -> Losses:
        method, losses = self.method, {}
        real = pyramid(batch["image"], method.sizes)
        text, mismatched, seen = self.encoded(batch)
        output = method.edited(method.generator, seen, text, batch["noise"])
        discriminators = list(zip(method.sizes, method.discriminators, real, output.images, strict=True))
        for (size, discriminator, *images), optimizer in zip(discriminators, self.optimizers, strict=True):
            discriminator.zero_grad()
            loss, word_level = self.discriminator_loss(discriminator, *images, text, mismatched)
            (loss + word_level).backward(retain_graph=True)
            optimizer.step()
            losses |= {f"discriminators/L_D{size}": loss, "discriminators/L_word": word_level}

        method.generator.zero_grad()
        terms = {}
        perceptual = []
        for size, discriminator, image, fake in discriminators:
            terms[f"L_G{size}"] = self.generator_loss(discriminator, fake, text)
            perceptual.append(F.mse_loss(self.vgg(image), self.vgg(fake)))
        terms |= self.matching(output.images[-1], text, batch["class_id"])
        terms["L_per"] = sum(perceptual) / 3
        terms["KL"] = -0.5 * (1 + output.log_variance - output.mu.pow(2) - output.log_variance.exp()).mean()
        sum(terms.values()).backward()
        self.optimizer.step()
        averaged(self.average, method.generator, method.ema.decay)
        return losses | {f"generator/{name}": term for name, term in terms.items()}


class TheirsManiGAN(TheirsManiGANStage):
    method: ManiGAN

    def __init__(self, method: ManiGAN) -> None:
        super().__init__(method)
        self.main = copy.deepcopy(method.main.network.ema.average).requires_grad_(True)
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("discriminator", "correction")]
        self.average = copy.deepcopy([parameter.data for parameter in method.correction.parameters()])

    def step(self, batch: Batch) -> Losses:
        method, real = self.method, batch["image"]
        text, mismatched, seen = self.encoded(batch)
        hidden = method.main.network.edited(self.main, seen, text, batch["noise"]).hidden
        fake = method.correction(hidden, text.words, text.word_mask, self.vgg(real))

        method.discriminator.zero_grad()
        loss, word_level = self.discriminator_loss(method.discriminator, real, fake, text, mismatched)
        (loss + word_level).backward()
        self.optimizers[0].step()

        method.correction.zero_grad()
        terms = {"L_G": self.generator_loss(method.discriminator, fake, text)}
        terms |= self.matching(fake, text, batch["class_id"])
        terms["L_reg"] = -F.l1_loss(fake, real)
        sum(terms.values()).backward()
        self.optimizers[1].step()
        averaged(self.average, method.correction, method.ema.decay)
        judged = {"discriminator/L_D": loss, "discriminator/L_word": word_level}
        return judged | {f"correction/{name}": term for name, term in terms.items()}
