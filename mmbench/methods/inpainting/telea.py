"""An Image Inpainting Technique Based on the Fast Marching Method.

Alexandru Telea. Journal of Graphics Tools 9 (1), 2004. https://doi.org/10.1080/10867651.2004.10487596

By OpenCV: pixels are filled in the order of their distance from the rim, each with the weighted mean of what its known
neighbours extrapolate to (equation 3). OpenCV's rounding ripples by a few levels even where all is of one colour.
"""

import numpy as np

from mmbench.core.filler import Filler


class Telea(Filler):
    """Diffusion-based inpainting by fast marching.

    Args:
        radius: of the neighbourhood that a pixel is filled from, in pixels: the paper's epsilon, 3 to 10 there.
    """

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    def fill(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        import cv2  # here: it is large, and no other method needs it

        return cv2.inpaint(image, hole.astype(np.uint8), self.radius, cv2.INPAINT_TELEA)
