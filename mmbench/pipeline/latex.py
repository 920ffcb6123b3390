"""Tables for LaTeX: text that means what it says there, and reasons as notes below."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from itertools import product
from string import ascii_lowercase
from typing import Self

# ruff: noqa: RUF001  (signs that look like ASCII are what this is about)
PACKAGES = (r"\usepackage[T1]{fontenc}", r"\usepackage{booktabs}", r"\usepackage{longtable}")
LANDSCAPE = r"\usepackage{pdflscape}"
WIDE = 72  # letters of footnote size, beside the space between columns, that a page of `article` has room for
# What LaTeX takes for a command or joins to another sign; brackets and stars are options after a line's end.
SPECIAL = {
    **{sign: f"\\{sign}" for sign in "{}#$%&_"},
    **{sign: f"{{{sign}}}" for sign in "[]*-,'"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
}
MATHEMATICS = {
    "±": "pm", "∓": "mp", "×": "times", "÷": "div", "·": "cdot", "−": "-", "†": "dagger", "‡": "ddagger", "¬": "neg",
    "→": "rightarrow", "←": "leftarrow", "↑": "uparrow", "↓": "downarrow", "↔": "leftrightarrow", "↕": "updownarrow",
    "⇒": "Rightarrow", "⇐": "Leftarrow", "⇔": "Leftrightarrow", "↦": "mapsto", "≤": "leq", "≥": "geq", "≠": "neq",
    "≈": "approx", "≡": "equiv", "∼": "sim", "∞": "infty", "√": "surd", "∑": "sum", "∏": "prod", "∫": "int",
    "∂": "partial", "∇": "nabla", "∈": "in", "∉": "notin", "⊂": "subset", "∪": "cup", "∩": "cap", "∅": "emptyset",
    "∀": "forall", "∃": "exists", "⊕": "oplus", "⊗": "otimes", "∘": "circ", "∙": "bullet", "⋅": "cdot", "′": "prime",
    "∥": "parallel", "⟨": "langle", "⟩": "rangle", "ϵ": "epsilon",
}  # fmt: skip
PRINTED = frozenset("–—‘’“”„•‰€¡¿§¶©®°«»£¥")  # as they are, beside letters of the Latin alphabet
SMALL = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
)
CAPITAL = "gamma delta theta lamda xi pi sigma upsilon phi psi omega"  # the others look like Latin ones
NO_FONT = frozenset("ĦħĿŀĸŉŦŧſ")  # Latin letters that the encoding T1 lacks


class Emphasised(str):
    """A text whose beginning stands in a command."""

    command: str
    length: int

    def __new__(cls, command: str, text: str, behind: str) -> Self:
        made = super().__new__(cls, text + behind)
        made.command, made.length = command, len(text)
        return made


def table(
    columns: Sequence[str],
    right: Collection[str],
    rows: Sequence[Sequence[str]],
    marks: Sequence[str],
    notes: Sequence[str],
) -> str:
    """A table that may be longer than a page; a wide one lies across.

    Args:
        columns: their names.
        right: the columns whose text stands at the right.
        rows: a text for each column, as it is to be read.
        marks: LaTeX behind the last text of each row.
        notes: LaTeX, below the table.
    """
    longest = (max(map(len, column)) for column in zip(columns, *rows, strict=True))
    wide = sum(longest) > WIDE
    needs = [*PACKAGES, LANDSCAPE] if wide else PACKAGES
    lines = [
        f"% needs {', '.join(needs)}; a document of one column",
        *([r"\begin{landscape}"] if wide else []),
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{@{{}}{''.join('r' if column in right else 'l' for column in columns)}@{{}}}}",
        r"\toprule",
        rf"{' & '.join(map(escaped, columns))} \\",
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *(rf"{' & '.join(map(_cell, row))}{mark} \\" for row, mark in zip(rows, marks, strict=True)),
        r"\end{longtable}",
        *(rf"\noindent {note}\par" for note in notes),
        r"\endgroup",
        *([r"\end{landscape}"] if wide else []),
    ]
    return "\n".join(lines) + "\n"


def letters() -> Iterable[str]:
    """Marks of notes: a to z, aa to zz."""
    for length in (1, 2, 3):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def raised(mark: str) -> str:
    """A mark of a note."""
    return rf"\textsuperscript{{{mark}}}"


def _cell(text: str) -> str:
    if not isinstance(text, Emphasised):
        return escaped(text)
    behind = escaped(text[text.length :])
    return rf"\{text.command}{{{escaped(text[: text.length])}}}{behind and '~'}{behind}"


def escaped(text: str) -> str:
    """Text as LaTeX that prints it, with numbers below zero by a minus sign.

    A sign that no font of LaTeX's own has is printed by its number in Unicode, U+4E2D.
    """
    plain = unicodedata.normalize("NFKC", " ".join(text.split()))
    return "".join(map(_sign, re.sub(r"(?<![\w.)-])-(?=\.?\d)", "−", plain)))


def _sign(sign: str) -> str:
    if sign in SPECIAL:
        return SPECIAL[sign]
    if sign in MATHEMATICS:
        name = MATHEMATICS[sign]
        return rf"\ensuremath{{{name if name == '-' else chr(92) + name}}}"
    if sign.isascii() and sign.isprintable():
        return sign
    if sign in PRINTED or ("À" <= sign <= "ž" and sign not in NO_FONT):
        return sign
    kind, _, name = unicodedata.name(sign, "").removeprefix("GREEK ").partition(" LETTER ")
    if (kind == "SMALL" and name.lower() in SMALL.split()) or (kind == "CAPITAL" and name.lower() in CAPITAL.split()):
        command = name.replace("LAMDA", "LAMBDA")
        return rf"\ensuremath{{\{command.lower() if kind == 'SMALL' else command.title()}}}"
    return rf"\texttt{{U+{ord(sign):04X}}}"
