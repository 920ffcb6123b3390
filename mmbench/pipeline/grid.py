"""Pictures of results: samples side by side."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmbench.core.files import written_atomically

ACROSS = 8  # cells of a row
SIDE, LINE, GAP = 1.6, 0.15, 0.15  # inches: a cell, a line of small print, and the space around a heading


class Tile(NamedTuple):
    """A cell with a heading of its own.

    Attributes:
        heading: what it is, in words.
        cell: an (H, W, 3) uint8 image, or a text.
    """

    heading: str
    cell: np.ndarray | str


def write_grid(path: Path, rows: Sequence[Sequence[np.ndarray | str]], columns: Sequence[str]) -> None:
    """Writes a PNG with one sample a row.

    Args:
        path: where to write.
        rows: cells of each row: an (H, W, 3) uint8 image, or a text such as the prompt.
        columns: heading of each column.
    """
    size = (SIDE * len(columns), SIDE * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for row, cells in zip(axes, rows, strict=True):
        for axis, cell in zip(row, cells, strict=True):
            _show(axis, cell)
    for axis, heading in zip(axes[0], columns, strict=True):
        axis.set_title(textwrap.fill(heading, 17), fontsize=9)
    write_figure(path, figure)


def write_tiles(path: Path, tiles: Sequence[Tile], title: str = "", across: int = ACROSS) -> None:
    """Writes a PNG of cells one after the other, each below its own heading.

    Args:
        path: where to write.
        tiles: in the order of reading.
        title: stands above all of them.
        across: how many cells a row has at most.
    """
    across = min(across, len(tiles))
    headings = [textwrap.fill(tile.heading, 22) for tile in tiles]
    starts = range(0, len(tiles), across)
    lines = [max(heading.count("\n") + 1 for heading in headings[start : start + across]) for start in starts]
    above = textwrap.fill(title, 22 * across)
    heights = [SIDE + GAP + LINE * number for number in lines]
    figure, axes = plt.subplots(
        math.ceil(len(tiles) / across),
        across,
        figsize=(SIDE * across, sum(heights) + (LINE * (above.count("\n") + 2) if above else 0)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, heading, tile in zip(axes.flat, headings, tiles, strict=False):
        _show(axis, tile.cell)
        axis.set_title(heading, fontsize=8, parse_math=False)
        axis.set_anchor("S")  # or what room there is for a heading would be half below the picture
    if above:
        figure.suptitle(above, fontsize=9, parse_math=False)
    write_figure(path, figure)


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG, atomically, and closes it."""
    with written_atomically(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
    plt.close(figure)


def coloured(values: np.ndarray) -> np.ndarray:
    """A map (h, w) from dark, its smallest value, to light, its largest: (h, w, 3) uint8; dark where all are equal."""
    low, extent = values.min(), np.ptp(values)
    return matplotlib.colormaps["inferno"]((values - low) / (extent or 1), bytes=True)[..., :3]


def laid_over(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture in grey, coloured from dark to light by weights.

    Args:
        picture: (H, W, 3) uint8.
        weights: (h, w) in [0, 1]; each is of a rectangle of pixels.

    Returns:
        (H, W, 3) uint8.
    """
    image = Image.fromarray(picture)
    colours = Image.fromarray(matplotlib.colormaps["inferno"](weights, bytes=True)[..., :3])
    heat = colours.resize(image.size, Image.Resampling.NEAREST)
    return np.asarray(Image.blend(image.convert("L").convert("RGB"), heat, 0.65))


def _show(axis: Axes, cell: np.ndarray | str) -> None:
    axis.axis("off")
    if isinstance(cell, str):
        axis.text(0.5, 0.5, textwrap.fill(cell, 20), ha="center", va="center", fontsize=8, parse_math=False)
    else:
        axis.imshow(cell, interpolation="nearest")
