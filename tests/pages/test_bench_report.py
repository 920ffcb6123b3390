"""The benchmark of the site builds one, says how long it took and how large it is, and fails where a goal is missed."""

from mmbench.benchmarks import report


def test_it_says_what_tables_of_ten_rows_cost_and_which_goal_is_missed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "GOALS", {"seconds": 600.0, "MB": 0.1})
    assert report.main(["1", "data.toy_images=40"]) == 1
    *_, tables, seconds, megabytes = capsys.readouterr().out.splitlines()
    assert tables == "1 tables of 10 rows, 3 seeds each: 4 pages"
    assert 0 < float(seconds.split()[1]) < 600
    assert 0.1 < float(megabytes.split()[1]) < 10
