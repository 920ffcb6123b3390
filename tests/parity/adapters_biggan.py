"""BigGAN and BigGAN-deep: layers, networks, losses and a step of training. Here a condition is a class."""

import copy
from functools import partial
from types import SimpleNamespace

import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.spectral_norm import SpectralConv2d, SpectralEmbedding, SpectralLinear
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real, hinge_fake, hinge_real
from mmbench.losses.penalties import off_diagonal_penalty, orthogonality_penalty
from mmbench.methods.synthesis.biggan_text import BigGANText
from mmbench.networks.biggan import (
    AS_VECTOR,
    DISCRIMINATOR,
    NO_VALUE,
    Discriminator,
    FlatGenerator,
    Generator,
    generator_keys,
)
from mmbench.networks.biggan_deep import DEEP_GENERATOR, DeepDiscriminator, DeepGenerator

PLAIN_GENERATOR = generator_keys(1)


def _generator(config: dict) -> tuple[nn.Module, KeyMap]:
    kind = (
        DeepGenerator if config.get("deep") or "G_depth" in config else Generator if config["hier"] else FlatGenerator
    )
    network = kind(
        image_size=config["resolution"],
        width=config["G_ch"],
        latent_dim=config["dim_z"],
        embed=nn.Embedding(config["n_classes"], config["shared_dim"]),
        shared_dim=config["shared_dim"],
        attention_size=int(config.get("attn", config.get("G_attn"))),
    )
    return network, DEEP_GENERATOR if kind is DeepGenerator else PLAIN_GENERATOR


def _discriminator(config: dict) -> tuple[nn.Module, KeyMap]:
    kind = DeepDiscriminator if config.get("deep") else Discriminator
    attention_size = int(config.get("attn", config.get("D_attn")))
    embed = partial(SpectralEmbedding, config["n_classes"])
    return kind(config["resolution"], config["D_ch"], attention_size, embed), DISCRIMINATOR


def _blocks(network: nn.Module, depth: int) -> dict[str, nn.Module]:
    """By the authors' names, attention behind the last block of its stage."""
    found = {}
    for place, stage in enumerate(network.stages):
        for n, block in enumerate(stage):
            found[f"blocks.{place * depth + n}.0"] = block
        if network.attention_size == 8 * 2**place:
            found[f"blocks.{(place + 1) * depth - 1}.1"] = network.attention
    return found


def generator(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), _generator(fixture["config"])
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {"linear": network.project, **_blocks(network, fixture["config"].get("G_depth", 1))}
    with torch.no_grad(), outputs_of(modules) as seen:
        image = network(given["z"], given["y"])
    return {**seen, "image": image}


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), _discriminator(fixture["config"])
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    network.eval()
    modules = {f"blocks.{i}.{j}": block for i, stage in enumerate(network.stages) for j, block in enumerate(stage)}
    with torch.no_grad(), outputs_of({"input_conv": network.entry, **modules}) as seen:
        score = network(given["image"], given["y"])
    return {**seen, "score": score[:, None]}


def spectral_norm(fixture: dict) -> dict[str, Tensor]:
    given, weights = inputs(fixture), state(fixture)
    layers = {
        "conv": SpectralConv2d(4, 5, 3, padding=1),
        "linear": SpectralLinear(7, 6),
        "embedding": SpectralEmbedding(9, 6),
    }
    keys = KeyMap(rename={"u0": "u"}, drop={"sv0": NO_VALUE[r".*\.sv0"]}, convert={"u": AS_VECTOR[r".*\.u"]})
    for name, layer in layers.items():
        load_strictly(layer.eval(), keys(part(weights, f"{name}."), layer), fixture["name"])
    conv, linear, embedding = layers.values()
    found = {"conv": conv(given["image"]), "linear": linear(given["x"]), "embedding": embedding(given["y"])}
    loss = found["linear"].square().mean() + found["conv"].square().mean()
    found |= {"linear.weight/sn": linear.normalised(), "loss": loss}
    found |= gradients(fixture, loss, {"linear.weight": linear.weight, "conv.weight": conv.weight})
    for step in ("train1", "train2"):
        normalised = copy.deepcopy(linear.train()).normalised()
        found[f"{step}/sv0"] = (linear.weight.norm() / normalised.norm())[None]
        found[f"{step}/linear"] = linear(given["x"])
        found[f"{step}/u0"] = linear.u[None].clone()
    return found


