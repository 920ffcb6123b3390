"""Toy pictures drawn again: as a text says, with its colours in the wrong place, or with all else changed too."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from mmbench.data.fields import EDITED, Field, Item
from mmbench.data.toy.drawing import choice

Colours = dict[str, str]  # part to the colour that it is drawn in
# Draws an image, named by its id, with other colours of parts, and maybe before another background: an image file.
Redraw = Callable[[str, Mapping[str, str], bool], bytes]


def fields(redraw: Redraw, parts: Sequence[str], palette: Sequence[str]) -> dict[str, Field]:
    """How each of `EDITED` is made: (3, side, side) uint8, by what `caption_mismatched` names.

    What a text says of anything but the colours of `parts` changes nothing.

    Args:
        redraw: draws an image again.
        parts: those that can be recoloured.
        palette: names of all colours.
    """
    made = (right, elsewhere, partial(everywhere, palette=palette))
    return {
        field: partial(_drawn, redraw=redraw, parts=parts, colours=colours, moved=field == "image_edited_everywhere")
        for field, colours in zip(EDITED, made, strict=True)
    }


def right(item: Item, parts: Sequence[str]) -> Colours:
    """The named parts in the named colours."""
    return {part: colour for part, colour in item.other.named.items() if part in parts}


def elsewhere(item: Item, parts: Sequence[str]) -> Colours:
    """The named colours, one after the other, on parts that the text does not name."""
    named = right(item, parts)
    return dict(zip([part for part in parts if part not in named], named.values(), strict=False))


def everywhere(item: Item, parts: Sequence[str], palette: Sequence[str]) -> Colours:
    """The named parts in the named colours, and every other part in any colour but its own."""
    own, rng = item.record.attributes or {}, item.draws("edited everywhere")
    others = {part: choice(rng, [colour for colour in palette if colour != own[part]]) for part in parts}
    return {**others, **right(item, parts)}


def _drawn(
    item: Item, redraw: Redraw, parts: Sequence[str], colours: Callable[[Item, Sequence[str]], Colours], moved: bool
) -> Tensor:
    file = redraw(item.record.id, colours(item, parts), moved)
    return torch.from_numpy(item.seen.view.of(Image.open(BytesIO(file))).transpose(2, 0, 1).copy())
