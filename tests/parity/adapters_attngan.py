"""AttnGAN: its generators; discriminators and losses, which ControlGAN, ManiGAN and MirrorGAN share."""

import re

import masks
import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import sentence_loss, words_loss
from mmbench.methods.synthesis.attngan import DCGAN_GENERATOR, GENERATOR, DCGANGenerator
from mmbench.networks.attngan import DISCRIMINATOR, AttentionalGenerator, Discriminator


def generator_network(fixture: dict) -> tuple[AttentionalGenerator, KeyMap]:
    """The generator of a fixture's sizes, and its key map."""
    config = fixture["config"]
    assert config["BRANCH_NUM"] == 3
    kind, keys = (DCGANGenerator, DCGAN_GENERATOR) if "dcgan" in fixture["name"] else (AttentionalGenerator, GENERATOR)
    names = ("GF_DIM", "EMBEDDING_DIM", "Z_DIM", "CONDITION_DIM", "R_NUM")
    return kind(*(config[name] for name in names)), keys


def generator(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), generator_network(fixture)
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {"condition": network.augmentation, "h1": network.first_stage}
    for n, stage in enumerate(network.next_stages, start=1):
        modules |= {f"h{n + 1}": stage, f"context{n}": stage.spatial_attention}
    with torch.no_grad(), outputs_of(modules) as seen, masks.as_authors(network, given["mask"]):
        output = network(given["noise"], given["eps"], given["sentence"], given["words"].mT, ~given["mask"])
    results = {name: found if name == "h1" else found[0] for name, found in seen.items()}
    results["c_code"] = results.pop("condition")
    results |= {f"attention{n}": looked for n, looked in enumerate(output.attention, start=1)}
    images = {"image": output.images[-1]} | {f"image{n}": image for n, image in enumerate(output.images, start=1)}
    return results | images | {"mu": output.mu, "logvar": output.log_variance}


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return generator_network(fixture)


def discriminator_network(fixture: dict, size: int, prefix: str = "") -> Discriminator:
    """The discriminator whose weights stand under `prefix` in the fixture."""
    config = fixture["config"]
    network = Discriminator(size, config["DF_DIM"], config["EMBEDDING_DIM"]).train(fixture["mode"] == "train")
    load_strictly(network, DISCRIMINATOR(part(state(fixture), prefix), network), fixture["name"])
    return network


def discriminator(fixture: dict) -> dict[str, Tensor]:
    assert fixture["config"]["b_jcu"], "no fixture is of the variant without an unconditional head"
    given = inputs(fixture)
    network = discriminator_network(fixture, given["image"].shape[-1])
    features = network(given["image"])
    conditional, unconditional = network.conditional(features, given["sentence"]), network.unconditional(features)
    return {
        "features": features,
        "cond": conditional.sigmoid(),
        "uncond": unconditional.sigmoid(),
        "cond_logit": conditional,
        "uncond_logit": unconditional,
    }


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    size, config = int(re.search(r"\d+", fixture["name"])[0]), fixture["config"]
    with torch.device("meta"):
        return Discriminator(size, config["DF_DIM"], config["EMBEDDING_DIM"]), DISCRIMINATOR


def discriminator_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = discriminator_network(fixture, int(fixture["config"]["net"].removeprefix("D_NET")))
    logits = network.judge_pairs(given["real"], given["fake"], given["sentence"])
    loss = matching_aware_discriminator(*logits)
    parameters = {
        f"state/{key}": network.get_parameter(DISCRIMINATOR.name(key))
        for key, _, dtype in fixture["state"]
        if f"grad/state/{key}" in fixture["outputs"]
    }
    return {
        "loss": loss,
        "real": logits.real.sigmoid(),
        "fake": logits.fake.sigmoid(),
        "cond_real": logits.real_matched.sigmoid(),
        "cond_fake": logits.fake_matched.sigmoid(),
        "cond_wrong": logits.real_mismatched.sigmoid(),
    } | gradients(fixture, loss, given | parameters)


def generator_terms(fixture: dict, given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Adversarial terms of every size and lambda times DAMSM's, summed; and what the discriminators said."""
    config = fixture["config"]
    sizes = sorted(int(name.removeprefix("fake")) for name in given if name.startswith("fake"))
    loss, said = 0, {}
    for n, size in enumerate(sizes):
        network = discriminator_network(fixture, size, prefix=f"D{size}.")
        features = network(given[f"fake{size}"])
        unconditional, conditional = network.unconditional(features), network.conditional(features, given["sentence"])
        loss += matching_aware_generator(unconditional, conditional)
        said |= {f"uncond{n}": unconditional.sigmoid(), f"cond{n}": conditional.sigmoid()}
    words = given["words"].mT
    word_mask = masks.from_lengths(given["cap_lens"], words.shape[1])
    gammas = {name: config[name] for name in ("gamma1", "gamma2", "gamma3")}
    damsm = (
        *words_loss(given["features"], words, word_mask, given["class_ids"], **gammas),
        *sentence_loss(given["image_code"], given["sentence"], given["class_ids"], config["gamma3"]),
    )
    return loss + config["LAMBDA"] * sum(damsm), said


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    loss, said = generator_terms(fixture, given)
    return {"loss": loss} | said | gradients(fixture, loss, given)


def kl_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    loss = kl_to_standard_normal(given["mu"], given["logvar"])
    return {"loss": loss} | gradients(fixture, loss, given)


ADAPTERS = {
    **{f"attngan/generator{kind}": generator for kind in ("", "-train", "-dcgan")},
    **{f"attngan/generator{kind}-full-layout": generator_layout for kind in ("", "-coco", "-dcgan")},
    **{f"attngan/discriminator-{size}": discriminator for size in (64, 128, 256)},
    **{f"attngan/discriminator-{size}-train": discriminator for size in (64, 128, 256)},
    **{f"attngan/discriminator-{size}-full-layout": discriminator_layout for size in (64, 128, 256)},
    "attngan/discriminator-loss": discriminator_loss,
    "attngan/generator-loss": generator_loss,
    "attngan/kl-loss": kl_loss,
}
