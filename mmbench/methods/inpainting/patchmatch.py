"""PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing.

Connelly Barnes, Eli Shechtman, Adam Finkelstein, Dan B Goldman. SIGGRAPH 2009.
https://gfx.cs.princeton.edu/pubs/Barnes_2009_PAR/

By PyPatchMatch (mauwii/PyPatchMatch, MIT), whose completion is that of Wexler et al. (PAMI 2007): from coarse to fine,
each pixel of the hole takes the vote of the patches over it, whose nearest neighbours outside are searched at random.
Deviation: the random search has one fixed seed, so that an image does not depend on `noise`; there are no guides.
"""

import numpy as np

from mmbench.core.filler import Filler

SEED = 0


class PatchMatch(Filler):
    """Patch-based completion with a randomised search.

    Args:
        radius: of the compared patches, which are 2 radius + 1 pixels wide; 3 for the paper's 7 pixels.
    """

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.radius = radius

    def fill(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        import patchmatch  # here: it loads a library of its own, and no other method needs it

        patchmatch.set_random_seed(SEED)
        return patchmatch.inpaint(image, hole, patch_size=self.radius)