def losses(fixture: dict) -> dict[str, Tensor]:
    given = {name: value.requires_grad_() for name, value in inputs(fixture).items()}
    fake, real = given["fake"], given["real"]
    stage = SimpleNamespace(discriminator=lambda logits, y: logits)
    found = {
        "hinge/D_fake": hinge_fake(fake),
        "hinge/D_real": hinge_real(real),
        "hinge/G": BigGANText.generator_terms(stage, fake, None)["L_G"],
        "dcgan/first": cross_entropy_real(real),
        "dcgan/second": cross_entropy_fake(fake),
        "dcgan/G": cross_entropy_real(fake),
    }
    weights = {"hinge/D_fake": 1, "hinge/D_real": 2, "hinge/G": 3, "dcgan/second": 4, "dcgan/first": 5, "dcgan/G": 6}
    loss = sum(weight * found[name] for name, weight in weights.items())
    return {**found, "loss": loss, **gradients(fixture, loss, given)}


def orthogonal(fixture: dict) -> dict[str, Tensor]:
    weights = {name: value.requires_grad_() for name, value in state(fixture).items()}
    strength, found = fixture["config"]["strength"], {}
    for name, weight in weights.items():
        for prefix, penalty in (("", off_diagonal_penalty), ("default/", orthogonality_penalty)):
            learns = weight.dim() > 1 and prefix + name != "shared.weight"
            (added,) = torch.autograd.grad(penalty(weight), weight) if learns else (torch.zeros_like(weight),)
            found[prefix + name] = strength * added
    return found


def step(fixture: dict) -> dict[str, Tensor]:
    # Its note: an adjustment is for a whole key, so that one does not reach the generator's, which has `G.` before it.
    whole = [[f"^{pattern}$", *change] for pattern, *change in fixture["config"]["state_adjust"]]
    weights = state({**fixture, "config": {"state_adjust": whole}})
    config, given = fixture["config"], inputs(fixture)
    (made, made_keys), (judge, judge_keys) = _generator(config), _discriminator(config)
    for network, keys, letter in ((made, made_keys, "G"), (judge, judge_keys, "D")):
        load_strictly(network.train(), keys(part(weights, f"{letter}."), network), fixture["name"])
    stage, seen = SimpleNamespace(discriminator=judge), []
    judge.register_forward_hook(lambda network, args, output: seen.append(output[:, None]))
    with torch.no_grad():
        fake = made(given["z"], given["gy"])
    terms = BigGANText.discriminator_terms(stage, given["image"], fake, given["y"], given["gy"])
    found = {"loss_D_fake": terms["L_D_fake"], "loss_D_real": terms["L_D_real"]}
    found |= _by_parameter(fixture, sum(terms.values()), judge, judge_keys, "grad_D/D.")
    generated = BigGANText.generator_terms(stage, made(given["z"], given["gy"]), given["gy"])["L_G"]
    found |= _by_parameter(fixture, generated, made, made_keys, "grad_G/G.")
    both, after = seen
    return {
        **found,
        "D_fake": both[: len(fake)],
        "D_real": both[len(fake) :],
        "D_fake_after": after,
        "loss_G": generated,
    }


def _by_parameter(fixture: dict, loss: Tensor, network: nn.Module, keys: KeyMap, stem: str) -> dict[str, Tensor]:
    """The recorded gradients of a loss by the parameters whose names follow `stem`."""
    ours = dict(network.named_parameters())
    wanted = {name: ours[keys.name(name.removeprefix(stem))] for name in fixture["outputs"] if name.startswith(stem)}
    found = torch.autograd.grad(fixture["config"]["grad_scale"] * loss, list(wanted.values()))
    return dict(zip(wanted, found, strict=True))


def _meta(made, fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return made(fixture["config"])


ADAPTERS = {
    **{f"biggan/{name}": generator for name in ("generator", "generator-train", "generator-flat")},
    **{f"biggan/{name}": generator for name in ("deep-generator", "deep-generator-train")},
    "biggan/discriminator": discriminator,
    "biggan/deep-discriminator": discriminator,
    "biggan/spectral-norm": spectral_norm,
    "biggan/losses": losses,
    "biggan/orthogonal": orthogonal,
    "biggan/step": step,
    "biggan/generator-full-layout": partial(_meta, _generator),
    "biggan/deep-generator-full-layout": partial(_meta, _generator),
    "biggan/discriminator-full-layout": partial(_meta, _discriminator),
}
