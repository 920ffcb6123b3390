"""ControlGAN: word attention, word correlation and perceptual loss, which ManiGAN shares."""

import masks
from adapters_attngan import discriminator_loss
from fixture import gradients, inputs, state
from torch import Tensor

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.matching import word_correlation
from mmbench.losses.perceptual import perceptual_loss
from mmbench.networks.vgg import VGG16, vgg16_keys


def _flat(convolution: Tensor) -> Tensor:
    return convolution.flatten(1)


def spatial_attention(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    keys = KeyMap(
        rename={r"conv_context\.weight": "project.weight"},
        drop={r"conv_context[23]\.weight": "never used"},
        convert={"project.weight": _flat},
    )
    layer = SpatialAttention(config["C"], config["nef"])
    load_strictly(layer, keys(state(fixture), layer), fixture["name"])
    mask = masks.spatial(given["mask"], given["h"][0, 0].numel())
    context, attention = layer(given["h"], given["words"].mT, mask)
    return {"context": context.flatten(2), "attention": attention}


def channel_attention(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    size, words = config["size"], given["words"].mT
    used, unused = ("conv_context2", "conv_context3") if size == 64 else ("conv_context3", "conv_context2")
    keys = KeyMap(
        rename={rf"{used}\.weight": "project.weight"},
        drop={rf"{unused}\.weight": "for another size"},
        convert={"project.weight": _flat},
    )
    layer = ChannelAttention(size**2, config["nef"])
    load_strictly(layer, keys(state(fixture), layer), fixture["name"])
    out, attention = layer(given["context"].unflatten(2, (size, size)), words, masks.channel(words))
    return {"out": out, "attention": attention}


def word_correlation_loss(fixture: dict) -> dict[str, Tensor]:
    logits = _correlation(fixture, "words", "cap_lens")
    return {
        "loss_match": cross_entropy_real(logits),
        "loss_mismatch": cross_entropy_fake(logits),
        "probability": logits.sigmoid(),
    }


def word_level_discriminator_loss(fixture: dict) -> dict[str, Tensor]:
    adversarial = discriminator_loss(fixture)
    match = cross_entropy_real(_correlation(fixture, "words", "cap_lens"))
    mismatch = cross_entropy_fake(_correlation(fixture, "wrong_words", "wrong_lens"))
    return adversarial | {
        "loss_adversarial": adversarial["loss"],
        "match": match,
        "mismatch": mismatch,
        "loss": adversarial["loss"] + (match + mismatch) / 2,
    }


def vgg_features(fixture: dict) -> dict[str, Tensor]:
    layer = fixture["config"]["layer"]
    network = VGG16(layer)
    load_strictly(network, vgg16_keys(layer)(state(fixture), network), fixture["name"])
    return {layer: network(inputs(fixture)["image"])}


def perceptual(fixture: dict) -> dict[str, Tensor]:
    given, layer = inputs(fixture), fixture["config"]["layer"]
    network = VGG16(layer)
    load_strictly(network, vgg16_keys(layer)(state(fixture), network), fixture["name"])
    sizes = given["sizes"].tolist()
    loss = sum(perceptual_loss(network, given[f"fake{size}"], given[f"real{size}"]) for size in sizes) / 3
    # The note states the factor; the config does not.
    return {"loss": loss} | gradients(fixture, loss, given, scale=1e5)


def _correlation(fixture: dict, words: str, lengths: str) -> Tensor:
    given, config = inputs(fixture), fixture["config"]
    word_mask = masks.from_lengths(given[lengths], given[words].shape[-1])
    return word_correlation(given["features"], given[words].mT, word_mask, config["gamma1"], config["gamma2"])


ADAPTERS = {
    "controlgan/spatial-attention": spatial_attention,
    "controlgan/channel-attention-64": channel_attention,
    "controlgan/channel-attention-128": channel_attention,
    "controlgan/word-correlation": word_correlation_loss,
    "controlgan/discriminator-loss": word_level_discriminator_loss,
    "controlgan/vgg-features": vgg_features,
    "controlgan/perceptual-loss": perceptual,
}
