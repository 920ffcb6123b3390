"""Batch normalisation by the statistics of a whole batch that several processes share, on any device.

PyTorch's own, `torch.nn.SyncBatchNorm`, computes on accelerators alone; where there is one, it is faster.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbench.core.processes import divided, summed


class SynchronisedBatchNorm(_BatchNorm):
    """As `nn.BatchNorm1d`, 2d and 3d, but mean and variance in training are those of all processes' parts together."""

    def _check_input_dim(self, features: Tensor) -> None:
        """Any number of dimensions from two."""
        if features.ndim < 2:
            raise ValueError(f"expected a batch (N, C, ...), found {features.ndim} dimension")

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        if not self.training or not divided():
            return super().forward(features)
        axes = [axis for axis in range(features.ndim) if axis != 1]
        count = summed(features.new_tensor(features.numel() / features.shape[1]))
        mean = summed(features.sum(axes)) / count
        shaped = [1, -1, *[1] * (features.ndim - 2)]
        centred = features - mean.view(shaped)
        variance = summed(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        scale = (variance + self.eps).rsqrt() if self.weight is None else self.weight * (variance + self.eps).rsqrt()
        normalised = centred * scale.view(shaped)
        return normalised if self.bias is None else normalised + self.bias.view(shaped)


def synchronised(module: nn.Module, native: bool) -> None:
    """Replaces the batch normalisation inside a module, parameters and statistics kept.

    Args:
        module: is changed.
        native: by PyTorch's, for accelerators; else by the one here.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child) if native else _converted(child))
        else:
            synchronised(child, native)


def _converted(layer: _BatchNorm) -> SynchronisedBatchNorm:
    tracks = layer.track_running_stats
    other = SynchronisedBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine, tracks)
    other.weight, other.bias = layer.weight, layer.bias
    other.running_mean, other.running_var = layer.running_mean, layer.running_var
    other.num_batches_tracked = layer.num_batches_tracked
    return other.train(layer.training)
