"""The site as files: links, escapes, counts, the same bytes again, and what is left alone."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small import LINT, WORDS

from mmbench.commands import report
from mmbench.core.files import sha256_bytes
from mmbench.pipeline.stages import Stage
from mmbench.site import building, charts, gathering, samples


class Page(HTMLParser):
    """What a page refers to, its ids, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references, self.ids, self.tags = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids |= {found["id"]} if "id" in found else set()
        names = ("href", "src", "data-before", "data-after")
        self.references += [found[name] for name in names if found.get(name) not in (None, "data:,")]


def files(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}


def test_every_link_is_relative_and_leads_somewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert {str(page.relative_to(site)) for page in pages} == {
        "index.html", "ledger.html", "lint.html", "tables/small-toy.html",
    }  # fmt: skip
    for page in pages:
        for reference in Page(page).references:
            assert not re.match(r"[a-z]+:|/", reference), f"{page.name}: {reference}"
            path, _, place = reference.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page.name}: {reference}"
            assert not place or place in Page(target).ids, f"{page.name}: {reference}"


def test_what_files_say_is_text_and_no_markup(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text
        assert "<b>of ours" not in text
        for tag, found in Page(page).tags:
            assert not {name for name in found if name.startswith("on") or name == "style"}, f"{page.name}: {tag}"
            if tag == "script":
                assert "src" in found or found.get("type") == "application/json", page.name
    assert "&lt;script&gt;alert" in (site / "tables/small-toy.html").read_text(encoding="utf-8")
    assert "A <code>small</code> table &lt;b&gt;of ours" in (site / "index.html").read_text(encoding="utf-8")


def test_every_page_forbids_requests(site):
    for page in site.rglob("*.html"):
        policies = [found["content"] for tag, found in Page(page).tags if found.get("http-equiv")]
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'; script-src 'self' file:; style-src 'self' file:;")
        assert "http" not in policies[0]


def test_the_same_records_give_the_same_bytes(site, at_work):
    before = files(site)
    assert report.main(["out=again", *WORDS]) == 0
    assert files(at_work / "again") == before


def test_the_ledger_has_each_published_number_once(site, at_work):
    paths = {"results": "results", "runs": "runs", "assets": "assets"}
    pages = gathering.gathered(["small"], WORDS, paths)
    entries = gathering.ledger(pages)
    published = [cell for page in pages for cell in page.cells if cell.published]
    assert len(published) == 5
    assert len(entries) == len(published) + 1  # and the user study
    found = {(entry.method, entry.metric): entry.status for entry in entries}
    assert found["identity", "preservation at 1"] == "reproduced"
    assert found["real", "preservation at 1"] == "differs"
    assert found["nobody", "edit accuracy at 1"] == "cannot be reproduced"
    assert found["identity", "user rank"] == "cannot be reproduced"
    rows = re.findall(r'<tr data-status="([^"]+)"', (site / "ledger.html").read_text(encoding="utf-8"))
    assert sorted(rows) == sorted(entry.status for entry in entries)


def test_claims_have_their_outcomes(site):
    text = (site / "ledger.html").read_text(encoding="utf-8")
    outcomes = re.findall(r'<article class="claim" data-status="([^"]+)"', text)
    assert outcomes == ["holds", "does not hold", "not decided"]
    assert "nobody: method nobody is not part of this version of mmbench" in text


def test_records_are_copied_as_they_are(site, at_work):
    copies = {path.name: path.read_bytes() for path in (site / "records" / "small").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (at_work / "results" / "small").glob("*.json")}
    assert len(copies) == 4  # two rows under two protocols


def test_what_was_vendored_is_what_its_list_says(site):
    """Name, version, source and hash of each file that is not ours."""
    listed = json.loads((site / "static" / "vendored.json").read_text(encoding="utf-8"))
    assert listed["uPlot"]["licence"] == "MIT"
    for name, sha256 in listed["uPlot"]["files"].items():
        assert sha256_bytes((site / "static" / name).read_bytes()) == sha256


def test_pictures_are_of_toy_data_alone(at_work):
    (page,) = gathering.gathered(["small"], WORDS, {"results": "results", "runs": "runs", "assets": "assets"})
    kept = building.samples.folders("runs")
    images = building.Images()
    (first, second) = building.samples.strips(page, kept, images, WORDS)
    assert first.columns == second.columns == ["identity", "real"]
    assert all(sample.before == sample.cells["identity"] != sample.cells["real"] for sample in first.samples)
    photographs = gathering.Page(page.experiment, "real", page.cells, page.claims)
    assert building.samples.strips(photographs, kept, images, WORDS) == []


def test_findings_of_lint_are_a_page(site, at_work):
    text = (site / "lint.html").read_text(encoding="utf-8")
    assert "<th>rule</th>" in text
    assert '<th class="num">rows</th>' in text
    assert text.count("<h1>") == 1
    (at_work / "results" / "tables" / "lint.md").unlink()
    try:
        assert report.main(["out=unlinted", *WORDS]) == 0
    finally:
        (at_work / "results" / "tables" / "lint.md").write_text(LINT, encoding="utf-8")
    text = (at_work / "unlinted" / "lint.html").read_text(encoding="utf-8")
    assert "No findings are here" in text
    assert text.count("<h1>") == 1


def test_a_folder_of_somebody_else_is_left_alone(at_work):
    other = at_work / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="a new or empty folder, or a site of mmbench, for out=, found other"):
        report.main(["out=other", *WORDS])
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_site_that_could_not_be_built_leaves_the_one_before(site, at_work, monkeypatch):
    before = files(site)

    def broken(*arguments):
        raise RuntimeError("power cut")

    monkeypatch.setattr(building, "_replace", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        report.main(["out=site", *WORDS])
    assert files(site) == before
    assert [path.name for path in at_work.iterdir() if path.name.startswith(".site")] == []


def test_a_site_that_goes_is_whole_until_the_next_is_there(tmp_path):
    old, new = tmp_path / "site", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)
    building._replace(new, old)
    assert (old / "index.html").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_words_that_are_wrong_are_said_at_once(at_work):
    with pytest.raises(ValueError, match="expected an experiment, found 'smal': did you mean small"):
        report.main(["experiment=smal"])
    with pytest.raises(ValueError, match="expected out=VALUE"):
        report.main(["out="])
    for word in ("method=identity", "data=cub"):
        with pytest.raises(ValueError, match=f"expected words for all rows of a table, found {word}"):
            report.main(["experiment=small", word])


