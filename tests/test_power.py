"""What a paired comparison can show: against simulation, statsmodels and known variances."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.power import TTestPower

from mmbench.statistics import power


@pytest.mark.parametrize(("count", "alpha"), [(3, 0.05), (12, 0.05 / 20), (250, 0.05), (250, 0.05 / 66)])
def test_a_difference_of_that_size_is_found_in_four_of_five_simulations(count, alpha):
    rng, deviation = np.random.default_rng(0), 0.3
    planted = power.smallest_difference(deviation, count, alpha)
    found = ttest_1samp(rng.normal(planted, deviation, (4000, count)), 0, axis=1).pvalue <= alpha
    assert found.mean() == pytest.approx(0.8, abs=0.02)  # three standard errors of the simulation
    assert (ttest_1samp(rng.normal(0, deviation, (20000, count)), 0, axis=1).pvalue <= 0.05).mean() < 0.056


@pytest.mark.parametrize("count", [3, 10, 250])
@pytest.mark.parametrize("size", [0.01, 0.2, 0.5])
def test_power_is_that_of_statsmodels_where_it_has_one(count, size):
    assert power.power(2 * size, 2.0, count, 0.05) == pytest.approx(TTestPower().power(size, count, 0.05), abs=2e-5)


def test_power_is_there_where_few_differences_meet_a_small_alpha():
    found = [power.power(size, 1.0, 2, 0.001) for size in (1, 10, 100, 1000, 10_000)]
    assert np.isfinite(found).all()
    assert found == sorted(found)
    assert power.power(power.smallest_difference(1.0, 2, 0.001), 1.0, 2, 0.001) == pytest.approx(0.8)


@pytest.mark.parametrize("difference", [0.01, 0.1, 1.0, 50.0])
def test_the_number_that_is_needed_is_the_first_that_is_enough(difference):
    count = power.needed(difference, 0.4, 0.01)
    assert power.power(difference, 0.4, count, 0.01) >= 0.8
    assert count == 2 or power.power(difference, 0.4, count - 1, 0.01) < 0.8
    assert power.needed(power.smallest_difference(0.4, 40), 0.4) in (40, 41)
    with pytest.raises(ValueError, match="expected a difference other than 0"):
        power.needed(0.0, 0.4)


def test_nothing_is_shown_by_one_difference_and_everything_without_noise():
    assert np.isnan(power.smallest_difference(0.4, 1))
    assert power.smallest_difference(0.0, 5) == 0.0
    assert power.needed(0.1, 0.0) == 2


def test_components_are_those_that_were_planted():
    rng, images, seeds = np.random.default_rng(0), 300, 300
    planted = 0.2 * rng.standard_normal((images, 1)) + 0.5 * rng.standard_normal((1, seeds))
    found = power.components(1.0 + planted + 0.7 * rng.standard_normal((images, seeds)))
    assert np.sqrt([found.image, found.seed, found.rest]) == pytest.approx([0.2, 0.5, 0.7], rel=0.1)
    assert found.of_image(4) == pytest.approx(np.sqrt(0.2**2 + 0.7**2 / 4), rel=0.05)
    assert found.of_seed(100) == pytest.approx(np.sqrt(0.5**2 + 0.7**2 / 100), rel=0.1)


def test_the_deviation_of_images_is_the_one_that_the_test_sees():
    differences = np.random.default_rng(0).normal(size=(40, 3)) + np.arange(40)[:, None]  # no component is cut at 0
    found = power.components(differences)
    assert found.of_image(3) == pytest.approx(differences.mean(axis=1).std(ddof=1))
    assert power.components(differences[:, :1]).of_image(1) == pytest.approx(differences[:, 0].std(ddof=1))
    assert np.isnan(power.components(differences[:, :1]).of_seed(40))
    with pytest.raises(ValueError, match="expected the differences of 2 images or more, found 1"):
        power.components(differences[:1])
