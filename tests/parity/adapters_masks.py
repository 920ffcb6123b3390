"""Mask protocols of inpainting: holes as the authors' ones at test time, 1 = keep in theirs."""

import numpy as np
import torch
from fixture import inputs
from PIL import Image
from torch import Tensor

from mmbench.core.noise import random_stream
from mmbench.data.masks import LargestBox, Mask, Salient, middle
from mmbench.data.records import Instance, Record, Seen
from mmbench.data.views import Squash


def tdanet(fixture: dict) -> dict[str, Tensor]:
    given, side = inputs(fixture), fixture["config"]["fine_size"][0]
    height, width = given["size"].tolist()
    boxes = [(y1, x1, y2 - y1, x2 - x1) for x1, x2, y1, y2 in given["boxes"].tolist()]
    levels = np.kron(51 * given["levels"].numpy(), np.ones((20, 20))).astype(np.uint8)
    view = Squash().evaluation((0, 0, *levels.shape[::-1]), side)
    instances = tuple(Instance(1, box, lambda size: np.zeros(size[::-1], np.uint8)) for box in boxes)
    masks = {
        "center_256": _kept(middle(side, side)),
        "center_odd": _kept(middle(height, width)),
        "boxes": _kept(_hole(LargestBox(), (width, height), side, instances=instances)),
        "object_file": _kept(_hole(Salient(), levels.shape[::-1], side, salient=lambda size: levels)),
    }
    bounds = {f"{name}_{key}": value for name in masks for key, value in _bounds(masks[name]).items()}
    image = torch.from_numpy(view(Image.fromarray(levels).convert("RGB")) / 255).permute(2, 0, 1)
    return masks | bounds | {"object_file_row_sums": masks["object_file"][0].sum(1), "image": image}


def _hole(mask: Mask, size: tuple[int, int], side: int, **known: object) -> np.ndarray:
    """Of a picture of that size, squashed."""
    view = Squash().evaluation((0, 0, *size), side)
    record = Record("picture", None, (), 1, **known)
    return mask(record, Seen(np.zeros((side, side, 3), np.uint8), view, size), random_stream(0))


def _kept(hole: np.ndarray) -> Tensor:
    return torch.from_numpy(~hole).float().expand(3, -1, -1)


def _bounds(mask: Tensor) -> dict[str, Tensor]:
    rows, columns = (mask[0] == 0).nonzero().double().unbind(1)
    ends = {
        "first_row": rows.min(),
        "last_row": rows.max(),
        "first_column": columns.min(),
        "last_column": columns.max(),
    }
    return ends | {"kept_pixels": mask[0].sum()}


ADAPTERS = {"tdanet/masks": tdanet}
