"""StyleGAN2's projector: its penalty on noise maps, their normalisation, and its learning rate."""

import torch
from einops import rearrange
from fixture import gradients, inputs
from torch import Tensor

from mmbench.methods.editing.projector import learning_rate, noise_regularisation, normalise_


def projector_noise(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    # The authors' means are over the whole batch: both rows as channels of one.
    both = {name: rearrange(noise, "n 1 h w -> 1 n h w") for name, noise in given.items()}
    regulariser = noise_regularisation(list(both.values())).sum()
    loss = config["noise_regularize"] * regulariser
    found = {"regulariser": regulariser, "loss": loss, **gradients(fixture, loss, given)}
    for name, noise in both.items():
        whole = noise.detach().clone()
        normalise_(whole)
        found[f"normalised/{name}"] = rearrange(whole, "1 n h w -> n 1 h w")
    rates = [learning_rate(config["lr"], place / 20, config["rampdown"], config["rampup"]) for place in range(21)]
    return found | {"lr": torch.tensor(rates)}


ADAPTERS = {"stylegan2/projector-noise": projector_noise}
