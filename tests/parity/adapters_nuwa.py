"""NUWA: attention to what is near in a video and in a sketch, and the shift of tokens."""

import torch
from fixture import inputs, part, state
from torch import Tensor

from mmbench.core.weights import load_strictly
from mmbench.networks.nuwa import NearbyAttention, NearbyCrossAttention, nearby_keys, video_shift


def _layer(fixture: dict, name: str) -> NearbyAttention:
    config = fixture["config"]
    own = config["layers"][name]
    network = NearbyAttention(
        config["dim"],
        config["heads"],
        config["dim_head"],
        tuple(config["video_shape"]),
        tuple(own["kernel_size"]),
        tuple(own.get("dilation", (1, 1, 1))),
        own["causal"],
        own.get("rel_pos_bias", False),
    )
    weights = part(state(fixture), f"{name}.")
    load_strictly(network, nearby_keys(["axial1", "axial2", "axial3"])(weights, network), fixture["name"])
    return network


@torch.no_grad()
def attention(fixture: dict) -> dict[str, Tensor]:
    x, found = inputs(fixture)["x"], {}
    lengths = {"": x.shape[1], "/partial": x.shape[1] - 7, "/one": 2, "/bos": 1}
    for output in fixture["outputs"]:
        name, slash, rest = output.partition("/")
        given = x[:1] if name == "dilated" else x
        found[output] = _layer(fixture, name)(given[:, : lengths[slash + rest]])
    return found


@torch.no_grad()
def cross_attention(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    side = config["image_size"]
    network = NearbyCrossAttention(
        config["dim"], config["heads"], config["dim_head"], side, side, config["kernel_size"]
    )
    load_strictly(network, nearby_keys()(part(state(fixture), "attn."), network), fixture["name"])
    x, context, known = given["x"], given["context"], given["mask"].bool()
    return {
        "out": network(x, context, known),
        "unmasked": network(x, context),
        "partial": network(x[:, :28], context),
    }


def token_shift(fixture: dict) -> dict[str, Tensor]:
    x, side = inputs(fixture)["x"], fixture["config"]["image_size"]
    video = (-(-(x.shape[1] - 1) // side**2), side, side)
    kinds = {"space": (False, True), "time": (True, False), "both": (True, True)}
    return {name: video_shift(video, *kind)(x) for name, kind in kinds.items()}


ADAPTERS = {
    "nuwa/nearby-attention-3d": attention,
    "nuwa/nearby-cross-attention": cross_attention,
    "nuwa/token-shift": token_shift,
}
