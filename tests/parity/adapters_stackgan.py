"""StackGAN: generators, discriminators and losses of both stages."""

from types import SimpleNamespace

import torch
from adapters_attngan import kl_loss
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.methods.synthesis.stackgan import (
    DISCRIMINATOR,
    STAGE1_GENERATOR,
    STAGE1_GENERATOR_WITHIN,
    STAGE2_GENERATOR,
    Drawn,
    StackGAN,
    StackGANStage1,
    Stage1Generator,
    Stage2Generator,
)
from mmbench.networks.attngan import ConditionalDiscriminator, Discriminator

JUDGES = {1: (ConditionalDiscriminator, 64), 2: (Discriminator, 256)}
STAGES = {1: (StackGANStage1, "L_D0", "L_G0"), 2: (StackGAN, "L_D", "L_G")}


def _number(fixture: dict) -> int:
    """Of the stage."""
    return 1 if "stage1" in fixture["name"] else 2


def _stage1(config: dict) -> Stage1Generator:
    return Stage1Generator(
        config["GF_DIM"], config["TEXT_DIMENSION"], config["Z_DIM"], config["CONDITION_DIM"], base_size=64
    )


def _stage2(config: dict) -> Stage2Generator:
    return Stage2Generator(config["GF_DIM"], config["TEXT_DIMENSION"], config["CONDITION_DIM"], config["R_NUM"])


def _discriminator(fixture: dict) -> Discriminator:
    kind, size = JUDGES[_number(fixture)]
    return kind(size, fixture["config"]["DF_DIM"], fixture["config"]["CONDITION_DIM"])


def _loaded(fixture: dict, network: nn.Module, keys: KeyMap) -> nn.Module:
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    return network.train(fixture["mode"] == "train")


def stage1_generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _loaded(fixture, _stage1(fixture["config"]), STAGE1_GENERATOR)
    with torch.no_grad(), outputs_of({"h": network.upsample}) as seen:
        output = network(given["text"], given["noise"], given["eps"])
    return {**seen, "image": output.image, "mu": output.mu, "logvar": output.log_variance}


def stage2_generator(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    first = _loaded(fixture, _stage1(fixture["config"]), STAGE1_GENERATOR_WITHIN)
    second = _loaded(fixture, _stage2(fixture["config"]), STAGE2_GENERATOR)
    parts = {"encoded": second.encoder, "joint": second.join, "residual": second.residual, "h": second.upsample}
    with torch.no_grad(), outputs_of(parts) as seen:
        small = first(given["text"], given["noise"], given["eps_stage1"]).image
        output = second(small, given["text"], given["eps"])
    images = {"stage1_image": small, "image": output.image}
    return {**seen, **images, "mu": output.mu, "logvar": output.log_variance}


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _loaded(fixture, _discriminator(fixture), DISCRIMINATOR)
    features = network(given["image"])
    logits = {"conditional": network.conditional(features, given["condition"])}
    if _number(fixture) == 2:
        logits["unconditional"] = network.unconditional(features)
    found = {"features": features}
    for name, values in logits.items():
        found |= {f"{name}_logit": values, name: values.sigmoid()}
    return found


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        if _number(fixture) == 1:
            return _stage1(fixture["config"]), STAGE1_GENERATOR
        return _stage2(fixture["config"]), STAGE2_GENERATOR


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _discriminator(fixture), DISCRIMINATOR


def discriminator_loss(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _loaded(fixture, _discriminator(fixture), DISCRIMINATOR)
    method, name, _ = STAGES[_number(fixture)]
    described = SimpleNamespace(discriminator=network)
    output = Drawn(given["fake"], mu=given["mu"], log_variance=torch.zeros_like(given["mu"]))
    loss = method.discriminator_terms(described, given["real"], output)[name]
    parameters = {
        key: network.get_parameter(DISCRIMINATOR.name(key))
        for key, _, dtype in fixture["state"]
        if f"grad/{key}" in fixture["outputs"]
    }
    return {"loss": loss} | _said(network, given) | gradients(fixture, loss, given | parameters)


def _said(network: Discriminator, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms that the authors log: means over kinds of logits where an image is judged twice."""

    def entropy(logits: Tensor, target: float) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    real, fake = network(given["real"]), network(given["fake"])
    terms = {
        "real_term": [entropy(network.conditional(real, given["mu"]), 1)],
        "fake_term": [entropy(network.conditional(fake, given["mu"]), 0)],
        "wrong_term": [entropy(network.conditional(real[:-1], given["mu"][1:]), 0)],
    }
    if hasattr(network, "alone"):
        terms["real_term"].append(entropy(network.unconditional(real), 1))
        terms["fake_term"].append(entropy(network.unconditional(fake), 0))
    return {name: torch.stack(found).mean() for name, found in terms.items()}


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _loaded(fixture, _discriminator(fixture), DISCRIMINATOR)
    method, _, name = STAGES[_number(fixture)]
    described = SimpleNamespace(discriminator=network, lambda_kl=fixture["config"]["KL"])
    terms = method.generator_terms(described, Drawn(given["fake"], given["mu"], given["logvar"]))
    loss = sum(terms.values())
    parts = {"adversarial": terms[name], "kl": kl_to_standard_normal(given["mu"], given["logvar"])}
    return {"loss": loss} | parts | gradients(fixture, loss, given)


ADAPTERS = {
    "stackgan/generator-stage1": stage1_generator,
    "stackgan/generator-stage2": stage2_generator,
    **{f"stackgan/discriminator-stage{n}": discriminator for n in (1, 2)},
    **{f"stackgan/generator-stage{n}-full-layout": generator_layout for n in (1, 2)},
    **{f"stackgan/discriminator-stage{n}-full-layout": discriminator_layout for n in (1, 2)},
    **{f"stackgan/loss-discriminator-stage{n}": discriminator_loss for n in (1, 2)},
    **{f"stackgan/loss-generator-stage{n}": generator_loss for n in (1, 2)},
    "stackgan/loss-kl": kl_loss,
}
