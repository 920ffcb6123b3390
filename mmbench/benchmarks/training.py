"""How fast training is: a step of ours beside the authors' schedule on the same networks, as a ratio in one run.

The schedules are written after the authors' training loops, with everything that these compute twice or for nothing:

- ManiGAN, both stages: the image encoder looks at real images once more for each discriminator; VGG goes on to its
  last layer, though relu2_2 alone is read; the generator's loss leaves gradients in the discriminators; the average is
  a list of copies. The main module keeps the whole graph of its images through each discriminator's backward pass; the
  correction module's loss goes back through the main module, which is not trained.
  https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/trainer.py#L250, trainerDCM.py
- AttnGAN: texts are matched one by one; the generator's loss leaves gradients in the discriminators, each of which has
  a backward pass of its own; the average is a list of copies.
  https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/trainer.py#L218
- TAGAN: an image is edited anew for the generator; texts are encoded in each pass of either network; the discriminator
  also matches edited images with texts in its own step, where nothing reads it; two backward passes for each network.
  https://github.com/woozzu/tagan/blob/38a866c9613b289d4c79bd4817b5e0e9b44a9879/train.py#L112
- SISGAN: real images go through the discriminator once for each text; the discriminator's fake image is made with a
  graph that nothing uses; three backward passes for the discriminator.
  https://github.com/woozzu/dong_iccv_2017/blob/e7f371aefb3aa2208df832ed779c16027c8f3600/train.py#L143
- PICNet and TDANet: little to leave out, since discriminators are held while generators learn, and their power
  iteration counts every look. A backward pass for each discriminator; a picture of the state of each step; TDANet's
  matching text by text, and masks at sizes that nothing reads.
  https://github.com/lyndonzheng/Pluralistic-Inpainting/blob/034a7588957adff1edb027af44f48a35d1c949d3/model/pluralistic_model.py
  https://github.com/idealwhite/tdanet/blob/b3ea9c44c2f9a66d6b9767ae78ca8b553bda77b2/model/tdanet_model.py
- CSA: VGG looks at the true image twice, and at all images down to relu4_3, which only consistency reads, a number
  without a gradient; the generators' loss leaves gradients in the discriminators.
  https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b07129adc6a231b7d68f9815d1adfe0c01eeff/models/CSA.py#L172
- StackGAN++, DF-GAN: see `schedules_stackganpp.py`, `schedules_dfgan.py`.

Networks are ours in both, but that the authors' upsample first and convolve then, which ours do at once. They have the
published size and random weights: how fast they are does not depend on what they know. Optimisers are Adam as PyTorch
has it, not fused. Each side has a process of its own and they take turns step by step, so that whatever else the
machine does falls on both.
"""

import copy
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader
from torchvision.models.vgg import cfgs, make_layers

from mmbench.benchmarks.schedules import Losses, Theirs, adam, averaged, is_fake, is_real, near
from mmbench.benchmarks.schedules_dfgan import TheirsDFGAN
from mmbench.benchmarks.schedules_stackganpp import TheirsStackGANPP
from mmbench.core import catalogue, config
from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.progress import TRAINER_OPTIONS
from mmbench.core.text import END, Vocabulary
from mmbench.losses.matching import row_before
from mmbench.methods.inpainting.csa import CSA
from mmbench.methods.inpainting.picnet import PICNet
from mmbench.methods.inpainting.tdanet import TDANet
from mmbench.methods.manipulation.manigan import ManiGAN, ManiGANMain
from mmbench.methods.manipulation.sisgan import SISGAN, relevant_texts
from mmbench.methods.manipulation.tagan import TAGAN
from mmbench.methods.synthesis.attngan import AttnGAN
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText
from mmbench.networks.pluralistic import Paths
from mmbench.networks.vgg import LAYERS, VGG16

