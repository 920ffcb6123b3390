"""DALL-E: the CLIP that ranks, the discrete VAE, OpenAI's encoder and decoder, the transformer and its sampling."""

import torch
import torch.nn.functional as F
from fixture import inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.categorical import probabilities
from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.kl import kl_to_uniform
from mmbench.losses.matching import sentence_loss
from mmbench.networks import clip as clip_network
from mmbench.networks import dalle, dalle_vae


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


def discrete_vae(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = dalle_vae.DiscreteVAE(
        config["num_tokens"],
        config["codebook_dim"],
        config["num_layers"],
        config["num_resnet_blocks"],
        config["hidden_dim"],
    )
    load_strictly(network, dalle_vae.KEYS(state(fixture), network), fixture["name"])
    image, temperature = 2 * given["image"] - 1, config["temp"]
    logits = network.logits(image)
    found = {
        "logits": logits,
        "indices": logits.argmax(dim=1).flatten(1),
        "decoded": network.decode(given["tokens"].unflatten(1, (8, 8))),
        "loss": torch.zeros(()),
    }
    kinds = {"soft": dalle_vae.soft, "straight-through": dalle_vae.straight_through, "reinmax": dalle_vae.reinmax}
    for name, relaxation in kinds.items():
        made = network.decode_relaxed(relaxation(logits, given["gumbel"], temperature))
        reconstruction = F.mse_loss(made, image)
        loss = reconstruction + config["kl_div_loss_weight"] * kl_to_uniform(logits).sum()
        (gradient,) = torch.autograd.grad(50 * loss, given["image"], retain_graph=True)
        found["loss"] = found["loss"] + loss
        found |= {
            f"{name}/reconstruction": made,
            f"{name}/reconstruction_loss": reconstruction,
            f"{name}/loss": loss,
            f"{name}/grad_image": gradient,
        }
    found["smooth_l1"] = F.smooth_l1_loss(found["straight-through/reconstruction"], image)
    (gradient,) = torch.autograd.grad(config["grad_scale"] * found["loss"], given["image"])
    return found | {"grad/image": gradient}


@torch.no_grad()
def _openai(fixture: dict, network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    load_strictly(network, dalle_vae.OPENAI(state(fixture), network), fixture["name"])
    modules = {"input": network.entry, **{f"group_{n + 1}": group for n, group in enumerate(network.groups)}}
    with outputs_of(modules) as seen:
        last = network(x)
    return {**seen, "last": last}


def openai_encoder(fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    pixels = dalle_vae.squeezed(2 * inputs(fixture)["image"] - 1)
    found = _openai(fixture, dalle_vae.OpenAIEncoder(config["n_hid"], config["vocab_size"]), pixels)
    pooled = {f"group_{n}": F.max_pool2d(found[f"group_{n}"], 2) for n in (1, 2, 3)}  # part of their groups
    return {**found, **pooled, "pixels": pixels, "logits": found["last"], "indices": found["last"].argmax(dim=1)}


def openai_decoder(fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    weights = F.one_hot(inputs(fixture)["tokens"], config["vocab_size"]).movedim(-1, 1).float()
    network = dalle_vae.OpenAIDecoder(config["n_hid"], config["vocab_size"], config["n_init"])
    found = _openai(fixture, network, weights)
    enlarged = {f"group_{n}": F.interpolate(found[f"group_{n}"], scale_factor=2) for n in (1, 2, 3)}
    image = (dalle_vae.widened(found["last"][:, :3].sigmoid()) + 1) / 2
    return {**found, **enlarged, "stats": found["last"], "image": image}


def openai_encoder_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return dalle_vae.OpenAIEncoder(), dalle_vae.OPENAI


def openai_decoder_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return dalle_vae.OpenAIDecoder(), dalle_vae.OPENAI


PATTERNS = {
    "full": dalle.everywhere,
    "axial_row": dalle.along_rows,
    "axial_col": dalle.along_columns,
    "conv_like": dalle.nearby,
}


@torch.no_grad()
def transformer(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = dalle.DALLETransformer(
        config["num_text_tokens"],
        config["text_seq_len"],
        config["num_image_tokens"],
        config["image_fmap_size"],
        config["dim"],
        config["depth"],
        config["heads"],
        config["dim_head"],
        [PATTERNS[kind] for kind in config["attn_types"]],
        shifted=config["shift_tokens"],
        sandwiched=config.get("sandwich_norm", False),
        stable=config.get("stable", False),
        shared=config.get("share_input_output_emb", False),
    )
    load_strictly(network, dalle.KEYS(state(fixture), network), fixture["name"])
    text, codes = given["text"], given["image_tokens"]
    branches = {
        f"{part}{n}": block[part] for n, block in enumerate(network.blocks) for part in ("attention", "feed_forward")
    }
    inner = {f"{name}/inner": branch.norm_after for name, branch in branches.items()}
    with outputs_of(inner) as seen:
        words, pictures = network(text, codes)
    found = {name: branch.scale * seen[f"{name}/inner"] for name, branch in branches.items()}
    loss_text = F.cross_entropy(words.mT, network.word_targets(text))
    loss_image = F.cross_entropy(pictures.mT, codes)
    with_text, without = (network(one, codes[:, :7])[1][:, -1] for one in (text, torch.zeros_like(text)))
    return found | {
        "logits": joint(words, pictures),
        "partial_logits": joint(*network(text, codes[:, :7])),
        "text_only_logits": joint(*network(text, codes[:, :0])),
        "guided_last": dalle.guided(torch.cat((with_text, without)), 3.0),
        "loss_text": loss_text,
        "loss_image": loss_image,
        "loss": (loss_text + config["loss_img_weight"] * loss_image) / (1 + config["loss_img_weight"]),
    }


def joint(words: Tensor, codes: Tensor) -> Tensor:
    """Logits of words and of codes over both vocabularies; what a position cannot be is recorded as 0."""
    return torch.cat((F.pad(words, (0, codes.shape[2])), F.pad(codes, (words.shape[2], 0))), dim=1)


def sampling(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    logits, temperature = given["logits"], config["temperature"]
    top_k = max(int((1 - config["filter_thres"]) * logits.shape[1]), 1)
    shares = probabilities(logits, temperature, top_k)
    kept = shares > 0
    return {
        "kept": kept.float(),
        "filtered": logits.masked_fill(~kept, 0),
        "sample": (shares.log() + given["gumbel"]).argmax(dim=1),
    }


ADAPTERS = {
    "dalle/clip": clip,
    "dalle/discrete-vae": discrete_vae,
    "dalle/openai-encoder": openai_encoder,
    "dalle/openai-decoder": openai_decoder,
    "dalle/openai-encoder-full-layout": openai_encoder_layout,
    "dalle/openai-decoder-full-layout": openai_decoder_layout,
    "dalle/transformer": transformer,
    "dalle/transformer-default": transformer,
    "dalle/transformer-axial": transformer,
    "dalle/transformer-stable": transformer,
    "dalle/sampling": sampling,
}
