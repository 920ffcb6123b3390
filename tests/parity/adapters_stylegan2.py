"""StyleGAN2: layers, networks, loss and penalties."""

from functools import partial

import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.equalised import biased_leaky_relu
from mmbench.layers.modulated_convolution import (
    DownsamplingModulatedConvolution,
    ModulatedConvolution,
    UpsamplingModulatedConvolution,
)
from mmbench.layers.upfirdn2d import upfirdn2d
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.penalties import path_length_penalty, path_lengths, r1_penalty
from mmbench.networks.stylegan2 import (
    DISCRIMINATOR,
    GENERATOR,
    Discriminator,
    Generator,
    Mapping,
    Synthesis,
    mixed,
    normalised,
    spread_of_groups,
    truncated,
)

MODULATED = KeyMap(
    rename={r"modulation\.(weight|bias)": r"style.\1"}, convert={"weight": lambda weight: weight.squeeze(0)}
)


def widths(config: dict) -> dict[str, int]:
    """`channel_base` and `channel_max` of a fixture's table of channels."""
    channels = {int(size): number for size, number in config["channels"].items()}
    most = channels[4]
    narrower = [size * number for size, number in channels.items() if number < most]
    return {"channel_base": narrower[0] if narrower else most * max(channels), "channel_max": most}


def maps(given: dict[str, Tensor]) -> list[Tensor]:
    return [given[f"noise_{place}"] for place in range(sum(name.startswith("noise_") for name in given))]


def upfirdn(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    resized = {
        case: upfirdn2d(given["x"], given["kernel"], up, down, tuple(padding))
        for case, up, down, padding in fixture["config"]["cases"]
    }
    return resized | {
        "fused-leaky-relu": biased_leaky_relu(given["x"], given["bias"]),
        "fused-leaky-relu-no-bias": biased_leaky_relu(given["x"]),
    }


def modulated(fixture: dict) -> dict[str, Tensor]:
    given, weights, found = inputs(fixture), state(fixture), {}
    layers = {
        "plain": ModulatedConvolution(6, 5, 3, 8),
        "up": UpsamplingModulatedConvolution(6, 5, 3, 8),
        "down": DownsamplingModulatedConvolution(6, 5, 3, 8),
        "pointwise": ModulatedConvolution(6, 3, 1, 8, demodulate=False),
    }
    with torch.no_grad():
        for name, layer in layers.items():
            load_strictly(layer, MODULATED(part(weights, f"{name}."), layer), fixture["name"])
            found[name] = layer(given["x"], given["w"])
        return found | {"style": layers["plain"].style(given["w"])}


def mapping(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = Mapping(config["style_dim"], config["n_mlp"])
    load_strictly(network, part(GENERATOR(state(fixture), network), "mapping."), fixture["name"])
    layers = {f"after.{place}": network.layers[place - 1] for place in (1, 4)}
    with torch.no_grad(), outputs_of(layers) as seen:
        w = network(given["z"])
        after = {name: biased_leaky_relu(output) for name, output in seen.items()}
        return {"after.0": normalised(given["z"]), **after, "w": w}


def generator(fixture: dict) -> dict[str, Tensor]:
    config, given, weights = fixture["config"], inputs(fixture), state(fixture)
    network = Generator(config["size"], config["style_dim"], config["n_mlp"], **widths(config))
    load_strictly(network, GENERATOR(weights, network), fixture["name"])
    synthesis, noise = network.synthesis, maps(given)
    fixed = [weights[f"noises.noise_{place}"] for place in range(len(noise))]
    layers = {"conv1": synthesis.first, "rgb.4": synthesis.first_rgb}
    layers |= {f"convs.{place}": layer for place, layer in enumerate(synthesis.convolutions)}
    with torch.no_grad():
        styles = network.styles(network.mapping(given["z"]))
        drawn_in = truncated(styles, given["w_mean"][0], 0.7)
        crossed = mixed(styles, network.styles(network.mapping(given["z2"])), torch.tensor([3, 3]))
        with outputs_of(layers) as seen:
            image = network(given["z"], noise)
        return {
            **seen,
            **images_of_smaller_sizes(network, config, styles, noise),
            "latent": styles,
            "image": image,
            "image/buffer-noise": network(given["z"], fixed),
            "image/truncated": synthesis(drawn_in, noise),
            "latent/truncated": drawn_in,
            "image/mixed": synthesis(crossed, noise),
            "image/w-plus": synthesis(given["w_plus"], noise),
        }


def images_of_smaller_sizes(whole: Generator, config: dict, styles: Tensor, noise: list[Tensor]) -> dict[str, Tensor]:
    """The image before each doubling: what a synthesis of that size makes of the same weights."""
    found, size = {}, 8
    while size < config["size"]:
        network = Synthesis(size, config["style_dim"], **widths(config))
        own = whole.synthesis.state_dict()
        load_strictly(network, {key: own[key] for key in network.state_dict()}, f"{size} pixels")
        found[f"rgb.{size}"] = network(styles, noise)
        size *= 2
    return found


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = critic(fixture)
    layers = {"convs.0": network.from_rgb, "final_conv": network.final}
    layers |= {f"convs.{place}": block for place, block in enumerate(network.blocks, 1)}
    with torch.no_grad(), outputs_of(layers) as seen:
        score = network(given["image"])[:, None]
        return {**seen, "stddev": spread_of_groups(seen[f"convs.{len(network.blocks)}"]), "score": score}


def critic(fixture: dict) -> Discriminator:
    network = Discriminator(fixture["config"]["size"], **widths(fixture["config"]))
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    return network


def adversarial(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    judged = cross_entropy_real(given["real_score"]) + cross_entropy_fake(given["fake_score"])
    made = cross_entropy_real(given["fake_score"])
    loss = judged + 3 * made
    return {"discriminator": judged, "generator": made, "loss": loss, **gradients(fixture, loss, given)}


def r1(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    penalty = r1_penalty(given["image"], critic(fixture)(given["image"]))
    loss = config["r1"] / 2 * penalty * config["d_reg_every"]
    return {"penalty": penalty, "loss": loss, **gradients(fixture, loss, given)}


def path_length(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = Synthesis(config["size"], config["style_dim"], **widths(config))
    load_strictly(network, part(GENERATOR(state(fixture), network), "synthesis."), fixture["name"])
    styles = given["w"][:, None].expand(-1, network.num_styles, -1)
    lengths = path_lengths(network(styles, maps(given)), styles, given["eps"])
    penalty, average = path_length_penalty(lengths, given["mean_path"], config["decay"])
    loss = config["path_regularize"] * config["g_reg_every"] * penalty
    found = {"penalty": penalty, "path_mean": average, "lengths": lengths, "loss": loss}
    return found | gradients(fixture, loss, given)


def generator_layout(image_size: int, fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return Generator(image_size, 512, 8, channel_base=32768, channel_max=512), GENERATOR


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return Discriminator(256, channel_base=32768, channel_max=512), DISCRIMINATOR


ADAPTERS = {
    "stylegan2/upfirdn2d": upfirdn,
    "stylegan2/modulated-conv": modulated,
    "stylegan2/mapping": mapping,
    "stylegan2/generator": generator,
    "stylegan2/generator-512": generator,
    "stylegan2/generator-full-layout": partial(generator_layout, 256),
    "stylegan2/generator-1024-full-layout": partial(generator_layout, 1024),
    "stylegan2/discriminator": discriminator,
    "stylegan2/discriminator-full-layout": discriminator_layout,
    "stylegan2/adversarial-loss": adversarial,
    "stylegan2/r1-penalty": r1,
    "stylegan2/path-length": path_length,
}
