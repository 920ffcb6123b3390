"""Agreement and preference: published examples, second implementations, and what is known by hand."""

import krippendorff
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import friedmanchisquare

from mmbench.statistics.agreement import interval_over_items, kendalls_w, krippendorffs_alpha
from mmbench.statistics.preference import bradley_terry, win_rates, wins_of_ranks

NO = np.nan
# Four observers and twelve units: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), part C.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
        [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
    ]
)


@pytest.mark.parametrize(("level", "printed"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_own_example(level, printed):
    assert krippendorffs_alpha(OBSERVERS, level) == pytest.approx(printed, abs=5e-4)


def test_alpha_of_two_observers_by_hand():
    """Part A of the same paper: four of ten units differ; 14 zeros and 6 ones, so 1 - 19 * 4 / (14 * 6)."""
    ratings = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], float)
    assert krippendorffs_alpha(ratings, "nominal") == pytest.approx(1 - 19 * 4 / 84)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_a_second_implementation(level):
    ratings = np.random.default_rng(3).integers(1, 5, (4, 30)).astype(float)
    ratings[np.random.default_rng(4).random((4, 30)) < 0.3] = NO
    ratings[:2, 0] = 1  # a unit with two ratings at least
    assert krippendorffs_alpha(ratings, level) == pytest.approx(krippendorff.alpha(ratings, level_of_measurement=level))


def test_alpha_of_identical_and_of_random_raters():
    generator = np.random.default_rng(0)
    one = generator.integers(1, 4, 40).astype(float)
    assert krippendorffs_alpha(np.stack([one, one, one]), "ordinal") == pytest.approx(1)
    assert krippendorffs_alpha(generator.integers(1, 4, (5, 2000)).astype(float), "ordinal") == pytest.approx(
        0, abs=0.03
    )


def test_alpha_is_no_number_where_nothing_tells():
    assert np.isnan(krippendorffs_alpha(np.array([[1, NO], [NO, 2.0]]), "nominal"))  # no unit has two
    assert np.isnan(krippendorffs_alpha(np.ones((3, 4)), "nominal"))  # one value alone


def test_w_of_a_published_example():
    """Six applicants by three executives: S. Siegel, Nonparametric Statistics (1956), chapter 9: s = 25.5, W = .16."""
    ranks = np.array([[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]], float)
    assert kendalls_w(ranks) == pytest.approx(12 * 25.5 / (3**2 * (6**3 - 6)))
    assert kendalls_w(ranks) == pytest.approx(0.162, abs=5e-4)


def test_w_with_ties_follows_from_friedmans_test():
    ratings = np.random.default_rng(1).integers(0, 4, (6, 5)).astype(float)
    statistic = friedmanchisquare(*ratings.T).statistic
    assert kendalls_w(ratings) == pytest.approx(statistic / (6 * (5 - 1)))


def test_w_at_its_ends():
    order = np.arange(4.0)
    assert kendalls_w(np.stack([order] * 3)) == pytest.approx(1)
    assert kendalls_w(np.stack([order, order[::-1]])) == pytest.approx(0)
    assert np.isnan(kendalls_w(order[None]))
    assert np.isnan(kendalls_w(np.ones((3, 4))))


def test_strengths_of_two_are_the_logarithm_of_their_odds():
    first, second = bradley_terry(np.array([[0, 30], [10, 0.0]]), prior=0)
    assert first - second == pytest.approx(np.log(3), abs=1e-6)
    assert first + second == pytest.approx(0)


def test_strengths_are_of_maximum_likelihood():
    wins = np.array([[0, 7, 3, 9.5], [4, 0, 6, 5], [8, 2, 0, 4], [1.5, 6, 3, 0]])

    def unlikely(strengths):
        return (wins * np.log1p(np.exp(strengths[None] - strengths[:, None]))).sum()

    best = minimize(unlikely, np.zeros(4), tol=1e-10).x
    np.testing.assert_allclose(bradley_terry(wins, prior=0), best - best.mean(), atol=1e-4)


def test_strengths_of_the_expected_wins_are_the_planted_ones():
    planted = np.array([1.0, 0.2, -0.3, -0.9])
    wins = 1000 / (1 + np.exp(planted[None] - planted[:, None]))
    np.fill_diagonal(wins, 0)
    np.testing.assert_allclose(bradley_terry(wins), planted, atol=0.01)


def test_who_never_wins_is_last_and_finite():
    strengths = bradley_terry(np.array([[0, 5, 5], [0, 0, 5], [0, 0, 0.0]]))
    assert np.isfinite(strengths).all()
    assert (np.diff(strengths) < 0).all()
    assert np.isnan(bradley_terry(np.zeros((3, 3)))).all()


def test_wins_of_a_ranking_and_their_rates():
    wins = wins_of_ranks(np.array([2, 1, 2, NO]))
    assert wins.tolist() == [[0, 0, 0.5, 0], [1, 0, 1, 0], [0.5, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(win_rates(wins), [0.25, 1, 0.25, NO])


def test_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(5, 2, (400, 2))
    low, high = interval_over_items(lambda items: values[items].mean(axis=0), 400, np.random.default_rng(1))
    width = 2 * 1.96 * values.std(axis=0) / 20
    np.testing.assert_allclose(high - low, width, rtol=0.1)
    assert ((low < values.mean(axis=0)) & (values.mean(axis=0) < high)).all()


def test_interval_is_none_where_most_resamples_have_no_number():
    low, high = interval_over_items(lambda items: np.nan, 5, np.random.default_rng(0), resamples=20)
    assert np.isnan(low)
    assert np.isnan(high)


def test_one_item_has_no_interval_and_neither_has_none():
    for count in (0, 1):
        low, high = interval_over_items(lambda items: np.ones(2), count, np.random.default_rng(0))
        np.testing.assert_array_equal([low, high], np.full((2, 2), NO))


def test_what_was_not_compared_has_no_strength_and_moves_no_other():
    found = bradley_terry(np.array([[0, 30, 0], [10, 0, 0], [0, 0, 0.0]]))
    assert np.isnan(found[2])
    np.testing.assert_allclose(found[:2], bradley_terry(np.array([[0, 30], [10, 0.0]])))
