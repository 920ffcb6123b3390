"""Region Filling and Object Removal by Exemplar-Based Image Inpainting.

Antonio Criminisi, Patrick Perez, Kentaro Toyama. IEEE Transactions on Image Processing 13 (9), 2004.
https://doi.org/10.1109/TIP.2004.833105

The best patch on the rim of the hole, by confidence and by how strongly a line runs into the hole there, takes its
unknown pixels from the known patch that is most like it; again and again. Deviations, where the paper leaves it open:
- CIE Lab is rounded to whole units, so that sums of squares are exact and the first of equal patches is the same one
  on every machine.
- Where no known patch of the published size is left between the holes, the largest size that there is one of; where not
  even 3 x 3 pixels are known together there is nothing to compare, and the hole takes their mean colour.
- Priorities that are equal, as on flat ground, where the data term is 0: the larger confidence, then the first.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mmbench.core.filler import Filler

ALPHA = 255.0  # of grey levels, equation 1


class Criminisi(Filler):
    """Exemplar-based inpainting.

    Args:
        patch: width of patches in pixels, odd; 9 in the paper.

    Raises:
        ValueError: it is even, or has no pixels around its middle.
    """

    def __init__(self, patch: int) -> None:
        super().__init__()
        if patch < 3 or patch % 2 == 0:
            raise ValueError(f"expected patches of an odd width of 3 or more, found {patch}: change patch")
        self.patch = patch

    def fill(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        if (patch := _fitting(hole, self.patch)) < 3:
            return np.broadcast_to(image[~hole].mean(axis=0).round().astype(np.uint8), image.shape)
        filling = Filling(image, hole, patch)
        while filling.hole.any():
            filling.step()
        return filling.picture


class Filling:
    """A picture while it is filled; all maps have a border around it that is neither known nor to be filled.

    Args:
        image: (H, W, 3) uint8.
        hole: (H, W) bool, True = hole.
        patch: width of patches, of which one is known at least.
    """

    def __init__(self, image: np.ndarray, hole: np.ndarray, patch: int) -> None:
        self.patch, self.radius = patch, patch // 2
        whole = _whole(hole, patch)
        sources = _windows(_lab(image), patch)[whole]  # (M, 3, patch, patch)
        self.sources = sources.transpose(0, 2, 3, 1).reshape(len(sources), -1)
        self.squares = self.sources**2
        self.corners = np.argwhere(whole) + self.radius
        self.image, self.lab = _bordered(image, self.radius), _bordered(_lab(image), self.radius)
        self.hole, self.known = _bordered(hole, self.radius), _bordered(~hole, self.radius)
        self.confidence = self.known.astype(np.float64)  # C(p) at first, section III-A

    @property
    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, filled as far as it is."""
        inner = slice(self.radius, len(self.image) - self.radius)
        return self.image[inner, self.radius : self.image.shape[1] - self.radius]

    def step(self) -> None:
        """Fills what is unknown of the patch that comes first."""
        rows, columns = np.nonzero(self.hole & _beside(self.known))  # the fill front
        confidence, data = self.terms(rows, columns)
        first = np.lexsort((-confidence, -confidence * data))[0]  # P(p) = C(p) D(p), equation 1; the sort is stable
        target = self._patch_at(rows[first] - self.radius, columns[first] - self.radius)
        source = self._patch_at(*self.corners[self.nearest(target)])
        unknown = self.hole[target]
        for plane in (self.image, self.lab):
            plane[target][unknown] = plane[source][unknown]
        self.confidence[target][unknown] = confidence[first]
        self.known[target] |= unknown
        self.hole[target] = False

    def terms(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Confidence and data term of pixels of the fill front, (F,) each, by section III-A.

        C(p) is the mean confidence in the patch; D(p) = |isophote . normal| / alpha, with the strongest gradient of the
        known grey levels in the patch.
        """
        corner = rows - self.radius, columns - self.radius
        confidence = _windows(self.confidence, self.patch)[corner].mean(axis=(1, 2))
        down, right = _gradient(self.image.mean(axis=2), self.known)
        strongest = _windows(np.hypot(down, right), self.patch)[corner].reshape(len(rows), -1).argmax(axis=1)
        here = corner[0] + strongest // self.patch, corner[1] + strongest % self.patch
        normal_down, normal_right = _slope(self.hole.astype(np.float64), rows, columns)
        return confidence, np.abs(down[here] * normal_right - right[here] * normal_down) / ALPHA

    def nearest(self, target: tuple[slice, slice]) -> int:
        """The source patch with the smallest sum of squared differences from what is known of a patch, equation 3."""
        known = np.repeat(self.known[target].reshape(-1), 3).astype(np.float32)
        wanted = self.lab[target].reshape(-1) * known
        return int((self.squares @ known - 2 * (self.sources @ wanted)).argmin())

    def _patch_at(self, row: int, column: int) -> tuple[slice, slice]:
        return slice(row, row + self.patch), slice(column, column + self.patch)


def _lab(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB to whole units of CIE Lab, float32."""
    import cv2  # here: it is large, and few methods need it

    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).round()


def _whole(hole: np.ndarray, width: int) -> np.ndarray:
    """By its corner, whether a patch has no pixel of the hole: (H - width + 1, W - width + 1) bool."""
    return ~_windows(hole, width).any(axis=(2, 3))


def _fitting(hole: np.ndarray, width: int) -> int:
    """The largest odd width, of this one and smaller ones, that some known patch has; 1 at least."""
    odd = range(min(width, *(side - 1 + side % 2 for side in hole.shape)), 1, -2)
    return next((one for one in odd if _whole(hole, one).any()), 1)


def _windows(plane: np.ndarray, width: int) -> np.ndarray:
    """All squares of (H, W, ...): (H - width + 1, W - width + 1, ..., width, width), a view."""
    return sliding_window_view(plane, (width, width), axis=(0, 1))  # type: ignore[call-overload]


def _bordered(plane: np.ndarray, width: int) -> np.ndarray:
    return np.pad(plane, [(width, width)] * 2 + [(0, 0)] * (plane.ndim - 2))


def _shifted(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What lies below, above, to the right and to the left of each pixel of (H, W); zero outside."""
    wide = np.pad(plane, 1)
    return wide[2:, 1:-1], wide[:-2, 1:-1], wide[1:-1, 2:], wide[1:-1, :-2]


def _beside(region: np.ndarray) -> np.ndarray:
    below, above, right, left = _shifted(region)
    return below | above | right | left


def _gradient(grey: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences down and to the right; 0 where one of the pixels is unknown."""
    below, above, right, left = _shifted(grey)
    has_below, has_above, has_right, has_left = _shifted(known)
    inside = known & has_below & has_above & has_right & has_left
    return inside * (below - above) / 2, inside * (right - left) / 2


def _slope(hole: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit normal of the hole's rim at some pixels, by Sobel's differences; (0, 0) where there is none."""
    around = _windows(np.pad(hole, 1), 3)[rows, columns]  # (F, 3, 3)
    smooth = np.array([1.0, 2.0, 1.0])
    down, right = (around[:, 2] - around[:, 0]) @ smooth, (around[:, :, 2] - around[:, :, 0]) @ smooth
    length = np.hypot(down, right)
    return down / np.maximum(length, 1), right / np.maximum(length, 1)
