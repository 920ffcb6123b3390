"""StackGAN++: generator, discriminators and losses."""

import re
from functools import partial
from types import SimpleNamespace

import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.colour import colour_statistics
from mmbench.methods.synthesis.stackganpp import DISCRIMINATOR, GENERATOR, Generated, StackGANPP, TreeGenerator
from mmbench.networks.attngan import Discriminator

SIZES = (64, 128, 256)


def _generator(config: dict) -> TreeGenerator:
    return TreeGenerator(
        width=config["GF_DIM"],
        embedding_dim=config["TEXT_DIMENSION"],
        noise_dim=config["Z_DIM"],
        condition_dim=config["EMBEDDING_DIM"],
        num_residual=config["R_NUM"],
        base_size=64,
        num_branches=config["BRANCH_NUM"],
    )


def generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _generator(fixture["config"]).eval()
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    stages = {f"h{n}": stage for n, stage in enumerate((network.first_stage, *network.next_stages), start=1)}
    with torch.no_grad(), outputs_of(stages) as seen:
        output = network(given["text"], given["z"], given["eps"])
    images = {f"image{size}": image for size, image in zip(SIZES, output.images, strict=True)}
    return {**seen, **images, "mu": output.mu, "logvar": output.log_variance}


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _generator(fixture["config"]), GENERATOR


def _discriminator(fixture: dict, size: int) -> Discriminator:
    return Discriminator(size, fixture["config"]["DF_DIM"], fixture["config"]["EMBEDDING_DIM"])


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = _discriminator(fixture, given["image"].shape[-1]).eval()
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    features = network(given["image"])
    unconditional, conditional = network.judge(given["image"], given["condition"])
    return {
        "features": features,
        "conditional": conditional.sigmoid(),
        "conditional_logit": conditional,
        "unconditional": unconditional.sigmoid(),
        "unconditional_logit": unconditional,
    }


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _discriminator(fixture, int(re.search(r"\d+", fixture["name"])[0])), DISCRIMINATOR


class Saying(nn.Module):
    """In the place of a discriminator: what it said, by what it is shown."""

    def __init__(self, said: dict[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.said = said

    def judge(self, image: str, condition: None) -> tuple[Tensor, Tensor]:
        return self.said[image]


def discriminator_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    assert fixture["config"]["UNCOND_LOSS"] == 1
    logits = {name: values.logit() for name, values in given.items()}
    kinds = ("real", "wrong", "fake")
    said = Saying({kind: (logits[f"{kind}_unconditional"], logits[f"{kind}_conditional"]) for kind in kinds})
    loss = StackGANPP.judged(SimpleNamespace(), said, *kinds, None)
    return {"loss": loss} | gradients(fixture, loss, given)


def _terms(output: Generated, **described: object) -> dict[str, Tensor]:
    """The method's own `generator_terms`, from what it reads of the method."""
    return StackGANPP.generator_terms(SimpleNamespace(**described), output)


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    networks = [_discriminator(fixture, size).train() for size in SIZES]
    for n, network in enumerate(networks):
        load_strictly(network, DISCRIMINATOR(part(state(fixture), f"D{n}."), network), fixture["name"])
    terms = _terms(
        Generated([given[f"fake{size}"] for size in SIZES], given["mu"], given["logvar"]),
        discriminators=networks,
        fooled=partial(StackGANPP.fooled, None),
        lambda_kl=config["KL"],
        lambda_colour=config["COLOR_LOSS"],
    )
    loss = sum(terms.values())
    return {"loss": loss, "kl_weighted": terms["KL"]} | gradients(fixture, loss, given)


def colour_loss(fixture: dict) -> dict[str, Tensor]:
    given, normal = inputs(fixture), torch.zeros(1, 1)
    terms = _terms(
        Generated([given[f"fake{size}"] for size in SIZES], mu=normal, log_variance=normal),
        discriminators=[None] * len(SIZES),
        fooled=lambda *_: torch.zeros(()),
        lambda_kl=0,
        lambda_colour=fixture["config"]["COLOR_LOSS"],
    )
    loss = sum(terms.values())
    mean, covariance = colour_statistics(given["fake256"])
    found = {"loss": loss, "mean256": mean[:, :, None, None], "covariance256": covariance}
    return found | gradients(fixture, loss, given)


ADAPTERS = {
    "stackganpp/generator": generator,
    "stackganpp/generator-full-layout": generator_layout,
    **{f"stackganpp/discriminator{size}": discriminator for size in SIZES},
    **{f"stackganpp/discriminator{size}-full-layout": discriminator_layout for size in SIZES},
    "stackganpp/loss-discriminator": discriminator_loss,
    "stackganpp/loss-generator": generator_loss,
    "stackganpp/loss-color": colour_loss,
}
