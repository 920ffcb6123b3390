"""Pareto fronts: what nothing else beats in one respect without being worse in another."""

import numpy as np


def on_front(points: np.ndarray) -> np.ndarray:
    """Which points no other dominates: none is as good everywhere and better somewhere. (N,) bool.

    Equal points are on the front together.

    Args:
        points: (N, D) float64 without NaN, higher is better in each of D respects.
    """
    as_good = (points[:, None] >= points[None]).all(axis=2)  # (N, N): whether the first is as good as the second
    better = (points[:, None] > points[None]).any(axis=2)
    return ~(as_good & better).any(axis=0)