HELP = """usage: python -m mmbench.benchmarks.training [check] [METHOD[=BATCH_SIZE] ...]

Prints what a step of training takes, ours beside the authors' schedule, and the memory of each at its peak; exits with
1 where their losses differ. Methods: manigan_main, manigan, attngan, tagan, sisgan, tdanet, picnet, csa, stackganpp,
dfgan (default: all, with batches that fit a computer of 16 GB). Many minutes on a CPU.

With `check` nothing is timed: both train small networks for some steps in double precision, which takes seconds.
"""
ROUNDS = 3
TOLERANCE = 1e-5
EXACT = 1e-7  # of losses in double precision after steps of either side: what is left is no rounding
SMALL = 64  # image size of small networks
WORDS = ("a", "bird", "with", *(f"word{number}" for number in range(500)))
CAPTION_LENGTH = 18


def drawn(network: nn.Module) -> Frozen:
    """A frozen network with random weights that keep the size of activations, in the place of a pretrained one."""
    return Frozen(rescaled(network))


def rescaled(network: nn.Module) -> nn.Module:
    """Convolutions of He et al.'s variance: PyTorch's own start makes a deep network's features vanish."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def without_files(node: Any) -> Any:
    """A method's plain configuration in which what comes from files is drawn at random."""
    if not isinstance(node, dict):
        return node
    if node.get("_target_") == "mmbench.networks.pretrained.frozen":
        return {"_target_": "mmbench.benchmarks.training.drawn", "network": node["network"]}
    if node.get("_target_") == "mmbench.core.fasttext.FastText":
        return {"_target_": "mmbench.core.fasttext.SeededVectors", "dim": node["dim"]}
    return {key: without_files(value) for key, value in node.items()}


def assembled(name: str, scale: str) -> Method:
    """A method with random weights, the same ones in every process."""
    return _assembled(config.composed([f"method={name}", f"scale={scale}"])["method"])


def _assembled(described: dict[str, Any]) -> Method:
    stages = {argument: _assembled(before["method"]) for argument, before in described.get("stages", {}).items()}
    given = {"vocabulary": Vocabulary((END, *WORDS))} if "vocabulary" in described.get("from_data", []) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method: Method = config.construct(without_files(described["module"]), **stages, **given)
        if hasattr(method, "image_encoder"):
            rescaled(method.image_encoder)
    return method


def random_batch(size: int, batch_size: int) -> Batch:
    """A batch of images (batch_size, 3, size, size) with captions, all random, each of a class of its own."""
    rng = random_stream("bench_train", size, batch_size)
    captions = [[" ".join(rng.choice(WORDS, CAPTION_LENGTH)) for _ in range(batch_size)] for _ in range(2)]
    samples = [Sample(str(number), 0, 0) for number in range(batch_size)]
    return {
        "id": [sample.id for sample in samples],
        "image": torch.from_numpy(rng.uniform(-1, 1, (batch_size, 3, size, size))).float(),
        "caption": captions[0],
        "caption_mismatched": captions[1],
        "image_mismatched": random_images("mismatched", size, batch_size),
        "class_id": torch.arange(batch_size),
        "mask": random_holes(size, batch_size),
        "sample": samples,
        "noise": Noise(0, samples),
    }


def random_images(name: str, size: int, batch_size: int) -> Tensor:
    """Images (batch_size, 3, size, size) in [-1, 1] of random pixels, others for each name."""
    rng = random_stream("bench_train", name, size, batch_size)
    return torch.from_numpy(rng.uniform(-1, 1, (batch_size, 3, size, size))).float()


