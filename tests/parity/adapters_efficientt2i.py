"""Efficient-T2I: both networks, the moving average, the loss and sentence interpolation."""

from types import SimpleNamespace

import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.methods.synthesis.efficient_t2i import (
    DISCRIMINATOR,
    GENERATOR,
    EfficientT2IPlain,
    Generator,
    ReleasedEMA,
    discriminator,
    interpolated,
    shares,
)

SIZE, ATTENTION_SIZE = 256, 64


def _generator(config: dict) -> Generator:
    return Generator(SIZE, config["ngf"], config["z_dim"], config["embedding_size"], ATTENTION_SIZE)


def _discriminator(config: dict) -> nn.Module:
    return discriminator(SIZE, config["ndf"], config["embedding_size"], ATTENTION_SIZE)


def _blocks(network: nn.Module) -> dict[str, nn.Module]:
    """By the authors' names."""
    blocks = [block for stage in network.stages for block in stage if hasattr(block, "convolution4")]
    named = {f"block{number}": block for number, block in enumerate(blocks, start=2)}
    return named | {f"{name}_residual": block.convolution4 for name, block in named.items()}


def made(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _generator(fixture["config"]).eval()
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    modules = {**_blocks(network), "linear": network.project, "attended": network.attention}
    modules |= {"block13_bn1": network.stages[-1][-1].norm1, "pre_tanh": network.to_rgb}
    with torch.no_grad(), outputs_of(modules) as seen:
        image = network(given["z"], given["sentence"])
        attention = network.attention.attention(seen["block9"])
    return {**seen, "image": image, "attention_scaled": 1024 * attention}


def judged(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _discriminator(fixture["config"]).eval()
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    attention = network.stages[1][-1]
    modules = {**_blocks(network), "attended": attention, "unconditional": network.score}
    with torch.no_grad(), outputs_of(modules) as seen:
        score = network(given["image"], given["sentence"])
        scaled = 1024 * attention.attention(seen["block5"])
    pooled = network.layers.activated(seen["block13"]).sum(dim=(2, 3))
    return {**seen, "score": score, "pooled": pooled, "attention_scaled": scaled}


def average(fixture: dict) -> dict[str, Tensor]:
    weights = state(fixture)
    # Changes are a thousandth of the weights: in single precision rounding would be a thousandth of them.
    average, live = _generator(fixture["config"]).double(), _generator(fixture["config"]).double()
    for name, network in (("average", average), ("live", live)):
        # The fixture has some of the tensors only.
        network.load_state_dict(network.state_dict() | GENERATOR(part(weights, f"{name}."), network))
    ema = ReleasedEMA(average, fixture["config"]["mu"])
    ema.update(live)
    found, after, before = {}, ema.average.state_dict(), average.state_dict()
    for name in fixture["outputs"]:
        kind, _, key = name.partition("/")
        ours = GENERATOR.name(key)
        found[name] = 1000 * (after[ours] - before[ours]) if kind == "change_x1000" else after[ours]
    return found


def hinge(fixture: dict) -> dict[str, Tensor]:
    given = {name: value.requires_grad_() for name, value in inputs(fixture).items()}
    stage = SimpleNamespace(discriminator=lambda logits, sentence: logits)
    terms = EfficientT2IPlain.discriminator_terms(stage, given["real"], given["fake"], None)
    made = EfficientT2IPlain.generator_terms(stage, given["fake"], None)["L_G"]
    loss = sum(terms.values())
    found = {
        "loss_discriminator": loss,
        "real_term": terms["L_D_real"],
        "fake_term": terms["L_D_fake"],
        "loss_generator": made,
    }
    for side, of_side in (("discriminator", loss), ("generator", made)):
        found |= gradients(fixture, of_side, {f"{side}/{name}": value for name, value in given.items()})
    return found


def interpolation(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    weights = shares(given["u"].mT)
    return {"weights": weights.mT, "sentence": interpolated(given["embeddings"][None], weights)[0]}


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _generator(fixture["config"]), GENERATOR


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _discriminator(fixture["config"]), DISCRIMINATOR


ADAPTERS = {
    "efficientt2i/generator": made,
    "efficientt2i/discriminator": judged,
    "efficientt2i/ema": average,
    "efficientt2i/loss-hinge": hinge,
    "efficientt2i/sentence-interpolation": interpolation,
    "efficientt2i/generator-full-layout": generator_layout,
    "efficientt2i/discriminator-full-layout": discriminator_layout,
}
