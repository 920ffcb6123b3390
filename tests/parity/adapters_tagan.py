"""TAGAN: generator, text-adaptive discriminator and losses."""

from types import SimpleNamespace

import torch
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.methods.manipulation.tagan import DISCRIMINATOR, GENERATOR, TAGAN, Discriminator, Edited, Generator

PUBLISHED = {"width": 64, "word_dim": 300, "hidden_dim": 512}


def generator(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = Generator(64, config["word_dim"], config["hidden"], config["condition_dim"]).eval()
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    modules = {
        "image_features": network.encoder,
        "text": network.text_encoder,
        "drawn": network.condition,
        "merge": network.fusion,
        "pre_tanh": network.decoder,
    }
    with torch.no_grad(), outputs_of(modules) as seen:
        edited = network(given["image"], given["words"].transpose(0, 1), given["lengths"], given["eps"])
    results = dict(seen)
    _, results["sentence"] = results.pop("text")
    results["condition"], _, _ = results.pop("drawn")
    return results | edited._asdict()


def discriminator(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = Discriminator(config["image_size"], 64, config["word_dim"], config["hidden"]).eval()
    assert (network.eps, len(network.encoders)) == (config["eps"], config["levels"])
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    with torch.no_grad(), outputs_of({"text": network.text_encoder}) as seen:
        logit, features = network(given["image"])
        pooled = network.pooled(features)
        judges = network.judges(given["words"].transpose(0, 1), given["lengths"])
        rolled = judges.rolled()
        words, sentence = seen["text"]
        return {
            "logit": logit,
            "match": network.match(pooled, judges),
            "match_rolled": network.match(pooled, rolled),
            "word_states": words.transpose(0, 1),
            "sentence": sentence,
            "attention": judges.attention.mT,
            "level_weights": judges.level_weights.transpose(0, 1),
            **{f"pooled_{n}": level for n, level in enumerate(pooled, start=1)},
            "word_level_scores": network.level_scores(pooled, judges).permute(2, 0, 1),
            "word_scores": network.word_scores(pooled, judges),
            "word_scores_rolled": network.word_scores(pooled, rolled),
        }


def losses(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    method = SimpleNamespace(
        lambda_match=config["lambda_cond_loss"],
        lambda_reconstruction=config["lambda_recon_loss"],
        lambda_kl=config["kl_weight"],
    )
    judged = TAGAN.discriminator_terms(
        method, given["real_logit"], given["real_match"], given["real_match_rolled"], given["fake_logit"]
    )
    edited = TAGAN.generator_terms(
        method,
        given["image"],
        given["g_fake_logit"],
        given["g_fake_match"],
        Edited(given["image"], given["mu"], given["log_sigma"]),
        Edited(given["reconstruction"], given["recon_mu"], given["recon_log_sigma"]),
    )
    first, second = ["L_G", "L_G_match", "KL"], ["L_rec", "KL_rec"]
    d_loss, g_loss = sum(judged.values()), sum(edited.values())
    return {
        "d_real": judged["L_D_real"],
        "d_real_match": judged["L_D_match"] / method.lambda_match,
        "d_fake": judged["L_D_fake"],
        "d_loss": d_loss,
        "g_adversarial": edited["L_G"],
        "g_match": edited["L_G_match"] / method.lambda_match,
        "g_kl": edited["KL"] / method.lambda_kl,
        "g_first": sum(edited[name] for name in first),
        "g_reconstruction": edited["L_rec"] / method.lambda_reconstruction,
        "g_recon_kl": edited["KL_rec"] / method.lambda_kl,
        "g_second": sum(edited[name] for name in second),
        "g_loss": g_loss,
        **gradients(fixture, d_loss + g_loss, given),
    }


def generator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return Generator(**PUBLISHED, condition_dim=128), GENERATOR


def discriminator_layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return Discriminator(128, **PUBLISHED), DISCRIMINATOR


ADAPTERS = {
    "tagan/generator": generator,
    "tagan/generator-full-layout": generator_layout,
    "tagan/discriminator": discriminator,
    "tagan/discriminator-full-layout": discriminator_layout,
    "tagan/losses": losses,
}
