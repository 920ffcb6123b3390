"""ControlGAN: the generator and its loss; attention, word correlation and perceptual loss, which ManiGAN shares."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import masks
import torch
from adapters_attngan import discriminator_loss, discriminator_network, generator_terms
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention, linear_from_convolution
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.attngan import Discriminators, Guide
from mmbench.losses.matching import word_correlation, word_level_term
from mmbench.losses.perceptual import perceptual_loss
from mmbench.methods.synthesis.controlgan import GENERATOR, ControlGAN, ControllableGenerator
from mmbench.networks.attngan import Generated
from mmbench.networks.damsm import EncodedImage, EncodedText
from mmbench.networks.vgg import VGG16, vgg16_keys


def spatial_attention(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    keys = KeyMap(
        rename={r"conv_context\.weight": "project.weight"},
        drop={r"conv_context[23]\.weight": "never used"},
        convert={"project.weight": linear_from_convolution},
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
        convert={"project.weight": linear_from_convolution},
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
    given, config = inputs(fixture), fixture["config"]
    adversarial = discriminator_loss(fixture)
    text, mismatched = (
        EncodedText(given[words].mT, masks.from_lengths(given[lengths], given[words].shape[-1]), given["sentence"])
        for words, lengths in (("words", "cap_lens"), ("wrong_words", "wrong_lens"))
    )
    seen = EncodedImage(given["features"], code=given["sentence"])  # the image as a whole plays no part
    word_level = word_level_term(seen, text, mismatched, config["gamma1"], config["gamma2"])
    return adversarial | {
        "loss_adversarial": adversarial["loss"],
        "match": cross_entropy_real(_correlation(fixture, "words", "cap_lens")),
        "mismatch": cross_entropy_fake(_correlation(fixture, "wrong_words", "wrong_lens")),
        "loss": adversarial["loss"] + word_level,
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


def _generator(config: dict) -> ControllableGenerator:
    assert config["BRANCH_NUM"] == 3
    return ControllableGenerator(
        width=config["GF_DIM"],
        embedding_dim=config["EMBEDDING_DIM"],
        noise_dim=config["Z_DIM"],
        condition_dim=config["CONDITION_DIM"],
        num_residual=config["R_NUM"],
    )


def generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _generator(fixture["config"])
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {"h1": network.first_stage}
    for n, stage in enumerate(network.next_stages, start=1):
        modules |= {f"h{n + 1}": stage, f"spatial{n}": stage.spatial_attention, f"channel{n}": stage.channel_attention}
    with torch.no_grad(), outputs_of(modules) as seen, masks.as_authors(network, given["mask"]):
        output = network(given["noise"], given["eps"], given["sentence"], given["words"].mT, ~given["mask"])
    results = dict(seen)
    for n in (1, 2):
        results[f"h{n + 1}"], _ = results[f"h{n + 1}"]
        context, results[f"attention{n}"] = results.pop(f"spatial{n}")
        results[f"context{n}"] = context.flatten(2)
        results[f"channel{n}"], results[f"channel_attention{n}"] = results.pop(f"channel{n}")
    images = {f"image{n}": image for n, image in enumerate(output.images, start=1)}
    return results | images | {"mu": output.mu, "logvar": output.log_variance}


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _generator(fixture["config"]), GENERATOR


class Recorded(nn.Module):
    """In the place of DAMSM's image encoder: what it gave."""

    def __init__(self, seen: EncodedImage) -> None:
        super().__init__()
        self.seen = seen

    def image_encoder(self, image: Tensor) -> EncodedImage:
        return self.seen


def stage(fixture: dict, given: dict[str, Tensor], sizes: Sequence[int]) -> tuple[SimpleNamespace, EncodedText]:
    """What a method's own `generator_terms` reads of it, with the recorded encoders' outputs; and the text."""
    config = fixture["config"]
    seen = EncodedImage(given["features"], given["image_code"])
    gammas = {name: config[name] for name in ("gamma1", "gamma2", "gamma3")}
    described = SimpleNamespace(
        discriminators=Discriminators(sizes, config["DF_DIM"], config["EMBEDDING_DIM"]),
        guide=Guide(Recorded(seen), **gammas, lambda_damsm=config["LAMBDA"]),
    )
    for n, size in enumerate(sizes):
        described.discriminators[n] = discriminator_network(fixture, size, prefix=f"D{size}.")
    words = given["words"].mT
    return described, EncodedText(words, masks.from_lengths(given["cap_lens"], words.shape[1]), given["sentence"])


def three_size_generator_loss(fixture: dict, terms: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """The loss of a generator of three sizes, and its parts.

    Args:
        terms: from what `stage` gives, real and generated images, text and classes to the method's own terms.
    """
    given, sizes = inputs(fixture), (64, 128, 256)
    described, text = stage(fixture, given, sizes)
    vgg = VGG16("relu2_2")
    load_strictly(vgg, vgg16_keys("relu2_2")(part(state(fixture), "VGG."), vgg), fixture["name"])
    described.perceptual = vgg
    fake, real = ([given[f"{kind}{size}"] for size in sizes] for kind in ("fake", "real"))
    loss = sum(terms(described, real, fake, text, given["class_ids"]).values())
    _, said = generator_terms(fixture, given)
    compared = [perceptual_loss(vgg, *pair) for pair in zip(fake, real, strict=True)]
    parts = {f"perceptual{n}": term for n, term in enumerate(compared)}
    return {"loss": loss} | said | parts | gradients(fixture, loss, given)


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    def terms(
        described: SimpleNamespace, real: list[Tensor], fake: list[Tensor], text: EncodedText, class_ids: Tensor
    ) -> dict[str, Tensor]:
        described.lambda_perceptual = 1
        # The recorded loss is without KL, which is 0 for a standard normal.
        output = Generated(fake, attention=[], mu=torch.zeros(1, 1), log_variance=torch.zeros(1, 1))
        return ControlGAN.generator_terms(described, real, output, text, class_ids)

    return three_size_generator_loss(fixture, terms)


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
    "controlgan/generator": generator,
    "controlgan/generator-train": generator,
    "controlgan/generator-full-layout": generator_layout,
    "controlgan/generator-coco-full-layout": generator_layout,
    "controlgan/generator-loss": generator_loss,
}
