"""Gaps between the best and the worst of several groups: how often they are named by chance, and what holds them."""

import numpy as np
import pytest
import scipy.stats

from mmbench.core.noise import Sample
from mmbench.pipeline import gaps
from mmbench.pipeline.comparing import Images

NUM_GROUPS = 6


def _samples(count, captions=1):
    return [Sample(f"{place:03d}", caption, 0) for place in range(count) for caption in range(captions)]


def _member(labels):
    return np.array(labels)[:, None] == np.arange(NUM_GROUPS)


@pytest.mark.parametrize("captions", [1, 3])
def test_of_equal_groups_one_in_twenty_has_a_gap_and_by_chosen_ends_many(captions):
    """An image's captions are alike, and of one group: to exchange them one by one would find gaps everywhere."""
    rng, count = np.random.default_rng(0), 72
    samples = _samples(count, captions)
    labels = np.repeat(np.arange(count) % NUM_GROUPS, captions)
    values = np.repeat(rng.exponential(size=(600, count)), captions, axis=1) + 0.1 * rng.normal(size=len(samples))
    ps = gaps.gap_p(values, samples, _member(labels))
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01
    chosen = []
    for one in values[:, ::captions]:
        found = sorted((one[place::NUM_GROUPS] for place in range(NUM_GROUPS)), key=np.mean)
        chosen.append(scipy.stats.ttest_ind(found[0], found[-1]).pvalue)
    assert np.mean(np.array(chosen) < 0.05) > 0.2, "the two that were chosen differ more often than in 1 of 20"


def test_a_planted_group_has_a_gap():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % NUM_GROUPS
    values = rng.normal(size=(200, 120)) - 1.5 * (labels == 4)
    assert np.mean(np.array(gaps.gap_p(values, _samples(120), _member(labels))) < 0.05) > 0.9


def test_few_images_have_the_p_of_all_exchanges():
    """Of 3 and 3 images, in two of 20 ways the gap is as large as the one of all low and all high ones."""
    values = np.array([[0.0, 0.1, 0.2, 5.0, 5.1, 5.2]])
    member = np.array([[True, False]] * 3 + [[False, True]] * 3)
    assert gaps.gap_p(values, _samples(6), member)[0] == pytest.approx(0.1, abs=0.01)


def test_images_with_other_captions_are_exchanged_among_themselves():
    """Each of two images with one caption, and of two with two, has a group of its own kind: 4 exchanges of equal p."""
    samples = [Sample("a", 0, 0), Sample("b", 0, 0), *(Sample(one, place, 0) for one in "cd" for place in (0, 1))]
    member = np.array([[True, False], [False, True], [True, False], [True, False], [False, True], [False, True]])
    values = np.array([[0.0, 1.0, 10.0, 10.0, 13.0, 13.0]])
    assert gaps.gap_p(values, samples, member)[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("apart", [0.0, 0.2, 1.5])
def test_the_interval_of_a_gap_holds_the_true_one_where_a_plain_bootstrap_does_not(apart):
    rng, held, plain = np.random.default_rng(0), [], []
    means = np.linspace(0, apart, NUM_GROUPS)
    for _ in range(200):
        values = means[:, None] + rng.normal(size=(NUM_GROUPS, 20))
        of_groups = [
            Images({0: {Sample(f"{group}/{place}", 0, 0): one for place, one in enumerate(row)}})
            for group, row in enumerate(values)
        ]
        found, (low, high) = gaps.gap_interval(of_groups)
        assert found == pytest.approx(np.ptp(values.mean(axis=1)))
        held.append(low <= apart <= high)
        drawn = np.take_along_axis(values[None], rng.integers(20, size=(200, NUM_GROUPS, 20)), 2).mean(axis=2)
        plain.append(np.quantile(np.ptp(drawn, axis=1), 0.025) <= apart)
    assert np.mean(held) >= 0.93
    if apart < 1:
        assert np.mean(plain) < 0.8, "the largest of noisy differences is too large"


def test_an_image_of_two_groups_is_drawn_in_both():
    """Two groups of the same images do not differ, however much the images do."""
    values = {
        Sample(f"{place}", 0, 0): float(one) for place, one in enumerate(np.random.default_rng(0).normal(size=30))
    }
    same = Images({0: values})
    assert gaps.gap_interval([same, same]) == (0.0, (0.0, 0.0))