def random_holes(size: int, batch_size: int) -> Tensor:
    """Masks (batch_size, 1, size, size) of a square each, a fourth of the image, 1 = hole."""
    mask = torch.zeros(batch_size, 1, size, size)
    corners = random_stream("bench_train holes", size, batch_size).integers(size // 2, size=(batch_size, 2))
    for one, (top, left) in zip(mask, corners, strict=True):
        one[:, top : top + size // 2, left : left + size // 2] = 1
    return mask


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


class TheirsGuided(Theirs):
    """What trainings that DAMSM guides share: the matching terms, text by text."""

    def __init__(self, method: Any) -> None:
        super().__init__(method)
        self.damsm = method.guide.network

    def word_score(self, regions: Tensor, words: Tensor) -> Tensor:
        """How well images (N, D, h, w) show one text (L, D): (N,)."""
        gammas = self.method.guide.gammas
        places = regions.flatten(2)  # (N, D, R)
        shares = (words @ places).softmax(dim=1)  # (N, L, R)
        context = (gammas["gamma1"] * shares).softmax(dim=2) @ places.mT  # (N, L, D)
        relevance = F.cosine_similarity(context, words.expand_as(context), dim=2)
        return (gammas["gamma2"] * relevance).exp().sum(dim=1).log()

    def matching(self, fake: Tensor, text: EncodedText, class_id: Tensor) -> Losses:
        seen = self.damsm.image_encoder(fake)
        gamma3, weight = self.method.guide.gammas["gamma3"], self.method.guide.lambda_damsm
        words = torch.stack([self.word_score(seen.regions, words) for words in _texts(text)], dim=1)
        sentences = F.cosine_similarity(seen.code[:, None], text.sentence[None], dim=2)
        return {
            "DAMSM_words": weight * self.contrast(gamma3 * words, class_id),
            "DAMSM_sentence": weight * self.contrast(gamma3 * sentences, class_id),
        }

    def contrast(self, scores: Tensor, class_id: Tensor) -> Tensor:
        own = torch.arange(len(scores), device=scores.device)
        others = (class_id[:, None] == class_id) & (own[:, None] != own)
        scores = scores.masked_fill(others, -torch.inf)
        return F.cross_entropy(scores, own) + F.cross_entropy(scores.mT, own)

    def adversarial_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor, sentence: Tensor) -> Tensor:
        real_features, fake_features = discriminator(real), discriminator(fake.detach())
        real_matched = is_real(discriminator.conditional(real_features, sentence).sigmoid())
        fake_matched = is_fake(discriminator.conditional(fake_features, sentence).sigmoid())
        wrong = is_fake(discriminator.conditional(real_features[:-1], sentence[1:]).sigmoid())
        real_alone = is_real(discriminator.unconditional(real_features).sigmoid())
        fake_alone = is_fake(discriminator.unconditional(fake_features).sigmoid())
        return (real_alone + real_matched) / 2 + (fake_alone + fake_matched + wrong) / 3

    def generator_loss(self, discriminator: Discriminator, fake: Tensor, text: EncodedText) -> Tensor:
        features = discriminator(fake)
        matched = is_real(discriminator.conditional(features, text.sentence).sigmoid())
        return matched + is_real(discriminator.unconditional(features).sigmoid())


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
        scores = [self.word_score(regions[n][None], words) for n, words in enumerate(_texts(text))]
        return torch.tensor([float(score.sigmoid()) for score in scores], device=regions.device)


def _texts(text: EncodedText) -> Iterator[Tensor]:
    """The words of each text, (L, D)."""
    for words, mask in zip(text.words, text.word_mask, strict=True):
        yield words[: int(mask.sum())]


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


class TheirsAttnGAN(TheirsGuided):
    method: AttnGAN

    def __init__(self, method: AttnGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, "discriminators", each) for each in method.discriminators]
        self.optimizer = adam(method, "generator", method.generator)
        self.average = copy.deepcopy([parameter.data for parameter in method.generator.parameters()])

    def step(self, batch: Batch) -> Losses:
        method, losses, terms = self.method, {}, {}
        sizes = method.discriminators.sizes
        text = self.damsm.encode_text(batch["caption"], batch["noise"].streams("words"), method.guide.max_words)
        output = method.drawn(method.generator, text, batch["noise"])
        judged = list(
            zip(
                sizes,
                method.discriminators,
                pyramid(batch["image"], sizes),
                output.images,
                self.optimizers,
                strict=True,
            )
        )
        for size, discriminator, real, fake, optimizer in judged:
            discriminator.zero_grad()
            losses[f"discriminators/L_D{size}"] = self.adversarial_loss(discriminator, real, fake, text.sentence)
            losses[f"discriminators/L_D{size}"].backward()
            optimizer.step()

        method.generator.zero_grad()
        for size, discriminator, _, fake, _ in judged:
            terms[f"L_G{size}"] = self.generator_loss(discriminator, fake, text)
        terms |= self.matching(output.images[-1], text, batch["class_id"])
        terms["KL"] = -0.5 * (1 + output.log_variance - output.mu.pow(2) - output.log_variance.exp()).mean()
        sum(terms.values()).backward()
        self.optimizer.step()
        averaged(self.average, method.generator, method.ema.decay)
        return losses | {f"generator/{name}": term for name, term in terms.items()}


