"""Intervals of means over clusters."""

import numpy as np
import pytest
import scipy.stats

from mmbench.statistics import bootstrap


def clustered(rng, images, shared=1.0, own=0.5):
    """Sums and counts (N, 2) of values of two seeds, 1 to 5 of each image, which share most of their spread; mean 0."""
    counts = np.repeat(rng.integers(1, 6, size=(images, 1)), 2, axis=1).astype(float)
    centres = rng.exponential(shared, size=(images, 1)) - shared  # skewed, as scores are
    return counts * centres + own * np.sqrt(counts) * rng.normal(size=counts.shape), counts


def covers(interval, truth):
    return interval[0] <= truth <= interval[1]


def test_an_interval_over_clusters_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    found = [covers(bootstrap.mean_interval(*clustered(rng, 60)), 0.0) for _ in range(400)]
    assert 0.91 <= np.mean(found) <= 0.98  # 95 % up to 2 standard errors, and what 60 skewed clusters cost


def test_values_of_one_image_are_no_images():
    """Taken as independent, five equal values of each image would give an interval that is too short by sqrt 5."""
    values = np.random.default_rng(0).normal(size=100)
    apart = np.subtract(*bootstrap.mean_interval(5 * values[:, None], np.full((100, 1), 5.0)))
    once = np.subtract(*bootstrap.mean_interval(values[:, None], np.ones((100, 1))))
    assert apart == pytest.approx(once)
    alone = np.subtract(*bootstrap.mean_interval(np.repeat(values, 5)[:, None], np.ones((500, 1))))
    assert alone / once == pytest.approx(5**-0.5, rel=0.1)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_is_that_of_scipy(skewed):
    rng = np.random.default_rng(5)
    sums, counts = clustered(rng, 80, own=0.0) if skewed else (rng.normal(size=(80, 1)), np.ones((80, 1)))
    found = bootstrap.mean_interval(sums[:, :1], counts[:, :1])
    ratio = lambda s, c, axis: s.sum(axis) / c.sum(axis)  # noqa: E731
    theirs = scipy.stats.bootstrap(
        (sums[:, 0], counts[:, 0]), ratio, paired=True, vectorized=True, n_resamples=20000, rng=1
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.05 * width)  # of its 2,000 draws


def test_the_mean_is_over_seeds_as_a_table_has_it():
    """Seeds weigh alike, however many values each has."""
    counts = np.array([[1.0, 9.0]] * 30)
    low, high = bootstrap.mean_interval(counts * [0.0, 1.0], counts)
    assert low == high == 0.5


def test_a_cluster_without_a_value_counts_for_nothing():
    rng = np.random.default_rng(2)
    sums = rng.normal(size=(40, 1))
    more = np.concatenate([sums, np.zeros((1, 1))])
    low, high = bootstrap.mean_interval(more, np.concatenate([np.ones((40, 1)), np.zeros((1, 1))]))
    assert (low, high) == pytest.approx(bootstrap.mean_interval(sums, np.ones((40, 1))), abs=0.05)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    sums, counts = clustered(np.random.default_rng(1), 30)
    assert bootstrap.mean_interval(sums, counts) == bootstrap.mean_interval(sums, counts)
    assert bootstrap.mean_interval(sums, counts) != bootstrap.mean_interval(sums, counts, seed=1)


@pytest.mark.parametrize("counts", [np.ones((1, 1)), np.zeros((5, 1))])
def test_what_has_no_spread_has_no_interval(counts):
    with pytest.raises(ValueError, match="2 clusters or more"):
        bootstrap.mean_interval(counts, counts)
