"""Intervals of scores of whole sets, from halves of the images: FID of Gaussians, whose true value is known."""

import numpy as np
import pytest
import torch

from mmbench.metrics.fid import frechet_distance
from mmbench.statistics import resampling

DIM, SHIFT, SCALE = 4, 0.6, 1.3
TRUTH = DIM * (SHIFT**2 + (SCALE - 1) ** 2)  # of N(SHIFT, SCALE^2) from N(0, 1), which is the real set


def drawn(rng, count):
    return rng.normal(SHIFT, SCALE, size=(count, DIM))


def fid(features):
    mean, covariance = (torch.from_numpy(part) for part in (features.mean(axis=0), np.cov(features.T)))
    return frechet_distance(mean, covariance, torch.zeros(DIM).double(), torch.eye(DIM).double())


def interval(features):
    scores = np.array([fid(features[half]) for half in resampling.halves(len(features))])
    return resampling.judged(fid(features), resampling.deviations(scores, len(features))).interval


def coverage(rng, runs, count, truth):
    found = [interval(drawn(rng, count)) for _ in range(runs)]
    return float(np.mean([low <= truth <= high for low, high in found]))


def test_halves_are_halves_without_repeats():
    halves = resampling.halves(251)
    assert halves.shape == (100, 125)
    assert all(len(set(half)) == 125 for half in halves)
    assert np.array_equal(halves, resampling.halves(251)), "the same for all rows of a table"
    with pytest.raises(ValueError, match="expected 4 images or more"):
        resampling.halves(3)


@pytest.mark.parametrize("count", [300, 301])
def test_the_spread_of_a_mean_is_its_standard_error(count):
    values = np.random.default_rng(1).normal(size=count)
    scores = np.array([values[half].mean() for half in resampling.halves(count)])
    found = resampling.deviations(scores, count)
    assert found.std(ddof=1) == pytest.approx(values.std(ddof=1) / np.sqrt(count), rel=0.2)  # 100 halves: 7 %
    assert found.mean() == pytest.approx(0, abs=1e-12)


def test_an_interval_of_fid_covers_the_known_one():
    assert coverage(np.random.default_rng(2), runs=60, count=400, truth=TRUTH) >= 0.87  # 95 % less 3 standard errors


def test_images_drawn_again_with_repeats_have_a_larger_fid():
    """Why halves are drawn: with repeats, the whole 95 % interval would lie above a small FID."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(100, DIM))
    again = [fid(features[rng.integers(100, size=100)]) for _ in range(200)]
    low, high = interval(features)
    assert np.quantile(again, 0.1) > fid(features)
    assert low < fid(features) < high


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 1000])
def test_an_interval_of_fid_covers_as_often_as_it_says(count):
    """Of many images the true FID; of few the mean of that of as many images, which is larger."""
    rng = np.random.default_rng(5)
    truth = TRUTH if count == 1000 else float(np.mean([fid(drawn(rng, count)) for _ in range(4000)]))
    assert coverage(rng, runs=500, count=count, truth=truth) == pytest.approx(0.95, abs=0.03)


def test_a_difference_of_rows_that_share_their_images_is_judged_by_what_they_do_not_share():
    rng = np.random.default_rng(6)
    shared, own = rng.normal(size=100), rng.normal(scale=0.1, size=100)
    assert resampling.judged(0.5, shared + own - shared).p < 0.001
    assert resampling.judged(0.5, shared + own).p > 0.5
    assert resampling.judged(0.0, np.zeros(100)) == ((0.0, 0.0), 1.0)
    assert resampling.judged(0.1, np.zeros(100)).p == 0.0
