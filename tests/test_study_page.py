"""The page of a study in a real browser: answered by keyboard and by touch, kept, saved and scored."""

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from studies import answer, built

from mmbench.people.answers import read
from mmbench.people.collecting import collect
from mmbench.people.scoring import findings

pytestmark = pytest.mark.browser
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
UTILITIES = (2, 1, 0)


@pytest.fixture
def opened(browser):
    """Opens a study as a rater; every message of its console, every error and every request stays in `heard`."""
    contexts, heard = [], []

    def at(folder, rater=1, look=DESK, context=None):
        if context is None:
            context = browser.new_context(**look)
            context.set_default_timeout(20_000)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        address = (folder / "send" / "study.html").as_uri()
        page.goto(f"{address}#r={rater}" if rater else address)
        return page

    yield at
    for context in contexts:
        context.close()
    assert [one for one in heard if not one.startswith(("file:", "data:", "blob:"))] == []


def keys_for(key, screen, utilities=UTILITIES):
    """What somebody with utilities in mind presses."""
    said = answer(key, screen, utilities)
    if key["kind"] == "rubric":
        return [str([0, 0.5, 1].index(said) + 1)]
    if key["kind"] == "pairs":
        return ["0" if said is None else str(screen["pictures"].index(said) + 1)]
    return [str(screen["pictures"].index(name) + 1) for name in said[:-1]] + ["Enter"]


