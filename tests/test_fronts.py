"""Pareto fronts, and their pictures."""

import numpy as np
import pytest

from mmbench.statistics.fronts import on_front


@pytest.mark.parametrize("respects", [1, 2, 3])
def test_a_front_is_what_a_search_of_all_pairs_finds(respects):
    points = np.random.default_rng(respects).integers(0, 6, (60, respects)).astype(float)  # with ties, and equal ones
    for point, kept in zip(points, on_front(points), strict=True):
        dominated = any(all(other >= point) and any(other > point) for other in points)
        assert kept == (not dominated)


def test_of_one_respect_the_front_is_the_best_and_equal_points_share_it():
    assert on_front(np.array([[1.0], [3.0], [3.0]])).tolist() == [False, True, True]
    assert on_front(np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.4, 0.4]])).tolist() == [True, True, True, False]
