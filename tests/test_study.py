"""Studies by people: what is sent names no method, and what comes back is scored and never evaluated."""

import base64
import io
import json
import re
import struct
import sys
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2
from studies import METHODS, answered, built, saved

from mmbench.__main__ import main
from mmbench.core.task import TASKS, TEXT_GUIDED_EDITING, TEXT_GUIDED_INPAINTING
from mmbench.people import gathering
from mmbench.people.answers import attention, read, read_key
from mmbench.people.collecting import collect
from mmbench.people.gathering import Made, gather
from mmbench.people.gathering import given as given_picture
from mmbench.people.questions import of_task
from mmbench.people.scoring import findings, judged, measures
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.generation import generate, prepared
from mmbench.pipeline.lookup import row_config
from mmbench.statistics.agreement import chance_of_w, kendalls_w

KINDS = ("ranks", "pairs", "rubric")


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["mmbench", "study", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def page_of(folder):
    text = (folder / "send" / "study.html").read_text(encoding="utf-8")
    return text, json.loads(re.search(r'id="study">(.*?)</script>', text, re.DOTALL)[1])


def chunks(content):
    place, found = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append(content[place + 4 : place + 8].decode())
        place += 12 + length
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_sent_names_a_method_or_asks_for_anything(tmp_path, kind):
    names = ("TDANet", "Navier-Stokes", "PatchMatch")
    key = built(tmp_path / "study", kind, names=names, real=True)
    (sent,) = (path for path in (tmp_path / "study" / "send").rglob("*") if path.is_file())
    assert sent.name == "study.html"
    text, page = page_of(tmp_path / "study")
    pictures = [base64.b64decode(one) for one in page.pop("pictures").values()]
    for name in (*names, "Ground truth", "bird/", str(tmp_path), "check", "noise"):
        assert name.lower() not in json.dumps(page).lower(), name
    for name in (*names, "Ground truth", "bird/", str(tmp_path)):
        assert name.lower() not in text.lower(), name
    for content in pictures:
        assert set(chunks(content)) == {"IHDR", "IDAT", "IEND"}  # no EXIF, no text, no time
        assert not Image.open(io.BytesIO(content)).info
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|<link|<iframe|@import|url\(|\ssrc=|fetch\(|XMLHttp|WebSocket|sendBeacon", text)
    assert text.count("</script>") == 2  # a prompt ends none
    assert page["items"][0]["prompt"] == "a red bird </script><b>"
    assert key["methods"] == [*names, "Ground truth"]
    assert read_key(tmp_path / "study" / "key.json") == key


def test_names_of_pictures_tell_no_order(tmp_path):
    key = built(tmp_path, count=30)
    _, page = page_of(tmp_path)
    assert list(page["pictures"]) == sorted(page["pictures"])
    methods = [key["pictures"][name] for name in page["pictures"] if key["pictures"].get(name, -1) >= 0]
    places = [np.mean([place for place, one in enumerate(methods) if one == method]) for method in range(3)]
    assert max(places) - min(places) < len(methods) / 4


def test_the_same_seed_sends_the_same_page(tmp_path):
    for name, seed in (("first", 4), ("again", 4), ("other", 5)):
        built(tmp_path / name, seed=seed)
    first, again, other = (
        (tmp_path / name / "send" / "study.html").read_bytes() for name in ("first", "again", "other")
    )
    assert first == again != other


@pytest.mark.parametrize("kind", KINDS)
def test_raters_with_an_order_in_mind_are_understood(tmp_path, kind):
    key = built(tmp_path, kind, count=12, raters=4)
    wanted = (0.4, 1.4, -0.6)  # PICNet worst, CSA best
    files = [saved(tmp_path / "in", answered(key, rater, wanted, 0.2), f"{rater}.json") for rater in range(1, 5)]
    collected = collect(files, key)
    assert not collected.lines
    found = findings(collected.answers, key)
    for question in key["questions"]:
        of_it = {(one.measure, one.method): one for one in found.statistics if one.question == question}
        for measure, sign in {
            "ranks": (("mean rank", -1), ("win rate", 1), ("strength", 1)),
            "pairs": (("win rate", 1), ("strength", 1)),
            "rubric": (("mean grade", 1),),
        }[kind]:
            values = [sign * of_it[measure, method].value for method in ("CSA", "TDANet", "PICNet")]
            assert values == sorted(values, reverse=True)
            best, worst = of_it[measure, "CSA"], of_it[measure, "PICNet"]
            assert best.low <= best.value <= best.high
            assert best.high < worst.low or worst.high < best.low
        agreement = [one.value for (measure, _), one in of_it.items() if "alpha" in measure or "W" in measure]
        assert len(agreement) == (2 if kind == "ranks" else 1)
        assert min(agreement) > 0.6
    assert found.counts == dict.fromkeys(key["questions"], 12 * 4 * (3 if kind == "rubric" else 1))


def test_ranks_of_raters_without_blur_are_exact(tmp_path):
    key = built(tmp_path, count=6, raters=2)
    files = [saved(tmp_path / "in", answered(key, rater), f"{rater}.json") for rater in (1, 2)]
    found = {(one.measure, one.method): one.value for one in findings(collect(files, key).answers, key).statistics}
    assert [found["mean rank", name] for name in METHODS] == [1, 2, 3]
    assert [found["win rate", name] for name in METHODS] == [1, 0.5, 0]
    assert found["Kendall's W", ""] == pytest.approx(1)
    assert found["Krippendorff's alpha (ordinal)", ""] == pytest.approx(1)


def of_random_orders(raters, items, things, seed):
    generator = np.random.default_rng(seed)
    return generator.permuted(np.tile(np.arange(1.0, things + 1), (raters, items, 1)), axis=2)


@pytest.mark.parametrize("orders", [[(1, 2, 3), (1, 2, 3), (1, 3, 2)], [(1, 2, 3), (1, 2, 3)], [(1, 2, 3), (3, 2, 1)]])
def test_p_of_w_is_that_of_all_orders(orders):
    """Few raters of three things have orders that can be counted."""
    ranks = np.array(orders, float)[:, None]
    every = np.array([*product(permutations((1.0, 2.0, 3.0)), repeat=len(orders))])
    reached = [kendalls_w(one) >= kendalls_w(ranks[:, 0]) - 1e-9 for one in every]
    chance, p = chance_of_w(ranks, np.random.default_rng(0))
    assert p == pytest.approx(np.mean(reached), abs=0.02)
    assert chance == pytest.approx(np.mean([kendalls_w(one) for one in every])) == 1 / len(orders)


def test_p_of_w_of_many_raters_is_that_of_the_chi_square():
    ranks = of_random_orders(40, 1, 5, seed=3)
    ranks[:8] = np.sort(ranks[:8], axis=2)
    statistic = 40 * 4 * kendalls_w(ranks[:, 0])
    _, p = chance_of_w(ranks, np.random.default_rng(0))
    assert 0.001 < p == pytest.approx(chi2.sf(statistic, 4), rel=0.2)


def test_p_of_w_of_raters_who_order_at_random_is_anything():
    """It is below a tenth as often as a tenth, over items of which raters have left some out."""
    found = []
    for seed in range(100):
        ranks = of_random_orders(3, 4, 4, seed)
        ranks[0, :2] = np.nan
        chance, p = chance_of_w(ranks, np.random.default_rng(seed))
        assert chance == pytest.approx((2 / 2 + 2 / 3) / 4)
        found.append(p)
    assert 3 <= np.sum(np.array(found) < 0.1) <= 19
    assert np.isnan(chance_of_w(of_random_orders(1, 4, 4, 0), np.random.default_rng(0))).all()


def test_tastes_of_their_own_are_no_agreement():
    """Raters who order alike on all items, each otherwise than the others."""
    found = []
    for seed in range(60):
        tastes = of_random_orders(4, 1, 4, seed)
        found.append(chance_of_w(np.repeat(tastes, 10, axis=1), np.random.default_rng(seed))[1])
    assert np.sum(np.array(found) < 0.1) <= 12


def test_chance_stands_beside_w(tmp_path, monkeypatch, capsys):
    key = built(tmp_path / "study", count=6, raters=2)
    files = [saved(tmp_path / "in", answered(key, rater), f"{rater}.json") for rater in (1, 2)]
    words = (*files, f"key={tmp_path / 'study' / 'key.json'}")
    assert command(monkeypatch, "score", *words) == 0
    out = capsys.readouterr().out
    told = re.search(r"Kendall's W: 1\.000 \[1\.000, 1\.000\], 0\.500 by chance, p = (0\.\d{4})\n", out)
    assert float(told[1]) == pytest.approx(1 / 6, abs=0.02)  # one order of six is the first's
    assert "by chance: the mean of raters who have nothing in common" in out
    assert out.count("by chance") == 2
    assert command(monkeypatch, "score", *words, "format=json") == 0
    of = {one["measure"]: one for one in json.loads(capsys.readouterr().out)["statistics"]}
    assert (of["Kendall's W"]["chance"], round(of["Kendall's W"]["p"], 4)) == (0.5, float(told[1]))
    assert of["win rate"]["p"] is None
    assert command(monkeypatch, "score", files[0], words[-1]) == 0
    assert "Kendall's W: -\n" in capsys.readouterr().out  # of one rater


def test_ties_are_half_a_win_of_each(tmp_path):
    key = built(tmp_path, "pairs", count=6, raters=1)
    path = saved(tmp_path / "in", answered(key, utilities=(1, 1, 1)), "1.json")
    found = {(one.measure, one.method): one.value for one in findings(collect([path], key).answers, key).statistics}
    assert [found["win rate", name] for name in METHODS] == [0.5, 0.5, 0.5]
    assert [found["strength", name] for name in METHODS] == pytest.approx([0, 0, 0], abs=1e-6)
    assert found["Krippendorff's alpha (nominal)", ""] is None  # of one rater


def test_published_ranks_stand_beside(tmp_path, monkeypatch, capsys):
    built(tmp_path / "study", count=6, raters=1, questions=("naturalness", "text"), real=True)
    key = read_key(tmp_path / "study" / "key.json")
    path = saved(tmp_path / "in", answered(key, utilities=(2, 1, 0, 3)), "1.json")
    assert command(monkeypatch, "score", path, f"key={tmp_path / 'study' / 'key.json'}") == 0
    out = capsys.readouterr().out
    naturalness, text = out.split("## text")
    for part, numbers in ((naturalness, ("2.531", "2.981", "3.178", "1.208")), (text, ("2.106", "3.060", "3.469"))):
        for number in numbers:
            assert number in part
    assert "The published user rank is of Ground truth, CSA, PICNet, TDANet on CUB + COCO" in out
    assert "cannot be compared" not in out
    built(tmp_path / "fewer", count=6, raters=1)
    key = read_key(tmp_path / "fewer" / "key.json")
    path = saved(tmp_path / "in", answered(key), "2.json")
    assert command(monkeypatch, "score", path, f"key={tmp_path / 'fewer' / 'key.json'}") == 0
    assert "ranks among other methods cannot be compared" in capsys.readouterr().out


def test_published_ranks_of_several_data_sets_stand_apart(tmp_path, monkeypatch, capsys):
    """A method has a rank on each; of one that was not judged there, none."""
    printed = {"CUB": {"TDANet": "1.25", "CSA": "2.50", "PICNet": "2.75"}, "COCO": {"TDANet": "1.75", "CSA": "1.50"}}
    lines = [
        {"metric": "user rank", "protocol": "naturalness", "dataset": data, "method": method, "value": value}
        for data, values in printed.items()
        for method, value in values.items()
    ]
    monkeypatch.setattr("mmbench.people.scoring.listed", lambda experiment: {"user study": lines})
    key = built(tmp_path / "study", raters=1)
    words = saved(tmp_path / "in", answered(key), "1.json"), f"key={tmp_path / 'study' / 'key.json'}"
    assert command(monkeypatch, "score", *words) == 0
    out = capsys.readouterr().out
    head, _, *rows = [[word.strip() for word in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    shown = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert [shown[name]["published on CUB"] for name in METHODS] == ["1.25", "2.50", "2.75"]
    assert [shown[name]["published on COCO"] for name in METHODS] == ["1.75", "1.50", "-"]
    assert "The published user rank is of TDANet, CSA, PICNet on CUB.\n" in out
    assert "is of TDANet, CSA on COCO: ranks among other methods cannot be compared number by number.\n" in out
    assert command(monkeypatch, "score", *words, "format=csv") == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith(",high,chance,p,published on CUB,published on COCO")
    assert [line for line in rest if line.startswith("naturalness,mean rank,TDANet") and line.endswith(",1.25,1.75")]
    assert command(monkeypatch, "score", *words, "format=json") == 0
    of_rank = {
        one["method"]: one for one in json.loads(capsys.readouterr().out)["statistics"] if "rank" in one["measure"]
    }
    assert of_rank["CSA"]["published"] == {"CUB": "2.50", "COCO": "1.50"}
    assert of_rank["PICNet"]["published"] == {"CUB": "2.75"}


@pytest.mark.parametrize("kind", KINDS)
def test_who_does_not_look_is_left_out_and_counted(tmp_path, kind):
    key = built(tmp_path, kind, raters=2)
    careful, careless = answered(key, 1), answered(key, 2)
    for screen in key["raters"][1]:
        if screen["check"] == "noise":
            value = careless["answers"][screen["id"]]["value"]
            noise = next(name for name in screen["pictures"] if key["pictures"][name] == -2)
            careless["answers"][screen["id"]]["value"] = (
                value[::-1] if kind == "ranks" else noise if kind == "pairs" else 0.5
            )
    files = [saved(tmp_path / "in", one, f"{one['rater']}.json") for one in (careful, careless)]
    collected = collect(files, key)
    assert [one.rater for one in collected.answers] == [1]
    assert "2.json: rater 2 failed attention checks (0 of 2 right with noise" in collected.lines[0]
    assert collected.lines[-1] == "1 of 2 raters failed attention checks"
    assert [one.rater for one in collect(files, key, keep_failed=True).answers] == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_who_turns_more_repeats_over_than_chance_does_is_left_out(tmp_path, kind):
    key = built(tmp_path, kind, raters=1)
    content = answered(key, utilities=(2, 2.5, 3) if kind == "rubric" else (2, 1, 0))
    for screen in key["raters"][0]:
        if screen["check"] == "repeat":
            value = content["answers"][screen["id"]]["value"]
            others = [name for name in screen["pictures"] if name != value]
            turned = {"ranks": value[::-1] if kind == "ranks" else None, "pairs": others[0], "rubric": 0}
            content["answers"][screen["id"]]["value"] = turned[kind]
    found = attention(read(saved(tmp_path, content, "a.json"), key), key)
    assert (found.turned, found.repeated) == (2, 2)
    assert found.failed is (kind != "pairs"), "of two pairs both are turned by a fourth of those who see no difference"
    assert not attention(read(saved(tmp_path, answered(key), "b.json"), key), key).failed


def test_partial_double_foreign_and_damaged_files_are_a_line_each(tmp_path, monkeypatch, capsys):
    key = built(tmp_path / "study", raters=3)
    other = built(tmp_path / "other", seed=9)
    folder = tmp_path / "in"
    saved(folder, answered(key, 1, saved="2026-01-01T00:00:00Z"), "old.json")
    saved(folder, answered(key, 1, saved="2026-01-03T00:00:00Z", only=7), "newest.json")
    saved(folder, answered(key, 1, saved="2026-01-02T00:00:00Z"), "new.json")
    saved(folder, answered(key, 2, only=7), "part.json")
    saved(folder, answered(other, 1), "foreign.json")
    saved(folder, json.dumps(answered(key, 2))[:200], "cut.json")
    saved(folder, answered(key, 3), "three.json")
    saved(folder, "__import__('os').system('touch evaluated')", "evil.json")
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "score", folder, f"key={tmp_path / 'study' / 'key.json'}", "format=json") == 0
    out, errors = capsys.readouterr()
    lines = errors.splitlines()
    assert len(lines) == 6
    for word, said in {
        "old.json: ": "new.json of rater 1 was saved later: left out",
        "newest.json: ": "new.json of rater 1 has more answers: left out",
        "part.json: rater 2 answered 7 of": "screens, which are scored",
        "foreign.json": f"expected answers to study {key['study'][:8]}",
        "cut.json": "expected a whole file of JSON",
        "evil.json": "expected a whole file of JSON",
    }.items():
        assert any(word in line and said in line for line in lines), word
    found = json.loads(out)
    assert [rater["rater"] for rater in found["raters"]] == [1, 2, 3]
    assert len(found["raters"][1]["answers"]) == 7
    assert {name for one in found["raters"][1]["answers"] for name in one["shown"]} == {*METHODS, "real", "noise"}
    assert not (tmp_path / "evaluated").exists()


def by_another(given, number):
    """The answers of somebody who took another time for each."""
    return {name: one | {"seconds": number + place / 1000} for place, (name, one) in enumerate(given.items())}


@pytest.mark.parametrize("kind", KINDS)
def test_all_who_finish_are_scored_whatever_their_number(tmp_path, monkeypatch, capsys, kind):
    """Five people with a page for one; one of them saved twice, and one half-way."""
    key = built(tmp_path / "study", kind, raters=1)
    wanted = {"ranks": (2, 1, 0), "pairs": (1, 2, 0), "rubric": (1, 0, 0)}[kind]
    for number in range(1, 6):
        content = answered(key, utilities=wanted, saved=f"2026-01-0{number}T00:00:00Z")
        content["answers"] = by_another(content["answers"], number)
        saved(tmp_path / "in", content, f"{number}.json")
    saved(tmp_path / "in", content | {"saved": "2026-01-06T00:00:00Z"}, "again.json")
    half = dict([*content["answers"].items()][:5])
    saved(tmp_path / "in", content | {"answers": half}, "before.json")
    saved(tmp_path / "in", content | {"answers": by_another(half, 9)}, "half.json")
    collected = collect([tmp_path / "in"], key)
    assert sorted(one.path.name for one in collected.answers) == ["1.json", "2.json", "3.json", "4.json", "again.json"]
    said = "\n".join(collected.lines)
    assert re.search(r"\b5\.json: \S+ of rater 1 (has|was)", said)
    assert re.search(r"\bbefore\.json: \S+ of rater 1 (has|was)", said)
    assert re.search(r"\bhalf\.json: \S+ of rater 1 (has|was)", said)
    assert "5 people have answered as rater 1: all are scored" in said
    assert len(collected.lines) == 4
    words = (tmp_path / "in", f"key={tmp_path / 'study' / 'key.json'}")
    assert command(monkeypatch, "score", *words) == 0
    assert f"{kind} by 5 raters (1 planned), 6 items" in capsys.readouterr().out
    found = findings(collected.answers, key)
    assert found.counts == {"naturalness": 6 * 5 * (3 if kind == "rubric" else 1)}
    assert any("alpha" in one.measure and one.value == pytest.approx(1) for one in found.statistics)


def test_of_a_number_under_which_nobody_finished_the_fullest_file_counts(tmp_path):
    key = built(tmp_path / "study", raters=1)
    for number in (4, 6, 5):
        content = answered(key, only=number)
        saved(tmp_path / "in", content | {"answers": by_another(content["answers"], number)}, f"{number}.json")
    collected = collect([tmp_path / "in"], key)
    assert [one.path.name for one in collected.answers] == ["6.json"]
    assert sum("6.json of rater 1 " in line for line in collected.lines) == 2


def test_nothing_to_score_is_one_line(tmp_path, monkeypatch, capsys):
    built(tmp_path / "study")
    path = saved(tmp_path / "in", "[]", "bad.json")
    assert command(monkeypatch, "score", path, f"key={tmp_path / 'study' / 'key.json'}") == 1
    (*_, last) = capsys.readouterr().err.splitlines()
    assert last.startswith("mmbench: error: expected answers to score, found none")
    assert command(monkeypatch, "score", path, f"key={path}") == 1
    assert "name the key.json" in capsys.readouterr().err


def moved(key):
    """A screen shows what belongs to another item."""
    first, other = (next(s for s in key["raters"][0] if s["item"] == item and not s["check"]) for item in (0, 3))
    first["pictures"] = other["pictures"]


def renamed(key):
    """Two pictures of an item are of one method."""
    screen = next(screen for screen in key["raters"][0] if not screen["check"])
    key["pictures"][screen["pictures"][0]] = (key["pictures"][screen["pictures"][0]] + 1) % 3


def unasked(key):
    """A repeat repeats another item."""
    screen = next(screen for screen in key["raters"][1] if screen["check"] == "repeat")
    screen["item"] = (screen["item"] + 1) % 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved, "expected"),
        (renamed, "expected"),
        (unasked, "expected"),
        (lambda key: key["raters"][1].pop(0), "screens of a rater, each question of each item, found"),
        (lambda key: key["raters"][0].append(key["raters"][0][-1]), "each screen of a rater once, found one twice"),
        (lambda key: key["raters"].pop(), "expected pictures that a screen shows, found"),
        (lambda key: key["raters"].clear(), "expected items and raters, found 6 and 0"),
        (lambda key: key["items"].pop(), "expected screens of pictures that it has"),
        (lambda key: key["items"].append(key["items"][0]), "screens of a rater, each question of each item, found"),
        (lambda key: key["items"][0].pop("id"), "expected the keys id, caption, draw of an item"),
        (lambda key: key["methods"].append("TDANet"), "expected each method once, found one twice"),
    ],
)
def test_a_key_that_does_not_belong_to_its_items_is_refused_in_one_line(
    tmp_path, monkeypatch, capsys, kind, change, said
):
    key = built(tmp_path / "study", kind, raters=2)
    answers = saved(tmp_path / "in", answered(key), "1.json")
    change(key)
    path = saved(tmp_path, key, "key.json")
    assert command(monkeypatch, "score", answers, f"key={path}") == 1
    out, errors = capsys.readouterr()
    assert not out
    (line,) = errors.splitlines()
    assert line.startswith(f"mmbench: error: {path}: expected ")
    assert ", found " in line
    assert said in line
    assert line.endswith(": name the key.json that was written with the study")


def test_a_build_that_is_killed_leaves_no_page_without_its_key(tmp_path, monkeypatch):
    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmbench.people.building.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path)
    assert not (tmp_path / "send").exists()
    key = read_key(tmp_path / "key.json")
    monkeypatch.undo()
    assert built(tmp_path)["study"] == key["study"], "and is done again"


