"""Lightweight ManiGAN: the generator and its loss; the discriminator is AttnGAN's."""

import masks
import torch
from adapters_controlgan import stage
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.methods.manipulation.lightweight_manigan import (
    GENERATOR,
    Edited,
    LightweightGenerator,
    LightweightManiGAN,
)
from mmbench.networks.vgg import VGG16, vgg16_keys


def _generator(config: dict) -> LightweightGenerator:
    return LightweightGenerator(
        width=config["GF_DIM"],
        embedding_dim=config["EMBEDDING_DIM"],
        noise_dim=config["Z_DIM"],
        condition_dim=config["CONDITION_DIM"],
        feature_channels=config["EMBEDDING_DIM"] // 2,  # the authors tie them: 128 = 256 / 2
        num_residual=config["R_NUM"],
    )


def generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _generator(fixture["config"])
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {
        "h1": network.widen,
        "h": network.upsample,
        "img32": network.regions_path,
        "img64": network.features_path,
        "img256": network.details_path,
        "acm1": network.coarse.combination,
        "acm2": network.fine.combination,
        "acm3": network.head.combination,
    }
    for n, fusion in enumerate((network.coarse, network.fine), start=1):
        modules |= {f"spatial{n}": fusion.spatial_attention, f"channel{n}": fusion.channel_attention}
    with torch.no_grad(), outputs_of(modules) as seen, masks.as_authors(network, given["mask"]):
        output = network(
            noise=given["noise"],
            eps=given["eps"],
            sentence=given["sentence"],
            words=given["words"].mT,
            word_mask=~given["mask"],
            image_code=given["image_code"],
            regions=given["regions"],
            features=given["vgg"],
        )
    results = dict(seen)
    for n in (1, 2):
        context, results[f"attention{n}"] = results.pop(f"spatial{n}")
        results[f"context{n}"] = context.flatten(2)
        results[f"channel{n}"], _ = results[f"channel{n}"]
    return results | {"image": output.image, "mu": output.mu, "logvar": output.log_variance}


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _generator(fixture["config"]), GENERATOR


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    described, text = stage(fixture, given, (256,))
    described.discriminator, described.lambda_perceptual = described.discriminators[0], 0.5
    described.perceptual = VGG16("relu2_2")
    weights = vgg16_keys("relu2_2")(part(state(fixture), "VGG."), described.perceptual)
    load_strictly(described.perceptual, weights, fixture["name"])
    features = described.perceptual(given["real256"]).detach()
    # The recorded loss is without KL, which is 0 for a standard normal.
    output = Edited(given["fake256"], mu=torch.zeros(1, 1), log_variance=torch.zeros(1, 1))
    terms = LightweightManiGAN.generator_terms(described, features, output, text, given["class_ids"])
    loss = sum(terms.values())
    return {"loss": loss, "perceptual": terms["L_per"]} | gradients(fixture, loss, given)


ADAPTERS = {
    "lightweight_manigan/generator": generator,
    "lightweight_manigan/generator-train": generator,
    "lightweight_manigan/generator-full-layout": generator_layout,
    "lightweight_manigan/generator-coco-full-layout": generator_layout,
    "lightweight_manigan/generator-loss": generator_loss,
}
