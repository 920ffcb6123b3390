"""Pictures of results: samples side by side."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmbench.core.files import written_atomically


def write_grid(path: Path, rows: Sequence[Sequence[np.ndarray | str]], columns: Sequence[str]) -> None:
    """Writes a PNG with one sample a row.

    Args:
        path: where to write.
        rows: cells of each row: an (H, W, 3) uint8 image, or a text such as the prompt.
        columns: heading of each column.
    """
    size = (1.6 * len(columns), 1.6 * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for row, cells in zip(axes, rows, strict=True):
        for axis, cell in zip(row, cells, strict=True):
            axis.axis("off")
            if isinstance(cell, str):
                axis.text(0.5, 0.5, textwrap.fill(cell, 20), ha="center", va="center", fontsize=8)
            else:
                axis.imshow(cell, interpolation="nearest")
    for axis, heading in zip(axes[0], columns, strict=True):
        axis.set_title(textwrap.fill(heading, 17), fontsize=9)
    with written_atomically(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
    plt.close(figure)
