"""Tables for LaTeX: everything is escaped, reasons stand below, and a document with them compiles."""

import re
import shutil
import statistics
import subprocess

import pytest

from mmbench.pipeline import latex, tables
from mmbench.pipeline.cells import Cell, Value, Verdict
from mmbench.pipeline.publications import Published

# ruff: noqa: RUF001  (signs that look like ASCII are what is tested)
ODD = "a\\b {c} #1 $2 50% x_y & ~ ^ <d> |e| \"f\" `g` 'h' -- --- ,, [i] *j ?` !` ± † ‡ × − → ← ↑ ≤ ∞ – … № ² ﬁ µ"
NAMES = "Kynkäänniemi Łukasz Žižek Søren Đặng Ħamrun αβ-VAE ΣΔΑ ς ϵ Пётр 中文 شبكة 🙂 e\u0301 a\u0302\u0301 \u200b\x07"


def cell_of(metric, verdict, *values, printed=None, **facts):
    value = Value(dict(enumerate(values)), statistics.fmean(values) if values else None, **facts)
    return Cell("[GAN]* & co_50%", "CUB", (64, 48), len(values), metric, printed, value, verdict)


def printed_as(text, verified=True):
    return Published(float(text), text, None, higher_is_better=True, verified=verified, protocol="")


def cells():
    missing = "no file $MMBENCH_HOME/net_G.pth & no #2: run `mmbench prepare data=cub`, 100% of it"
    return [
        cell_of("IS", Verdict.NOT_RUN, reason=missing, printed=printed_as("8.47", verified=False)),
        cell_of("sim", Verdict.NOT_RUN, reason=missing),
        cell_of("FID", Verdict.NOT_RUN, reason="is@toy is not among the metrics"),
        cell_of("MP", Verdict.DIFFERS, -0.25, -0.35, printed=printed_as("0.072"), verified=False),
        cell_of("L1", Verdict.OUTDATED, 0.5, outdated="trained through an older toy_VGG"),
        cell_of(ODD, Verdict.UNPUBLISHED, 0.5),
        cell_of(NAMES, Verdict.UNPUBLISHED, 0.5),
    ]


def test_reasons_are_notes_below_the_table():
    text = tables.rendered(cells(), "latex")
    inside, below = text.split(r"\end{longtable}")
    assert "no file" not in inside
    assert [line.split(" & ")[-1] for line in inside.splitlines() if "not run" in line] == [
        rf"not run\textsuperscript{{{mark}}} \\" for mark in "aab"
    ]
    notes = re.findall(r"^\\noindent (.*)\\par$", below, re.MULTILINE)
    assert notes == [
        r"\textsuperscript{a} not run: no file \$MMBENCH\_HOME/net\_G.pth \& no \#2: run \textasciigrave{}mmbench "
        r"prepare data=cub\textasciigrave{}{,} 100\% of it",
        r"\textsuperscript{b} not run: is@toy is not among the metrics",
        r"\ensuremath{\dagger}: trained through an older toy\_VGG",
        r"{*}: made with weights whose hash nobody published.",
        r"unverified: the published value was recalled and seen in no source{,} so no verdict.",
    ]


def test_notes_of_an_experiment_stand_below_the_table_escaped():
    text = tables.rendered(cells(), "latex", ["100 % of a_b are printed wrong."])
    table, _, below = text.partition(r"\end{longtable}")
    assert r"\noindent 100 \% of a\_b are printed wrong.\par" in below
    assert "printed wrong" not in table


def test_every_line_has_every_column_and_signs_of_its_own():
    lines = tables.rendered(cells(), "latex").splitlines()
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 1 + len(cells())
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(tables.COLUMNS) - 1}
    mp, outdated = (next(row for row in rows if f"& {name} &" in row) for name in ("MP", "L1"))
    assert r"64 \ensuremath{\times} 48" in mp
    assert r"\ensuremath{-}0.300 \ensuremath{\pm} 0.071 (2 seeds) {*}" in mp
    assert r"0.5000 \ensuremath{\dagger}" in outdated
    assert all(row.startswith(r"{[}GAN{]}{*} \& co\_50\%") for row in rows[1:])
    clean = [cell_of("IS", Verdict.DIFFERS, 1.0, printed=printed_as("2.0"))]
    assert r"\noindent" not in tables.rendered(clean, "latex"), "nothing to say"


def test_packages_stand_in_the_first_comment():
    text = tables.rendered(cells(), "latex")
    first, *others = text.splitlines()
    assert first.startswith("% ")
    assert "\\usepackage" not in "".join(others)
    usual = [r"\usepackage[T1]{fontenc}", r"\usepackage{booktabs}", r"\usepackage{longtable}"]
    assert packages(text) == [*usual, r"\usepackage{pdflscape}"]
    assert text.count("{landscape}") == 2
    narrow = tables.rendered([cell_of("IS", Verdict.DIFFERS, 1.0, printed=printed_as("2.0"))], "latex")
    assert packages(narrow) == usual
    assert "landscape" not in narrow


def test_signs_without_a_font_are_printed_by_their_number():
    assert latex.escaped("中 x\ty\nz") == r"\texttt{U+4E2D} x y z"
    assert latex.escaped("-1 a-1 x-ray -.5 --x") == r"\ensuremath{-}1 a{-}1 x{-}ray \ensuremath{-}.5 {-}{-}x"
    assert latex.escaped("αΩ λ Α") == r"\ensuremath{\alpha}\ensuremath{\Omega} \ensuremath{\lambda} \texttt{U+0391}"
    assert latex.escaped("e\u0301Đ") == "éĐ"
    every = "".join(map(chr, range(0x20, 0x2FFF)))
    printed = latex.escaped(every)
    assert all(sign.isascii() or sign in latex.PRINTED or "À" <= sign <= "ž" for sign in printed)


def packages(text):
    return re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", text.splitlines()[0])


def compiled(text, folder):
    """What pdflatex says of a document of nothing but a table and the packages that it names."""
    lines = [r"\documentclass{article}", *packages(text), r"\begin{document}", text, r"\end{document}"]
    (folder / "table.tex").write_text("\n".join(lines), encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = [subprocess.run(command, cwd=folder, capture_output=True, timeout=100) for _ in range(2)][-1]
    said = (folder / "table.log").read_text(errors="replace")
    assert done.returncode == 0, said[-2000:]
    return said


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="not run: no LaTeX on this machine")
@pytest.mark.timeout(300)
def test_a_document_with_the_table_compiles(tmp_path):
    signs = "".join(map(chr, [*range(0x20, 0x600), *range(0x2000, 0x2300)]))
    every = [cell_of(signs[start : start + 12], Verdict.UNPUBLISHED, 0.5) for start in range(0, len(signs), 12)]
    for number, found in enumerate((cells(), every)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert "Missing character" not in compiled(tables.rendered(found, "latex"), folder)
