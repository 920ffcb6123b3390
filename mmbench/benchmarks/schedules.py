"""What the authors' schedules, a file `schedules_<paper>.py` each, are written with: their bases, optimisers, losses of
probabilities, averages, and what stands for pretrained networks.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lpips.lpips import NetLinLayer
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner
from mmbench.core.method import Batch
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedText

Losses = dict[str, Tensor]


def adam(method: Any, name: str, *networks: nn.Module) -> Adam:
    """The optimiser that the method has for its submodule `name`, for some networks and not fused."""
    options = {**method.partials[name].keywords, "fused": None}
    parameters = [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
    return Adam(parameters, **options)


def only_optimizer(method: Learner) -> Optimizer:
    """That of a method that has one, not fused."""
    made: Any = method.optimizer  # a partial
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    return made.func(trained, **{**made.keywords, "fused": None})


def weighted_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What (..., L, D) see of (..., M, D) each, by a whole matrix (..., L, M) of weights."""
    scores = torch.einsum("...id, ...jd -> ...ij", query, key) * query.shape[-1] ** -0.5
    return torch.einsum("...ij, ...jd -> ...id", scores.softmax(dim=-1), value)


def is_real(probability: Tensor) -> Tensor:
    return F.binary_cross_entropy(probability, torch.ones_like(probability))


def is_fake(probability: Tensor) -> Tensor:
    return F.binary_cross_entropy(probability, torch.zeros_like(probability))


def near(logits: Tensor, target: float) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, target))


class Theirs:
    """The authors' schedule of a method's training on its own networks.

    Args:
        method: whose networks are trained.
    """

    def __init__(self, method: Any) -> None:
        self.method = method
        for module in method.modules():
            if isinstance(module, UpsamplingConvolution):
                module.forward = partial(upsampled_then_convolved, module)  # type: ignore[method-assign]

    def step(self, batch: Batch) -> Losses:
        """Trains on a batch; terms are named as ours are logged."""
        raise NotImplementedError


def upsampled_then_convolved(layer: UpsamplingConvolution, x: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)


def averaged(average: Sequence[Tensor], network: nn.Module, decay: float) -> None:
    for kept, latest in zip(average, network.parameters(), strict=True):
        kept.mul_(decay).add_(latest.data, alpha=1 - decay)


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
        words = torch.stack([self.word_score(seen.regions, words) for words in texts_of(text)], dim=1)
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


def texts_of(text: EncodedText) -> Iterator[Tensor]:
    """The words of each text, (L, D)."""
    for words, mask in zip(text.words, text.word_mask, strict=True):
        yield words[: int(mask.sum())]


def drawn(network: nn.Module) -> Frozen:
    """A frozen network with random weights that keep the size of activations, in the place of a pretrained one."""
    rescaled(network)
    for module in network.modules():
        if isinstance(module, NetLinLayer):  # weights of a sum of squares, of which LPIPS takes roots
            for parameter in module.parameters():
                parameter.data.abs_()
    return Frozen(network)


def rescaled(network: nn.Module) -> nn.Module:
    """Convolutions of He et al.'s variance: PyTorch's own start makes a deep network's features vanish."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def awake(network: nn.Module) -> nn.Module:
    """Layers that training starts at zero count as well."""
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return network
