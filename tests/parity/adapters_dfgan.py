"""DF-GAN: both networks, their losses and the matching-aware gradient penalty."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from fixture import inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.penalties import matching_aware_penalty
from mmbench.methods.synthesis.dfgan import DFGAN, GENERATOR, Discriminator, Generator, discriminator_keys


def _generator(config: dict) -> Generator:
    assert config["ch_size"] == 3
    return Generator(config["imsize"], config["nf"], config["z_dim"], config["cond_dim"])


def generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _generator(fixture["config"])
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    last = network.blocks[-1]
    modules = {f"block{n}": block for n, block in enumerate(network.blocks)}
    modules |= {"fc": network.project, "fuse1": last.fusion1, "block5_fuse2": last.fusion2, "pre_tanh": network.to_rgb}
    with torch.no_grad(), outputs_of(modules) as seen:
        image = network(given["noise"], given["sentence"])
    # The authors' fusion is behind the upsampling.
    return {**seen, "image": image, "block5_fuse1": F.interpolate(seen["fuse1"], scale_factor=2)}


def _discriminator(config: dict) -> Discriminator:
    return Discriminator(config["imsize"], config["nf"], config["cond_dim"])


def _loaded(fixture: dict) -> tuple[Discriminator, KeyMap]:
    network, keys = _discriminator(fixture["config"]), discriminator_keys(fixture["config"]["imsize"])
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    return network, keys


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given, (network, _) = inputs(fixture), _loaded(fixture)
    _, *blocks = network.features
    modules = {f"block{n}": block for n, block in enumerate(blocks)}
    modules |= {f"block{n}_residual": block.residual for n, block in enumerate(blocks)}
    with torch.no_grad(), outputs_of({**modules, "features": network.features}) as seen:
        score = network(given["image"], given["sentence"])
    return {**seen, "score": score[:, None, None, None]}


def _gradients(fixture: dict, loss: Tensor, known: dict[str, Tensor], stem: str) -> dict[str, Tensor]:
    """Recorded gradients of a loss, those whose names say so a thousandfold."""
    found = {}
    for name in fixture["outputs"]:
        thousand, _, wanted = name.rpartition(stem)
        if wanted in known and name.endswith(stem + wanted):
            (gradient,) = torch.autograd.grad(loss, known[wanted], retain_graph=True)
            found[name] = gradient * (1000 if thousand == "x1000/" else 1)
    return found


def _parameters(network: Discriminator, keys: KeyMap, fixture: dict) -> dict[str, nn.Parameter]:
    """By the authors' keys."""
    ours = dict(network.named_parameters())
    return {key: ours[keys.name(key)] for key, *_ in fixture["state"] if keys.name(key) in ours}


def adversarial_loss(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), _loaded(fixture)
    stage = SimpleNamespace(discriminator=network, penalty_weight=2.0, penalty_power=6.0)
    given = {name: value.requires_grad_() for name, value in given.items()}
    terms = DFGAN.discriminator_terms(stage, given["image"], given["fake"], given["sentence"])
    judged = sum(terms.values())
    found = {
        "loss_discriminator": judged,
        "real": terms["L_D_real"],
        "mismatched": 2 * terms["L_D_mismatched"],
        "fake": 2 * terms["L_D_fake"],
        "penalty": terms["MA_GP"],
    } | _gradients(fixture, judged, {**given, **_parameters(network, keys, fixture)}, "grad/discriminator/")
    made = DFGAN.generator_terms(stage, given["fake"], given["sentence"])["L_G"]
    return found | {"loss_generator": made} | _gradients(fixture, made, given, "grad/generator/")


def gradient_penalty(fixture: dict) -> dict[str, Tensor]:
    config, (network, keys) = fixture["config"], _loaded(fixture)
    given = {name: value.requires_grad_() for name, value in inputs(fixture).items()}
    score = network(**given)
    penalty = config["k"] * matching_aware_penalty(**given, logits=score, power=config["p"])
    by_image, by_sentence = torch.autograd.grad(score.sum(), tuple(given.values()), retain_graph=True)
    found = {
        "penalty": penalty,
        "log_penalty": penalty.log(),
        "gradient_norm": torch.cat((by_image.flatten(1), by_sentence), dim=1).norm(dim=1),
        "x1000/image_gradient": 1000 * by_image,
        "sentence_gradient": by_sentence,
        "score": score[:, None, None, None],
    }
    return found | _gradients(fixture, penalty, _parameters(network, keys, fixture), "grad/")


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _generator(fixture["config"]), GENERATOR


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _discriminator(fixture["config"]), discriminator_keys(fixture["config"]["imsize"])


ADAPTERS = {
    "dfgan/generator": generator,
    "dfgan/discriminator": discriminator,
    "dfgan/loss-adversarial": adversarial_loss,
    "dfgan/loss-magp": gradient_penalty,
    "dfgan/generator-full-layout": generator_layout,
    "dfgan/discriminator-full-layout": discriminator_layout,
}
