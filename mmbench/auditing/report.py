"""The report of an audit: how much every rule could judge, and what it found."""

import csv
import html
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmbench.auditing.findings import Finding, Outcome, Severity
from mmbench.auditing.rows import Row
from mmbench.auditing.rules import Rule, run

OF_RULE = ("rule", "what it says", "judged", "faults", "questions", "notes", "not judged")
OF_FINDING = ("rule", "severity", "where", "paper", "table", "printed", "needed", "arithmetic", "origin")
LEGEND = (
    "A fault cannot be. A question is unlikely, or two papers contradict each other, or it is a fault of which a "
    "number was only recalled. A note is worth knowing. Every number is as transcribed: a misprint may be ours, and "
    "the origin says where to look."
)
STYLE = (
    ":root{color-scheme:light dark}body{font:1em/1.5 sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{padding:.3em .6em;text-align:left;vertical-align:top;border-bottom:1px solid #888}"
)


@dataclass(frozen=True)
class Audit:
    """What the rules found in some rows.

    Attributes:
        what: what was audited, as the report calls it.
        rows: how many numbers that is.
        outcomes: rule to what it found, in the order of the report.
    """

    what: str
    rows: int
    outcomes: Mapping[Rule, Outcome]

    @property
    def findings(self) -> list[Finding]:
        """All findings, the heaviest of each rule first."""
        weights = list(Severity)
        return [
            finding
            for outcome in self.outcomes.values()
            for finding in sorted(outcome.findings, key=lambda one: weights.index(one.weight))
        ]

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(finding.weight is severity for finding in self.findings)

    @property
    def summary(self) -> str:
        """One sentence."""
        counted = ", ".join(_counted(self.count(severity), severity) for severity in Severity)
        return f"{counted} in {_counted(self.rows, 'row')} of {self.what}"


def audit(rows: Sequence[Row], rules: Sequence[Rule], what: str) -> Audit:
    """Runs rules over rows."""
    return Audit(what, len(rows), {rule: run(rule, rows) for rule in rules})


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _of_rules(found: Audit) -> list[tuple[str, ...]]:
    lines = []
    for rule, outcome in found.outcomes.items():
        weights = Counter(finding.weight for finding in outcome.findings)
        left = ", ".join(f"{number} {why}" for why, number in sorted(outcome.unjudged.items(), key=lambda one: -one[1]))
        counts = (str(weights[severity]) for severity in Severity)
        lines.append((rule.name, rule.summary, str(len(outcome.judged)), *counts, left or "-"))
    return lines


def _of_findings(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    return [
        (one.rule, one.weight, one.where, one.papers, one.tables, one.printed, one.needed, one.arithmetic, one.origin)
        for one in findings
    ]


def markdown(found: Audit) -> str:
    """The report as a page of Markdown."""
    parts = ["# Printed numbers that cannot be", f"{found.summary}.", LEGEND]
    parts += ["## Rules", _table(OF_RULE, _of_rules(found))]
    if remarks := [remark for outcome in found.outcomes.values() for remark in outcome.remarks]:
        parts.append("\n".join(f"- {_escaped(remark)}" for remark in remarks))
    parts.append("## Findings")
    for rule, outcome in found.outcomes.items():
        if outcome.findings:
            parts += [f"### {rule.name}", f"{rule.summary} {rule.reason}"]
            of_rule = [finding for finding in found.findings if finding.rule == rule.name]
            parts.append(_table(OF_FINDING[1:], [line[1:] for line in _of_findings(of_rule)]))
    if not found.findings:
        parts.append("None.")
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    body = [head, ["---"] * len(head), *([_escaped(text) for text in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def _escaped(text: str) -> str:
    """Text in which Markdown finds no marks of its own."""
    return "".join(f"\\{letter}" if letter in "\\|*_`<[" else letter for letter in " ".join(text.split()))


def as_csv(found: Audit) -> str:
    """The findings as a CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([OF_FINDING, *_of_findings(found.findings)])
    return file.getvalue()


def as_json(found: Audit) -> str:
    """Rules and findings as JSON."""
    rules = [
        {
            "rule": rule.name, "says": rule.summary, "why": rule.reason, "judged": len(outcome.judged),
            "findings": len(outcome.findings), "not judged": dict(outcome.unjudged), "remarks": outcome.remarks,
        }
        for rule, outcome in found.outcomes.items()
    ]  # fmt: skip
    findings = [dict(zip(OF_FINDING, line)) for line in _of_findings(found.findings)]
    content = {"audited": found.what, "rows": found.rows, "rules": rules, "findings": findings}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_html(found: Audit) -> str:
    """The report as a page that needs no other file."""
    tables = [("Rules", OF_RULE, _of_rules(found)), ("Findings", OF_FINDING, _of_findings(found.findings))]
    remarks = "".join(
        f"<p>{html.escape(remark)}</p>\n" for outcome in found.outcomes.values() for remark in outcome.remarks
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Printed numbers that cannot be</title>\n'
        f"<style>{STYLE}</style>\n<h1>Printed numbers that cannot be</h1>\n<p>{html.escape(found.summary)}.</p>\n"
        f"<p>{LEGEND}</p>\n{remarks}{''.join(_html_table(*table) for table in tables)}</html>\n"
    )


def _html_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>\n"

    return f"<h2>{title}</h2>\n<table>\n{line(head, 'th')}{''.join(line(cells, 'td') for cells in lines)}</table>\n"


FORMATS: Mapping[str, Callable[[Audit], str]] = {
    "markdown": markdown, "csv": as_csv, "html": as_html, "json": as_json,
}  # fmt: skip
