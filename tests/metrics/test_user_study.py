"""Mean ranks of a user study."""

import pytest

from mmbench.metrics.user_study import mean_ranks


def table(tmp_path, *lines):
    path = tmp_path / "ranks.csv"
    path.write_text("\n".join(["rater,item,method,rank", *lines]), encoding="utf-8")
    return path


def test_mean_ranks(tmp_path):
    path = table(
        tmp_path,
        *("ann,1,ours,1", "ann,1,theirs,2", "ann,2,ours,2", "ann,2,theirs,1"),
        *("bob,1,ours,1", "bob,1,theirs,2", "bob,2,theirs,1.5", "bob,2,ours,1.5"),
    )
    found = mean_ranks(path)
    assert list(found) == ["ours", "theirs"]
    assert found["ours"].value == pytest.approx(5.5 / 4)
    assert found["theirs"].value == pytest.approx(6.5 / 4)
    assert found["ours"].count == 4
    assert found["ours"].std == pytest.approx(0.4787, abs=1e-4)


@pytest.mark.parametrize(
    "lines",
    [
        ["ann,1,ours,1", "ann,1,theirs,1"],  # a tie is 1.5 and 1.5
        ["ann,1,ours,1", "ann,1,theirs,2", "ann,2,ours,1"],
        ["ann,1,ours,1", "ann,1,ours,2", "ann,2,theirs,1", "ann,2,ours,2"],
        ["ann,1,ours,first", "ann,1,theirs,2"],
    ],
)
def test_what_is_no_ranking_is_refused_with_its_place(tmp_path, lines):
    with pytest.raises(ValueError, match=r"ranks\.csv: expected ann to rank each of ours, theirs once for \d"):
        mean_ranks(table(tmp_path, *lines))


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "ranks.csv"
    path.write_text("rater,method\nann,ours\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"expected the columns rater, item, method, rank, found none named item, rank"
    ):
        mean_ranks(path)
