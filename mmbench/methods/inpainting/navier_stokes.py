"""Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting.

Marcelo Bertalmio, Andrea L. Bertozzi, Guillermo Sapiro. CVPR 2001.
https://www.math.ucla.edu/~bertozzi/papers/cvpr01.pdf

By OpenCV, which continues lines of equal brightness (isophotes) into the hole as streamlines of a fluid, from its rim
inwards. Deviation: OpenCV weighs the known neighbours of each pixel once; the paper iterates a transport equation.
"""

import numpy as np

from mmbench.core.filler import Filler


class NavierStokes(Filler):
    """Diffusion-based inpainting along isophotes.

    Args:
        radius: of the neighbourhood that a pixel is filled from, in pixels; 3 in OpenCV's own example.
    """

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    def fill(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        import cv2  # here: it is large, and no other method needs it

        return cv2.inpaint(image, hole.astype(np.uint8), self.radius, cv2.INPAINT_NS)
