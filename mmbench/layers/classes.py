"""Classes as a condition."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classes(nn.Module):
    """The classes that were trained on: from a data set's own numbers to places. Kept with the weights.

    Args:
        class_ids: the data set's numbers of K classes.
    """

    numbers: Tensor

    def __init__(self, class_ids: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.tensor(class_ids))

    def __len__(self) -> int:
        return len(self.numbers)

    def forward(self, class_id: Tensor) -> Tensor:
        """Class numbers (N,) int64 to places (N,) int64, from 0 to K - 1.

        Raises:
            ValueError: a class that was not trained on; names it.
        """
        matches = class_id[:, None] == self.numbers  # (N, K)
        if not (known := matches.any(dim=1)).all():
            raise ValueError(
                f"expected one of the {len(self)} classes that were trained on, found class "
                f"{int(class_id[~known][0])}: choose a split whose classes are those of training, as CUB's by "
                "data.module.split_scheme=official"
            )
        return matches.int().argmax(dim=1)
