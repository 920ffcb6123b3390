"""What a paired comparison can show: against simulation, statsmodels and known variances."""

from dataclasses import replace

import numpy as np
import pytest
from planted import experiment, samples, stand_in
from scipy.stats import ttest_1samp
from statsmodels.stats.power import TTestPower

from mmbench.commands import power as command
from mmbench.core.noise import Sample
from mmbench.pipeline import by_sample, cells, comparing, planning
from mmbench.pipeline.sampled import WholeSet, taking_part, varying_of_table
from mmbench.statistics import power, resampling
from mmbench.statistics.paired import permutation_p


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
    with pytest.raises(ValueError, match=r"found 1e-11 beside a deviation of 0\.4: name a larger one"):
        power.needed(1e-11, 0.4)


def test_nothing_is_shown_by_one_difference_and_everything_without_noise():
    assert np.isnan(power.smallest_difference(0.4, 1))
    assert power.smallest_difference(0.0, 5) == 0.0
    assert power.needed(0.1, 0.0) == 2


def test_components_are_those_that_were_planted():
    rng, images, seeds = np.random.default_rng(0), 300, 300
    rows = [
        rng.standard_normal((images, 1)) * of_image + rng.standard_normal(seeds) * of_seed
        + rng.standard_normal((images, seeds)) * rest
        for of_image, of_seed, rest in ((0.12, 0.3, 0.42), (0.16, 0.4, 0.56))
    ]  # fmt: skip
    found = power.components(*rows)
    assert np.sqrt([found.image, found.seed, found.rest]) == pytest.approx([0.2, 0.5, 0.7], rel=0.1)
    assert found.of_image(4) == pytest.approx(np.sqrt(0.2**2 + 0.7**2 / 4), rel=0.05)
    assert found.of_seed(100) == pytest.approx(np.sqrt(0.5**2 + 0.7**2 / 100), rel=0.1)


def test_what_all_rows_find_hard_is_no_part_of_a_difference():
    hard = 5 * np.random.default_rng(0).standard_normal((300, 1))
    rows = [hard + 0.1 * np.random.default_rng(seed).standard_normal((300, 3)) for seed in (1, 2)]
    assert power.components(*rows).of_image(3) == pytest.approx(0.1 * np.sqrt(2 / 3), rel=0.1)


@pytest.mark.parametrize("seeds", [(3, 3), (1, 1), (1, 3)])
def test_the_deviation_of_images_is_the_one_that_the_test_sees(seeds):
    first, second = (np.random.default_rng(count).normal(size=(40, count)) for count in seeds)
    first += np.arange(40)[:, None]  # no component is cut at 0
    found = power.components(first, second)
    seen = (first.mean(axis=1) - second.mean(axis=1)).std(ddof=1)
    assert found.of_image(min(seeds)) == pytest.approx(seen)
    assert np.isnan(found.of_seed(40)) == (min(seeds) == 1)
    with pytest.raises(ValueError, match="expected the values of 2 images or more, found 1"):
        power.components(first[:1], second[:1])


def _row(shift, rng, hard, seeds=2):
    noise = [hard + shift + rng.normal(0, 0.1, len(hard)) for _ in range(seeds)]
    return {seed: {"diff": samples(one), "is@toy": 3.0} for seed, one in enumerate(noise)}


def _plans(rows, wanted=None):
    table = experiment(*rows)
    found = cells.cells_of(table, "toy", [0, 1], [], {"assets": "a"}, {}, table.rows)
    return planning.plans(taking_part(table, found, varying_of_table(table, found, "results")), 2, wanted=wanted)


def test_a_table_says_what_its_rows_can_show(home, monkeypatch):
    rng, hard = np.random.default_rng(0), 4 * np.random.default_rng(1).random(60)
    rows = {name: _row(shift, rng, hard) for name, shift in (("a", 0), ("b", 0.2), ("c", 0.1), ("reference", 9))}
    stand_in(monkeypatch, "results", rows)
    (plan,) = _plans(rows, wanted=0.02)
    assert (plan.data, plan.metric, plan.rows, plan.images, plan.seeds) == ("birds", "diff", 3, 60, 2)
    expected = power.smallest_difference(0.1, 60, 0.05 / 2)  # two rows of two seeds: the noise of one
    assert plan.over_images == pytest.approx(expected, rel=0.2)
    of_seeds = {name: [float(np.mean([*one["diff"].values()])) for one in rows[name].values()] for name in "abc"}
    spread = np.sqrt(np.mean([np.var(one, ddof=1) for one in of_seeds.values()]))
    assert plan.seeds_apart == pytest.approx(power.seeds_apart(2, 2) * spread)
    assert plan.smallest == max(plan.over_images, plan.seeds_apart) <= plan.noisiest
    assert plan.images_needed == power.needed(0.02, plan.noise.of_image(2), 0.05 / 2)
    assert plan.images_needed == pytest.approx(60 * (plan.over_images / 0.02) ** 2, rel=0.05)
    assert plan.seeds_needed == power.needed(0.02, plan.noise.of_seed(60), 0.05 / 2)