class TheirsTAGAN(Theirs):
    method: TAGAN

    def __init__(self, method: TAGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("discriminator", "generator")]

    def judged(self, image: Tensor, vectors: Tensor, lengths: Tensor, negative: bool = False) -> list[Tensor]:
        """Logits of images, probabilities that they show their texts and, where asked for, others'."""
        discriminator = self.method.discriminator
        logits, levels = discriminator(image)
        pooled, judges = discriminator.pooled(levels), discriminator.judges(vectors, lengths)
        asked = [judges, judges.rolled()] if negative else [judges]
        return [logits, *(discriminator.match(pooled, each) for each in asked)]

    def divergence(self, mu: Tensor, log_sigma: Tensor) -> Tensor:
        return self.method.lambda_kl * (-log_sigma + ((2 * log_sigma).exp() + mu.pow(2) - 1) / 2).mean()

    def step(self, batch: Batch) -> Losses:
        method, real, noise = self.method, batch["image"], batch["noise"]
        text = method.words(batch["caption"])
        others = row_before(text[0]), row_before(text[1])
        eps = noise.normal("eps", method.condition_dim)

        method.discriminator.zero_grad()
        logits, match, mismatch = self.judged(real, *text, negative=True)
        on_real = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        matching = method.lambda_match * (is_real(match) + is_fake(mismatch)) / 2
        (on_real + matching).backward()
        logits, _ = self.judged(method.generator(real, *others, eps).image.detach(), *others)
        on_fake = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        on_fake.backward()
        self.optimizers[0].step()

        method.generator.zero_grad()
        fake = method.generator(real, *others, eps)
        logits, match = self.judged(fake.image, *others)
        adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        fake_matching = method.lambda_match * is_real(match)
        divergence = self.divergence(fake.mu, fake.log_sigma)
        (adversarial + fake_matching + divergence).backward()
        own = method.generator(real, *text, noise.normal("own eps", method.condition_dim))
        reconstruction = method.lambda_reconstruction * F.l1_loss(own.image, real)
        own_divergence = self.divergence(own.mu, own.log_sigma)
        (reconstruction + own_divergence).backward()
        self.optimizers[1].step()
        return {
            "discriminator/L_D_real": on_real,
            "discriminator/L_D_match": matching,
            "discriminator/L_D_fake": on_fake,
            "generator/L_G": adversarial,
            "generator/L_G_match": fake_matching,
            "generator/L_rec": reconstruction,
            "generator/KL": divergence,
            "generator/KL_rec": own_divergence,
        }


class TheirsSISGAN(Theirs):
    method: SISGAN

    def __init__(self, method: SISGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("discriminator", "generator")]

    def backward(self, image: Tensor, text: Tensor, target: float, weight: float) -> Tensor:
        judge = self.method.discriminator
        logits = judge(judge.features(image), text)
        loss = weight * F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
        loss.backward()
        return loss

    def step(self, batch: Batch) -> Losses:
        method, real, noise = self.method, batch["image"], batch["noise"]
        text = method.text_encoder(batch["caption"])
        relevant = relevant_texts(text)

        method.discriminator.zero_grad()
        on_real = self.backward(real, text, 1, 1)
        mismatched = self.backward(real, row_before(text), 0, method.lambda_mismatched)
        shown = method.generator(real, relevant, noise.normal("eps shown", method.condition_dim))
        on_fake = self.backward(shown.image.detach(), relevant, 0, method.lambda_fake)
        self.optimizers[0].step()

        method.generator.zero_grad()
        output = method.generator(real, relevant, noise.normal("eps", method.condition_dim))
        divergence = (-output.log_sigma + ((2 * output.log_sigma).exp() + output.mu.pow(2) - 1) / 2).mean()
        logits = method.discriminator(method.discriminator.features(output.image), relevant)
        adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        (adversarial + method.lambda_kl * divergence).backward()
        self.optimizers[1].step()
        return {
            "discriminator/L_D_real": on_real,
            "discriminator/L_D_mismatched": mismatched,
            "discriminator/L_D_fake": on_fake,
            "generator/L_G": adversarial,
            "generator/KL": method.lambda_kl * divergence,
        }


