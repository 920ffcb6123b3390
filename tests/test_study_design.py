"""Designs of studies are balanced: every count is exact."""

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest

from mmbench.people.design import NOISE, balanced_orders, screens_of


def designed(kind, items, methods, questions=1, raters=1, seed=0):
    return screens_of(kind, items, methods, questions, raters, np.random.default_rng(seed))


def counted(screens):
    """Those that count."""
    return [screen for screen in screens if not screen.check]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 9])
def test_orders_balance_places_and_neighbours(count):
    orders = balanced_orders(count)
    for column in orders.T:
        assert set(Counter(column.tolist()).values()) == {len(orders) // count}
    neighbours = Counter((int(a), int(b)) for order in orders for a, b in pairwise(order))
    assert neighbours.keys() == set(permutations(range(count), 2))
    assert len(set(neighbours.values())) == 1


@pytest.mark.parametrize(("items", "methods"), [(8, 4), (12, 3), (10, 5)])
def test_ranks_show_each_method_at_each_place_equally_often(items, methods):
    for mine in designed("ranks", items, methods, questions=2, raters=2):
        for question in range(2):
            shown = [screen for screen in counted(mine) if screen.question == question]
            assert sorted(screen.item for screen in shown) == list(range(items))
            places = Counter((place, one) for screen in shown for place, one in enumerate(screen.shown))
            assert set(places.values()) == {items // methods}
            assert len(places) == methods**2


def test_ranks_show_an_item_in_every_order_over_raters():
    raters = designed("ranks", 4, 4, raters=4)
    for item in range(4):
        orders = {screen.shown for mine in raters for screen in counted(mine) if screen.item == item}
        assert len(orders) == 4


def test_pairs_come_equally_often_in_both_orders():
    raters = designed("pairs", 24, 4, raters=2)
    for mine in raters:
        pairs = Counter(screen.shown for screen in counted(mine))
        assert pairs == dict.fromkeys(permutations(range(4), 2), 2)
    first, second = ({screen.item: screen.shown for screen in counted(mine)} for mine in raters)
    assert all(second[item] == shown[::-1] for item, shown in first.items())


def test_a_rubric_shows_every_picture_once_and_methods_in_balanced_rounds():
    (mine,) = designed("rubric", 8, 4)
    shown = counted(mine)
    assert Counter((screen.item, screen.shown) for screen in shown) == {
        (item, (method,)): 1 for item in range(8) for method in range(4)
    }
    for start in range(0, 32, 8):
        part = shown[start : start + 8]
        assert {screen.item for screen in part} == set(range(8))
        assert set(Counter(screen.shown for screen in part).values()) == {2}


def test_raters_have_orders_of_their_own_and_take_turns_with_the_first_question():
    first, second = designed("ranks", 12, 3, questions=2, raters=2)
    assert [screen.item for screen in first] != [screen.item for screen in second]
    assert (first[0].question, second[0].question) == (0, 1)


@pytest.mark.parametrize("kind", ["ranks", "pairs", "rubric"])
@pytest.mark.parametrize("seed", range(5))
def test_checks_repeat_what_was_shown_before_in_the_opposite_order(kind, seed):
    (mine,) = designed(kind, 40, 3, questions=2, seed=seed)
    kinds = Counter(screen.check for screen in mine)
    assert kinds["repeat"] == kinds["noise"] == kinds[""] // 15 >= 2
    for place, screen in enumerate(mine):
        if screen.check == "repeat":
            before = [one for one in mine[:place] if (one.item, one.question) == (screen.item, screen.question)]
            assert any(one.shown == screen.shown[::-1] and not one.check for one in before)
        assert (screen.check == "noise") == (NOISE in screen.shown)
    questions = [screen.question for screen in mine]
    assert questions == sorted(questions, key=questions.index)  # checks lie in the block of their question


def test_a_seed_gives_one_design_and_another_another():
    assert designed("ranks", 8, 4, seed=1) == designed("ranks", 8, 4, seed=1)
    assert designed("ranks", 8, 4, seed=1) != designed("ranks", 8, 4, seed=2)