def test_the_key_of_another_study_is_not_written_over(tmp_path):
    first = built(tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("send/study.html", "key.json")]
    with pytest.raises(ValueError, match=f"of another study .* of study {first['study'][:8]}.* name another folder"):
        built(tmp_path, seed=1)
    assert [(tmp_path / name).read_bytes() for name in ("send/study.html", "key.json")] == before
    saved(tmp_path, "{", "key.json")
    with pytest.raises(ValueError, match="of study unknown"):
        built(tmp_path)


def test_scores_replace_neither_the_key_nor_answers(tmp_path, monkeypatch, capsys):
    key = built(tmp_path / "study")
    answers, path = saved(tmp_path / "in", answered(key), "1.json"), tmp_path / "study" / "key.json"
    for out in (path, answers):
        before = out.read_bytes()
        assert command(monkeypatch, "score", answers, f"key={path}", f"out={out}") == 1
        assert "expected out= beside what is read" in capsys.readouterr().err
        assert out.read_bytes() == before
    assert command(monkeypatch, "score", answers, f"key={path}", f"out={tmp_path / 'scores.md'}") == 0
    assert "## naturalness" in (tmp_path / "scores.md").read_text(encoding="utf-8")


def test_an_empty_file_does_not_replace_answers(tmp_path):
    key = built(tmp_path / "study", raters=1)
    whole = saved(tmp_path / "in", answered(key, saved="2026-01-01T00:00:00Z"), "whole.json")
    empty = saved(tmp_path / "in", answered(key, saved="2026-01-02T00:00:00Z", only=0), "empty.json")
    collected = collect([whole, empty], key)
    assert [one.path for one in collected.answers] == [whole]
    assert collected.lines == [f"{empty}: rater 1 answered nothing: left out"]
    with pytest.raises(ValueError, match=r"found none .*answered nothing"):
        collect([empty], key)