class TheirsTwoPaths(Theirs):
    """What the trainings of PICNet and its descendant TDANet share: discriminators one by one, terms of images."""

    def __init__(self, method: Any) -> None:
        super().__init__(method)
        self.judges = method.discriminator, method.discriminator_rec
        self.discriminators = adam(method, "discriminator", *self.judges)
        self.generators = adam(method, "generator", method.generator, method.encoder)

    def scaled(self, image: Tensor) -> list[Tensor]:
        """At four sizes, from small to full."""
        sizes = [image.shape[-1] >> level for level in (3, 2, 1)]
        small = [F.interpolate(image, (size, size), mode="bilinear", align_corners=True) for size in sizes]
        return [*small, image]

    def shown(self, image: Tensor, keep: Tensor, made: Paths) -> Tensor:
        """A picture of the state of training, which nothing learns from."""
        return (1 - keep) * made.generated[-1].detach() + keep * image

    def train_discriminators(self, real: Tensor, fakes: Sequence[Tensor]) -> list[Tensor]:
        for judge in self.judges:
            judge.requires_grad_(True)
        self.discriminators.zero_grad()
        losses = []
        for judge, fake in zip(self.judges, fakes, strict=True):
            loss = (near(judge(real), 1) + near(judge(fake.detach()), 0)) * 0.5
            loss.backward()
            losses.append(loss)
        self.discriminators.step()
        for judge in self.judges:
            judge.requires_grad_(False)
        return losses

    def train_generators(self, terms: Losses) -> None:
        self.generators.zero_grad()
        sum(terms.values()).backward()
        self.generators.step()

    def divergences(self, made: Paths, sigma: Tensor) -> Losses:
        """Of assumed variables from the posterior, and of that, which learns nothing by it, from the prior."""
        posterior, prior = Normal(*made.posterior), Normal(*made.prior)
        fixed = Normal(*(value.detach() for value in made.posterior))
        assumed = Normal(torch.zeros_like(posterior.loc), sigma * torch.ones_like(posterior.scale))
        weight = self.method.lambda_kl * len(made.generated)
        return {
            "KL_rec": weight * kl_divergence(assumed, posterior).mean(),
            "KL_gen": weight * kl_divergence(fixed, prior).mean(),
        }


class TheirsPICNet(TheirsTwoPaths):
    method: PICNet

    def step(self, batch: Batch) -> Losses:
        method = self.method
        real, keep = method.given(batch)
        reals, keeps = self.scaled(real), self.scaled(keep)
        known_share = keep.flatten(1).mean(dim=1) - 1e-5
        sigma = (1 / (1 + ((known_share - 0.8) * 8).exp()))[:, None, None, None]
        made = method.paths(real, keep, batch["noise"])
        reconstructed, generated = made.reconstructed[-1], made.generated[-1]
        self.shown(real, keep, made)
        judged = self.train_discriminators(real, (generated, reconstructed))

        terms = self.divergences(made, sigma)
        judge, judge_rec = self.judges
        terms["L_ad_gen"] = method.lambda_gan * near(judge(generated), 1)
        terms["L_ad_rec"] = method.lambda_gan * F.mse_loss(judge_rec(reconstructed), judge_rec(real))
        both = list(zip(made.reconstructed, made.generated, reals, keeps, strict=True))
        terms["L_app_rec"] = method.lambda_rec * sum(F.l1_loss(rec, true) for rec, _, true, _ in both)
        terms["L_app_gen"] = method.lambda_rec * sum(F.l1_loss(gen * kept, true * kept) for _, gen, true, kept in both)
        self.train_generators(terms)
        return named(("L_D", "L_D_rec"), judged, terms)


