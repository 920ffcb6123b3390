"""How stable rankings are."""

from itertools import combinations

import numpy as np
import pytest

from mmbench.statistics.ranks import best_probabilities, tau, taus


def test_tau_of_equal_rankings_is_1_of_turned_ones_minus_1_and_of_pairs_what_they_say():
    values = np.random.default_rng(0).permutation(12).astype(float)
    assert tau(values, np.exp(values)) == pytest.approx(1)
    assert tau(values, -values) == pytest.approx(-1)
    other = np.random.default_rng(1).permutation(12).astype(float)
    signs = [np.sign(values[a] - values[b]) * np.sign(other[a] - other[b]) for a, b in combinations(range(12), 2)]
    assert tau(values, other) == pytest.approx(np.mean(signs))


def test_a_ranking_of_equal_rows_agrees_with_none():
    assert taus(np.array([[1.0, 2, 3], [5.0, 5, 5], [3.0, 2, 1]])) == {(0, 2): pytest.approx(-1)}


def test_a_row_that_is_better_on_every_image_is_always_the_best():
    values = np.random.default_rng(0).random((3, 50))
    assert best_probabilities(np.stack([values[0], values[0] + 1e-6]), np.random.default_rng(0)).tolist() == [0, 1]


def test_equal_rows_share_the_first_place():
    values = np.random.default_rng(0).random(50)
    found = best_probabilities(np.stack([values, values, values - 1]), np.random.default_rng(0))
    assert found.tolist() == [0.5, 0.5, 0]


def test_probabilities_are_those_of_the_normal_distribution():
    difference = np.random.default_rng(0).normal(size=400)
    difference += 0.1 - difference.mean()  # two standard errors
    found = best_probabilities(np.stack([difference, np.zeros(400)]), np.random.default_rng(1), draws=4000)
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(0.977, abs=0.01)
    again = best_probabilities(np.stack([difference, np.zeros(400)]), np.random.default_rng(1), draws=4000)
    assert (found == again).all()