def test_a_planted_difference_of_that_size_is_found_by_holm_over_the_table():
    """One of four rows lies as far from a fifth as the table says it can show; the others are as the fifth."""
    rng = np.random.default_rng(0)
    tables = rng.normal(0, 0.1, (400, 5, 80)) + 4 * rng.random((400, 1, 80))
    (plan,) = planning.plans({("birds", "diff"): {str(row): {0: samples(one)} for row, one in enumerate(tables[0])}}, 4)
    planned = power.smallest_difference(0.1 * np.sqrt(2), 80, 0.05 / 4)
    assert plan.smallest == pytest.approx(planned, rel=0.2), "from 80 images"
    tables[:, 1] += planned
    p = ttest_1samp(tables[:, 1:] - tables[:, :1], 0, axis=2).pvalue
    places = p.argsort(axis=1).argsort(axis=1)  # Holm: the k-th smallest of 4, as long as those before it are shown
    shown = np.take_along_axis(p, p.argsort(axis=1), 1) <= 0.05 / np.arange(4, 0, -1)
    found = np.take_along_axis(np.logical_and.accumulate(shown, axis=1), places, 1)[:, 0]
    assert found.mean() == pytest.approx(0.8, abs=0.06)  # three standard errors


@pytest.mark.parametrize(("first", "second"), [(2, 2), (3, 3), (5, 5), (1, 3), (3, 5)])
def test_seeds_of_rows_that_far_apart_seldom_overlap(first, second):
    rng, spread, wrong = np.random.default_rng(0), 0.3, 0
    apart = power.seeds_apart(first, second) * spread
    for _ in range(4000):
        low, high = rng.normal(0, spread, first), rng.normal(apart, spread, second)
        values = [cells.Value(dict(enumerate(one))) for one in (low, high)]
        wrong += comparing.overlapping(*values)
    assert 1 - wrong / 4000 == pytest.approx(0.8, abs=0.02)  # three standard errors, by the rule of a table


def test_more_seeds_ask_for_more_and_one_of_each_for_nothing():
    asked = [power.seeds_apart(seeds, seeds) for seeds in range(2, 8)]
    assert asked == sorted(asked)
    assert power.seeds_apart(2, 5) == pytest.approx(power.seeds_apart(5, 2))
    assert np.isnan(power.seeds_apart(1, 1))


def test_the_spread_over_seeds_is_within_rows_and_pooled():
    rows = [np.random.default_rng(row).normal(10 * row, 0.3, 2 + row % 3) for row in range(300)]
    assert power.spread_over_seeds([*rows, [9.0]]) == pytest.approx(0.3, rel=0.05)
    assert np.isnan(power.spread_over_seeds([[1.0], [2.0]]))


@pytest.mark.parametrize("of_seed", [0.0, 0.2])
def test_a_planted_difference_is_shown_by_images_and_seeds_together(of_seed):
    """The larger of the two is asked for: what a table's whole rule finds is no more often missed than planned."""
    rng = np.random.default_rng(0)

    def rows(shift):
        hard = rng.normal(0, 1, 60)
        made = [
            {seed: hard + more + rng.normal(0, of_seed) + rng.normal(0, 0.1, 60) for seed in range(3)}
            for more in (shift, 0.0)
        ]
        return {str(row): {seed: samples(one) for seed, one in values.items()} for row, values in enumerate(made)}

    found = [planning.plans({("birds", "diff"): rows(0.0)}, 1)[0] for _ in range(60)]
    pooled = np.sqrt(np.mean([plan.seeds_apart**2 for plan in found]))
    planned = max(np.mean([plan.over_images for plan in found]), pooled)
    shown = []
    for _ in range(300):
        first, second = rows(planned).values()
        apart = np.mean([np.subtract([*first[seed].values()], [*second[seed].values()]) for seed in range(3)], axis=0)
        values = [cells.Value({seed: np.mean([*one.values()]) for seed, one in row.items()}) for row in (first, second)]
        shown.append(ttest_1samp(apart, 0).pvalue < 0.05 and not comparing.overlapping(*values))
    assert np.mean(shown) == pytest.approx(0.8, abs=0.07)  # three standard errors
    assert of_seed == 0 or pooled > 2 * np.mean([plan.over_images for plan in found]), "images alone would ask for less"


