"""Pretrained networks that guide or judge: never trained, never saved with the method that holds them."""

from typing import Any, Self

from torch import nn


class Frozen(nn.Module):
    """Holds a network whose weights are loaded already and are to stay as they are.

    Its parameters take no gradient (gradients still flow through it to its inputs), it stays in evaluation mode
    whatever its owner does, and it is absent from its owner's state dict: a checkpoint holds what was trained, and a
    backbone is built from its own card. Moves between devices with its owner. Call it as the network itself is called.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Adds nothing to the owner's state dict."""
        destination = kwargs.get("destination", args[0] if args else None)
        return {} if destination is None else destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # PyTorch goes on to the submodules after this call: give them what they hold already.
        state_dict.update(self.network.state_dict(prefix=f"{prefix}network."))
