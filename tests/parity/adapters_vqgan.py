"""VQGAN's first stage: networks, quantisers and losses."""

from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.quantisers import Codebook, GumbelQuantiser, LegacyVectorQuantiser, VectorQuantiser
from mmbench.losses.adaptive import adaptive_weight
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.methods.synthesis.vqgan import VQGAN
from mmbench.networks.vqgan import Autoencoder, Decoder, Encoder, PatchDiscriminator
from mmbench.networks.vqgan_keys import AUTOENCODER, DECODER, ENCODER, discriminator_keys


def shape(config: dict) -> dict:
    """Arguments of an encoder and a decoder; the sizes where features attend become factors."""
    return {
        "width": config["ch"],
        "multipliers": config["ch_mult"],
        "num_blocks": config["num_res_blocks"],
        "attention_factors": [config["resolution"] // size for size in config["attn_resolutions"]],
    }


def encoder(fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    network = Encoder(**shape(config), out_channels=config["z_channels"])
    load_strictly(network, ENCODER(state(fixture), network), fixture["name"])
    modules = {f"level{n}": level for n, level in enumerate(network.levels)} | {"mid": network.middle}
    with torch.no_grad(), outputs_of(modules) as seen:
        latent = network(inputs(fixture)["image"])
    return {**seen, "latent": latent}


def decoder(fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    network = Decoder(**shape(config), in_channels=config["z_channels"])
    load_strictly(network, DECODER(state(fixture), network), fixture["name"])
    modules = {f"level{n}": level for n, level in enumerate(network.levels)} | {"mid": network.middle}
    with torch.no_grad(), outputs_of(modules) as seen:
        image = network(inputs(fixture)["latent"])
    return {**seen, "image": image}


def discriminator(fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    network, keys = PatchDiscriminator(config["ndf"], config["n_layers"]), discriminator_keys(config["n_layers"])
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    first, *others = network.layers
    modules = {"main0": first[0]} | {f"main{3 * n}": layer[1] for n, layer in enumerate(others, 1)}
    with torch.no_grad(), outputs_of(modules) as seen:
        logits = network(inputs(fixture)["image"])
    return {**seen, "logits": logits}


def quantiser(kind: type[VectorQuantiser], fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = kind(config["n_e"], config["e_dim"], config["beta"])
    load_strictly(network, {"vectors": given["codebook"]}, fixture["name"])
    found = network(given["z"])
    loss = found.loss + (found.codes * given["w"]).mean()
    wanted = gradients(fixture, loss, {"z": given["z"], "codebook": network.vectors})
    return {
        "quantised": found.codes,
        "indices": found.indices,
        "codebook_loss": found.loss,
        "loss": loss,
    } | wanted


def gumbel(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    dims = config["n_embed"], config["embedding_dim"], config["num_hiddens"], config["kl_weight"]
    network = GumbelQuantiser(*dims)
    weights = {f"quantize.{key}": value for key, value in state(fixture).items()}
    load_strictly(network, part(AUTOENCODER(weights, network), "quantiser."), fixture["name"])
    z, w = given["z"], given["w"]
    logits = network.to_logits(z)
    soft = network.mixed(network.relaxed(logits, given["gumbel"], config["temperature"]))
    hard = network(z, given["gumbel"], config["temperature"])
    loss = 1000 * hard.loss + (hard.codes * w).mean() + 2 * (soft * w).mean()
    return {
        "logits": logits,
        "quantised_hard": hard.codes,
        "quantised_soft": soft,
        "indices": hard.indices,
        "kl": hard.loss,
        "loss": loss,
    } | gradients(fixture, loss, given)


def autoencoder(config: dict, quantiser: Codebook) -> Autoencoder:
    return Autoencoder(
        **shape(config["ddconfig"]), latent_channels=config["ddconfig"]["z_channels"], quantiser=quantiser
    )


def model(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = autoencoder(config, LegacyVectorQuantiser(config["n_embed"], config["embed_dim"]))
    load_strictly(network, AUTOENCODER(state(fixture), network), fixture["name"])
    with torch.no_grad():
        latent = network.latent(given["image"])
        found = network.quantiser(latent)
        return {
            "pre_quant": latent,
            "indices": network.encode(given["image"]).flatten(),
            "quantised": found.codes,
            "codebook_loss": found.loss,
            "reconstruction": network.decoded(found.codes),
            "from_tokens": network.decode(given["tokens"]),
        }


def layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    config = fixture["config"]
    num_codes, dim = config["n_embed"], config["embed_dim"]
    with torch.device("meta"):
        if "kl_weight" in config:
            drawn = GumbelQuantiser(num_codes, dim, config["ddconfig"]["z_channels"], config["kl_weight"])
            return autoencoder(config, drawn), AUTOENCODER
        return autoencoder(config, LegacyVectorQuantiser(num_codes, dim)), AUTOENCODER


def losses(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    layers = config["disc_num_layers"]
    judge, keys = PatchDiscriminator(config["disc_ndf"], layers), discriminator_keys(layers)
    load_strictly(judge, keys(part(state(fixture), "discriminator."), judge), fixture["name"])
    stage = SimpleNamespace(
        discriminator=judge.train(),
        perceptual=mean_square,
        autoencoder=SimpleNamespace(decoder=SimpleNamespace(exit=SimpleNamespace(weight=given["last_layer"]))),
        lambda_perceptual=config["perceptual_weight"],
        lambda_adversarial=config["disc_weight"],
    )
    image, codebook = given["image"], given["codebook_loss"].mean()
    fake = F.conv2d(given["features"], given["last_layer"], padding=1)
    fit = VQGAN.reconstruction_terms(stage, image, fake)
    apart = sum(fit.values())
    with outputs_of({"judged": judge}) as seen:
        adversarial = VQGAN.adversarial_terms(stage, fake, apart)["L_G"]
        judged = -seen["judged"].mean()
    discriminator = sum(VQGAN.discriminator_terms(stage, image, fake.detach()).values())
    real, false = judge(image), judge(fake.detach())
    found = {
        "nll_loss": apart,
        "rec_loss": apart,
        "p_loss": fit["L_perceptual"] / config["perceptual_weight"],
        "g_loss": judged,
        "d_weight": adaptive_weight(apart, judged, given["last_layer"]) * config["disc_weight"],
        "logits_real": real.mean(),
        "logits_fake": false.mean(),
    }
    loss = apart + adversarial + config["codebook_weight"] * codebook
    before = {"total": apart + config["codebook_weight"] * codebook, "disc_loss": torch.zeros(())}
    return {
        **{f"step99/{name}": value for name, value in (found | before).items()},
        **{f"step100/{name}": value for name, value in (found | {"total": loss, "disc_loss": discriminator}).items()},
        "vanilla_disc_loss": (cross_entropy_real(real) + cross_entropy_fake(false)) / 2,
        "loss": loss,
    } | gradients(fixture, loss, given)


def mean_square(levels: Tensor) -> dict[str, Tensor]:
    """The fixture's stand-in for LPIPS, as an embedding whose squared distance it is."""
    pixels = (levels / 127.5 - 1).flatten(1)
    return {"embedding": pixels / pixels.shape[1] ** 0.5}


ADAPTERS = {
    "vqgan/loss": losses,
    "vqgan/encoder": encoder,
    "vqgan/decoder": decoder,
    "vqgan/discriminator": discriminator,
    "vqgan/discriminator-train": discriminator,
    "vqgan/quantizer-fixed": partial(quantiser, VectorQuantiser),
    "vqgan/quantizer-legacy": partial(quantiser, LegacyVectorQuantiser),
    "vqgan/quantizer-gumbel": gumbel,
    "vqgan/model": model,
    **{f"vqgan/model-{name}-full-layout": layout for name in ("f16-1024", "f16-16384", "f8-gumbel-8192")},
}
