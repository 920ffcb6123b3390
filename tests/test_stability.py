"""What stands under a table of its rankings."""

import numpy as np
import pytest
from planted import experiment, samples, stand_in

from mmbench.pipeline import cells, stability, tables


def _page(monkeypatch, rows, *names, **more):
    stand_in(monkeypatch, "results", rows)
    table = experiment(*names, **more)
    found = cells.cells_of(table, "toy", [0, 1], [], {"assets": "a"}, {}, table.rows)
    return table, found, stability.sentences(table, found, "results")


def _row(*means, sim=1.0):
    """Ten images about each seed's mean; `sim` is recorded without values by sample."""
    spread = np.linspace(-0.1, 0.1, 10)
    return {seed: {"diff": samples(mean + spread), "sim@toy": sim} for seed, mean in enumerate(means)}


def test_a_page_says_how_stable_the_ranking_of_its_rows_is(home, monkeypatch):
    rows = {"a": _row(1, 1.2, sim=1), "b": _row(2, 3, sim=2), "c": _row(3, 2.2, sim=3), "reference": _row(0, 0, sim=9)}
    table, found, told = _page(monkeypatch, rows, *rows)
    seeds, metrics, images = told
    assert seeds.endswith(": +0.33 of diff on birds, +1.00 of sim on birds.")  # one of three pairs changes its order
    assert metrics.endswith(": -1.00 on birds (diff and sim).")  # lower is better of diff; its means are 1.1, 2.5, 2.6
    assert images.endswith(": always or nearly so (0.95 and more) a of diff on birds.")
    page = tables.document(table, "toy", [0, 1], found, told)
    assert page.index(seeds) < page.index("| method ", page.index(seeds)), "under the table at a glance"


def test_rows_that_are_close_share_the_first_place(home, monkeypatch):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 50))
    noise -= noise.mean(axis=1, keepdims=True)
    rows = {name: {0: {"diff": samples(shift + one)}} for name, shift, one in zip("abc", (0, 0, 9), noise, strict=True)}
    (told,) = _page(monkeypatch, rows, *"abc", seeds=[0])[2]
    begin, likely = told.split(": ")
    assert begin == "How often each row is the best when images are drawn again"
    shares = {part.split()[0]: float(part.split()[1]) for part in likely.split(" of ")[0].split(", ")}
    assert shares.keys() == {"a", "b"}
    assert list(shares.values()) == pytest.approx([0.5, 0.5], abs=0.05)


def test_two_rows_have_no_ranking_to_speak_of(home, monkeypatch):
    rows = {"a": _row(1, 2), "b": _row(2, 1), "reference": _row(0, 0)}
    assert _page(monkeypatch, rows, *rows)[2] == []