def _manipulated(rng, accuracy, count=200):
    """The values of MP's linear part, of edits that follow the text more or less, and the MP of all."""
    sim, diff = rng.normal(accuracy, 0.2, count), rng.beta(2, 6, count)
    return comparing._product(samples(sim), samples(diff)), sim.mean() * (1 - diff.mean())


def test_a_planted_difference_of_products_is_found_as_often_as_planned():
    rng = np.random.default_rng(0)
    plan_of = [{str(row): {0: _manipulated(rng, 0.4)[0]} for row in range(2)} for _ in range(40)]
    smallest = np.mean([planning.plans({("birds", "MP"): rows}, 1)[0].smallest for rows in plan_of])
    apart, found = [], []
    for _ in range(500):
        (first, high), (second, low) = _manipulated(rng, 0.4 + smallest / 0.75), _manipulated(rng, 0.4)
        apart.append(high - low)
        found.append(ttest_1samp(np.subtract([*first.values()], [*second.values()]), 0).pvalue < 0.05)
    assert np.mean(apart) == pytest.approx(smallest, rel=0.05), "1 - the mean of Beta(2, 6) is 0.75"
    assert smallest == pytest.approx(2.83 * np.std(apart), rel=0.08), "(z of 0.975 + z of 0.8) standard errors"
    assert np.mean(found) == pytest.approx(0.8, abs=0.054)  # three standard errors


def _whole_set(rng, scale, count=60):
    """A score that is no mean over images, the logarithm of their deviation, and how it varies over halves of them."""
    images = rng.normal(0, scale, count)
    halves = [float(np.log(images[half].std())) for half in resampling.halves(count)]
    varying = by_sample.Varying("same", count, {"spread": resampling.deviations(np.array(halves), count)})
    return WholeSet({0: float(np.log(images.std()))}, comparing.Halves("spread", [varying]))


def test_a_planted_difference_of_whole_sets_is_found_as_often_as_planned():
    rng = np.random.default_rng(0)
    rows = [{str(row): _whole_set(rng, 1.0) for row in range(2)} for _ in range(60)]
    found = [planning.plans({("birds", "spread"): one}, 1, wanted=0.1)[0] for one in rows]
    smallest = np.mean([plan.smallest for plan in found])
    assert smallest == pytest.approx(2.83 * np.sqrt(2 / (2 * 60)), rel=0.08), "1 / 2n is the variance of each"
    assert found[0].images_needed == pytest.approx(60 * (found[0].smallest / 0.1) ** 2, abs=1)
    shown = []
    for _ in range(400):
        first, second = _whole_set(rng, np.exp(smallest)), _whole_set(rng, 1.0)
        apart = first.by_seed[0] - second.by_seed[0]
        shown.append(resampling.judged(apart, first.halves.deviations - second.halves.deviations).p < 0.05)
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)  # three standard errors


def test_halves_of_other_images_and_means_are_not_planned_together():
    rng = np.random.default_rng(0)
    one, other = _whole_set(rng, 1.0), _whole_set(rng, 1.0)
    other.halves.ids = "others"
    assert planning.plans({("birds", "FID"): {"a": one, "b": other}}, 1) == []
    assert planning.plans({("birds", "FID"): {"a": one, "b": {0: samples([0.1, 0.2, 0.4])}}}, 1) == []


