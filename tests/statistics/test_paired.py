"""Paired tests of two rows, and their correction over a table."""

from itertools import product

import numpy as np
import pytest
import scipy.stats

from mmbench.statistics import paired


def test_few_clusters_are_enumerated():
    differences = np.array([0.3, -0.1, 0.25, 0.4, 0.05, -0.02])
    sums = [
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=6)
    ]
    by_hand = sum(one >= abs(differences.sum()) - 1e-12 for one in sums) / 2**6
    assert 0 < by_hand < 1
    assert paired.permutation_p([differences]) == [by_hand]


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4])
def test_random_signs_give_the_p_of_scipy(shift):
    differences = np.random.default_rng(4).normal(shift, 1, size=60)
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20000, rng=2
    ).pvalue
    assert paired.permutation_p([differences])[0] == pytest.approx(theirs, abs=0.01)


def test_clusters_that_do_not_differ_change_nothing():
    few = np.array([0.5, 0.5, 0.5, -0.5, 0.5])
    assert paired.permutation_p([few, np.concatenate([few, np.zeros(300)])]) == [0.375, 0.375]
    assert paired.permutation_p([np.zeros(40)]) == [1.0]


def test_a_planted_difference_is_found_and_none_between_equal_rows():
    rng = np.random.default_rng(6)
    images = rng.normal(size=200)  # what rows share: some images are harder for all
    rows = [images + rng.normal(scale=0.3, size=200) + shift for shift in (0.0, 0.0, 0.15)]
    same, planted = paired.paired_tests([rows[1] - rows[0], rows[2] - rows[0]], 2)
    assert planted.p < 0.001
    assert planted.interval[0] > 0
    assert planted.difference == pytest.approx(0.15, abs=0.06)
    assert same.p > 0.05
    assert same.interval[0] < 0 < same.interval[1]
    assert scipy.stats.ttest_ind(rows[2], rows[0]).pvalue > 0.05, "unpaired, nothing would be shown"


@pytest.mark.parametrize(("tests", "clusters"), [(1, 30), (1000, 30), (1000, 16)])
def test_under_no_difference_p_is_uniform(tests, clusters):
    rng = np.random.default_rng(8)
    signs = rng.choice([-1, 1], size=(500, clusters))
    ps = paired.permutation_p(list(rng.exponential(size=(500, clusters)) * signs), tests)
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01


@pytest.mark.parametrize("tests", [1, 200, 201, 1000, 9_999])
def test_a_plain_difference_is_shown_among_many_tests(tests):
    """Whatever the others say: at Holm's first step p is multiplied by the number of tests."""
    plain = np.random.default_rng(3).normal(1, 0.2, size=60)
    (p,) = paired.permutation_p([plain], tests)
    assert p == paired.smallest_p(60, tests)
    assert p * tests < 0.05
    assert (p * tests <= 0.01 * (1 + 1e-9)) == (tests <= 2000)


def test_more_tests_than_flips_can_tell_apart_show_nothing():
    assert paired.smallest_p(60, 10_000) * 10_000 >= 0.05


@pytest.mark.parametrize("clusters", [2, 14, 15, 16, 17])
@pytest.mark.parametrize("tests", [1, 1000])
def test_no_p_is_below_the_smallest(clusters, tests):
    (p,) = paired.permutation_p([np.arange(1.0, clusters + 1)], tests)
    exact = 2.0 ** (1 - clusters)
    assert paired.smallest_p(clusters, tests) <= p * (1 + 1e-9)
    assert (p == exact) == (clusters <= (14 if tests == 1 else 16)), "else it is estimated"


def test_holm_is_the_hand_computation():
    # Sorted 0.01, 0.02, 0.04, 0.3 times 4, 3, 2, 1, and never below the one before.
    assert paired.holm([0.04, 0.01, 0.3, 0.02]) == pytest.approx([0.08, 0.04, 0.3, 0.06])
    assert paired.holm([0.03, 0.031]) == pytest.approx([0.06, 0.06])
    assert paired.holm([0.01, 0.02], 4) == pytest.approx([0.04, 0.06]), "two others show nothing"
    assert paired.holm([]) == []
