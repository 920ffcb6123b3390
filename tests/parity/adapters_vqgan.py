"""VQGAN's first stage: networks, quantisers and losses."""

from functools import partial

import torch
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.layers.quantisers import Codebook, GumbelQuantiser, LegacyVectorQuantiser, VectorQuantiser
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
    # Activations work on copies, so that what is recorded before them stays.
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


ADAPTERS = {
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
