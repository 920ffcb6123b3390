"""SISGAN: embedding, generator with either image encoder, discriminator and their losses."""

from types import SimpleNamespace

import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn
from torch.optim import Adam

from mmbench.core.fasttext import SeededVectors
from mmbench.core.frozen import Frozen
from mmbench.core.text import END, Vocabulary
from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.matching import row_before
from mmbench.losses.ranking import pairwise_ranking_loss
from mmbench.methods.manipulation.sisgan import (
    DISCRIMINATOR,
    EMBEDDING,
    GENERATOR,
    PLAIN_GENERATOR,
    SISGAN,
    Discriminator,
    Generator,
    PlainEncoder,
    SISGANEmbedding,
    Synthesis,
    TextEncoder,
    relevant_texts,
)
from mmbench.networks.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG_ENCODER, VGG16Trunk, VGGEncoder


def _generator(config: dict, encoder: nn.Module) -> Generator:
    return Generator(encoder, config.get("text_dim", 300), config.get("condition_dim", 128), num_residual=4)


def _discriminator(config: dict) -> Discriminator:
    return Discriminator(config.get("text_dim", 300), config.get("compressed_text_dim", 128), width=64)


def vgg_generator(fixture: dict) -> dict[str, Tensor]:
    given, weights, encoder = inputs(fixture), state(fixture), VGGEncoder()
    theirs = {key: value for key, value in weights.items() if key.startswith("encoder.")}
    load_strictly(encoder, VGG_ENCODER(theirs, encoder), fixture["name"])
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    image = (given["image"] * std + mean) * 2 - 1  # the recorded one is normalised already
    network = _generator(fixture["config"], Frozen(encoder))
    load_strictly(network, GENERATOR(weights, network), fixture["name"])
    return _painted(fixture, network, image)


def plain_generator(fixture: dict) -> dict[str, Tensor]:
    network = _generator(fixture["config"], PlainEncoder(width=128))
    load_strictly(network, PLAIN_GENERATOR(state(fixture), network), fixture["name"])
    return _painted(fixture, network, inputs(fixture)["image"])


def _painted(fixture: dict, network: Generator, image: Tensor) -> dict[str, Tensor]:
    given = inputs(fixture)
    modules = {
        "image_features": network.encoder,
        "condition": network.condition,
        "fusion": network.residual,
        "pre_tanh": network.to_rgb,
    }
    network.train(fixture["mode"] == "train")
    with torch.no_grad(), outputs_of(modules) as seen:
        output = network(image, given["txt_feat"], given["eps"])
    condition, mu, log_sigma = seen.pop("condition")
    return seen | {"cond": condition, "mu": mu, "log_sigma": log_sigma, "image": output.image}


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _discriminator(fixture["config"])
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    with torch.no_grad(), outputs_of({"encoder": network.halvings[-1], "compressed": network.compress}) as seen:
        features = network.features(given["image"])
        logit = network(features, given["txt_feat"])
    text = nn.functional.leaky_relu(seen["compressed"], 0.2)
    return {"encoder": seen["encoder"], "features": features, "text": text, "logit": logit}


def text_encoder(fixture: dict) -> dict[str, Tensor]:
    given, weights = inputs(fixture), state(fixture)
    network = TextEncoder(nn.Identity(), fixture["config"]["embed_ndim"])
    load_strictly(network.gru, part(weights, "txt_encoder."), fixture["name"])
    with torch.no_grad():
        text = network.encode(given["words"], given["lengths"])
    return {"txt_feat": text, "mismatch": row_before(text), "relevant": relevant_texts(text)}


def losses(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    real, fake, fake_for_g = given["real"], given["fake"], given["fake_for_g"]

    class Judge:
        """Recorded logits stand for images and for their texts: those of real images with theirs, or with others'."""

        def features(self, image):
            return image

        def __call__(self, features, text):
            return given["mismatch"] if features is real and text is not real else features

    stage = SimpleNamespace(
        discriminator=Judge(),
        lambda_mismatched=config["mismatch_weight"],
        lambda_fake=config["fake_weight"],
        lambda_kl=config["kl_weight"],
    )
    d = SISGAN.discriminator_terms(stage, real, fake, text=real, relevant=fake)
    output = Synthesis(fake_for_g, given["mu"], given["log_sigma"])
    g = SISGAN.generator_terms(stage, output, fake)
    d_loss, g_loss = sum(d.values()), sum(g.values())
    d_inputs = {name: given[name] for name in ("real", "mismatch", "fake")}
    g_inputs = {name: given[name] for name in ("fake_for_g", "mu", "log_sigma")}
    return {
        "d_real": d["L_D_real"],
        "d_mismatch": d["L_D_mismatched"],
        "d_fake": d["L_D_fake"],
        "d_loss": d_loss,
        "g_adversarial": g["L_G"],
        "kl": g["KL"],
        "g_loss": g_loss,
        **gradients(fixture, d_loss, d_inputs),
        **gradients(fixture, g_loss, g_inputs),
    }


def ranking_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    loss = pairwise_ranking_loss(given["image_embedding"], given["text_embedding"], fixture["config"]["margin"])
    return {"loss": loss} | gradients(fixture, loss, given)


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    assert fixture["config"]["use_vgg"]
    with torch.device("meta"):
        return _generator(fixture["config"], Frozen(VGGEncoder())), GENERATOR


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _discriminator(fixture["config"]), DISCRIMINATOR


def embedding_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    vocabulary, vectors = Vocabulary((END, "bird")), SeededVectors(fixture["config"]["embed_ndim"])
    with torch.device("meta"):
        return SISGANEmbedding(vocabulary, vectors, VGG16Trunk(), margin=0.2, optimizer=Adam), EMBEDDING


ADAPTERS = {
    "sisgan/generator": vgg_generator,
    "sisgan/generator-plain": plain_generator,
    "sisgan/generator-full-layout": generator_layout,
    "sisgan/discriminator": discriminator,
    "sisgan/discriminator-full-layout": discriminator_layout,
    "sisgan/embedding-full-layout": embedding_layout,
    "sisgan/text-encoder": text_encoder,
    "sisgan/losses": losses,
    "sisgan/ranking-loss": ranking_loss,
}