class TheirsTDANet(TheirsTwoPaths, TheirsGuided):
    method: TDANet

    def step(self, batch: Batch) -> Losses:
        method = self.method
        real, keep = method.given(batch)
        reals, _ = self.scaled(real), self.scaled(keep)
        text = method.captions(batch)
        made = method.paths(method.encoder.both(real, keep, text), keep, batch["noise"])
        reconstructed, generated = made.reconstructed[-1], made.generated[-1]
        self.shown(real, keep, made)
        judged = self.train_discriminators(real, (reconstructed, reconstructed))

        terms = self.divergences(made, torch.ones_like(made.posterior.sigma))
        judge, judge_rec = self.judges
        terms["L_G_gen"] = method.lambda_gan * near(judge(generated), 1)
        terms["L_G_rec"] = method.lambda_gan * near(judge(reconstructed), 1)
        like_rec, like_real, like_gen = (judge_rec(image) for image in (reconstructed, real, generated))
        terms["L_feature_rec"] = method.lambda_gan * F.mse_loss(like_rec, like_real)
        terms["L_feature_gen"] = method.lambda_gan * F.mse_loss(like_gen, like_real)
        for path, images in (("rec", made.reconstructed), ("gen", made.generated)):
            matching = self.matching(images[-1], text, batch["class_id"])
            terms |= {f"{name}_{path}": term for name, term in matching.items()}
        terms["L1_rec"] = method.lambda_rec * sum(map(F.l1_loss, made.reconstructed, reals))
        terms["L1_gen"] = method.lambda_gen * sum(map(F.l1_loss, made.generated, reals))
        self.train_generators(terms)
        return named(("L_D", "L_D_rec"), judged, terms)


def named(names: Sequence[str], judged: Sequence[Tensor], terms: Losses) -> Losses:
    """The terms of PICNet and TDANet as ours are logged."""
    return {
        **{f"discriminator+discriminator_rec/{name}": loss for name, loss in zip(names, judged, strict=True)},
        **{f"encoder+generator/{name}": term for name, term in terms.items()},
    }


class TheirsCSA(Theirs):
    method: CSA

    def __init__(self, method: CSA) -> None:
        super().__init__(method)
        names = ("discriminator", "feature_discriminator"), ("refinement", "coarse")
        self.discriminators, self.generators = (
            [adam(method, name, getattr(method, name)) for name in each] for each in names
        )

    def relative(self, above: Tensor, below: Tensor) -> Tensor:
        return (((above - below.mean() - 1) ** 2).mean() + ((below - above.mean() + 1) ** 2).mean()) / 2

    def step(self, batch: Batch) -> Losses:
        method, image = self.method, batch["image"]
        judge, feature_judge = method.discriminator, method.feature_discriminator
        target = method.vgg(image).relu4_3
        painted = method.painted(image, batch["mask"])
        refined = painted.refined
        if target.shape == refined.attended.shape:  # as published; their value is added, of which no gradient comes
            for features in (refined.attended, refined.decoded):
                F.mse_loss(features * painted.hole, target)
        made, true = method.vgg(refined.image.detach()), method.vgg(image)

        for network in (judge, feature_judge):
            network.zero_grad()
        patches = 0.5 * self.relative(judge(image), judge(refined.image.detach()))
        features = 0.5 * self.relative(feature_judge(true.pool3), feature_judge(made.pool3))
        (patches + features).backward()
        for optimizer in self.discriminators:
            optimizer.step()

        for network in (method.refinement, method.coarse):
            network.zero_grad()
        fake, fake_features = judge(refined.image), feature_judge(made.pool3)
        real, real_features = judge(image), feature_judge(true.pool3)
        terms = {
            "D_R_patch": method.lambda_adversarial * self.relative(fake, real),
            "D_R_feature": method.lambda_adversarial * self.relative(fake_features, real_features),
            "L_re_refined": method.lambda_reconstruction * F.l1_loss(refined.image, image),
            "L_re_coarse": method.lambda_reconstruction * F.l1_loss(painted.coarse, image),
        }
        sum(terms.values()).backward()
        for optimizer in self.generators:
            optimizer.step()
        judged = {"D_R_patch": patches, "D_R_feature": features}
        return {
            **{f"discriminator+feature_discriminator/{name}": loss for name, loss in judged.items()},
            **{f"coarse+refinement/{name}": term for name, term in terms.items()},
        }


