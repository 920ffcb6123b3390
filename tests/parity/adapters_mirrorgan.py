"""MirrorGAN: generator with GLAM, captioner (STREAM), text encoder (STEM), discriminators, losses."""

from types import SimpleNamespace

import masks
import torch
from adapters_attngan import discriminator_layout, discriminator_network
from adapters_damsm import text_encoder
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.adversarial import matching_aware_discriminator
from mmbench.losses.attngan import Discriminators
from mmbench.losses.captioning import caption_cross_entropy
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.methods.synthesis.mirrorgan import GENERATOR, MirrorGAN, MirrorGenerator, NextStage
from mmbench.networks.attngan import DISCRIMINATOR, Generated
from mmbench.networks.damsm import TEXT_ENCODER, EncodedText, TextEncoder
from mmbench.networks.mirrorgan import STREAM_DECODER, STREAM_ENCODER, StreamDecoder, StreamEncoder
from mmbench.networks.resnet152 import ResNet152Trunk


def generator_network(config: dict) -> MirrorGenerator:
    assert config["BRANCH_NUM"] == 3
    names = ("GF_DIM", "EMBEDDING_DIM", "Z_DIM", "CONDITION_DIM", "R_NUM")
    return MirrorGenerator(*(config[name] for name in names))


def attended(n: int, words: tuple[Tensor, Tensor], sentence: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {
        f"word_context{n}": words[0],
        f"word_attention{n}": words[1],
        f"weighted_sentence{n}": sentence[0],
        f"sentence_attention{n}": sentence[1],
    }


def generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), generator_network(fixture["config"])
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    modules = {"h1": network.first_stage}
    for n, stage in enumerate(network.next_stages, start=1):
        modules |= {f"h{n + 1}": stage, f"words{n}": stage.spatial_attention, f"sentence{n}": stage.sentence_attention}
    with torch.no_grad(), outputs_of(modules) as seen, masks.as_authors(network.eval(), given["mask"]):
        output = network(given["z"], given["eps"], given["sentence"], given["words"].mT, ~given["mask"])
    results = {"h1": seen["h1"], "mu": output.mu, "logvar": output.log_variance}
    for n in (1, 2):
        results |= {f"h{n + 1}": seen[f"h{n + 1}"][0], **attended(n, seen[f"words{n}"], seen[f"sentence{n}"])}
    return results | {f"image{image.shape[-1]}": image for image in output.images}


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return generator_network(fixture["config"]), GENERATOR


