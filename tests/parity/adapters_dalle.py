"""DALL-E: the CLIP that ranks, the discrete VAE, OpenAI's encoder and decoder, the transformer and its sampling."""

import torch
from fixture import inputs, state
from torch import Tensor

from mmbench.core.weights import load_strictly
from mmbench.losses.matching import sentence_loss
from mmbench.networks import clip as clip_network


@torch.no_grad()
def clip(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = clip_network.CLIP(
        config["num_text_tokens"],
        config["text_seq_len"],
        config["dim_text"],
        config["text_enc_depth"],
        config["text_heads"],
        config["visual_image_size"],
        config["visual_patch_size"],
        config["dim_image"],
        config["visual_enc_depth"],
        config["visual_heads"],
        config["dim_latent"],
    )
    assert network.log_scale == 1
    load_strictly(network, clip_network.KEYS(state(fixture), network), fixture["name"])
    image, scale = network.encode_image(given["image"]), network.log_scale.exp()
    texts = {
        "": network.encode_text(given["text"], given["mask"].bool()),
        "_unmasked": network.encode_text(given["text"]),
    }
    found = {f"similarity{name}": scale * (text * image).sum(dim=1) for name, text in texts.items()}
    return found | {"loss": sum(sentence_loss(image, texts[""], None, scale)) / 2}


ADAPTERS = {"dalle/clip": clip}
