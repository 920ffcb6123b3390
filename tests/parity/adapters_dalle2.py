"""DALL-E 2 in the re-implementation whose priors LAION trained: the prior, its loss and sampling, the decoder."""

import torch
from diffusion_steps import DALLE2
from fixture import inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import load_strictly
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


def released(fixture: dict) -> tuple[nn.Module, object]:
    with torch.device("meta"):
        return _prior(fixture["config"]), PRIOR


ADAPTERS = {
    **DALLE2,
    "dalle2/prior-network": prior_network,
    "dalle2/prior-network-options": prior_network,
    "dalle2/prior-network-full-layout": released,
    "dalle2/decoder-unet": decoder_unet,
}