class Case(NamedTuple):
    """What is measured of a method.

    Attributes:
        theirs: the authors' schedule.
        size: height and width of the images.
        batch_size: images of a step; the published 32 and 64 do not fit everywhere.
    """

    theirs: type[Theirs]
    size: int
    batch_size: int


CASES = {
    "manigan_main": Case(TheirsManiGANMain, 256, 2),
    "manigan": Case(TheirsManiGAN, 256, 2),
    "attngan": Case(TheirsAttnGAN, 256, 4),
    "tagan": Case(TheirsTAGAN, 128, 4),
    "sisgan": Case(TheirsSISGAN, 64, 8),
    "tdanet": Case(TheirsTDANet, 256, 2),
    "picnet": Case(TheirsPICNet, 256, 2),
    "csa": Case(TheirsCSA, 256, 1),
    "stackganpp": Case(TheirsStackGANPP, 256, 2),
    "dfgan": Case(TheirsDFGAN, 256, 2),
}


class StillAtFirst:
    """Lets the first step of every optimiser change nothing, so that all losses of it are of the same weights.

    Adam's first step has its full size however small a gradient is, and makes weights of what was rounding.
    """

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, optimizer: Optimizer, *arguments: Any) -> None:
        rate = optimizer.defaults["lr"] if id(optimizer) in self.seen else 0.0
        self.seen.add(id(optimizer))
        for group in optimizer.param_groups:
            group["lr"] = rate


class Turns(Callback):
    """Waits before each step until it is this side's turn; then says how long it took, and its terms."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        self.connection.recv()
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *step: Any) -> None:
        self.seconds = elapsed(self.start)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.connection.send((self.seconds, {name: float(term) for name, term in trainer.callback_metrics.items()}))


def elapsed(start: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def train_ours(method: Method, batch: Batch, rounds: int, callback: Callback) -> None:
    """Epochs of one step each, as `mmbench train` makes them."""
    trainer = config.construct(
        config.node("trainer/auto"),
        max_epochs=rounds,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        **TRAINER_OPTIONS,
    )
    trainer.fit(method, DataLoader(dataset=[batch], batch_size=None))


def train_theirs(theirs: type[Theirs], method: Method, batch: Batch, rounds: int, connection: Connection) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    method.to(device).train()
    schedule = theirs(method)
    batch = {field: value.to(device) if hasattr(value, "to") else value for field, value in batch.items()}
    for _ in range(rounds):
        connection.recv()
        start = time.perf_counter()
        losses = schedule.step(batch)
        connection.send((elapsed(start), {name: float(term.detach()) for name, term in losses.items()}))


def side(connection: Connection, name: str, batch_size: int, ours: bool) -> None:
    """The process of one side: a step each time it is its turn, at the end the memory at its peak in GB."""
    case, method = CASES[name], assembled(name, "published")
    register_optimizer_step_pre_hook(StillAtFirst())
    batch = random_batch(case.size, batch_size)
    if ours:
        train_ours(method, batch, 1 + ROUNDS, Turns(connection))
    else:
        train_theirs(case.theirs, method, batch, 1 + ROUNDS, connection)
    connection.send(peak_memory())


def peak_memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def largest_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Of any term, relative to it, or to a thousandth of all terms where it is smaller than that.

    A divergence from a standard normal starts near 0, as a difference of numbers near 1.
    """
    assert ours.keys() == theirs.keys(), f"other terms: {sorted(ours.keys() ^ theirs.keys())}"
    least = sum(map(abs, theirs.values())) / 1000
    return max(abs(ours[name] - value) / max(abs(value), least) for name, value in theirs.items())


