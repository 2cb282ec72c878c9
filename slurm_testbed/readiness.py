"""Wait for a condition with a deadline, and read the timeline of a start."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_exponential
from tenacity.stop import stop_base

from slurm_testbed.errors import NotReadyError, tail

T = TypeVar("T")

#: Seconds between the first two polls; each pause is half as long again as the one before.
SHORTEST_PAUSE = 0.01
#: No pause is longer than this many seconds, nor than a twentieth of the deadline.
LONGEST_PAUSE = 0.5
LOG_TAIL_LINES = 20


def wait_until(
    condition: Callable[[], T | None],
    awaited: str,
    *,
    deadline: float,
    speed: float = 1.0,
    state: Callable[[], str] | None = None,
    log: Callable[[], str] | None = None,
    hint: str = "",
    give_up: Callable[[], str | None] | None = None,
) -> T:
    """Poll until a condition is true, and return what it returned.

    What the condition raises is not caught: a condition that can fail says so by returning None.

    Args:
        condition: returns something true when it holds.
        awaited: the condition as a noun phrase, for the error ("every node idle").
        deadline: seconds that an ordinary machine may take.
        speed: how many times slower than an ordinary machine this one is; it multiplies the deadline.
        state: says what is seen now; asked only when the wait fails.
        log: the log that explains most; the error shows its last 20 lines.
        hint: what the reader of the error can do about it.
        give_up: a reason to stop at once, such as "the container exited with 1"; None to go on.

    Raises:
        NotReadyError: the deadline passed, or `give_up` had a reason.

    Example:
        >>> states = iter(["DOWN", "UNKNOWN", "IDLE"])
        >>> wait_until(lambda: next(states) == "IDLE", "n1 idle", deadline=5)
        True
        >>> wait_until(lambda: None, "n1 idle", deadline=0.01, state=lambda: "n1 is down")
        Traceback (most recent call last):
        ...
        slurm_testbed.errors.NotReadyError: waited 0.01 s for n1 idle; last seen: n1 is down
    """
    limit = deadline * speed
    stop = _StopWith(give_up)

    def fail(_: RetryCallState) -> NoReturn:
        waited = round(time.monotonic() - started, 2) if stop.reason else limit
        seen = "; ".join(filter(None, [stop.reason, _ask(state)]))
        error = NotReadyError(awaited, deadline=waited, last_state=seen, log=tail(_ask(log), LOG_TAIL_LINES), hint=hint)
        error.deadline = limit
        raise error

    started = time.monotonic()
    polling = Retrying(
        retry=retry_if_result(lambda result: not result),
        wait=_pauses(limit),
        stop=stop | stop_after_delay(limit),
        retry_error_callback=fail,
    )
    result: T = polling(condition)  # type: ignore[assignment]  # a falsy result ends in fail()
    return result


class _StopWith(stop_base):
    """A stop condition of tenacity that remembers why it stopped."""

    def __init__(self, give_up: Callable[[], str | None] | None) -> None:
        self.give_up = give_up
        self.reason = ""

    def __call__(self, retry_state: RetryCallState) -> bool:  # noqa: ARG002  # tenacity's signature
        self.reason = (self.give_up() if self.give_up else None) or ""
        return bool(self.reason)


def _pauses(limit: float) -> Callable[[RetryCallState], float]:
    """Pauses that grow, and of which the last ends at the deadline, for one more look."""
    longest = max(SHORTEST_PAUSE, min(LONGEST_PAUSE, limit / 20))
    growing = wait_exponential(multiplier=SHORTEST_PAUSE, exp_base=1.5, max=longest)

    def pause(call: RetryCallState) -> float:
        left = limit - (call.seconds_since_start or 0.0)
        return max(0.0, min(growing(call), left))

    return pause


def _ask(what: Callable[[], str] | None) -> str:
    if what is None:
        return ""
    try:
        return what()
    except Exception as error:  # what explains a failure must not take its place
        return f"(cannot be read: {error})"


class TimelineEntry(NamedTuple):
    """One step of a start.

    Attributes:
        seconds: since the container's first process started.
        text: what happened.
    """

    seconds: float
    text: str


@dataclass(frozen=True)
class Timeline:
    """What happened when during a container's start, as its image logs it.

    Example:
        >>> timeline = Timeline.parse('''
        ... slurm-testbed: +0.004 configuration: rendered
        ... munged: Notice: Starting munge-0.5.16 daemon
        ... slurm-testbed: +0.123 munged: listening
        ... ''')
        >>> print(timeline)
         seconds     step  what
           0.004   +0.004  configuration: rendered
           0.123   +0.119  munged: listening
        >>> timeline.at("munged")
        0.123
    """

    entries: tuple[TimelineEntry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Timeline:
        """Pick the timeline's lines out of a log; other lines are left out.

        Args:
            text: a log, with or without the prefixes that `docker compose logs` puts before each line.
        """
        return cls(tuple(TimelineEntry(float(at), what) for at, what in _LINE.findall(text)))

    def at(self, beginning: str) -> float | None:
        """Seconds at which the first entry stands whose text begins like this; None without one."""
        return next((entry.seconds for entry in self.entries if entry.text.startswith(beginning)), None)

    def __str__(self) -> str:
        before = [0.0, *(entry.seconds for entry in self.entries)]
        rows = [
            f"{entry.seconds:8.3f} {entry.seconds - previous:+8.3f}  {entry.text}"
            for previous, entry in zip(before, self.entries, strict=False)
        ]
        return "\n".join([f"{'seconds':>8} {'step':>8}  what", *rows])


_LINE = re.compile(r"^(?:.*[ \t])?slurm-testbed: \+(\d+(?:\.\d+)?) (.*\S)", re.MULTILINE)
