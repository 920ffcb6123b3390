"""Cells beside each other: intervals, the best, and what differs by more than chance, in every form of a table."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import scipy.stats

from mmbench.core import catalogue
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.pipeline import by_sample, comparing, sampled, tables
from mmbench.pipeline.cells import Cell, Value, Verdict, gain, harmonic_mean
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Column, Experiment, Row
from mmbench.statistics import paired, resampling

METRICS = {"ssim": "mmbench.metrics.ssim.SSIM", "l1": "mmbench.metrics.l1.L1", "mp": "mmbench.metrics.mp.MP"}
CONFIG = {"protocol": {"metrics": {name: {"_target_": target} for name, target in METRICS.items()}}}
NUMBERS = count()  # of records
SHARED = np.random.default_rng(0).normal(size=60)  # some images are harder, for every row


def row(label, **facts):
    return Row("identity", "cub", shown={"method": label, "dataset": "birds"}, **facts)


def experiment(*labels, **facts):
    rows = [row(label) if isinstance(label, str) else label for label in labels]
    return Experiment("x", "Nobody.", {"": Column("strict", {"SSIM": "ssim"})}, rows, **facts)


def samples(ids):
    return [Sample(f"{place:03d}", caption, 0) for place in ids for caption in (0, 1)]


def scored(shift, noise, seeds=(0,), ids=range(60), scale=1.0):
    """Values by seed and sample: of an image, with two captions, that is as hard for every row."""
    return {
        seed: {
            one: scale * (0.1 * SHARED[int(one.id)] + shift + noise * np.random.default_rng([seed, place]).normal())
            for place, one in enumerate(samples(ids))
        }
        for seed in seeds
    }


def value(folder, by_seed, name="ssim", more=None, varying=None, **facts):
    """A value whose records lie in a folder, with the values by sample that it is the mean of."""
    records, means = {}, {}
    for seed, found in by_seed.items():
        means[seed] = float(np.mean(list(found.values()))) if found else 0.0
        values = {**({name: found} if found else {}), **(more or {})}
        row, metrics = {"method": "m", "data": "d", "source": "toy"}, {name: {"count": len(found)}}
        known = Result("x", row, seed, {}, metrics, f"{id(found):064x}", "", {}, {}, CONFIG)
        records[seed] = by_sample.keep(known, values, folder, folder / "x" / f"{next(NUMBERS)}.json", varying=varying)
    facts = {"mean": float(np.mean(list(means.values()))), **facts}
    return Value(means, name=name, records=records, **facts)


def cell(label, found, metric="SSIM", **facts):
    return Cell(label, "birds", (8, 8), len(found.by_seed), metric, None, found, Verdict.UNPUBLISHED, **facts)


@pytest.fixture
def compare(tmp_path):
    def compare(table, **rows):
        cells = [one if isinstance(one, Cell) else cell(label, one) for label, one in rows.items()]
        return {one.method: one for one in comparing.compared(table, cells, tmp_path)}

    return compare


@pytest.fixture
def three(tmp_path, compare):
    """Two rows that are alike, in other noise, and one that is worse."""
    found = {"a": (0.0, 0.02, (0, 1)), "b": (-0.0005, 0.02, (7, 8)), "c": (-0.05, 0.02, (2, 3))}
    rows = {label: value(tmp_path, scored(*facts)) for label, facts in found.items()}
    return compare(experiment("a", "b", "c"), **rows)


def test_a_planted_difference_is_found_and_none_between_rows_that_are_alike(three):
    tied = min("ab", key=lambda label: three[label].value.mean)
    best = next(label for label in "ab" if label != tied)
    assert (three[best].rank, three[tied].rank, three["c"].rank) == (1, 2, None)
    assert three[best].compared is None
    assert not three[tied].compared.shown
    assert three["c"].compared.shown
    assert three["c"].compared.with_ == best
    assert three["c"].compared.images == 60
    assert three["c"].compared.difference == pytest.approx(three["c"].value.mean - three[best].value.mean)
    low, high = three["c"].interval
    assert low < three["c"].value.mean < high
    assert high - low == pytest.approx(4 * 0.1 * SHARED.std() / 60**0.5, rel=0.25), "two captions are no two images"


def test_rows_whose_seeds_overlap_are_not_told_apart(tmp_path, compare):
    apart = {0: scored(0.2, 0.01)[0], 1: scored(0.05, 0.01, (1,))[1]}
    alike = {0: scored(0.0, 0.01)[0], 1: scored(0.1, 0.01, (1,))[1]}
    found = compare(
        experiment("a", "b", "c"),
        a=value(tmp_path, apart),
        b=value(tmp_path, alike),
        c=value(tmp_path, scored(-0.1, 0.01, (0, 1))),
    )
    b, c = found["b"].compared, found["c"].compared
    assert b.adjusted < 0.05, "the mean over seeds is lower in nearly every image"
    assert (b.overlap, b.shown, c.overlap, c.shown) == (True, False, False, True)
    line = tables.texts(list(found.values()))[1]
    assert line["compared"].startswith("no difference shown (seeds overlap): -0.0")


def test_p_is_corrected_for_each_pair_that_might_have_been_compared(three):
    """The images say which of three rows is best, and with it which two of three pairs are tested."""
    low, high = sorted(one.compared.p for one in three.values() if one.compared)
    found = sorted(one.compared.adjusted for one in three.values() if one.compared)
    assert found == pytest.approx([3 * low, max(3 * low, 2 * high)])


def test_against_a_named_row_p_is_corrected_for_the_tests_alone(tmp_path, compare):
    rows = {label: value(tmp_path, scored(shift, 0.01)) for label, shift in zip("abc", (0.0, 0.1, 0.2), strict=True)}
    found = compare(experiment("a", "b", "c", compared_with="a"), **rows)
    low, high = sorted(one.compared.p for one in found.values() if one.compared)
    assert sorted(one.compared.adjusted for one in found.values() if one.compared) == [2 * low, max(2 * low, high)]
    assert "all 2 tests of this page" in " ".join(tables.notes(list(found.values())))


def test_rows_that_do_not_differ_are_seldom_told_apart_from_the_best_of_them():
    """Of 400 pages with eight rows of noise, about one in twenty may name a difference."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.normal(size=(8, 50))
        apart = values - values[values.mean(axis=1).argmax()]
        t = scipy.stats.ttest_1samp(apart[np.any(apart, axis=1)], 0.0, axis=1)
        wrong += min(paired.holm(t.pvalue.tolist(), 8 * 7 // 2)) < 0.05
    assert wrong <= 400 * 0.05


def test_rows_are_compared_on_the_images_that_both_have(tmp_path, compare):
    ids = range(20, 60)
    rows = {"a": value(tmp_path, scored(0.0, 0.01)), "b": value(tmp_path, scored(-0.02, 0.01, ids=ids, seeds=(3,)))}
    found = compare(experiment("a", "b"), **rows)
    worse = next(one for one in found.values() if one.compared)
    assert worse.compared.images == 40
    expected = -0.02 if worse.method == "b" else 0.02
    assert worse.compared.difference == pytest.approx(expected, abs=0.005), "not that of the means over other images"
    assert "on the 40 images that both rows have" in " ".join(tables.notes(list(found.values())))


def test_a_sample_without_a_value_is_left_out(tmp_path, compare):
    whole = scored(0.0, 0.01)
    part = {0: {one: number for one, number in scored(-0.03, 0.01)[0].items() if one.id > "009" or one.caption}}
    found = compare(experiment("a", "b"), a=value(tmp_path, whole), b=value(tmp_path, part))
    assert found["b"].compared.images == 60, "of ten images one caption counts"
    assert found["b"].compared.difference == pytest.approx(-0.03, abs=0.005)


def test_references_and_what_did_not_learn_or_is_outdated_are_not_compared(tmp_path, compare):
    rows = {
        label: value(tmp_path, scored(shift, 0.01))
        for label, shift in zip("abcde", (0.0, -0.1, 0.5, 0.6, 0.7), strict=True)
    }
    rows["d"] = replace(rows["d"], outdated="the mask was another one")
    rows["e"] = cell("e", rows["e"], unlearned=("it knows nothing",))
    found = compare(experiment("a", "b", row("c", reference=True), "d", "e"), **rows)
    assert {label: one.rank for label, one in found.items()} == {"a": 1, "b": 2, "c": None, "d": None, "e": None}
    assert [label for label, one in found.items() if one.compared] == ["b"]
    assert all(one.interval for one in found.values()), "an interval says nothing of others"


def test_a_row_can_be_named_that_all_are_compared_with(tmp_path, compare):
    rows = {label: value(tmp_path, scored(shift, 0.01)) for label, shift in zip("abc", (0.0, 0.1, 0.2), strict=True)}
    found = compare(experiment("a", "b", "c", compared_with="a"), **rows)
    assert [one.compared and one.compared.with_ for one in found.values()] == [None, "a", "a"]
    assert [one.rank for one in found.values()] == [None, 2, 1]
    assert all(one.compared.difference > 0 for one in (found["b"], found["c"]))


def test_a_row_to_compare_with_has_to_be_in_the_table(tmp_path, monkeypatch):
    text = (catalogue.shipped("experiments") / "demo.yaml").read_text(encoding="utf-8")
    (tmp_path / "demo.yaml").write_text(text + "compared_with: nobody\n", encoding="utf-8")
    monkeypatch.setattr(catalogue, "shipped", lambda _: tmp_path)
    with pytest.raises(ValueError, match=r"compared_with.*nobody"):
        load("demo")


def test_the_direction_is_the_metric_s(tmp_path, compare):
    rows = {label: value(tmp_path, scored(shift, 0.01), "l1") for label, shift in zip("ab", (0.0, 0.1), strict=True)}
    assert [one.rank for one in compare(experiment("a", "b"), **rows).values()] == [1, 2]


def test_values_that_print_alike_share_a_rank(tmp_path, compare):
    rows = {label: value(tmp_path, scored(shift, 0.0)) for label, shift in zip("abc", (0.0, 1e-6, -0.1), strict=True)}
    assert [one.rank for one in compare(experiment("a", "b", "c"), **rows).values()] == [1, 1, None]


def test_mp_varies_as_the_product_of_its_means(tmp_path, compare):
    rng = np.random.default_rng(3)
    names = samples(range(60))
    sim, diff = rng.normal(0.3, 0.1, size=120), rng.uniform(0, 0.4, size=120)
    more = {"sim@toy": dict(zip(names, sim, strict=True)), "diff": dict(zip(names, diff, strict=True))}
    mean = (1 - diff.mean()) * sim.mean()
    found = compare(experiment("a"), a=value(tmp_path, {0: {}}, "mp@toy", more, mean=mean))["a"]
    drawn = [rng.integers(60, size=60) for _ in range(4000)]
    by_image = [(one.reshape(60, 2).mean(axis=1)) for one in (sim, diff)]
    products = [(1 - by_image[1][rows].mean()) * by_image[0][rows].mean() for rows in drawn]
    assert found.interval == pytest.approx(tuple(np.quantile(products, [0.025, 0.975])), abs=0.004)


def test_a_gain_is_bounded_by_what_its_two_values_do_not_share(tmp_path, compare):
    first, second = value(tmp_path, scored(0.0, 0.0)), value(tmp_path, scored(-0.05, 0.0))
    low, high = compare(experiment("a"), a=gain(first, second))["a"].interval
    assert low == pytest.approx(0.05)
    assert high == pytest.approx(0.05)
    low, high = compare(experiment("a"), a=first)["a"].interval
    assert high - low > 0.03


def test_a_harmonic_mean_varies_as_its_two_means_do(tmp_path, compare):
    """It has no interval of their difference, which lies around 0 where both are alike."""
    first, second = (scored(shift, 0.1, seeds=(0, 1)) for shift in (0.8, 0.7))
    other = [scored(0.1, 0.1, seeds=(0, 1)) for _ in (0, 1)]
    both, low = (
        harmonic_mean(*(value(tmp_path, one, name) for one, name in zip(pair, ("ssim", "l1"), strict=True)))
        for pair in ((first, second), other)
    )
    table = experiment("a", "b", "c", harmonic_means={"both": ("SSIM", "L1")})
    cells = {"a": cell("a", both, "both"), "b": cell("b", low, "both")}
    found = compare(table, **cells)["a"]
    rng, means = np.random.default_rng(0), []
    by_image = np.array([[[one[seed][at] for at in samples(range(60))] for seed in (0, 1)] for one in (first, second)])
    by_image = by_image.reshape(2, 2, 60, 2).mean(axis=3)
    for _ in range(2000):
        a, b = by_image[:, :, rng.integers(60, size=60)].mean(axis=2)
        means.append((2 * a * b / (a + b)).mean())
    assert found.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)
    assert found.interval[0] < both.mean < found.interval[1]
    assert "both" not in {metric for _, metric in sampled.of_table(table, [*cells.values()], tmp_path)}


def test_scores_of_whole_sets_have_an_interval_where_it_is_known_how_they_vary(tmp_path, compare):
    shared = np.random.default_rng(5).normal(size=100)
    own = np.random.default_rng(6).normal(size=(3, 100))

    def fid(place, mean, ids="f"):
        varying = by_sample.Varying(ids, 50, {"ssim": shared - shared.mean() + 0.1 * own[place]})
        return value(tmp_path, {0: {}}, varying=varying, mean=mean)

    found = compare(
        experiment("a", "b", "c", "d"), a=fid(0, 9.0), b=fid(1, 8.9), c=fid(2, 7.0, "other images"), d=fid(2, 8.0)
    )
    assert found["a"].interval == pytest.approx(resampling.judged(9.0, shared - shared.mean() + 0.1 * own[0]).interval)
    assert not found["b"].compared.shown
    assert found["d"].compared.shown
    assert found["c"].compared is None, "halves of other images tell nothing of the difference"
    assert found["d"].compared.images == 50


def test_without_values_by_sample_it_is_said_what_is_best_and_what_was_not_tested(tmp_path, compare):
    bare = {label: replace(value(tmp_path, {0: {}}), mean=mean) for label, mean in (("a", 1.0), ("b", 0.5))}
    found = list(compare(experiment("a", "b"), **bare).values())
    assert [one.rank for one in found] == [1, 2]
    assert all(one.interval is None and one.compared is None for one in found)
    notes = " ".join(tables.notes(found))
    assert "No interval of SSIM: not run (the record has no values by sample: evaluate again)." in notes
    assert "95 %" not in notes
    assert tables.TIED not in notes
    assert [(one.compared, one.untested) for one in found] == [(None, ""), (None, "a")]
    assert "<u>0.5000</u> ° |" in (text := tables.rendered(found, "markdown"))
    assert "not tested against a" in text
    assert "°: not tested against the row that a value would be compared with (a)" in notes
    missing = value(tmp_path, scored(0.0, 0.1))
    for path in (tmp_path / "x").glob("*.safetensors"):
        path.unlink()
    assert "is not beside the record" in compare(experiment("a"), a=missing)["a"].without_interval


def test_marks_stand_in_every_form(three):
    cells = list(three.values())
    best, tied = (next(one for one in cells if one.rank == rank) for rank in (1, 2))
    number = {one.method: f"{one.value.mean:.4f} ± {one.spread:.4f} (2 seeds)" for one in cells}
    ends = {one.method: f"[{one.interval[0]:.4f}, {one.interval[1]:.4f}]" for one in cells}
    for form, (bold, underlined) in {"markdown": ("**{}**", "<u>{}</u>"), "html": ("<b>{}</b>", "<u>{}</u>")}.items():
        text = tables.rendered(cells, form)
        assert f"{bold.format(number[best.method])} {ends[best.method]}" in text
        assert f"{underlined.format(number[tied.method])} {ends[tied.method]} {tables.TIED}" in text
        assert f"no difference shown: {tied.compared.difference:+.4f} [" in text
        assert f"{number['c']} {ends['c']} " in text.replace("</td>", " ")
        assert f" from {best.method}, p = " in text
    latex = tables.rendered(cells, "latex")
    assert rf"\textbf{{{best.value.mean:.4f} \ensuremath" in latex
    assert rf"\underline{{{tied.value.mean:.4f} \ensuremath" in latex
    assert r"\ensuremath{\approx}" in latex
    header, *lines = tables.rendered(cells, "csv").splitlines()
    assert header.endswith(",".join(tables.PLAIN))
    by_row = {line.partition(",")[0]: line for line in lines}
    assert f"{tied.interval[0]},{tied.interval[1]},2,{best.method},{tied.compared.difference}" in by_row[tied.method]
    assert "<b>" not in "".join(lines)
    assert "**" not in "".join(lines)
    notes = tables.notes(cells)
    assert any(note.startswith("[a, b]: 95 % interval") for note in notes)
    assert any("all 3 pairs of rows in its columns, of which images chose these 2" in note for note in notes)


@pytest.mark.parametrize(("labels", "images", "blind"), [("ab", 5, 1), ("ab", 6, 0), ("abc", 6, 2), ("abc", 7, 0)])
def test_a_page_says_where_no_difference_could_be_shown(tmp_path, compare, labels, images, blind):
    """Exchanging rows in 6 images has 64 patterns: p is 1/32 or more, and of two tests 1/16 after Holm."""
    rows = {
        label: value(tmp_path, scored(-place, 0.01, seeds=(place,), ids=range(images)))
        for place, label in enumerate(labels)
    }
    found = list(compare(experiment(*labels), **rows).values())
    shown = [one.compared.shown for one in found if one.compared]
    assert shown == [not blind] * (len(labels) - 1), "rows are as far apart as can be"
    told = [note for note in tables.notes(found) if "could show no difference, however large" in note]
    assert [note.partition(" could")[0] for note in told] == ([f"{blind} of {len(shown)} tests"] if blind else [])


def test_the_first_test_of_many_needs_more_images_than_the_last(tmp_path, compare):
    """Holm asks less of the second p: two tests on 6 images show nothing, and one beside a smaller p does."""
    few, many = range(6), range(30)
    rows = {
        label: value(tmp_path, scored(-place, 0.01, seeds=(place,), ids=ids))
        for place, (label, ids) in enumerate(zip("abc", (many, many, few), strict=True))
    }
    found = list(compare(experiment("a", "b", "c", compared_with="a"), **rows).values())
    assert all(one.compared.shown for one in found if one.compared)
    assert not [note for note in tables.notes(found) if "could show no difference" in note]


def test_scores_of_whole_sets_have_no_smallest_p(tmp_path, compare):
    rng = np.random.default_rng(0)
    varying = [by_sample.Varying("f", 5, {"ssim": rng.normal(size=100)}) for _ in range(2)]
    rows = {
        label: value(tmp_path, {0: {}}, varying=one, mean=mean)
        for label, mean, one in zip("ab", (9.0, 8.5), varying, strict=True)
    }
    found = list(compare(experiment("a", "b"), **rows).values())
    assert [one.compared.shown for one in found if one.compared] == [False]
    assert not [note for note in tables.notes(found) if "could show no difference" in note]


def test_html_shows_names_as_they_are(tmp_path, compare):
    (found,) = compare(experiment("a"), **{"a": cell("A & <b>", value(tmp_path, scored(0.0, 0.1)))}).values()
    assert "A &amp; &lt;b&gt;" in tables.rendered([found], "html")
