"""What an inpainter refuses: pictures that its network cannot halve, masks that are none of theirs."""

from torch import Tensor


def require_sides(image: Tensor, multiple: int, places: int = 1) -> None:
    """Sides of a picture (N, 3, H, W) that a network can halve and come back to.

    Args:
        multiple: what sides are to be multiples of.
        places: how many squares of that side the picture is to have at least.

    Raises:
        ValueError: it is of another size.
    """
    height, width = image.shape[2:]
    if height % multiple or width % multiple or height * width < places * multiple**2:
        larger = f", {places} times that area at least" if places > 1 else ""
        raise ValueError(
            f"expected images with sides of a multiple of {multiple} pixels{larger}, found {width} x {height}: resize "
            "or pad them, or set data.module.image_size"
        )


def require_mask(image: Tensor, mask: Tensor) -> None:
    """A mask (N, 1, H, W) of 0 and 1 for each picture (N, 3, H, W).

    Raises:
        ValueError: it is of another size, or has other values.
    """
    expected = (len(image), 1, *image.shape[2:])
    if mask.shape != expected:
        raise ValueError(
            f"expected masks of shape {expected}, as the images are, found {tuple(mask.shape)}: resize them to the "
            "nearest pixel"
        )
    between = mask[(mask != 0) & (mask != 1)]
    if len(between):
        raise ValueError(
            f"expected masks of 1 (hole) and 0 (known), found {float(between[0]):.3g}: compare them with a threshold"
        )


def require_known(mask: Tensor) -> None:
    """Something that is known of every picture, of masks (N, 1, H, W).

    Raises:
        ValueError: a mask covers everything.
    """
    covered = (mask > 0).flatten(1).all(dim=1)
    if covered.any():
        raise ValueError(
            f"expected masks that leave something of an image, found that of image {int(covered.nonzero()[0])} of the "
            "batch to cover everything: use a smaller hole"
        )
