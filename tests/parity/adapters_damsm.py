"""DAMSM: encoders and matching losses."""

import masks
import torch
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor

from mmbench.core.weights import load_strictly
from mmbench.losses.matching import region_attention, sentence_loss, words_loss
from mmbench.networks.damsm import IMAGE_ENCODER, TEXT_ENCODER, ImageEncoder, TextEncoder
from mmbench.networks.inception_v3 import InceptionV3Trunk


def func_attention(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    words = given["query"].mT
    word_mask = torch.ones(words.shape[:2], dtype=torch.bool)
    context, attention = region_attention(words, word_mask, given["context"], fixture["config"]["gamma1"])
    objective = (context.mT * given["w_ctx"]).sum() + (attention * given["w_att"]).sum()
    return {"context": context.mT, "attention": attention} | gradients(fixture, objective, given)


def image_encoder(fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    assert config["trunk"] == "inception_v3"
    network = ImageEncoder(InceptionV3Trunk(config["resize"], config["align_corners"]), config["embedding"])
    load_strictly(network, IMAGE_ENCODER(state(fixture), network), fixture["name"])
    blocks = dict(network.trunk.to_regions.named_children()) | dict(network.trunk.to_global.named_children())
    middle = {name: blocks[name.removeprefix("mid/")] for name in fixture["outputs"] if name.startswith("mid/")}
    with torch.no_grad(), outputs_of(middle) as seen:
        regions, code = network.train(fixture["mode"] == "train")(inputs(fixture)["image"])
    return seen | {"features": regions, "code": code}


def text_encoder(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    assert (config["rnn"], config["layers"], config["bidirectional"]) == ("LSTM", 1, True)
    network = TextEncoder(config["vocabulary"], config["hidden_total"], config["embedding"], config["dropout"])
    load_strictly(network, TEXT_ENCODER(state(fixture), network), fixture["name"])
    encoded = network.train(fixture["mode"] == "train")(given["captions"], given["cap_lens"])
    return {"words": encoded.words.mT, "sentence": encoded.sentence}


def words(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    captions, regions = given["words"].mT, given["features"]
    word_mask = masks.from_lengths(given["cap_lens"], captions.shape[1])
    gammas = {name: config[name] for name in ("gamma1", "gamma2", "gamma3")}
    loss0, loss1 = words_loss(regions, captions, word_mask, given.get("class_ids"), **gammas)
    _, attention = region_attention(captions, word_mask, regions, config["gamma1"])
    maps = {f"attention{n}": attention[n : n + 1, :length] for n, length in enumerate(given["cap_lens"])}
    return {"loss0": loss0, "loss1": loss1} | maps | gradients(fixture, loss0 + loss1, given)


def sentences(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    class_ids, gamma3 = given.get("class_ids"), fixture["config"]["gamma3"]
    loss0, loss1 = sentence_loss(given["image_code"], given["sentence"], class_ids, gamma3)
    return {"loss0": loss0, "loss1": loss1} | gradients(fixture, loss0 + loss1, given)


ADAPTERS = {
    "damsm/func-attention": func_attention,
    "damsm/image-encoder": image_encoder,
    "damsm/image-encoder-aligned": image_encoder,
    "damsm/image-encoder-eval": image_encoder,
    "damsm/text-encoder": text_encoder,
    "damsm/words-loss": words,
    "damsm/words-loss-no-class": words,
    "damsm/sent-loss": sentences,
    "damsm/sent-loss-no-class": sentences,
}
