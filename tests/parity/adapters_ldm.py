"""LDM: spatial transformer, text encoder, U-Nets, autoencoders and their losses; schedules and samplers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from diffusion_steps import LDM
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, below, load_strictly
from mmbench.layers.quantisers import LegacyVectorQuantiser
from mmbench.losses.perceptual import perceptual_distance
from mmbench.methods.synthesis.ldm import LDMAutoencoder
from mmbench.networks.adm import PlainBlocks, UNet, unet_keys
from mmbench.networks.ldm import (
    KL_AUTOENCODER,
    TEXT_ENCODER,
    TRANSFORMER,
    UNET,
    ConditionedBlocks,
    ConditionedUNet,
    KLAutoencoder,
    Known,
    Posterior,
    SpatialTransformer,
    TextEncoder,
)
from mmbench.networks.vqgan import Autoencoder, PatchDiscriminator
from mmbench.networks.vqgan_keys import AUTOENCODER, discriminator_keys


@dataclass(frozen=True)
class NarrowBlocks(ConditionedBlocks):
    """As many heads as there are channels for, as older models have them."""

    head_dim: int

    def attention(self, channels: int) -> nn.Module:
        return SpatialTransformer(channels, self.context_dim, channels // self.head_dim, self.head_dim, self.groups)


def spatial_transformer(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = SpatialTransformer(
        config["in_channels"], config["context_dim"], config["n_heads"], config["d_head"], 32, config["depth"]
    )
    load_strictly(network, KeyMap(TRANSFORMER)(state(fixture), network), fixture["name"])
    first = network.blocks[0]
    parts = {name: first.get_submodule(name) for name in ("self_attention", "feed_forward")}
    with torch.no_grad(), outputs_of(parts) as seen:
        out = network(given["x"], Known(torch.empty(0), given["context"]))
        # What is masked is not looked at. The recording's cross attention is that of its last call, this one.
        masked = [
            first.cross_attention(queries[None], context[keep.bool()][None])
            for queries, context, keep in zip(given["queries"], given["context"], given["mask"], strict=True)
        ]
    return {**seen, "out": out, "masked": torch.cat(masked), "cross_attention": torch.cat(masked)}


def _text_encoder(config: dict) -> TextEncoder:
    assert config.get("heads", 8) == 8
    assert config.get("dim_head", 64) == 64
    return TextEncoder(config["vocab_size"], config["max_seq_len"], config["n_embed"], config["n_layer"])


def text_encoder(fixture: dict) -> dict[str, Tensor]:
    network = _text_encoder(fixture["config"])
    load_strictly(network, TEXT_ENCODER(state(fixture), network), fixture["name"])
    parts = [part for block in network.blocks for part in (block.attention, block.feed_forward)]
    with torch.no_grad(), outputs_of({f"layer{place}": part for place, part in enumerate(parts)}) as seen:
        context = network(inputs(fixture)["tokens"])
    return {**seen, "context": context}


def _part(prefix: str, keys: KeyMap) -> Callable:
    """A map of the whole model's layout, as a card with a prefix reads it."""
    return lambda state, network: keys(below(prefix, state), network)


def text_encoder_layout(fixture: dict) -> tuple[nn.Module, Callable]:
    with torch.device("meta"):
        return _text_encoder(fixture["config"]), _part("cond_stage_model.", TEXT_ENCODER)


