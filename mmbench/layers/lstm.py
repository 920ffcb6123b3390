"""An LSTM that can be trained in mixed precision on every processor."""

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]  # hidden and cell, (layers, N, H) each


class LSTM(nn.LSTM):
    """`torch.nn.LSTM` of tensors that computes in its own precision on a CPU, whatever autocast says.

    There PyTorch 2.13 hands it to oneDNN, which has an LSTM in bfloat16 for some processors alone (those with AVX-512)
    and raises on the others.
    """

    def forward(self, sequence: Tensor, state: State | None = None) -> tuple[Tensor, State]:  # type: ignore[override]
        """A sequence, (N, T, E) where batches come first, and the state before it, zeros if None.

        Returns:
            The outputs, (N, T, H), and the state after them.
        """
        if sequence.device.type != "cpu":
            return super().forward(sequence, state)
        own = self.weight_ih_l0.dtype
        with torch.autocast("cpu", enabled=False):
            return super().forward(sequence.to(own), None if state is None else (state[0].to(own), state[1].to(own)))
