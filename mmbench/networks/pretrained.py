"""A network with the weights of its card."""

from pathlib import Path

from torch import nn

from mmbench.core.cards import Card, find
from mmbench.core.frozen import Frozen


def frozen(network: nn.Module, card: Card, assets: str | Path) -> Frozen:
    """Fills a network from the file of its card and freezes it; for the backbones that methods look through.

    Args:
        network: with a `load(path)` that fills it.
        card: where its weights come from.
        assets: the folder that holds `weights/`.

    Raises:
        MissingAsset: the file is not there and could not be fetched.
        ValueError: the file is another one.
    """
    network.load(find(card, assets))  # type: ignore[operator]
    return Frozen(network)
