"""The rules, in the order of their report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mmbench.auditing import bounds, columns, identities, sources
from mmbench.auditing.findings import Finding, Outcome
from mmbench.auditing.rows import Row


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: as on the command line.
        check: from rows to what it found; its docstring names the identity, and the reason of it.
        needs: columns without which a row cannot be judged, beside those that every file has.
        others: what rows are that the rule does not concern, in a word.
    """

    name: str
    check: Callable[[Sequence[Row]], Outcome]
    needs: tuple[str, ...] = ()
    others: str = "other metrics"

    @property
    def summary(self) -> str:
        """The identity, in one sentence."""
        assert self.check.__doc__
        return self.check.__doc__.strip().splitlines()[0]

    @property
    def reason(self) -> str:
        """Why it holds."""
        assert self.check.__doc__
        return " ".join(self.check.__doc__.strip().partition("\n")[2].split())


RULES = {
    rule.name: rule
    for rule in (
        Rule("mp", identities.mp),
        Rule("difference", identities.difference, ("protocol",)),
        Rule("ranks", identities.ranks),
        Rule("psnr-mse", bounds.psnr_mse),
        Rule("psnr-l1", bounds.psnr_l1),
        Rule("l1-mse", bounds.l1_mse),
        Rule("range", bounds.value_range),
        Rule("classes", bounds.classes),
        Rule("order", bounds.order, ("protocol",)),
        Rule("uncertainty", bounds.uncertainty, ("uncertainty",), "no spread printed"),
        Rule("bold", columns.bold, ("emphasis", "higher_is_better"), "neither bold nor underlined"),
        Rule("unit", columns.unit, ("unit",)),
        Rule("digits", columns.digits, others="an end of the range"),
        Rule("baseline", sources.baseline, ("paper",), "under other protocols"),
        Rule("duplicate", sources.duplicate),
        Rule("recalled", sources.recalled, ("confidence",)),
    )
}


def run(rule: Rule, rows: Sequence[Row]) -> Outcome:
    """Runs a rule over the rows whose file has the columns that it needs, and says of the others why not."""
    able = [row for row in rows if all(column in row.columns for column in rule.needs)]
    outcome = rule.check(able)
    outcome.findings = [_of_rule(rule.name, finding) for finding in outcome.findings]
    for row in rows:
        if lacking := [column for column in rule.needs if column not in row.columns]:
            outcome.skip([row], f"no column {lacking[0]} in {row.file}")
        elif row not in outcome.judged and row not in outcome.skipped:
            outcome.skip([row], rule.others)
    return outcome


def _of_rule(name: str, finding: Finding) -> Finding:
    return replace(finding, rule=name)
