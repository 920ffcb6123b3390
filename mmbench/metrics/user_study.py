"""User studies: mean ranks from a table of who ranked what."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch

from mmbench.metrics.base import Score, mean_score

COLUMNS = ("rater", "item", "method", "rank")


def mean_ranks(path: str | Path) -> dict[str, Score]:
    """Mean rank of each method in a user study: 1 is best, lower is better.

    Every rater orders, for every item that they saw, the results of the same methods. Mean rank = mean over raters and
    items of the method's rank; `std` is the sample standard deviation over them, `count` their number. Methods in a
    tie have each the mean of the places that they share (competition papers differ: say so in the file).

    Args:
        path: a CSV file with the columns rater, item, method and rank, one line for each result that was ranked.

    Returns:
        Method to score, best first.

    Raises:
        ValueError: a column is missing, a rank is no number, or a rater has not ranked every method of an item once.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, found none named {', '.join(missing)}: add them"
        )
    methods = sorted(set(table["method"]))
    ranks: dict[str, list[float]] = defaultdict(list)
    for (rater, item), answers in table.groupby(["rater", "item"]):
        given = pd.to_numeric(answers["rank"], errors="coerce")
        if sorted(answers["method"]) != methods or sorted(given.rank()) != sorted(given):
            raise ValueError(
                f"{path}: expected {rater} to rank each of {', '.join(methods)} once for {item} (ranks 1 to "
                f"{len(methods)}, ties their mean), found "
                f"{', '.join(answers['method'] + ' ' + answers['rank'])}: correct or remove these lines"
            )
        for method, rank in zip(answers["method"], given, strict=True):
            ranks[method].append(float(rank))
    scores = {
        method: mean_score("mean rank", torch.tensor(values, dtype=torch.float64)) for method, values in ranks.items()
    }
    return dict(sorted(scores.items(), key=lambda entry: (entry[1].value, entry[0])))
