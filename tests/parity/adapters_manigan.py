"""ManiGAN: affine combination, main module, detail correction module and their losses."""

from types import SimpleNamespace

import masks
import torch
from adapters_attngan import generator_terms
from adapters_controlgan import stage, three_size_generator_loss, vgg_features
from adapters_damsm import image_encoder
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.affine_combination import AffineCombination
from mmbench.methods.manipulation.manigan import ManiGAN, ManiGANMain
from mmbench.networks.damsm import EncodedText
from mmbench.networks.manigan import (
    AFFINE_COMBINATION,
    DETAIL_CORRECTION,
    MAIN_MODULE,
    DetailCorrection,
    MainModule,
    MainOutput,
)


def affine_combination(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    layer = AffineCombination(config["channels"], config["GF_DIM"])
    keys = KeyMap(rename={rf"{theirs}\.weight": f"{ours}.weight" for theirs, ours in AFFINE_COMBINATION.items()})
    load_strictly(layer, keys(state(fixture), layer), fixture["name"])
    return {"out": layer(given["h"], given["v"])}


def _main_module(config: dict) -> MainModule:
    assert config["BRANCH_NUM"] == 3
    return MainModule(
        width=config["GF_DIM"],
        embedding_dim=config["EMBEDDING_DIM"],
        noise_dim=config["Z_DIM"],
        condition_dim=config["CONDITION_DIM"],
        num_residual=config["R_NUM"],
    )


def _detail_correction(config: dict) -> DetailCorrection:
    # The authors tie the channels of VGG's features to the text's: 128 = 256 / 2.
    return DetailCorrection(
        width=config["GF_DIM"],
        size=256,
        embedding_dim=config["EMBEDDING_DIM"],
        feature_channels=config["EMBEDDING_DIM"] // 2,
        num_residual=config["R_NUM"],
    )


def main_module(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _main_module(fixture["config"])
    load_strictly(network, MAIN_MODULE(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {"augmentation": network.augmentation, "h1": network.first_stage, "h2": network.upsample[0]}
    for n, size in enumerate((64, 128, 256)):
        modules |= {f"img{size}": network.image_path[n], f"acm{n + 1}": network.heads[n].combination}
    for n, fusion in enumerate(network.fusions, start=1):
        modules |= {f"spatial{n}": fusion.spatial_attention, f"channel{n}": fusion.channel_attention}
        modules |= {f"acm_stage{n + 1}": fusion.combination}
    with torch.no_grad(), outputs_of(modules) as seen, masks.as_authors(network, given["mask"]):
        output = network(
            noise=given["noise"],
            eps=given["eps"],
            sentence=given["sentence"],
            words=given["words"].mT,
            word_mask=~given["mask"],
            image_code=given["image_code"],
            regions=given["regions"],
        )
    results = dict(seen)
    results["c_code"], _, _ = results.pop("augmentation")
    for n in (1, 2):
        context, results[f"attention{n}"] = results.pop(f"spatial{n}")
        results[f"context{n}"] = context.flatten(2)
        results[f"channel{n}"], results[f"channel_attention{n}"] = results.pop(f"channel{n}")
    images = {f"image{n}": image for n, image in enumerate(output.images, start=1)}
    return results | images | {"h3": output.hidden, "mu": output.mu, "logvar": output.log_variance}


def detail_correction(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _detail_correction(fixture["config"])
    load_strictly(network, DETAIL_CORRECTION(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {
        "v": network.upsample,
        "spatial": network.fusion.spatial_attention,
        "channel": network.fusion.channel_attention,
        "acm_in": network.fusion.combination,
        "h": network.narrow,
        "acm_out": network.head.combination,
    }
    with torch.no_grad(), outputs_of(modules) as seen, masks.as_authors(network, given["mask"]):
        image = network(given["h3"], given["words"].mT, ~given["mask"], given["vgg"])
    results = seen | {"image": image}
    context, results["attention"] = results.pop("spatial")
    results["context"] = context.flatten(2)
    results["channel"], results["channel_attention"] = results["channel"]
    return results


def main_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _main_module(fixture["config"]), MAIN_MODULE


def detail_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _detail_correction(fixture["config"]), DETAIL_CORRECTION


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    def terms(
        described: SimpleNamespace, real: list[Tensor], fake: list[Tensor], text: EncodedText, class_ids: Tensor
    ) -> dict[str, Tensor]:
        # The recorded loss is without KL, which is 0 for a standard normal.
        output = MainOutput(fake, hidden=fake[-1], mu=torch.zeros(1, 1), log_variance=torch.zeros(1, 1))
        return ManiGANMain.generator_terms(described, real, output, text, class_ids)

    return three_size_generator_loss(fixture, terms)


def detail_generator_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    described, text = stage(fixture, given, (256,))
    described.discriminator = described.discriminators[-1]
    terms = ManiGAN.generator_terms(described, given["real256"], given["fake256"], text, given["class_ids"])
    loss = sum(terms.values())
    _, said = generator_terms(fixture, given)
    return {"loss": loss, "l1": -terms["L_reg"]} | said | gradients(fixture, loss, given)


ADAPTERS = {
    "manigan/acm": affine_combination,
    "manigan/generator": main_module,
    "manigan/generator-train": main_module,
    "manigan/generator-full-layout": main_layout,
    "manigan/generator-coco-full-layout": main_layout,
    "manigan/generator-loss": generator_loss,
    "manigan/dcm": detail_correction,
    "manigan/dcm-full-layout": detail_layout,
    "manigan/dcm-coco-full-layout": detail_layout,
    "manigan/dcm-generator-loss": detail_generator_loss,
    "manigan/image-encoder": image_encoder,
    "manigan/vgg-features": vgg_features,
}
