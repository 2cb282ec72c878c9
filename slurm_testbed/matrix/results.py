"""What the tests of a cell said: read from pytest's report log as it grows, and judged in the end."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from rich.text import Text

from slurm_testbed.matrix.plan import Cell

#: How a test that lacks something begins its reason (docs of the pytest plugin).
NOT_CHECKABLE = "not checkable here because "
REASON_LENGTH = 300
#: What no text of ours holds: control characters, and others that XML 1.0 cannot hold.
_UNPRINTABLE = re.compile("[^\t\n -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Outcome(StrEnum):
    """What came of a cell."""

    PROVED = "proved"
    FAILED = "failed"
    ERROR = "error"
    NOT_CHECKABLE = "not checkable"
    NOT_RUN = "not run"

    @property
    def is_bad(self) -> bool:
        """Whether the matrix is red because of it."""
        return self in {Outcome.FAILED, Outcome.ERROR, Outcome.NOT_RUN}


def plain(text: str) -> str:
    """A text of another program without its colours and control characters, which no XML file can hold.

    Args:
        text: the text.

    Example:
        >>> plain("\\x1b[31mred\\x1b[0m\\x07")
        'red'
    """
    return _UNPRINTABLE.sub("", Text.from_ansi(text).plain)


@dataclass
class ReportLog:
    """pytest's report log, a JSON object per line, read as far as it is written.

    Attributes:
        path: the file; it need not be there yet.
        passed: node ids of tests that passed.
        failed: why each failed test, or file that cannot be collected, did so.
        lacking: why each test that said what is missing could not be checked.
        latest: the test that was heard of last.
        exit_status: pytest's own; None as long as it runs, or when it died.
    """

    path: Path
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    latest: str = ""
    exit_status: int | None = None
    _offset: int = 0
    _outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """How many tests have ended."""
        return len(self.passed) + len(self.failed) + len(self.lacking)

    def read(self) -> None:
        """Read the lines that were written since the last time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # pytest is just writing it
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, record: Mapping[str, Any]) -> None:
        kind = record["$report_type"]
        if kind == "SessionFinish":
            self.exit_status = int(record["exitstatus"])
        elif kind == "CollectReport" and record["outcome"] == "failed":
            self.failed[record["nodeid"] or "tests"] = f"cannot be collected: {_text(record['longrepr'])}"
        elif kind == "TestReport":
            self._phase(record)

    def _phase(self, record: Mapping[str, Any]) -> None:
        """Take one of a test's three phases; the worst counts, and the last closes it."""
        test = self.latest = record["nodeid"]
        found = _phase_outcome(record)
        if found and self._outcomes.get(test, ("", ""))[0] != "failed":
            self._outcomes[test] = found
        if record["when"] != "teardown":
            return
        outcome, reason = self._outcomes.pop(test, ("passed", ""))
        if outcome == "passed":
            self.passed.append(test)
        else:
            cast(dict[str, dict[str, str]], {"failed": self.failed, "lacking": self.lacking})[outcome][test] = reason


def _phase_outcome(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a phase says of its test; None for a phase that passed.

    A skip that does not say what is missing hides something, and an expected failure proves nothing.
    """
    if "wasxfail" in record:
        return "failed", f"expected to fail: {plain(record['wasxfail'])}"
    if record["outcome"] == "failed":
        return "failed", _text(record["longrepr"])
    if record["outcome"] == "skipped":
        reason = _text(record["longrepr"]).removeprefix("Skipped: ")
        if any(name == "slurm_lacks" for name, _ in record["user_properties"]) or reason.startswith(NOT_CHECKABLE):
            return "lacking", reason.removeprefix(NOT_CHECKABLE)
        return "failed", f"skipped, and it does not say what is missing here: {reason}"
    return None


def _text(longrepr: Any) -> str:
    """The one line of a failure that says most: pytest has it as text, as a triple, or as a whole traceback."""
    if isinstance(longrepr, list):
        longrepr = longrepr[2]
    if isinstance(longrepr, Mapping):
        longrepr = (longrepr.get("reprcrash") or {}).get("message") or longrepr.get("longrepr") or ""
    lines = plain(str(longrepr)).strip().splitlines()
    return lines[0][:REASON_LENGTH] if lines else "it said nothing"


@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    Attributes:
        cell: which one.
        outcome: in one word.
        reason: why it is an error, not checkable or not run; empty for the others.
        seconds: how long it took.
        passed: how many tests passed.
        failed: why each test failed that did.
        lacking: what each test lacks that could not be checked.
        folder: where its log and its JUnit file are; None where nothing ran.
    """

    cell: Cell
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    passed: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def log(self) -> Path | None:
        """What pytest printed."""
        return self.folder / "log.txt" if self.folder else None

    @property
    def junit(self) -> Path | None:
        """pytest's JUnit file, which is not there where pytest died."""
        return self.folder / "junit.xml" if self.folder else None

    @property
    def tests(self) -> int:
        """How many tests ended."""
        return self.passed + len(self.failed) + len(self.lacking)


#: pytest's exit statuses: https://docs.pytest.org/en/stable/reference/exit-codes.html
_STATUSES = {
    1: "tests failed, but none of those that ended",
    2: "it was interrupted",
    3: "an internal error of pytest",
    4: "pytest was called wrongly",
    5: "the suite has no tests",
}


def judge(cell: Cell, log: ReportLog, *, code: int, seconds: float, folder: Path, cut_short: str = "") -> CellResult:
    """Say what came of a cell whose process has ended.

    Args:
        cell: which one.
        log: its report log, read to the end.
        code: the exit status of its process, negative for the signal that killed it.
        seconds: how long it took.
        folder: where its files are.
        cut_short: why we ended it ourselves, if we did.
    """
    outcome, reason = _judged(log, code, cut_short)
    if outcome is Outcome.ERROR:
        died_in_a_test = log.latest and log.exit_status is None
        reason += f"; the last test was {log.latest}" if died_in_a_test else _last_line(folder)
    return CellResult(cell, outcome, reason, seconds, len(log.passed), dict(log.failed), dict(log.lacking), folder)


def _judged(log: ReportLog, code: int, cut_short: str) -> tuple[Outcome, str]:
    if cut_short:
        return Outcome.ERROR, cut_short
    if code < 0:
        return Outcome.ERROR, f"pytest was killed by {signal.Signals(-code).name}"
    if log.exit_status is None:
        return Outcome.ERROR, f"pytest died with {code}"
    if log.failed:
        return Outcome.FAILED, ""
    if code:
        return Outcome.ERROR, f"pytest ended with {code}: {_STATUSES.get(code, 'of an unknown meaning')}"
    if not log.passed:
        return Outcome.NOT_CHECKABLE, "; ".join(dict.fromkeys(log.lacking.values()))
    return Outcome.PROVED, ""


def _last_line(folder: Path) -> str:
    """What pytest printed last, for an error that no test explains."""
    lines = (folder / "log.txt").read_text(errors="replace").split("\n") if (folder / "log.txt").exists() else []
    said = next(filter(None, (plain(line).strip() for line in reversed(lines))), "")
    return f"; it printed last: {said[:REASON_LENGTH]}" if said else ""
