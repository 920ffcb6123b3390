"""DALL-E 2 in the re-implementation whose priors LAION trained: the prior, its loss and sampling, the decoder."""

from collections.abc import Callable

import torch
from diffusion_steps import DALLE2
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.weights import load_strictly
from mmbench.diffusion import objectives
from mmbench.diffusion.denoisers import Denoiser, Network, predicts_denoised
from mmbench.diffusion.guidance import classifier_free
from mmbench.diffusion.samplers import ancestral
from mmbench.diffusion.schedules import cosine
from mmbench.methods.synthesis.dalle2 import of_embeddings, on_sphere, shifted_ddim
from mmbench.networks.dalle2 import (
    PRIOR,
    CausalTransformer,
    DecoderCondition,
    DecoderUNet,
    Prior,
    PriorCondition,
    decoder_keys,
)


def _prior(config: dict) -> Prior:
    transformer = CausalTransformer(
        config["dim"],
        config["depth"],
        config["heads"],
        config["dim_head"],
        config.get("ff_mult", 4),
        config.get("rotary_emb", True),
        config.get("norm_in", False),
        config["normformer"],
    )
    counts = [config.get(f"num_{kind}_embeds", 1) for kind in ("text", "time", "image")]
    given = config["max_text_len"], config["num_timesteps"]
    return Prior(transformer, *given, *counts, config.get("self_cond", False))


def _filled(fixture: dict, weights: dict[str, Tensor]) -> Prior:
    network = _prior(fixture["config"])
    load_strictly(network, PRIOR(weights, network), fixture["name"])
    return network.eval()


def _all(keep: bool, tensor: Tensor) -> Tensor:
    return torch.full((len(tensor),), keep)


@torch.no_grad()
def prior_network(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _filled(fixture, state(fixture))
    words, layers = given["text_encodings"] * given["keep"][..., None], "causal_transformer.layers"
    modules = {"to_time_embeds": network.to_time_tokens, "causal_transformer.norm": network.transformer.norm}
    for kind, blocks in enumerate((network.transformer.attentions, network.transformer.feed_forwards)):
        modules |= {f"{layers}.{place}.{kind}": block for place, block in enumerate(blocks)}

    def told(keep: bool, words: Tensor) -> Tensor:
        condition = PriorCondition(given["text_embed"], words, _all(keep, words), _all(keep, words))
        return network(given["image_embed"], given["times"], condition, given.get("self_cond"))

    with outputs_of(modules) as seen:
        found = told(True, words)
        seen = {**seen, "to_time_embeds": seen["to_time_embeds"].unflatten(1, (-1, fixture["config"]["dim"]))}
    null = told(False, words)
    guided = null + fixture["config"]["cond_scale"] * (found - null)
    return {**seen, "pred": found, "null": null, "guided": guided, "no_encodings": told(True, words[:, :0])}


@torch.no_grad()
def decoder_unet(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = DecoderUNet(
        config["dim"],
        config["dim_mults"],
        config["num_resnet_blocks"],
        config["self_attn"],
        config["image_embed_dim"],
        config["text_embed_dim"],
        config["cond_dim"],
        config["max_text_len"],
        config["attn_heads"],
        config["attn_dim_head"],
        out_channels=config["channels_out"],
    )
    keys = decoder_keys(len(config["dim_mults"]), config["num_resnet_blocks"])
    load_strictly(network.eval(), keys(state(fixture), network), fixture["name"])
    middle = {"mid_block1": network.middle.blocks[0], "mid_block2": network.middle.blocks[1]}
    modules = {
        "to_time_hiddens": network.time,
        "norm_cond": network.norm,
        "norm_mid_cond": network.norm_middle,
        **{f"downs.{place}.4": level.resample for place, level in enumerate(network.down)},
        **middle,
        "mid_attn": network.middle.attention,
        **{f"ups.{place}.1.0": level.blocks[1] for place, level in enumerate(network.up)},
        "final_resnet_block": network.final,
        **{f"init_conv.{place}": convolution for place, convolution in enumerate(network.enter)},
    }
    words = given["text_encodings"] * given["keep"][..., None]

    def told(keep: bool) -> Tensor:
        condition = DecoderCondition(given["image_embed"], words, _all(keep, words), _all(keep, words))
        return network(given["x"], given["times"], condition)

    with outputs_of(modules) as seen:
        out = told(True)
        seen = {**seen, "init_conv": torch.cat([seen[f"init_conv.{place}"] for place in range(3)], dim=1)}
    null = told(False)
    return {**seen, "out": out, "guided": null + config["cond_scale"] * (out - null)}


def prior_loss(fixture: dict) -> dict[str, Tensor]:
    given, weights = inputs(fixture), state(fixture)
    network, schedule = _filled(fixture, part(weights, "net.")), cosine(fixture["config"]["timesteps"])
    keep = (given[name].bool() for name in ("text_keep", "image_keep"))
    condition = PriorCondition(given["text_embed"], given["text_encodings"], *keep)
    clean = given["image_embed"] * fixture["config"]["dim"] ** 0.5

    def mean(loss: Callable[..., Tensor], network: Network = network) -> Tensor:
        return loss(network, schedule, clean, given["times"], given["noise"], condition).mean()

    found = {
        "x_start": mean(objectives.simple_denoised),
        "x_start_clamped": mean(objectives.simple_denoised, lambda *asked: on_sphere(network(*asked))),
        "v": mean(objectives.simple_velocity),
        "noise": mean(objectives.simple_noise),
    }
    ours = dict(network.named_parameters())
    known = {key: ours[PRIOR.name(key.removeprefix("net."))] for key, *_ in fixture["state"]}
    loss = found["x_start"]
    return {**found, "loss": loss, **gradients(fixture, loss, known)}


@torch.no_grad()
def prior_sample(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    network, schedule = _filled(fixture, part(state(fixture), "net.")), cosine(config["timesteps"])
    everywhere = _all(True, given["start"])
    condition = PriorCondition(given["text_embed"], given["text_encodings"], everywhere, everywhere)
    plain, used = predicts_denoised(network, schedule), []
    guided = classifier_free(plain, config["cond_scale"], condition.dropped())

    def in_turn(step: int) -> Tensor:
        used.append(step)
        return given["noise"][len(used) - 1]

    by_ddim = shifted_ddim(guided, schedule, config["sample_timesteps"], given["start"], condition, in_turn)
    last, scale = config["timesteps"] - 1, config["dim"] ** 0.5

    def by_ddpm(denoiser: Denoiser, start: Tensor) -> Tensor:
        return ancestral(denoiser, schedule, start, condition, lambda step: given["noise"][last - step])

    return {
        "ddpm": by_ddpm(guided, given["start"]) / scale,
        "ddpm_clamped": on_sphere(by_ddpm(of_embeddings(plain), on_sphere(given["start"]))) / scale,
        "ddim": by_ddim / scale,
        "ddim_noises_used": torch.tensor(float(len(used))),
    }


def released(fixture: dict) -> tuple[nn.Module, object]:
    with torch.device("meta"):
        return _prior(fixture["config"]), PRIOR


ADAPTERS = {
    **DALLE2,
    "dalle2/prior-network": prior_network,
    "dalle2/prior-network-options": prior_network,
    "dalle2/prior-network-full-layout": released,
    "dalle2/decoder-unet": decoder_unet,
    "dalle2/prior-loss": prior_loss,
    "dalle2/prior-sample": prior_sample,
}