class DoubleNoise(Noise):
    """The same numbers, for networks of double precision."""

    def normal(self, name: str, *shape: int) -> Tensor:
        return super().normal(name, *shape).double()


class Terms(Callback):
    """Keeps the terms of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append({name: float(term) for name, term in trainer.callback_metrics.items()})


def check(name: str, batch_size: int) -> bool:
    """Whether both sides train small networks alike, and train them at all; prints the differences of losses."""
    ours, batch = assembled(name, "tiny").double(), random_batch(SMALL, batch_size)
    batch |= {field: batch[field].double() for field in ("image", "image_mismatched")}
    batch["noise"] = DoubleNoise(0, batch["sample"])
    theirs, kept = CASES[name].theirs(copy.deepcopy(ours).train()), Terms()
    train_ours(ours, batch, ROUNDS, kept)
    expected = [{term: float(loss.detach()) for term, loss in theirs.step(batch).items()} for _ in kept.steps]
    difference = max(map(largest_difference, kept.steps, expected))  # of later steps, after what those before changed
    change = largest_difference(kept.steps[-1], kept.steps[0])
    print(f"{name}: in {ROUNDS} steps losses change by {change:.2f} and differ by {difference:.1e} (at most {EXACT})")
    return difference < EXACT and change > 0.01


def turn(connection: Connection) -> tuple[float, dict[str, float]]:
    connection.send("step")
    return connection.recv()


def bench(name: str, batch_size: int) -> bool:
    """Measures a method and prints it; whether the losses of the first step, which is not timed, are the same.

    That both train the same over several steps is for `check` to show, in double precision.
    """
    context = multiprocessing.get_context("spawn")
    sides = []
    for ours in (True, False):
        connection, other_end = context.Pipe()
        context.Process(target=side, args=(other_end, name, batch_size, ours), daemon=True).start()
        other_end.close()  # so that a side that fails is heard of
        sides.append(connection)
    difference = largest_difference(*(turn(connection)[1] for connection in sides))
    what = f"{name}, {CASES[name].size} pixels, batch of {batch_size}"
    if difference > TOLERANCE:
        print(f"{what}: expected equal losses in the first step, found a relative difference of {difference:.1e}")
        return False
    seconds = [[turn(connection)[0] for connection in sides] for _ in range(ROUNDS)]
    ours, theirs = map(median, zip(*seconds, strict=True))
    memory = [connection.recv() for connection in sides]
    print(
        f"{what:<45} authors' schedule / ours {theirs / ours:5.2f} x  goal >= 1.3  {theirs:.2f} s / {ours:.2f} s, "
        f"{memory[1]:.2f} GB / {memory[0]:.2f} GB, relative difference of losses {difference:.1e}",
        flush=True,
    )
    return True


def _batch_size(name: str, text: str) -> int:
    """The number of a word, for a method that needs so many images or fewer.

    Raises:
        ValueError: it is no number, or fewer.
    """
    smallest = config.target(config.composed([f"method={name}"])["method"]["module"]).smallest_batch
    if not text.isdecimal() or int(text) < smallest:
        raise ValueError(f"expected {name}=N, a batch of {smallest} images or more, found {text!r}: correct it")
    return int(text)


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    checked = "check" in arguments
    words = [word for word in arguments if word != "check"]
    chosen = [word.partition("=") for word in words] or [(name, "", "") for name in CASES]
    for name, _, _ in chosen:
        if name not in CASES:
            catalogue.unknown("method", name, CASES)
    sizes = {name: _batch_size(name, count) if equals else CASES[name].batch_size for name, equals, count in chosen}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, PyTorch {torch.__version__}, float32")
    equal = [(check if checked else bench)(*case) for case in sizes.items()]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"mmbench: error: {' '.join(str(error).split())}")
