"""Says which printed numbers cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmbench.auditing.findings import Severity
from mmbench.auditing.report import FORMATS, Audit, audit
from mmbench.auditing.rows import OPTIONAL, REQUIRED, Row, grouped, read
from mmbench.auditing.rules import RULES, Rule
from mmbench.core import catalogue, command_line
from mmbench.core.files import require_writable, write_text
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.publications import published

OWN = "toy"  # what mmbench publishes of itself
ENDINGS = {".md": "markdown", ".csv": "csv", ".html": "html", ".json": "json"}
_WIDTH = max(map(len, RULES))
HELP = f"""usage: mmbench lint [FILE.csv ...] [rule=A,B] [format={"|".join(FORMATS)}] [out=PATH] [strict=true|false]

Says which of the numbers in a CSV of published results cannot be, and how that follows; without a file, in those that
come with mmbench. Every rule says how many rows it could judge. A file has a row for each number, and the columns
{", ".join(REQUIRED)}; those of these that it has are used too, and a rule whose column it lacks says so:
{", ".join(OPTIONAL[:8])},
{", ".join(OPTIONAL[8:])}.

  rule=A,B        only these of the rules below
  format=         markdown unless out= ends otherwise (.csv, .html, .json); csv has the findings alone
  out=PATH        writes the report there instead of printing it
  strict=true     exit code 1 where there is a fault; it is 0 otherwise, whatever is found

rules:
{chr(10).join(f"  {rule.name:<{_WIDTH}}  {rule.summary}" for rule in RULES.values())}
"""


def main(arguments: list[str]) -> int:
    files = [word for word in arguments if Path(word).is_file() or not ("=" in word or word.startswith("-"))]
    options = [word for word in arguments if word not in files]
    own, rest = command_line.split_options(options, ("rule", "format", "out", "strict"))
    command_line.require_said(own)
    if rest:
        catalogue.unknown("option of lint", rest[0].partition("=")[0], ["rule", "format", "out", "strict"])
    rules, form, out = _rules(own.get("rule")), _format(own), own.get("out")
    if own.get("strict", "false") not in ("true", "false"):
        catalogue.unknown("value of strict", own["strict"], ("true", "false"))
    if out:
        if Path(out).resolve() in {Path(name).resolve() for name in files}:
            raise ValueError(f"expected another file for out= than those that are read, found {out}: name another")
        require_writable(Path(out).parent, "out=")
    found = _audited(list(dict.fromkeys(files)), rules)
    text = FORMATS[form](found)
    if out:
        write_text(out, text)
        print(f"{found.summary}: {out}")
    else:
        print(text, end="")
    return int(own.get("strict") == "true" and found.count(Severity.FAULT) > 0)


def _rules(asked: str | None) -> list[Rule]:
    names = list(dict.fromkeys(command_line.listed(asked))) if asked else list(RULES)
    for name in names:
        if name not in RULES:
            catalogue.unknown("rule", name, RULES)
    return [RULES[name] for name in names]


def _format(own: Mapping[str, str]) -> str:
    form = own.get("format", ENDINGS.get(Path(own.get("out", "")).suffix.lower(), "markdown"))
    if form not in FORMATS:
        catalogue.unknown("format", form, FORMATS)
    return form


def _audited(files: Sequence[str], rules: Sequence[Rule]) -> Audit:
    """Runs rules over files, or over the published numbers that come with mmbench."""
    folder = catalogue.shipped("results/published")
    if files:
        rows = [row for name in files for row in read(Path(name), name)]
        return audit(rows, rules, ", ".join(files))
    rows = [row for path in sorted(folder.glob("*.csv")) if path.stem != OWN for row in read(path, path.name)]
    return audit(_judged(rows), rules, f"{len(grouped(rows, ['file']))} files in results/published")


def _judged(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the names of the tables that judge reproductions by them."""
    tables: dict[Row, list[str]] = {}
    by_metric = grouped(rows, ("file", "metric"))
    for name in catalogue.names("experiment"):
        experiment = load(name)
        for columns in _judging(experiment):
            for row in by_metric.get((f"{experiment.published}.csv", columns["metric"]), []):
                if all(row[column] == value for column, value in columns.items()):
                    tables.setdefault(row, []).append(name)
    return [replace(row, judged_by=tuple(tables.get(row, ()))) for row in rows]


def _judging(experiment: Experiment) -> list[dict[str, str]]:
    """Columns that select the numbers by which a table says reproduced or differs."""
    found = []
    for row in experiment.rows:
        for shown, number in published(experiment, row).items():
            column, metric = experiment.places.get(shown, ("", shown))
            part = experiment.columns[column].published if shown in experiment.places else {}
            if number.verified:
                found.append({**experiment.select, **row.published, **part, "metric": metric})
    return found
