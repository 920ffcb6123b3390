"""What papers show the network of their FID."""

from fixture import inputs
from torch import Tensor

from mmbench.networks.inception_dfgan import network_input, resized


def dfgan(fixture: dict) -> dict[str, Tensor]:
    small = resized((inputs(fixture)["image"] + 1) / 2)
    return {"resized": small, "network_input": network_input(small)}


ADAPTERS = {"dfgan/fid-input": dfgan}