@pytest.mark.parametrize("kind", KINDS)
def test_few_answers_claim_no_certainty(tmp_path, kind):
    """Of one item there is no interval, and of a question that nobody answered no number."""
    key = built(tmp_path / "study", kind, raters=1, questions=("naturalness", "text"))
    item = key["raters"][0][0]["item"]
    content = answered(key)
    mine = {one["id"] for one in key["raters"][0] if (one["item"], one["question"], one["check"]) == (item, 0, "")}
    content["answers"] = {name: value for name, value in content["answers"].items() if name in mine}
    found = findings(collect([saved(tmp_path, content, "a.json")], key).answers, key)
    assert found.counts == {"naturalness": 3 if kind == "rubric" else 1, "text": 0}
    of = {question: [one for one in found.statistics if one.question == question] for question in found.counts}
    assert any(one.value is not None for one in of["naturalness"])
    assert all(one.low is None and one.high is None for one in found.statistics)
    assert all(one.value is None for one in of["text"])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("__import__('os').getpid()"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return {kind: built(tmp_path_factory.mktemp(kind), kind, count=3, raters=2) for kind in KINDS}


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_comes_back_is_read_or_refused_in_one_line(keys, somewhere, data):
    key = keys[data.draw(st.sampled_from(KINDS))]
    content = answered(key)
    for _ in range(data.draw(st.integers(1, 2))):
        node = data.draw(st.sampled_from([content, content["answers"], *content["answers"].values()]))
        if isinstance(node, dict):
            name = data.draw(st.sampled_from([*node, "more"]))
            node[name] = data.draw(JSON)
        if not isinstance(content.get("answers"), dict):
            break
    path = saved(somewhere, content, "a.json")
    refused = ""
    try:
        found = read(path, key)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert "expected" in refused
        assert len(refused) < 400
    else:
        assert measured(found, key)


def measured(found, key):
    """The scores of what was read, without intervals, which take a second."""
    attention(found, key)
    scores = judged(key["kind"], [found], key, 0)
    return [measure(np.arange(len(key["items"]))) for measure in measures(key["kind"], scores).values()]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused_in_one_line(keys, somewhere, content):
    path = somewhere / "b.json"
    path.write_bytes(content)
    for reading in (lambda: read(path, keys["ranks"]), lambda: read_key(path)):
        with pytest.raises(ValueError, match="expected"):
            reading()


def test_deep_and_large_files_are_refused(keys, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="whole file of JSON"):
        read(saved(tmp_path, "[" * 100_000, "deep.json"), keys["ranks"])
    monkeypatch.setattr("mmbench.people.answers.LARGEST", 10)
    with pytest.raises(ValueError, match="at most"):
        read(saved(tmp_path, answered(keys["ranks"]), "large.json"), keys["ranks"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected `mmbench study build` or"),
        (("make",), "expected an action of study"),
        (("build", "kind=ranks", "n=4"), "expected experiment="),
        (("build", "experiment=tdanet", "kind=rank", "n=4"), "did you mean ranks"),
        (("build", "experiment=tdanet", "kind=ranks", "n=0"), "expected n=N, a whole number of 1"),
        (("build", "experiment=tdanet", "kind=ranks", "n=4", "questions=natural"), "did you mean naturalness"),
        (("build", "experiment=tdanet", "kind=ranks", "n=4", "rows=csaa"), "did you mean csa"),
        (("build", "experiment=tdanet", "kind=ranks", "n=4", "data=celeba_hq"), "expected a data set of tdanet"),
        (("build", "experiment=tdanet", "kind=ranks", "n=4", "column=centre"), "did you mean center"),
        (("build", "experiment=tdanet", "kind=ranks", "n=4", "real=yes"), "expected real=true or real=false"),
        (("build", "experiment=tdanet", "kind=ranks", "n=4", "data.source=toy"), "rows of tdanet with pictures"),
        (("score", "key=k.json"), "expected files of answers, found none"),
        (("score", "a.json"), "expected key="),
        (("score", "a.json", "key=k.json", "keep=all"), "expected keep=failed"),
        (("score", "a.json", "key=k.json", "format=xml"), "expected a format"),
        (("score", "a.json", "key=k.json", "seed=1"), "expected an option of study score"),
        (("score", "a.json", "key=k.json"), "k.json: expected a file that can be read"),
    ],
)
def test_mistakes_in_words_are_one_line(home, monkeypatch, capsys, words, said):
    assert command(monkeypatch, *words) == 1
    out, errors = capsys.readouterr()
    assert said in errors.splitlines()[-1]
    assert not out
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "pairs", "count": 2}, "n of at least 3"),
        ({"names": ("A",)}, "two rows or more"),
        ({"names": tuple("ABCDEFGHIJ")}, "at most 9 pictures"),
    ],
)
def test_numbers_that_make_no_study_are_refused(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        built(tmp_path, **changed)
    assert not any(tmp_path.iterdir())


def test_a_study_of_what_an_experiment_has_made(home, monkeypatch, capsys):
    """From run folders to scores: identity and real of the demo, whose other rows have made nothing."""
    words = ("data.toy_images=40", "trainer=cpu", "data.module.image_size=16")
    experiment = load("demo")
    for row in experiment.rows[:2]:
        generate(prepared(row_config(experiment, row, "strict", "toy", 0, words)))
    capsys.readouterr()
    next((home / "runs" / "real-cub-toy").rglob("*.k0.png")).unlink()
    build = ("build", "experiment=demo", "n=4", "raters=2", "questions=naturalness", "data.source=toy", *words)
    assert command(monkeypatch, *build, "kind=pairs", "out=study") == 0
    out, errors = capsys.readouterr()
    assert "send: study/send/study.html" in out
    assert "raters: 2 have orders of their own: each opens it with #r=1 to #r=2" in out
    assert "more may share a number, and all who finish are scored" in out
    assert errors.count("left out: ManiGAN main module") == 2
    assert "real: 1 pictures are not made yet" in errors
    key = read_key(home / "study" / "key.json")
    assert key["methods"] == ["identity", "real"]
    assert key["questions"] == ["naturalness"]
    assert [row["method"] for row in key["rows"]] == ["identity", "real"]
    text, page = page_of(home / "study")
    assert "identity" not in text
    assert all(item["prompt"] and item["input"] for item in page["items"])
    for screen in key["raters"][0]:  # what is given comes back unchanged from identity
        for name in screen["pictures"]:
            if key["pictures"][name] == 0:
                assert page["pictures"][name] == page["pictures"][page["items"][screen["item"]]["input"]]
    files = [saved(home / "in", answered(key, rater, (1, 0)), f"{rater}.json") for rater in (1, 2)]
    assert command(monkeypatch, "score", *files, "key=study/key.json", "format=csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "question,measure,method,value,low,high,chance,p,published"
    assert "naturalness,win rate,identity,1.0,1.0,1.0,,," in lines
    assert command(monkeypatch, *build, "kind=pairs", "out=study", "seed=1") == 1
    assert "expected no key of another study in this folder, found study/key.json" in capsys.readouterr().err
    alone = (word for word in build if not word.startswith("raters="))
    assert command(monkeypatch, *alone, "kind=pairs", "out=alone") == 0
    assert "raters: one order, that of raters=1: more people may answer in it, and all who" in capsys.readouterr().out
    assert command(monkeypatch, *build, "kind=ranks", "rows=manigan_main") == 1
    assert "makes them" in capsys.readouterr().err
    gathered = gather(experiment, "toy", "runs", None, None, [], words)
    with pytest.raises(ValueError, match="expected n of at most"):
        gathered.items(10_000, 0)


def test_rows_that_are_asked_for_are_looked_for_on_one_data_set_after_the_other(monkeypatch):
    """Those that have pictures on the second; of one that has all but one of them, none is taken in silence."""

    def made(experiment, row, *asked):
        if (row.data, row.method) in lacking:
            raise ValueError("none are made")
        return TEXT_GUIDED_EDITING, None, "test", 0, Made(row.label, {"data": row.data}, {}, 0)

    monkeypatch.setattr(gathering, "_made", made)
    experiment = load("manigan").on("toy")
    asked = experiment, "toy", "runs", None, None, ["sisgan", "tagan"], []
    lacking = {("cub", "sisgan"), ("cub", "tagan")}
    assert [row.facts["data"] for row in gather(*asked).rows] == ["coco", "coco"]
    lacking = {("cub", "tagan")}
    with pytest.raises(ValueError, match=r"^TAGAN on cub: none are made: .* makes them"):
        gather(*asked)
    assert [row.label for row in gather(*asked[:-2], [], []).rows if row.label in ("SISGAN", "TAGAN")] == ["SISGAN"]


def test_questions_are_those_that_a_task_allows():
    names = {"text-guided editing": 3, "text-guided inpainting": 2, "text-to-image synthesis": 2}
    for task, count in {**names, "class-conditional synthesis": 1, "super-resolution": 1}.items():
        assert of_task(TASKS[task]) == ["naturalness", "text", "preservation"][:count]


def test_holes_are_striped_and_known_pixels_kept():
    image, mask = torch.full((3, 48, 48), -1.0), torch.zeros(1, 48, 48)
    mask[:, :24] = 1
    shown = given_picture(TEXT_GUIDED_INPAINTING, {"image": image, "mask": mask})
    assert set(np.unique(shown[:24])) == {96, 160}
    assert (shown[24:] == 0).all()


def test_who_fails_the_checks_takes_nobodys_place(tmp_path):
    """A whole file that fails them beside one of somebody else with the same number that is not whole."""
    key = built(tmp_path, count=8, raters=1)
    bad = answered(key)
    checks = [screen["id"] for screen in key["raters"][0] if screen["check"]]
    for name in checks:
        bad["answers"][name] = {**bad["answers"][name], "value": bad["answers"][name]["value"][::-1]}
    honest = answered(key, only=len(key["raters"][0]) - 1)
    files = [saved(tmp_path / "in", bad, "bad.json"), saved(tmp_path / "in", honest, "honest.json")]
    collected = collect(files, key)
    assert [one.path.name for one in collected.answers] == ["honest.json"]
    assert "1 of 2 raters failed attention checks" in collected.lines