def test_the_command_plans_products_and_says_how(home, monkeypatch, capsys):
    rng, rows = np.random.default_rng(0), {}
    for name in "ab":
        sim, diff = rng.normal(0.4, 0.1, 40), rng.beta(2, 6, 40)
        product = float(sim.mean() * (1 - diff.mean()))
        rows[name] = {0: {"sim@toy": samples(sim), "diff": samples(diff), "mp@toy": product}}
    stand_in(monkeypatch, "results", rows)
    metrics = {"MP": "mp@standard", "sim": "sim@standard", "diff": "diff"}
    means = {"both": ["sim", "diff"]}
    monkeypatch.setattr(command, "load", lambda name: experiment(*rows, metrics=metrics, harmonic_means=means))
    assert command.main(["experiment=x"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[3] for line in out.splitlines() if line.startswith("| birds")] == ["MP", "sim", "diff", "both"]
    assert "Of products and harmonic means (MP, both)" in out
    assert "not planned" not in out


def test_the_command_prints_a_table_in_each_form_and_what_comes_next(home, monkeypatch, capsys):
    rng, hard = np.random.default_rng(0), np.random.default_rng(1).random(20)
    rows = {name: _row(shift, rng, hard) for name, shift in (("a", 0), ("b", 0.2))}
    stand_in(monkeypatch, "results", rows)
    monkeypatch.setattr(command, "load", lambda name: experiment(*rows))
    assert command.main(["experiment=x"]) == 0
    out = capsys.readouterr().out
    assert "| birds  | diff     |      2 |       20 |       2 |" in out
    assert "alpha 0.05 by Holm over 1 comparison;" in out
    assert planning.ONE_SEED not in out
    seeds_alone = {name: {0: one[0]} for name, one in rows.items()}
    stand_in(monkeypatch, "results", seeds_alone)
    assert command.main(["experiment=x"]) == 0
    assert planning.ONE_SEED in capsys.readouterr().out
    stand_in(monkeypatch, "results", rows)
    assert "Not known of two rows how it varies with the same images, and so not planned: sim, IS." in out
    assert out.endswith("next: mmbench reproduce experiment=x data.source=toy seeds=0,1,2\n")
    for form, begins in (("csv", "data,metric,rows,images,"), ("latex", "% needs "), ("html", "<table")):
        assert command.main(["experiment=x", f"format={form}", "metric=diff", "difference=0.01"]) == 0
        out = capsys.readouterr().out
        assert out.startswith(begins)
        assert "seeds needed" in out
        assert "next:" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected experiment=NAME, found none: choose from "),
        (["experiment=x", "difference=0.1"], "expected metric=M beside difference=.* choose from diff, sim, IS"),
        (["experiment=x", "metric=dif"], "expected a metric of this experiment, found 'dif': did you mean diff"),
        (
            ["experiment=x", "metric=diff", "difference=none"],
            "expected difference=D, a number other than 0, found ",
        ),
        (["experiment=x", "metric=diff", "difference=0"], "expected difference=D, a number other than 0, found '0'"),
        (
            ["experiment=x", "metric=IS"],
            "expected a metric of which two rows keep how it varies with the images, found IS: choose from diff, or",
        ),
        (["experiment=x", "format=pdf"], "expected a format, found 'pdf': choose from csv"),
        (["experiment=x", "protocol=strict"], "expected the protocols of the experiment"),
        (
            ["experiment=alone"],
            "expected an experiment with two rows that are compared, found 1 in alone beside its ref",
        ),
    ],
)
def test_a_mistake_is_one_line(home, monkeypatch, words, said):
    rng, hard = np.random.default_rng(0), np.random.default_rng(1).random(20)
    rows = {name: _row(0, rng, hard) for name in "ab"}
    stand_in(monkeypatch, "results", rows)
    alone = replace(experiment("a"), name="alone")
    monkeypatch.setattr(command, "load", lambda name: alone if name == "alone" else experiment(*rows))
    with pytest.raises(ValueError, match=said) as error:
        command.main(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("comparisons", "needed"), [(1, 6), (9_999, 18), (10_000, None)])
def test_among_many_comparisons_it_takes_more_images_or_none_suffice(comparisons, needed):
    values = np.random.default_rng(0).normal(size=(2, 60)) * 0.01 + [[0], [9]]
    rows = {str(n): {0: {Sample(str(n), 0, 0): x for n, x in enumerate(one)}} for n, one in enumerate(values)}
    (plan,) = planning.plans({("birds", "diff"): rows}, comparisons, wanted=9.0)
    assert np.isfinite(plan.smallest) == (needed is not None)
    assert plan.images_needed == needed


@pytest.mark.parametrize(("count", "is_shown"), [(5, False), (6, True)])
def test_no_difference_is_shown_by_images_that_are_too_few_for_their_test(count, is_shown):
    values = np.random.default_rng(0).normal(size=(2, count)) * 0.01 + [[0], [9]]
    rows = {str(n): {0: {Sample(str(n), 0, 0): x for n, x in enumerate(one)}} for n, one in enumerate(values)}
    (plan,) = planning.plans({("birds", "diff"): rows}, 1, wanted=9.0)
    assert (permutation_p([values[0] - values[1]])[0] < planning.ALPHA) == is_shown
    assert np.isfinite(plan.smallest) == is_shown
    assert plan.images_needed == 6
