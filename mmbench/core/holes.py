"""What an inpainter refuses: pictures that its network cannot halve, masks that are none of theirs."""

from torch import Tensor


def require_sides(image: Tensor, multiple: int) -> None:
    """Sides of a picture (N, 3, H, W) that a network can halve and come back to.

    Raises:
        ValueError: they are not.
    """
    height, width = image.shape[2:]
    if height % multiple or width % multiple or not height or not width:
        below, above = (max(1, each) * multiple for each in (width // multiple, -(-width // multiple)))
        raise ValueError(
            f"expected images with sides of a multiple of {multiple} pixels, found {width} x {height}: resize or pad "
            f"them (to a width of {below} or {above}, say), or set data.module.image_size"
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