@pytest.mark.parametrize("text", ["[]", '{"run_key": ', "{}"])
def test_a_damaged_manifest_is_named(tmp_path, text):
    path = tmp_path / "row" / "seed" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"found {path} damaged"):
        samples.folders(tmp_path)


def test_losses_are_read_from_the_log_of_a_training(tmp_path):
    """A line for each loss, by step; not the speed, and no value where a line of the log has none."""
    log = tmp_path / "log" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text(
        "epoch,step,generator/L_G,profile/data,images_per_second\n0,1,2.5,0.1,9\n1,2,,0.1,9\n2,3,1.5,0.1,9\n"
    )
    stage = Stage({"method": {"name": "some"}}, "key", tmp_path, {})
    assert charts._log(stage) == {
        "x_label": "step",
        "y_label": "loss",
        "x": [1.0, 3.0],
        "series": [{"label": "generator/L_G", "y": [2.5, 1.5]}],
    }
    assert charts._log(Stage({"method": {"name": "some"}}, "key", tmp_path / "none", {})) == {}


@pytest.mark.parametrize("text", ["step,a/b\n1,2\n2,low\n", "step,a/b\n1,2,3\n", "step,a/b\n\xff,1\n"])
def test_a_damaged_log_is_named(tmp_path, text):
    log = tmp_path / "log" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"{log}: expected numbers below a line of names"):
        charts._log(Stage({"method": {"name": "some"}}, "key", tmp_path, {}))


def test_a_site_without_run_folders_says_what_it_lacks(site, at_work):
    """As one that is built from a clone, where records are and what they come from is not."""
    assert report.main(["out=elsewhere", "experiment=small,small", "paths.runs=nowhere", *WORDS]) == 0
    page = "tables/small-toy.html"
    said = "none of them was there when this page was made"
    assert said in Path("elsewhere", page).read_text(encoding="utf-8")
    assert said not in (site / page).read_text(encoding="utf-8")
    assert Path("elsewhere/index.html").read_text(encoding="utf-8").count(page) == 1
