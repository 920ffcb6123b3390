"""ADM: the U-Net, with and without its improvements, the one that enlarges, and the classifier with its poolings."""

from functools import partial

import torch
from diffusion_steps import ADM
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.networks.adm import (
    AttentionPooling,
    AveragePooling,
    Blocks,
    Classifier,
    PlainBlocks,
    PyramidPooling,
    SuperResolutionUNet,
    UNet,
    classifier_keys,
    unet_keys,
)

GROUPS = 32
POOLINGS = {"attention": AttentionPooling, "adaptive": AveragePooling, "spatial": PyramidPooling}
# https://github.com/openai/guided-diffusion/blob/22e0df8/guided_diffusion/script_util.py
MULTIPLIERS = {64: (1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}


def _blocks(config: dict) -> Blocks | PlainBlocks:
    if config["use_scale_shift_norm"]:
        assert config["resblock_updown"]
        return Blocks(config["num_head_channels"], 0.0, GROUPS)
    return PlainBlocks(config["num_heads"], 0.0, GROUPS)


def _half(config: dict) -> dict:
    """What the networks have in common; the authors count how often a size is halved where they attend."""
    return {
        "blocks": _blocks(config),
        "image_size": config["image_size"],
        "in_channels": config["in_channels"],
        "width": config["model_channels"],
        "multipliers": config["channel_mult"],
        "num_blocks": config["num_res_blocks"],
        "attention_sizes": [config["image_size"] // rate for rate in config["attention_resolutions"]],
    }


def _unet(config: dict, kind: type[UNet] = UNet) -> tuple[UNet, KeyMap]:
    classes = config["num_classes"]
    condition = None if classes is None else partial(nn.Embedding, classes)
    half = _half(config)
    if kind is SuperResolutionUNet:
        half["in_channels"] *= 2
    network = kind(**half, out_channels=config["out_channels"], condition=condition)
    return network, unet_keys(None if config["use_new_attention_order"] else config["num_head_channels"])


def _stages(network: UNet) -> dict[str, nn.Module]:
    return {
        "time": network.time,
        **{f"input{n}": stage for n, stage in enumerate(network.down)},
        "middle": network.middle,
        **{f"output{n}": stage for n, stage in enumerate(network.up)},
    }


def unet(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), _unet(fixture["config"])
    load_strictly(network.eval(), keys(state(fixture), network), fixture["name"])
    with torch.no_grad(), outputs_of(_stages(network)) as seen:
        out = network(given["x"], given["timesteps"], given.get("y"))
    return {**seen, "out": out}


def superres(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), _unet(fixture["config"], SuperResolutionUNet)
    load_strictly(network.eval(), keys(state(fixture), network), fixture["name"])
    with torch.no_grad(), outputs_of(_stages(network)) as seen:
        out = network(given["x"], given["timesteps"], (given["y"], given["low_res"]))
    return {**seen, "out": out}


def classifier(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    pooling = POOLINGS[config["pool"]]
    network = Classifier(**_half(config), num_classes=config["out_channels"], pooling=pooling)
    keys = classifier_keys(config["num_head_channels"], pooling)
    load_strictly(network.eval(), keys(state(fixture), network), fixture["name"])
    logits = network(given["x"], given["timesteps"])
    log_prob = logits.log_softmax(dim=1).gather(1, given["y"][:, None])[:, 0]
    loss = log_prob.sum()
    return {"logits": logits, "log_prob": log_prob, "loss": loss, **gradients(fixture, loss, {"x": given["x"]})}


def unet_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    """From the flags that the authors' README gives, where sizes are those of features."""
    flags = fixture["config"]
    size = flags["image_size"]
    with torch.device("meta"):
        return _unet(
            {
                **flags,
                "in_channels": 3,
                "out_channels": 6,
                "model_channels": flags["num_channels"],
                "channel_mult": MULTIPLIERS[size],
                "num_classes": 1000 if flags["class_cond"] else None,
                "attention_resolutions": [size // int(of) for of in flags["attention_resolutions"].split(",")],
                "use_new_attention_order": flags.get("use_new_attention_order", False),
            }
        )


def classifier_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    flags = fixture["config"]
    size = flags["image_size"]
    half = {
        "image_size": size,
        "in_channels": 3,
        "model_channels": flags["classifier_width"],
        "channel_mult": MULTIPLIERS[size],
        "num_res_blocks": flags["classifier_depth"],
        "attention_resolutions": [size // of for of in (32, 16, 8)],
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "num_head_channels": 64,
    }
    with torch.device("meta"):
        return Classifier(**_half(half), num_classes=1000), classifier_keys(64)


ADAPTERS = {
    **ADM,
    "adm/unet": unet,
    "adm/unet-plain": unet,
    "adm/superres": superres,
    "adm/classifier": classifier,
    "adm/classifier-adaptive": classifier,
    "adm/classifier-spatial": classifier,
    "adm/unet-64-full-layout": unet_layout,
    "adm/unet-256-full-layout": unet_layout,
    "adm/unet-256-uncond-full-layout": unet_layout,
    "adm/classifier-256-full-layout": classifier_layout,
}
