"""How far the cells are: live on a terminal, a line for each that ended elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from slurm_testbed.matrix.plan import Cell
from slurm_testbed.matrix.results import CellResult, Outcome, ReportLog

STYLES = {
    Outcome.PROVED: "green",
    Outcome.FAILED: "bold red",
    Outcome.ERROR: "bold red",
    Outcome.NOT_CHECKABLE: "yellow",
    Outcome.NOT_RUN: "red",
}


class Progress(Protocol):
    """Is told what happens."""

    def started(self, cell: Cell) -> None:
        """A cell has started."""

    def moved(self, cell: Cell, log: ReportLog) -> None:
        """A cell may have got further."""

    def ended(self, result: CellResult) -> None:
        """A cell has ended."""


@contextlib.contextmanager
def progress_on(console: Console, cells: int) -> Iterator[Progress]:
    """Progress for a console.

    Args:
        console: where it is shown.
        cells: how many there are.

    Example:
        >>> with progress_on(Console(), 3) as progress:
        ...     progress.started  # doctest: +ELLIPSIS
        <bound method ...
    """
    if not console.is_terminal:
        yield _Lines(console, cells)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[about]}"))
    with Bars(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        yield _Live(bars, console, cells)


def told(result: CellResult) -> str:
    """A cell's result in one line.

    Args:
        result: of the cell.
    """
    if result.outcome in {Outcome.NOT_CHECKABLE, Outcome.NOT_RUN} and not result.tests:
        return f"{result.cell}: {result.outcome}, {_first_line(result.reason)}"
    counts = f"{result.passed} of {result.tests} tests passed"
    lacking = f", {len(result.lacking)} not checkable" if result.lacking else ""
    text = f"{result.cell}: {result.outcome}, {counts}{lacking} in {result.seconds:.0f} s"
    return f"{text}; {_first_line(result.reason)}" if result.reason else text


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


class _Lines:
    def __init__(self, console: Console, cells: int) -> None:
        self._console, self._cells, self._done = console, cells, 0

    def started(self, cell: Cell) -> None:
        self._print(f"{cell}: started")

    def moved(self, cell: Cell, log: ReportLog) -> None:
        """Nothing: a log that is read later needs no more than starts and ends."""

    def ended(self, result: CellResult) -> None:
        self._done += 1
        self._print(f"[{self._done}/{self._cells}] {told(result)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Live:
    def __init__(self, bars: Bars, console: Console, cells: int) -> None:
        self._bars, self._console = bars, console
        self._tasks: dict[Cell, TaskID] = {}
        self._done, self._cells = 0, cells
        self._all = bars.add_task("cells", about=f"0 of {cells} ended")

    def started(self, cell: Cell) -> None:
        self._tasks[cell] = self._bars.add_task(str(cell), about="starting")

    def moved(self, cell: Cell, log: ReportLog) -> None:
        failed = f", [red]{len(log.failed)} failed[/]" if log.failed else ""
        latest = log.latest.rpartition("::")[2].partition("[")[0]
        self._bars.update(self._tasks[cell], about=f"{log.ended} tests{failed} {latest}")

    def ended(self, result: CellResult) -> None:
        self._done += 1
        if result.cell in self._tasks:
            self._bars.remove_task(self._tasks.pop(result.cell))
        self._bars.update(self._all, about=f"{self._done} of {self._cells} ended")
        self._console.print(told(result), style=STYLES[result.outcome], markup=False, highlight=False, soft_wrap=True)