def download(page, button, folder):
    with page.expect_download() as waiting:
        page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def faults(page):
    """What axe-core finds serious."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["impact"]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("kind", ["ranks", "pairs", "rubric"])
def test_a_study_is_answered_by_keyboard(opened, tmp_path, kind):
    key = built(tmp_path, kind, count=3, raters=2, questions=("naturalness", "text"))
    page = opened(tmp_path, 2)
    assert not faults(page)
    page.focus("#begin")
    page.keyboard.press("Enter")
    for number, screen in enumerate(key["raters"][1]):
        assert page.inner_text("#count") == f"{number + 1} of {len(key['raters'][1])}"
        for pressed in keys_for(key, screen):
            page.keyboard.press(pressed)
        if number == 0:
            assert not faults(page)
    assert page.is_visible("#end")
    assert not faults(page)
    path = download(page, "#save", tmp_path)
    assert re.fullmatch(rf"answers-{key['study'][:8]}-r2-\d{{8}}T\d{{6}}\.json", path.name)
    found = read(path, key)
    expected = {screen["id"]: answer(key, screen, UTILITIES) for screen in key["raters"][1]}
    assert {name: value for name, (value, _) in found.given.items()} == expected
    (mine,) = collect([path], key).answers
    statistics = {(one.measure, one.method): one.value for one in findings([mine], key).statistics}
    measure = "mean grade" if kind == "rubric" else "win rate"
    assert statistics[measure, "TDANet"] > statistics[measure, "PICNet"]


def test_undo_arrows_and_enter(opened, tmp_path):
    key = built(tmp_path, "ranks", count=3, raters=1)
    first, second = key["raters"][0][:2]
    page = opened(tmp_path)
    page.click("#begin")
    page.keyboard.press("2")
    page.keyboard.press("Backspace")
    assert page.locator("#choices [aria-pressed=true]").count() == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")  # the second
    assert page.locator("#choices button").nth(1).inner_text().split()[-1] == "1st"
    assert page.is_disabled("#next")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")  # the first; with two of three the last has its place
    page.wait_for_selector("#next:focus")
    page.keyboard.press("u")
    assert page.locator("#choices [aria-pressed=true]").count() == 1
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    assert page.inner_text("#count").startswith("2 of")
    page.keyboard.press("Backspace")
    assert page.inner_text("#count").startswith("1 of")
    assert page.locator("#choices [aria-pressed=true]").count() == len(first["pictures"])
    page.locator("#choices button").nth(1).click()  # who was first steps down
    page.locator("#choices button").nth(1).click()
    page.keyboard.press("Enter")
    found = read(download(page, "#save-now", tmp_path), key)
    names = first["pictures"]
    assert found.given[first["id"]][0][0] == names[0]
    assert second["id"] not in found.given


def test_answers_are_kept_and_each_rater_has_his_own(opened, tmp_path):
    key = built(tmp_path, "pairs", count=3, raters=2)
    page = opened(tmp_path, 1)
    page.click("#begin")
    page.keyboard.press("1")
    page.keyboard.press("0")
    page.reload()
    count = len(key["raters"][0])
    assert page.inner_text("#begin") == f"Go on (2 of {count} answered)"
    page.click("#begin")
    assert page.inner_text("#count") == f"3 of {count}"
    other = opened(tmp_path, None, context=page.context)  # without a number it is asked for
    assert other.is_visible("#rater")
    other.select_option("#rater", "2")
    assert other.inner_text("#begin").startswith("Begin")
    evil = json.dumps({"s0000": {"value": "evil", "seconds": 1}})
    other.evaluate("([name, text]) => localStorage.setItem(name, text)", [f"study-{key['study']}-2", evil])
    other.select_option("#rater", "1")
    other.select_option("#rater", "2")
    assert other.inner_text("#begin").startswith("Begin")  # what fits no screen is forgotten
    stranger = opened(tmp_path, 9, context=page.context)
    assert "no 9" in stranger.inner_text("#warning")


def test_the_next_person_at_one_device_starts_anew(opened, tmp_path):
    """It is asked first, the answers are offered as a file before they go, and both people are scored."""
    key = built(tmp_path / "study", "ranks", count=3, raters=1)
    screens = key["raters"][0]

    def answer_all(page, utilities):
        page.focus("#begin")
        page.keyboard.press("Enter")
        for screen in screens:
            for pressed in keys_for(key, screen, utilities):
                page.keyboard.press(pressed)
        assert page.is_visible("#end")

    def kept():
        return page.evaluate("Object.keys(localStorage).length")

    page = opened(tmp_path / "study")
    assert not page.is_visible("#another")  # nobody has answered
    answer_all(page, UTILITIES)
    page.reload()
    page.focus("#another .anew")
    page.keyboard.press("Enter")
    assert page.inner_text("#kept").startswith(f"{len(screens)} of {len(screens)} answers are kept here")
    assert "have not been saved" in page.inner_text("#kept-as")
    assert not faults(page)
    page.keyboard.press("Escape")
    assert (page.is_visible("#asking"), kept()) == (False, 1)
    page.click("#another .anew")
    page.click("#stay")
    assert (page.is_visible("#asking"), kept()) == (False, 1)
    page.click("#begin")
    page.focus("#end .anew")
    page.keyboard.press("Enter")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")  # the first of the buttons saves
    files = [tmp_path / "first.json"]
    waiting.value.save_as(files[0])
    assert page.inner_text("#kept-as").startswith("Saved as answers-")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.is_visible("#start")
    assert not page.is_visible("#asking")
    assert not page.is_visible("#another")
    assert page.inner_text("#begin").startswith("Begin")
    assert kept() == 0
    answer_all(page, UTILITIES[::-1])
    assert not page.inner_text("#saved")
    files.append(download(page, "#save", tmp_path))
    first, second = collect(files, key).answers
    assert first.rater == second.rater == 1
    for found, utilities in zip(sorted((first, second), key=lambda one: one.saved), (UTILITIES, UTILITIES[::-1])):
        expected = {screen["id"]: answer(key, screen, utilities) for screen in screens}
        assert {name: value for name, (value, _) in found.given.items()} == expected


def test_a_phone_in_the_dark(opened, tmp_path):
    key = built(tmp_path, "ranks", count=3, raters=1)
    page = opened(tmp_path, 1, PHONE)
    assert not faults(page)
    page.tap("#begin")
    assert not faults(page)
    for screen in key["raters"][0]:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for name in answer(key, screen, UTILITIES)[:-1]:
            page.tap(f"[data-id='{name}']")
        page.tap("#next")
    content = json.loads(download(page, "#save", tmp_path).read_text(encoding="utf-8"))
    assert len(content["answers"]) == len(key["raters"][0])