def _shape(config: dict) -> dict:
    return {
        "image_size": config["image_size"],
        "in_channels": config["in_channels"],
        "width": config["model_channels"],
        "multipliers": config["channel_mult"],
        "num_blocks": config["num_res_blocks"],
        "attention_sizes": [config["image_size"] // rate for rate in config["attention_resolutions"]],
        "out_channels": config["out_channels"],
    }


def _unet(config: dict) -> ConditionedUNet:
    assert config["transformer_depth"] == 1
    plain = {"dropout": 0.0, "groups": 32, "context_dim": config["context_dim"]}
    if "num_head_channels" in config:
        blocks = NarrowBlocks(num_heads=0, head_dim=config["num_head_channels"], **plain)
    else:
        blocks = ConditionedBlocks(num_heads=config["num_heads"], **plain)
    return ConditionedUNet(blocks, **_shape(config))


def _seen(network: UNet, x: Tensor, timesteps: Tensor, condition: Tensor) -> dict[str, Tensor]:
    modules = {f"input{n}": stage for n, stage in enumerate(network.down)}
    modules |= {f"output{n}": stage for n, stage in enumerate(network.up)}
    with torch.no_grad(), outputs_of(modules | {"middle": network.middle}) as seen:
        out = network(x, timesteps, condition)
    return {**seen, "out": out}


def unet(fixture: dict) -> dict[str, Tensor]:
    network, given = _unet(fixture["config"]), inputs(fixture)
    load_strictly(network, UNET(state(fixture), network), fixture["name"])
    return _seen(network, given["x"], given["timesteps"], given["context"])


def unet_layout(fixture: dict) -> tuple[nn.Module, Callable]:
    with torch.device("meta"):
        return _unet(fixture["config"]), _part("model.diffusion_model.", UNET)


def concatenating_unet(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    shape, width, head_dim = _shape(config), config["model_channels"], config["num_head_channels"]
    # All of its attention is of one width.
    blocks = PlainBlocks(num_heads=width * config["channel_mult"][-1] // head_dim, dropout=0.0, groups=32)
    network = UNet(blocks, **shape, condition=partial(nn.Embedding, config["num_classes"]))
    load_strictly(network, unet_keys(head_dim)(state(fixture), network), fixture["name"])
    return _seen(network, torch.cat((given["x"], given["concat"]), dim=1), given["timesteps"], given["y"])


def _levels(config: dict) -> dict:
    """Of an autoencoder."""
    assert config["attn_resolutions"] == []
    return {
        "width": config["ch"],
        "multipliers": config["ch_mult"],
        "num_blocks": config["num_res_blocks"],
        "attention_factors": [],
    }


def _kl_autoencoder(config: dict) -> KLAutoencoder:
    described = config["ddconfig"]
    assert described["double_z"]
    return KLAutoencoder(
        **_levels(described), hidden_channels=described["z_channels"], latent_channels=config["embed_dim"]
    )


def kl_autoencoder(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = _kl_autoencoder(config)
    load_strictly(network, KL_AUTOENCODER(state(fixture), network), fixture["name"])
    with torch.no_grad():
        posterior = network.encode(given["image"])
        sample = posterior.drawn(given["eps"])
        normal = torch.distributions.Normal(posterior.mean, (posterior.log_variance / 2).exp())
        return {
            "moments": torch.cat(posterior, dim=1),
            "mean": posterior.mean,
            "logvar": posterior.log_variance,
            "sample": sample,
            "kl": posterior.divergence(),
            "nll": -normal.log_prob(sample).flatten(1).sum(dim=1),
            "latent": config["scale_factor"] * sample,
            "reconstruction": network.decode(sample),
            "mode_reconstruction": network.decode(posterior.mean),
        }


def kl_autoencoder_layout(fixture: dict) -> tuple[nn.Module, Callable]:
    with torch.device("meta"):
        return _kl_autoencoder(fixture["config"]), _part("first_stage_model.", KL_AUTOENCODER)


def vq_autoencoder(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    described = config["ddconfig"]
    quantiser = LegacyVectorQuantiser(config["n_embed"], config["embed_dim"])
    network = Autoencoder(**_levels(described), latent_channels=described["z_channels"], quantiser=quantiser)
    load_strictly(network, AUTOENCODER(state(fixture), network), fixture["name"])
    with torch.no_grad():
        latent = network.latent(given["image"])
        return {
            "latent": latent,
            "reconstruction": network.decode(quantiser.indices(latent)),
            "decoded": network.decode(quantiser.indices(given["latent"])),
            "not_quantised": network.decoded(given["latent"]),
        }


def kl_autoencoder_loss(fixture: dict) -> dict[str, Tensor]:
    config, given, weights = fixture["config"], inputs(fixture), state(fixture)
    judge = PatchDiscriminator(config["disc_ndf"], config["disc_num_layers"])
    keys = discriminator_keys(config["disc_num_layers"])
    load_strictly(judge, keys(part(weights, "discriminator."), judge), fixture["name"])
    image, last = given["image"], given["last_layer"]
    fake = F.conv2d(given["features"], last, padding=1)
    stage = SimpleNamespace(
        autoencoder=SimpleNamespace(decoder=SimpleNamespace(exit=SimpleNamespace(weight=last))),
        discriminator=judge.train(),
        # LPIPS' stand-in is a mean square, and sees levels.
        perceptual=lambda levels: {"embedding": (levels / 127.5 - 1).flatten(1) / image[0].numel() ** 0.5},
        log_variance=float(weights["logvar"]),
        lambda_perceptual=config["perceptual_weight"],
        lambda_adversarial=config["disc_weight"],
    )
    terms = LDMAutoencoder.reconstruction_terms(stage, image, fake)
    likelihood, judged = sum(terms.values()), -judge(fake).mean()
    weighed = LDMAutoencoder.adversarial_terms(stage, fake, likelihood)["L_G"]
    mean, log_variance = given["moments"].chunk(2, dim=1)
    divergence = Posterior(mean, log_variance.clamp(-30, 20)).divergence().mean()
    judging = sum(LDMAutoencoder.discriminator_terms(stage, image, fake.detach()).values())
    before = likelihood + config["kl_weight"] * divergence
    found = {"loss": before + weighed}
    for step, total, judged_by in ((99, before, 0 * judging), (100, before + weighed, judging)):
        found |= {
            f"step{step}/{name}": value
            for name, value in {
                "total": total,
                "nll_loss": likelihood,
                "d_weight": weighed / judged,
                "g_loss": judged,
                "rec_loss": (image - fake).abs().mean() + perceptual_distance(stage.perceptual, fake, image).mean(),
                "kl_loss": divergence,
                "disc_loss": judged_by,
            }.items()
        }
    return found | gradients(fixture, found["loss"], given)


ADAPTERS = {
    **LDM,
    "ldm/spatial-transformer": spatial_transformer,
    "ldm/text-encoder": text_encoder,
    "ldm/text2img-large-text-encoder-full-layout": text_encoder_layout,
    "ldm/unet": unet,
    "ldm/unet-head-channels": unet,
    "ldm/unet-concat": concatenating_unet,
    **{f"ldm/{name}-unet-full-layout": unet_layout for name in ("cin256-v2", "stable-diffusion-v1", "text2img-large")},
    "ldm/autoencoder-kl": kl_autoencoder,
    "ldm/autoencoder-kl-f8-full-layout": kl_autoencoder_layout,
    "ldm/autoencoder-kl-loss": kl_autoencoder_loss,
    "ldm/autoencoder-vq": vq_autoencoder,
}
