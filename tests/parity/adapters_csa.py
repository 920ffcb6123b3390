"""CSA: attention, both networks, discriminators, losses and a training step. Masks are 1 = hole, as ours are."""

import torch
import torch.nn.functional as F
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.weights import KeyMap, load_strictly
from mmbench.data.masks import middle
from mmbench.layers.coherent_attention import coherent_attention, feature_mask, fill
from mmbench.methods.inpainting.csa import (
    ATTENTION_LEVEL,
    CSA,
    DISCRIMINATOR,
    Coarse,
    FeatureDiscriminator,
    PatchDiscriminator,
    Refinement,
    coarse_keys,
    consistency,
    filled,
    refinement_keys,
    relativistic_least_squares,
)
from mmbench.networks.vgg_levels import VGG16Levels

HALVINGS = 8
SLICES = KeyMap(rename={r"slice\d\.(.*)": r"layers.\1"})


def enlarged(bits: Tensor, factor: int) -> Tensor:
    return F.interpolate(bits, scale_factor=factor)


def coarse(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = Coarse(config["ngf"], config["num_downs"])
    load_strictly(network, coarse_keys(config["num_downs"])(state(fixture), network), fixture["name"])
    modules = {"first_block_relu": network.up[0][0], "pre_tanh": network.up[0]}
    with torch.no_grad(), outputs_of(modules) as seen:
        image = network(given["image"])
    return {**seen, "image": image}


def refinement(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    assert config["threshold"] == 5 / 16
    network = Refinement(config["ngf"], config["num_downs"])
    load_strictly(network, refinement_keys(config["num_downs"])(state(fixture), network), fixture["name"])
    hole = feature_mask(enlarged(given["mask_bits"], 16), ATTENTION_LEVEL)
    with torch.no_grad(), outputs_of({"csa_input": network.down[ATTENTION_LEVEL][-2]}) as seen:
        refined = network(given["input"], hole)
    return {**seen, "csa_output": refined.attended, "image": refined.image}


def layer(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    hole = feature_mask(enlarged(given["mask_bits"], 8), ATTENTION_LEVEL).expand(len(given["feature"]), -1, -1, -1)
    feature = (2 * given["feature"].detach() - 0.5).requires_grad_()  # the note's call; its gradient was recorded
    output = coherent_attention(feature, hole)
    (gradient,) = torch.autograd.grad(output, feature, given["cotangent"])
    recursion = fill(feature.detach().flatten(2), hole.flatten(1))
    size = hole[0].numel()
    places = recursion.places[:, :, None].expand(-1, -1, size)
    return {
        "feature_mask": hole[0, 0],
        "output": output,
        "attention": torch.eye(size).repeat(len(hole), 1, 1).scatter(1, places, recursion.weights(size)),
        "best_known_of_hole": recursion.nearest,
        "similarity_known": recursion.similarity,
        "similarity_previous": recursion.previous[:, 1:],
        "grad/feature": gradient,
    }


def masks(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    side = config["fine_size"]
    centre = torch.from_numpy(middle(side, side, config["overlap"]))
    of_centre = feature_mask(centre[None, None].float(), config["layers"])
    mask = enlarged(given["mask_bits"], 8)
    hole = feature_mask(mask, config["layers"])
    rows = of_centre[0, 0].any(dim=1).nonzero()
    return {
        "center_count": centre.sum(),
        "center_feature": of_centre,
        "center_feature_count": of_centre.sum(),
        "center_feature_first": rows.min(),
        "center_feature_last": rows.max(),
        "feature_mask": hole,
        "feature_count": hole.sum(),
        "feature_row_sums": hole[0, 0].sum(dim=1),
        "filled": filled(given["image"], mask),
    }


def patch_discriminator(fixture: dict) -> dict[str, Tensor]:
    network = PatchDiscriminator(fixture["config"]["ndf"])
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    with torch.no_grad():
        return {"logit": network(inputs(fixture)["image"])}


def feature_discriminator(fixture: dict) -> dict[str, Tensor]:
    network = FeatureDiscriminator(fixture["config"]["input_nc"], 512)
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    with torch.no_grad():
        return {"logit": network(inputs(fixture)["feature"])}


def adversarial_loss(fixture: dict) -> dict[str, Tensor]:
    given = {name: value.requires_grad_() for name, value in inputs(fixture).items()}
    losses = {
        "d": relativistic_least_squares(given["real"], given["fake"]),
        "g": relativistic_least_squares(given["fake"], given["real"]),
    }
    found = {f"{side}_loss": loss for side, loss in losses.items()}
    for side, loss in losses.items():
        found |= gradients(fixture, loss, {f"{name}_of_{side}": value for name, value in given.items()})
    return found


def consistency_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    hole = feature_mask(enlarged(given["mask_bits"], 8), ATTENTION_LEVEL)
    encoder = consistency(given["encoder_feature"], given["target"], hole)
    decoder = consistency(given["decoder_feature"][:, : fixture["config"]["channels"]], given["target"], hole)
    found = {"encoder_loss": encoder, "decoder_loss": decoder}
    return found | gradients(fixture, encoder + decoder, given)


def train_step(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    image, mask = given["image"], enlarged(given["mask_bits"], 16)
    vgg = VGG16Levels()
    vgg_state = part(state(fixture), "vgg.")
    load_strictly(vgg, SLICES(vgg_state, vgg), fixture["name"])
    method = CSA(
        Frozen(vgg),
        {},
        width=config["ngf"],
        num_halvings=HALVINGS,
        discriminator_width=config["ndf"],
        feature_width=512,
        lambda_reconstruction=config["lambda_A"],
        lambda_adversarial=config["gan_weight"],
        constant_epochs=20,
        decay_epochs=100,
    )
    maps = {"P": coarse_keys(HALVINGS), "G": refinement_keys(HALVINGS), "D": DISCRIMINATOR, "F": DISCRIMINATOR}
    networks = dict(
        zip(maps, [method.coarse, method.refinement, method.discriminator, method.feature_discriminator], strict=True)
    )
    for letter, network in networks.items():
        load_strictly(network, maps[letter](part(state(fixture), f"{letter}."), network), fixture["name"])
    painted = method.painted(image, mask)
    levels = method.vgg(image)
    fake_features = method.feature_discriminator(method.vgg(painted.refined.image.detach()).pool3)
    real_features, real = method.feature_discriminator(levels.pool3), method.discriminator(image)
    fake = method.discriminator(painted.refined.image.detach())
    judged = method.discriminator_terms(real, fake, real_features, fake_features)
    fake = method.discriminator(painted.refined.image)
    made = method.generator_terms(image, painted, real, fake, real_features, fake_features)
    found = {
        "coarse": painted.coarse,
        "refinement_input": painted.refinement_input,
        "refined": painted.refined.image,
        "d_patch": 2 * judged["D_R_patch"],
        "d_feature": 2 * judged["D_R_feature"],
        "d_total": sum(judged.values()),
        "g_gan": (made["D_R_patch"] + made["D_R_feature"]) / config["gan_weight"],
        "g_l1": made["L_re_refined"] + made["L_re_coarse"],
        "g_total": sum(made.values()),
        "vgg_pool3_of_truth": levels.pool3,
        "vgg_relu4_3_of_truth": levels.relu4_3,
    }
    for letter, network in networks.items():
        ours = dict(network.named_parameters())
        theirs = {key: ours[maps[letter].name(key)] for key in part(state(fixture), f"{letter}.")}
        loss = 100 * sum(judged.values()) if letter in "DF" else sum(made.values())
        wanted = {f"{letter}.{key}": p for key, p in theirs.items() if f"grad/{letter}.{key}" in fixture["outputs"]}
        for name, parameter in wanted.items():
            found[f"grad/{name}"] = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
    return found


def _meta(network: type[nn.Module], *sizes: int) -> nn.Module:
    with torch.device("meta"):
        return network(*sizes)


ADAPTERS = {
    "csa/coarse": coarse,
    "csa/coarse-full-layout": lambda fixture: (_meta(Coarse, 64, HALVINGS), coarse_keys(HALVINGS)),
    "csa/refinement": refinement,
    "csa/refinement-full-layout": lambda fixture: (_meta(Refinement, 64, HALVINGS), refinement_keys(HALVINGS)),
    "csa/csa-layer": layer,
    "csa/masks": masks,
    "csa/patch-discriminator": patch_discriminator,
    "csa/patch-discriminator-full-layout": lambda fixture: (_meta(PatchDiscriminator, 64), DISCRIMINATOR),
    "csa/feature-discriminator": feature_discriminator,
    "csa/feature-discriminator-full-layout": lambda fixture: (_meta(FeatureDiscriminator, 256, 512), DISCRIMINATOR),
    "csa/adversarial-loss": adversarial_loss,
    "csa/consistency-loss": consistency_loss,
    "csa/train-step": train_step,
}
