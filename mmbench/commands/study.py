"""Studies by people: builds the page that they answer, and scores what they said."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmbench.core import catalogue, command_line, config
from mmbench.core.files import RUNS, require_assets, require_writable, write_text
from mmbench.people.questions import KINDS, QUESTIONS, of_task
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, require_own_protocols

FORMATS = ("markdown", "csv", "json")
OF_BUILD = (
    "experiment", "kind", "n", "seed", "raters", "questions", "rows", "data", "column", "real", "out", "data.source",
)  # fmt: skip
OF_SCORE = ("key", "keep", "format", "out")

HELP = """usage: mmbench study build experiment=NAME kind=KIND n=N [data.source=toy|real] [key=value ...]
       mmbench study score ANSWERS... key=FOLDER/key.json [key=value ...]

build makes one page, FOLDER/send/study.html, of pictures that the rows of an experiment have made, and FOLDER/key.json,
which says whose they are: send the page, keep the key. The page works offline on computers and phones and sends
nothing anywhere; behind `#r=1`, `#r=2`, ... is each rater's own order. Kinds:
{kinds}

  n=N              items, images of the experiment that are drawn by the seed
  seed=N           of the drawing and of all orders (default 0)
  raters=N         how many people get an order of their own (default 1); more may share a number, and all are scored
                   who have answered everything
  questions=A,B    of {questions} (default: those that the task allows)
  rows=A,B         labels or methods of the rows (default: all that have made pictures)
  data=NAME        the data set, of which a study has one (default: the first with pictures)
  column=NAME      the part of a table with several (default: the first)
  real=true        the real picture is judged among the others (default false)
  out=FOLDER       where both files go (default: below paths.runs, in studies/)

score reads files of answers, or folders of them, and gives mean ranks, win rates and strengths of Bradley and Terry, or
mean grades, with intervals over items, Kendall's W, what it is by chance and its p, Krippendorff's alpha, and beside
them what a published study found. What cannot be scored is said in a line each; of somebody who saved twice the file
with most answers counts.

  key=FILE         the key that was written with the page
  keep=failed      score those who failed attention checks too (default: they are left out, and counted)
  format={formats}   (default markdown); json has every answer
  out=FILE         write there instead of printing

  mmbench study build experiment=tdanet kind=ranks n=20 raters=5 real=true data.source=toy
""".format(
    kinds="\n".join(f"  {kind:<15}  {shown}" for kind, shown in KINDS.items()),
    questions=", ".join(QUESTIONS),
    formats="|".join(FORMATS),
)


def main(arguments: list[str]) -> int:
    actions = {"build": build, "score": score}
    if not arguments or "=" in arguments[0]:
        raise ValueError("expected `mmbench study build` or `mmbench study score`, found neither: see --help")
    if arguments[0] not in actions:
        catalogue.unknown("action of study", arguments[0], actions)
    return actions[arguments[0]](arguments[1:])


def _required(own: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuses a command without a word that it cannot do without."""
    for name in names:
        if name not in own:
            raise ValueError(f"expected {name}=, found none: see `mmbench study --help`")


def build(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, OF_BUILD)
    command_line.require_said(own)
    _required(own, ("experiment", "kind", "n"))
    require_own_protocols(rest)
    if own["kind"] not in KINDS:
        catalogue.unknown("kind of study", own["kind"], KINDS)
    numbers = {
        name: command_line.whole_number(name, own.get(name, default), least)
        for name, default, least in (("n", "", 1), ("seed", "0", 0), ("raters", "1", 1))
    }
    if own.get("real", "false") not in ("true", "false"):
        raise ValueError(f"expected real=true or real=false, found real={own['real']}: correct it")
    asked = _asked(own)
    experiment = load(own["experiment"])
    source = own.get("data.source", experiment.sources[0])
    rows = _chosen(experiment, own)
    paths = config.composed(["method=identity", f"data.source={source}", *rest])["paths"]
    name = f"{experiment.name}-{source}-{own['kind']}-n{numbers['n']}-s{numbers['seed']}"
    out = Path(own.get("out", Path(paths["runs"]) / "studies" / name)).expanduser()
    require_writable(out, "out=" if "out" in own else RUNS)
    require_assets(paths)
    from mmbench.people import building, gathering  # and torch, which no mistake in a word needs

    gathered = gathering.gather(
        experiment.on(source), source, paths["runs"], own.get("data"), own.get("column"), rows, rest
    )
    for line in gathered.left_out:
        print(f"left out: {line}", file=sys.stderr)
    for row in gathered.rows:
        if row.missing:
            print(f"{row.label}: {row.missing} pictures are not made yet, and cannot be drawn", file=sys.stderr)
    possible = of_task(gathered.task)
    if impossible := [name for name in asked if name not in possible]:
        raise ValueError(
            f"expected questions that {gathered.task.name} allows, {', '.join(possible)}, found {impossible[0]}: "
            "leave it out"
        )
    key = building.build(
        gathered,
        experiment.name,
        own["kind"],
        list(dict.fromkeys(asked)) or possible,
        numbers["n"],
        numbers["raters"],
        numbers["seed"],
        own.get("real") == "true",
        out,
    )
    _say(key, out)
    return 0