def glam_attention(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    stage = NextStage(config["idf"], config["cdf"], config["condition_dim"], num_residual=0)
    theirs = {f"h_net2.att.{key}": value for key, value in state(fixture).items()}
    ours = part(GENERATOR(theirs, nn.Module()), "next_stages.0.")
    attention = nn.ModuleDict({name: getattr(stage, name) for name in ("spatial_attention", "sentence_attention")})
    load_strictly(attention, ours, fixture["name"])
    hidden = given["image_features"]
    mask = masks.spatial(given["mask"], hidden[0, 0].numel())
    words = stage.spatial_attention(hidden, given["words"].mT, mask)
    sentence = stage.sentence_attention(hidden, given["sentence"])
    return {name.rstrip("1"): found for name, found in attended(1, words, sentence).items()}


def discriminator(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = discriminator_network(fixture, given["image"].shape[-1])
    features = network(given["image"])
    logits = {
        "conditional": network.conditional(features, given["sentence"]),
        "unconditional": network.unconditional(features),
    }
    probabilities = {name: found.sigmoid() for name, found in logits.items()}
    return {"features": features} | probabilities | {f"{name}_logit": found for name, found in logits.items()}


def stream_encoder(fixture: dict) -> dict[str, Tensor]:
    assert fixture["config"]["backbone"] == "resnet152"
    given = inputs(fixture)
    network = StreamEncoder(ResNet152Trunk(), fixture["config"]["embed_size"])
    load_strictly(network, STREAM_ENCODER(state(fixture), network), fixture["name"])
    network.eval().requires_grad_(False)
    with outputs_of({"layer1": network.trunk.layers.layer1, "trunk": network.trunk}) as seen:
        feature = network(given["image"])
    seen["pooled"] = seen.pop("trunk")[1]
    return seen | {"feature": feature} | gradients(fixture, (feature * given["direction"]).sum(), given)


def decoder_network(config: dict, num_words: int) -> StreamDecoder:
    assert config.get("num_layers", 1) == 1
    return StreamDecoder(num_words, config.get("embed_size", 256), config.get("hidden_size", 512))


def stream_decoder(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    network = decoder_network(config, config["vocab_size"])
    load_strictly(network, STREAM_DECODER(state(fixture), network), fixture["name"])
    network.eval()
    logits = network(given["feature"], given["captions"])
    loss = caption_cross_entropy(logits, given["captions"], given["lengths"])
    # Theirs are word by word of all captions that are that long.
    packed = {
        name: pack_padded_sequence(found, given["lengths"], batch_first=True).data
        for name, found in (("logits", logits), ("targets", given["captions"]))
    }
    said = network.greedy(given["feature"], config["max_seq_length"])
    return packed | {"loss": loss, "greedy": said} | gradients(fixture, loss, given)


def stream_decoder_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return decoder_network(fixture["config"], fixture["config"]["vocab_size"]), STREAM_DECODER


def stem(fixture: dict) -> dict[str, Tensor]:
    """DAMSM's text encoder, under the names of this fixture's config."""
    config, given = fixture["config"], fixture["inputs"]
    named = {"rnn": config["rnn_type"], "layers": config["nlayers"], "bidirectional": config["bidirectional"]}
    sizes = {"vocabulary": config["ntoken"], "hidden_total": config["nhidden"], "embedding": config["ninput"]}
    renamed = {"captions": given["captions"], "cap_lens": given["lengths"]}
    return text_encoder(fixture | {"config": {**named, **sizes, "dropout": 0.5}, "inputs": renamed})


def stem_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    config = fixture["config"]
    with torch.device("meta"):
        return TextEncoder(config["ntoken"], config["nhidden"], config["ninput"]), TEXT_ENCODER


def discriminator_loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = discriminator_network(fixture, given["real"].shape[-1])
    loss = matching_aware_discriminator(*network.judge_pairs(given["real"], given["fake"], given["sentence"]))
    parameters = {
        key: network.get_parameter(DISCRIMINATOR.name(key))
        for key, _, _ in fixture["state"]
        if f"grad/{key}" in fixture["outputs"]
    }
    return {"loss": loss} | gradients(fixture, loss, given | parameters)


def generator_loss(fixture: dict) -> dict[str, Tensor]:
    given, config, sizes = inputs(fixture), fixture["config"], (64, 128, 256)
    decoder_state = STREAM_DECODER(part(state(fixture), "RNN."), nn.Module())
    decoder = decoder_network({}, len(decoder_state["embedding.weight"]))
    load_strictly(decoder, decoder_state, fixture["name"])
    logits = decoder(given["caption_feature"], given["captions"])
    redescription = caption_cross_entropy(logits, given["captions"], given["lengths"])
    # What `MirrorGAN.generator_terms` reads of it, with the recorded feature in the place of the encoder.
    described = SimpleNamespace(
        discriminators=Discriminators(sizes, config["DF_DIM"], config["EMBEDDING_DIM"]),
        lambda_stream=config["LAMBDA1"],
        redescription=lambda fake, batch: redescription,
    )
    for n, size in enumerate(sizes):
        described.discriminators[n] = discriminator_network(fixture, size, prefix=f"D{n}.")
    output = Generated([given[f"fake{size}"] for size in sizes], [], given["mu"], given["logvar"])
    text = EncodedText(words=given["sentence"], word_mask=given["sentence"], sentence=given["sentence"])
    loss = sum(MirrorGAN.generator_terms(described, output, text, {}).values())
    kl = kl_to_standard_normal(given["mu"], given["logvar"])
    return {"loss": loss, "kl": kl} | gradients(fixture, loss, given)


ADAPTERS = {
    "mirrorgan/generator": generator,
    "mirrorgan/generator-full-layout": generator_layout,
    "mirrorgan/glam-attention": glam_attention,
    **{f"mirrorgan/discriminator{size}": discriminator for size in (64, 128, 256)},
    **{f"mirrorgan/discriminator{size}-full-layout": discriminator_layout for size in (64, 128, 256)},
    "mirrorgan/stream-encoder": stream_encoder,
    "mirrorgan/stream-decoder": stream_decoder,
    "mirrorgan/stream-decoder-full-layout": stream_decoder_layout,
    "mirrorgan/text-encoder": stem,
    "mirrorgan/text-encoder-full-layout": stem_layout,
    "mirrorgan/loss-discriminator": discriminator_loss,
    "mirrorgan/loss-generator": generator_loss,
}
