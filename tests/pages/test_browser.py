"""The site in a real browser, headless: what moves, what is read aloud, what is seen in the dark; and no request."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser

KINDS = ("index.html", "ledger.html", "lint.html", "tables/small-toy.html")
TABLE = "tables/small-toy.html"
WIDTHS = (1280, 390)  # pixels: a desk and a phone
GRAVE = ("serious", "critical")
HELD = {"preload": False}  # the checker asks for style sheets once more otherwise, which pages forbid


@pytest.fixture
def opened(browser, site):
    """Opens a page of the site; at the end nothing may have been said on a console or asked of a network."""
    contexts, said, asked = [], [], []

    def open_(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / name).as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert {url.partition(":")[0] for url in asked} == {"file"}


def column(page, number):
    return [cell.strip() for cell in page.locator(f"table.results tbody tr > :nth-child({number})").all_inner_texts()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", KINDS)
def test_no_page_has_a_grave_fault(opened, name, scheme, width):
    """axe-core, with everything unfolded: contrast, names, roles, order of headings."""
    page = opened(name, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait_for_timeout(50)
    found = [fault for fault in Axe().run(page, options=HELD).response["violations"] if fault["impact"] in GRAVE]
    assert not found, json.dumps([(fault["id"], [node["html"] for node in fault["nodes"][:3]]) for fault in found])
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # tables scroll within themselves


def test_a_heading_sorts_by_mouse_and_by_key(opened):
    page = opened(TABLE)
    assert [text.split()[0] for text in column(page, 1)] == ["identity", "real", "nobody"]
    heading = page.locator("table.results thead th").nth(4)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"  # of a metric whose best is the highest
    assert [text.split()[0] for text in column(page, 1)] == ["identity", "real", "nobody"]
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [text.split()[0] for text in column(page, 1)] == ["real", "identity", "nobody"]  # without a value: last


def test_on_a_phone_only_names_stay_and_no_number_is_focused_behind_them(opened):
    page = opened(TABLE, 390)
    table = page.locator(".scroll:has(table.results)")
    row = table.locator("tbody tr").first
    table.evaluate("(one) => { one.scrollLeft = one.scrollWidth; }")
    whole, name, data = (one.bounding_box() for one in (table, row.locator("th"), row.locator("td").first))
    assert name["x"] - whole["x"] <= 1
    assert name["width"] <= 0.35 * whole["width"]
    assert data["x"] + data["width"] <= name["x"] + name["width"]  # gone with the numbers that were beside it
    numbers = row.locator("button.hint")
    numbers.last.focus()
    for number in range(numbers.count() - 2, -1, -1):
        page.keyboard.press("Shift+Tab")
        focused = numbers.nth(number)
        assert focused.evaluate("(one) => one === document.activeElement")
        assert focused.bounding_box()["x"] >= name["x"] + name["width"]


def test_a_number_shows_its_interval_when_pointed_at_and_when_focused(opened):
    page = opened(TABLE)
    number, hint = (
        page.locator("table.results tbody tr").nth(1).locator("button.hint").nth(1),
        page.get_by_role("tooltip"),
    )
    assert hint.is_hidden()
    number.hover()
    assert "95 % over images:" in hint.inner_text()
    page.mouse.move(0, 0)
    assert hint.is_hidden()
    number.focus()
    assert "95 % over images:" in hint.inner_text()
    assert number.get_attribute("aria-describedby") == hint.get_attribute("id")
    page.keyboard.press("Escape")
    assert hint.is_hidden()


def test_a_number_that_scrolls_into_view_because_it_is_focused_keeps_its_interval(opened):
    page = opened(TABLE, 390)
    number, hint = page.locator("table.results tbody tr").first.locator("button.hint").last, page.get_by_role("tooltip")
    number.focus()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # scrolled by now
    assert hint.is_visible()
    of, box = number.bounding_box(), hint.bounding_box()
    assert min(abs(box["y"] - of["y"] - of["height"]), abs(of["y"] - box["y"] - box["height"])) == pytest.approx(8, abs=1)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    hint.wait_for(state="hidden")


def test_pictures_are_compared_by_mouse_and_by_key(opened):
    page = opened(TABLE)
    viewer = page.locator(".compare").first
    share = "(one) => one.style.getPropertyValue('--at')"
    viewer.scroll_into_view_if_needed()
    box = viewer.locator(".stage").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    assert 15 < float(viewer.evaluate(share).rstrip("%")) < 35
    viewer.get_by_role("slider").press("Home")
    assert viewer.evaluate(share) == "0%"
    viewer.get_by_role("slider").press("ArrowRight")
    assert viewer.evaluate(share) == "1%"
    other = page.locator("table.samples button[data-label=real]").first
    other.press("Enter")
    assert other.get_attribute("aria-pressed") == "true"
    assert viewer.locator(".right").inner_text() == "real"
    assert viewer.locator(".after").get_attribute("src") == other.get_attribute("data-after")
    assert viewer.locator(".after").evaluate("(one) => one.naturalWidth") > 0


def test_the_dark_is_what_the_system_says_until_somebody_chooses(opened):
    page = opened("index.html", scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, button = page.evaluate(ground), page.get_by_role("button", name="Dark")
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    light = page.evaluate(ground)
    assert button.get_attribute("aria-pressed") == "false"
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == light  # kept
    assert opened("index.html", scheme="light").evaluate(ground) == light


def test_ledgers_are_filtered_by_words_and_by_status(opened):
    page = opened("ledger.html")
    shown = "#numbers tr:not([hidden])"
    assert page.locator(shown).count() == 6
    assert page.locator("[data-count=numbers]").inner_text() == "6 shown"
    page.locator("select[data-filter=numbers]").select_option("cannot be reproduced")
    assert page.locator(shown).count() == 2
    page.locator("input[data-filter=numbers]").fill("nobody")
    assert page.locator(shown).count() == 1
    assert page.locator("[data-count=numbers]").inner_text() == "1 of 6 shown"
    page.locator("select[data-filter=claims]").select_option("holds")
    assert page.locator("#claims article:not([hidden])").count() == 1


def test_charts_have_a_point_for_each_row_and_a_line_for_each_method(opened):
    page = opened(TABLE)
    points = page.locator(".scatter g[role=img]")
    assert points.count() == 2
    points.first.focus()
    assert "identity on toy CUB" in page.get_by_role("tooltip").inner_text()
    page.locator("[data-axis=x]").select_option("edit accuracy at 1 (published)")
    assert page.locator(".scatter g[role=img]").count() == 2
    drawn = "document.querySelectorAll('figure.lines .uplot canvas')"
    page.wait_for_function(f"{drawn}.length === 2")  # two metrics; they are drawn a frame later
    page.wait_for_function(
        f"[...{drawn}].every((one) => "
        "new Set(one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size > 2)"
    )


def test_everything_is_reached_by_the_tabulator(opened):
    page = opened(TABLE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.home", "BUTTON.", "DIV.scroll", "BUTTON.hint rank-1", "SUMMARY."} <= reached