def _asked(own: Mapping[str, str]) -> list[str]:
    """The questions that `questions=` names.

    Raises:
        ValueError: there is none of that name.
    """
    asked = command_line.listed(own.get("questions", ""))
    for name in asked:
        if name not in QUESTIONS:
            catalogue.unknown("question", name, QUESTIONS)
    return asked


def _chosen(experiment: Experiment, own: Mapping[str, str]) -> list[str]:
    """The rows that `rows=` asks for; `data=` and `column=` are looked at too.

    Raises:
        ValueError: the experiment has none of that name.
    """
    rows = command_line.listed(own.get("rows", ""))
    known = [name for row in experiment.rows for name in (row.label, row.method)]
    if strangers := [name for name in rows if name not in known]:
        catalogue.unknown(f"row of {experiment.name}", strangers[0], known)
    if "data" in own and own["data"] not in (sets := {row.data for row in experiment.rows}):
        catalogue.unknown(f"data set of {experiment.name}", own["data"], sets)
    if "column" in own and own["column"] not in experiment.columns:
        catalogue.unknown(f"column of {experiment.name}", own["column"], experiment.columns)
    return rows


def _say(key: Mapping[str, Any], out: Path) -> None:
    """Where things lie, and what to do with them."""
    screens = len(key["raters"][0])
    print(f"study {key['study'][:8]}: {len(key['methods'])} methods, {screens} screens for each rater")
    print(f"send: {out / 'send' / 'study.html'}")
    number = len(key["raters"])
    if number > 1:
        print(f"raters: {number} have orders of their own: each opens it with #r=1 to #r={number} behind its name, or")
        print("        chooses a number on the page; more may share a number, and all who finish are scored")
    else:
        print("raters: one order, that of raters=1: more people may answer in it, and all who finish are scored; where")
        print("        order is to balance over N people, build it again with raters=N before the page is sent")
    print(f"keep: {out / 'key.json'}")
    print(f"next: mmbench study score ANSWERS... key={out / 'key.json'}")


def score(arguments: list[str]) -> int:
    files = [Path(word).expanduser() for word in arguments if "=" not in word or Path(word).exists()]
    own, rest = command_line.split_options(
        [word for word in arguments if Path(word).expanduser() not in files], OF_SCORE
    )
    command_line.require_said(own)
    if rest:
        catalogue.unknown("option of study score", rest[0].partition("=")[0], OF_SCORE)
    _required(own, ("key",))
    form = own.get("format", "markdown")
    if form not in FORMATS:
        catalogue.unknown("format", form, FORMATS)
    if own.get("keep", "failed") != "failed":
        raise ValueError(f"expected keep=failed, found keep={own['keep']}: correct it, or leave it out")
    if not files:
        raise ValueError("expected files of answers, found none: name them, or the folder that they lie in")
    if "out" in own:
        out, read = Path(own["out"]).expanduser(), [*files, Path(own["key"]).expanduser()]
        if out.resolve() in [path.resolve() for path in read]:
            raise ValueError(f"expected out= beside what is read, found {out}, which it would replace: name another")
        require_writable(out.parent, "out=")
    from mmbench.people import answers, collecting, reports, scoring  # pandas and scipy, which no mistake needs

    key = answers.read_key(Path(own["key"]).expanduser())
    collected = collecting.collect(files, key, keep_failed="keep" in own)
    for line in collected.lines:
        print(line, file=sys.stderr)
    text = reports.rendered(form, scoring.findings(collected.answers, key), collected.answers, key)
    if "out" in own:
        write_text(Path(own["out"]).expanduser(), text)
        print(f"scores: {own['out']}")
    else:
        print(text, end="")
    return 0
