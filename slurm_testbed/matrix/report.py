"""What came of a run: as a table, as JSON, as JUnit."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from junitparser import Error, JUnitXml, JUnitXmlError, Skipped, TestCase, TestSuite
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slurm_testbed.matrix.plan import Cell, Plan
from slurm_testbed.matrix.progress import STYLES
from slurm_testbed.matrix.results import CellResult, Outcome

#: Changes when a reader of the JSON has to.
FORMAT = 1


@dataclass
class Report:
    """The results of a run.

    Attributes:
        plan: what was asked for.
        root: the repository.
        jobs: how many cells ran at once.
        facts: about the machine and the commit.
        results: of each cell.
        seconds: how long it all took, with the builds.
        interrupted: the signal that ended the run early; 0 for none.
    """

    plan: Plan
    root: Path
    jobs: int
    facts: Mapping[str, Any]
    results: dict[Cell, CellResult] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: int = 0

    @classmethod
    def of(cls, plan: Plan, *, jobs: int, engine: Mapping[str, Any], root: Path) -> Report:
        """A report without results.

        Args:
            plan: what is asked for.
            jobs: how many cells run at once.
            engine: what the engine says of itself.
            root: the repository.
        """
        facts = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(root),
            "engine": engine.get("ServerVersion"),
            "cpus": engine.get("NCPU"),
            "memory": engine.get("MemTotal"),
        }
        return cls(plan, root, jobs, facts)

    def __iter__(self) -> Iterator[CellResult]:
        """The results, in the plan's order."""
        return (self.results[cell] for cell in self.plan.cells)

    @property
    def ok(self) -> bool:
        """Whether no cell is bad; one that is not checkable here is a gap with a name."""
        return not self.interrupted and not any(result.outcome.is_bad for result in self)

    @property
    def exit_status(self) -> int:
        """That of `invoke matrix`: after a signal, as a shell has it."""
        return 128 + self.interrupted if self.interrupted else int(not self.ok)

    def show(self, console: Console) -> None:
        """Print the table, and below it every gap and every failure by name.

        Args:
            console: where.
        """
        console.print(self._table())
        for result in self:
            if result.outcome is Outcome.PROVED and not result.lacking:
                continue
            console.print(
                Text.assemble((f"{result.cell}: {result.outcome}", STYLES[result.outcome]), *self._details(result)),
                soft_wrap=True,
                highlight=False,
            )
        counts = ", ".join(f"{number} {outcome}" for outcome, number in self._totals().items() if number)
        console.print(f"{counts}; {self.seconds / 60:.1f} minutes, {self.jobs} cells at once", highlight=False)

    def _details(self, result: CellResult) -> Iterator[str]:
        if result.reason:
            yield f", {'because ' if result.outcome is Outcome.NOT_CHECKABLE else ''}{result.reason}"
        for test, reason in result.failed.items():
            yield f"\n  {test}: {reason}"
        for reason, number in Counter(result.lacking.values()).items() if result.passed else ():
            yield f"\n  {number} not checkable because {reason}"
        if result.outcome.is_bad and result.log:
            yield f"\n  log: {self._path(result.log)}"

    def _table(self) -> Table:
        table = Table("release", "on", *self.plan.suites, box=None, pad_edge=False)
        for release in self.plan.releases:
            for substrate in self.plan.substrates:
                cells = (self.results[Cell(release, suite, substrate)] for suite in self.plan.suites)
                table.add_row(str(release), substrate, *map(_entry, cells))
        return table

    def _totals(self) -> dict[str, int]:
        counts = Counter(result.outcome for result in self)
        return {outcome.value: counts[outcome] for outcome in Outcome}

    def _path(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def to_json(self) -> dict[str, Any]:
        """All of it, as docs/matrix.md describes it."""
        return {
            "format": FORMAT,
            **self.facts,
            "jobs": self.jobs,
            "seconds": round(self.seconds, 1),
            "ok": self.ok,
            "interrupted": bool(self.interrupted),
            "totals": self._totals(),
            "cells": [self._cell(result) for result in self],
        }

    def _cell(self, result: CellResult) -> dict[str, Any]:
        return {
            "name": str(result.cell),
            "release": result.cell.release.version,
            "suite": result.cell.suite,
            "substrate": result.cell.substrate,
            "outcome": result.outcome.value,
            "reason": result.reason,
            "seconds": round(result.seconds, 1),
            "passed": result.passed,
            "failed": [{"test": test, "reason": reason} for test, reason in result.failed.items()],
            "not_checkable": [{"test": test, "reason": reason} for test, reason in result.lacking.items()],
            "log": self._path(result.log) if result.log else None,
        }

    def to_junit(self) -> JUnitXml:
        """pytest's own JUnit files in one, a test suite for each cell; what no test says is a case `cell`."""
        merged = JUnitXml("invoke matrix")
        for result in self:
            suite = _suite_of(result)
            for name, value in (
                ("slurm_release", result.cell.release.version),
                ("slurm_on", result.cell.substrate),
                ("outcome", result.outcome.value),
            ):
                suite.add_property(name, value)
            if case := _case_of_the_cell(result):
                suite.add_testcase(case)
            merged.add_testsuite(suite)
        merged.update_statistics()  # type: ignore[no-untyped-call]  # junitparser left its types out there
        return merged


def _entry(result: CellResult) -> Text:
    """A cell of the table."""
    style = STYLES[result.outcome]
    if result.outcome is Outcome.PROVED:
        gaps = f" +{len(result.lacking)}?" if result.lacking else ""
        return Text(f"{result.passed}{gaps} in {result.seconds:.0f} s", style=style)
    if result.outcome is Outcome.FAILED:
        return Text(f"{len(result.failed)} of {result.tests} failed", style=style)
    return Text(result.outcome.value, style=style)


def _suite_of(result: CellResult) -> TestSuite:
    """What pytest wrote of a cell; an empty suite where it wrote nothing whole."""
    if result.junit and result.junit.exists():
        try:
            for suite in JUnitXml.fromfile(str(result.junit)):
                return suite
        except (JUnitXmlError, SyntaxError):  # ElementTree's ParseError is one
            pass
    return TestSuite(str(result.cell))


def _case_of_the_cell(result: CellResult) -> TestCase | None:
    verdicts = {Outcome.ERROR: Error, Outcome.NOT_RUN: Error, Outcome.NOT_CHECKABLE: Skipped}
    if result.outcome not in verdicts:
        return None
    case = TestCase("cell", classname=str(result.cell))
    case.result = [verdicts[result.outcome](result.reason.partition("\n")[0], "invoke matrix")]
    return case


def _commit(root: Path) -> str:
    argv = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "-"
