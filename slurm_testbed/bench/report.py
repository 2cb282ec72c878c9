"""What a run has measured: as a table, as JSON, and which goals it missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from slurm_testbed.bench.figures import Goal, Row, Unit, Verdict


@dataclass
class Report:
    """What a run has measured.

    Attributes:
        facts: the machine, the engine, the image, and when it was.
        bare: the bare starts of the run.
        rows: everything else.
    """

    facts: dict[str, Any]
    bare: Row
    rows: list[Row] = field(default_factory=list)

    def missed(self) -> list[str]:
        """The goals that are missed, and the rows with failed samples, in words."""
        unit = self.bare.median
        found = [
            f"{row.title}: {goal.text(row.unit)}"
            for row in self.rows
            for goal in row.goals
            if goal.verdict(row, unit) == "missed"
        ]
        others = [row for row in self.rows if row.failures and not any(g.statistic == "failed" for g in row.goals)]
        return found + [f"{row.title}: {len(row.failures)} of {row.attempts} failed" for row in others]

    def reasons(self) -> dict[str, list[str]]:
        """Why samples failed, each reason once, with the titles of its rows."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for reason in dict.fromkeys(row.failures):
                found.setdefault(reason, []).append(row.title)
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, samples included."""
        return {**self.facts, "rows": [_row_json(row, self.bare.median) for row in [self.bare, *self.rows]]}

    def table(self) -> Table:
        """Everything for the terminal, a row a line, a goal a line."""
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for heading in ("n", "median", "p99", "x bare", "per s"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("goal")
        for row in [self.bare, *self.rows]:
            multiple, rate = row.multiple(self.bare.median), row.per_second
            table.add_row(
                escape(row.title),
                f"{row.attempts}" + (f" ([red]{len(row.failures)} failed[/])" if row.failures else ""),
                in_words(row.median, row.unit),
                in_words(row.p99, row.unit),
                "" if multiple is None else f"{multiple:.2f}",
                "" if rate is None else f"{rate:.0f}",
                "\n".join(_goal_cell(goal, row, self.bare.median) for goal in row.goals),
            )
        return table


_COLOURS: dict[Verdict, str] = {"met": "green", "missed": "red", "undecided": "yellow"}


def in_words(value: float | None, unit: Unit) -> str:
    """A figure for people, with its unit."""
    if value is None:
        return "-"
    if unit != "s":
        return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _goal_cell(goal: Goal, row: Row, bare: float | None) -> str:
    verdict, value = goal.verdict(row, bare), goal.value(row, bare)
    said = f"[{_COLOURS[verdict]}]{verdict}[/]"
    if goal.over_bare and value is not None:
        said += f", {in_words(value, row.unit)}"
    if verdict == "undecided" and row.attempts:
        said += f" (n < {goal.least})"
    return f"{goal.text(row.unit)}: {said}"


def _row_json(row: Row, bare: float | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "count": row.count,
        "median": row.median,
        "p99": row.p99,
        "multiple_of_bare": row.multiple(bare),
        "per_second": row.per_second,
        "samples": row.samples,
        "failures": row.failures,
        "goals": [
            {
                "text": goal.text(row.unit),
                "limit": goal.limit,
                "value": goal.value(row, bare),
                "verdict": goal.verdict(row, bare),
            }
            for goal in row.goals
        ],
    }
