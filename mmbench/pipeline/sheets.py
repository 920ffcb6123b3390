"""Plain tables of words as Markdown, LaTeX, HTML or CSV."""

from collections.abc import Collection, Mapping, Sequence

from mmbench.pipeline import latex

FORMATS = ("markdown", "latex", "html", "csv")


def rendered(
    rows: Sequence[Mapping[str, str]], form: str, right: Collection[str] = (), under: Sequence[str] = ()
) -> str:
    """A table of rows with the same columns; as LaTeX it has the sentences `under` it with it.

    Args:
        form: one of `FORMATS`.
        right: the columns whose text stands at the right.
    """
    import pandas as pd  # which takes a second, and FORMATS are for help

    frame = pd.DataFrame(list(rows))
    if form == "latex":
        lines = [[str(text) for text in line] for line in frame.itertuples(index=False)]
        return latex.table(list(frame), right, lines, [""] * len(lines), [latex.escaped(line) for line in under])
    if form == "html":
        return frame.to_html(index=False, border=0) + "\n"
    if form == "csv":
        return frame.to_csv(index=False)
    align = ["right" if column in right else "left" for column in frame]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align) + "\n"
