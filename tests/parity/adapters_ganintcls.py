"""GAN-INT-CLS: generator, discriminator, and the objectives of the paper and of the PyTorch code."""

from types import SimpleNamespace

import torch
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import load_strictly
from mmbench.methods.synthesis.ganintcls import (
    DISCRIMINATOR,
    GANINTCLS,
    GENERATOR,
    GANCLSFeatures,
    RewrittenDiscriminator,
    RewrittenGenerator,
)


def generator(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = RewrittenGenerator(config["embed_dim"], config["projected_embed_dim"], config["noise_dim"], config["ngf"])
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    network.train(fixture["mode"] == "train")
    modules = {"projected": network.project, "pre_tanh": network.to_rgb}
    with torch.no_grad(), outputs_of(modules) as seen:
        image = network(given["embed"], given["z"].flatten(1))
    return seen | {"image": image}


def discriminator(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = RewrittenDiscriminator(config["embed_dim"], config["projected_embed_dim"], config["ndf"]).eval()
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    joint: list[Tensor] = []
    network.to_logit.register_forward_pre_hook(lambda _, args: joint.append(args[0]))
    with torch.no_grad():
        features = network.features(given["image"])
        logit = network(features, given["embed"])
    return {"features": features, "joint": joint[0], "logit": logit, "probability": logit.sigmoid()}


def _of_discriminator(fixture: dict, objective: type[nn.Module], real_label: float | None) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    stage = SimpleNamespace(
        lambda_mismatched=config["wrong_weight"],
        lambda_fake=config["fake_weight"],
        real_label=real_label,
        judged=lambda probability, sentence: probability.logit(),  # recorded behind the sigmoid
    )
    stage.real_term = lambda logits: objective.real_term(stage, logits)
    terms = objective.discriminator_terms(stage, given["real"], given["wrong"], given["fake"], sentence=None)
    loss = sum(terms.values())
    return {"loss": loss} | gradients(fixture, loss, given)


def papers_objective(fixture: dict) -> dict[str, Tensor]:
    assert fixture["config"]["real_label"] == 1
    return _of_discriminator(fixture, GANINTCLS, real_label=None)


def smoothed_objective(fixture: dict) -> dict[str, Tensor]:
    return _of_discriminator(fixture, GANCLSFeatures, fixture["config"]["real_label"])


def generators_objective(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]

    class Judge:
        """Recorded features stand for those of images, and a recorded probability for what is said of them."""

        def features(self, image):
            return given["real_features" if image is given["real_image"] else "fake_features"]

        def __call__(self, features, sentence):
            return given["fake_probability"].logit()

    stage = SimpleNamespace(
        discriminator=Judge(),
        drawn=lambda sentence, noise: given["fake_image"],
        lambda_features=config["l2_coef"],
        lambda_pixels=config["l1_coef"],
    )
    batch = {"image": given["real_image"], "noise": None}
    terms = GANCLSFeatures.generator_terms(stage, batch, sentence=None)
    loss = sum(terms.values())
    return {
        "loss": loss,
        "adversarial": terms["L_G"],
        "feature_matching": terms["features"] / config["l2_coef"],
        "l1": terms["pixels"] / config["l1_coef"],
        **gradients(fixture, loss, given),
    }


ADAPTERS = {
    "ganintcls/generator": generator,
    "ganintcls/generator-train": generator,
    "ganintcls/discriminator": discriminator,
    "ganintcls/loss-cls": papers_objective,
    "ganintcls/loss-cls-trainer": smoothed_objective,
    "ganintcls/loss-generator": generators_objective,
}
