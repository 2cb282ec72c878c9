"""Waiting: it returns what it waited for, stops in time, and says all that is known when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from slurm_testbed.errors import NotReadyError
from slurm_testbed.readiness import Timeline, TimelineEntry, wait_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves; it holds the pauses that were taken."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + sum(pauses))
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def failure_of(condition: Callable[[], object], **how: object) -> NotReadyError:
    with pytest.raises(NotReadyError) as failure:
        wait_until(condition, "every node idle", **how)  # type: ignore[arg-type]
    return failure.value


def test_condition_true_at_once_is_not_waited_for(clock: list[float]) -> None:
    answer = wait_until(lambda: {"n1": "idle"}, "every node idle", deadline=60)

    assert answer == {"n1": "idle"}, f"the answer is {answer}"
    assert clock == [], f"it paused {clock}"


def test_condition_true_later_gives_its_own_answer(clock: list[float]) -> None:
    answers = iter([None, [], "", 0, ["n1"]])

    answer = wait_until(lambda: next(answers), "every node idle", deadline=60)

    assert answer == ["n1"], f"the answer is {answer}"
    assert len(clock) == 4, f"it paused {clock}"


def test_pauses_grow_from_ten_milliseconds_to_half_a_second(clock: list[float]) -> None:
    failure_of(lambda: None, deadline=60)

    *pauses, _last = clock
    assert pauses[0] == pytest.approx(0.01), f"the first pause is {pauses[0]}"
    assert pauses == sorted(pauses), f"the pauses are {pauses}"
    assert max(pauses) == pytest.approx(0.5), f"the longest pause is {max(pauses)}"


def test_pauses_are_a_small_share_of_a_short_deadline(clock: list[float]) -> None:
    failure_of(lambda: None, deadline=1)

    assert max(clock) == pytest.approx(0.05), f"the longest pause is {max(clock)}"


def test_deadline_is_kept_and_the_condition_looked_at_there(clock: list[float]) -> None:
    looks: list[float] = []

    failure_of(lambda: looks.append(sum(clock)), deadline=10)

    assert looks[-1] == pytest.approx(10), f"the last look was at {looks[-1]}"


def test_speed_multiplies_the_deadline(clock: list[float]) -> None:
    error = failure_of(lambda: None, deadline=2, speed=25)

    assert sum(clock) == pytest.approx(50), f"it waited {sum(clock)} s"
    assert error.deadline == 50, f"the error speaks of {error.deadline} s"


def test_speed_gives_a_slow_machine_its_time(clock: list[float]) -> None:
    answer = wait_until(lambda: sum(clock) > 3, "every node idle", deadline=2, speed=2)

    assert answer is True, f"the answer is {answer}"


def test_deadline_passed_is_told_with_state_log_and_hint() -> None:
    log = "\n".join(f"line {number}" for number in range(1, 101)) + "\n"

    error = failure_of(lambda: None, deadline=0.02, state=lambda: "n1 is down", log=lambda: log, hint="look at slurmd")

    tail = "\n".join(f"line {number}" for number in range(81, 101))
    assert str(error) == (
        f"waited 0.02 s for every node idle; last seen: n1 is down\nLog (its tail):\n{tail}\nHint: look at slurmd"
    )
    seen = (error.awaited, error.deadline, error.last_state, error.log, error.hint)
    assert seen == ("every node idle", 0.02, "n1 is down", tail, "look at slurmd"), f"the parts are {seen}"


def test_deadline_passed_without_state_and_log_is_told() -> None:
    error = failure_of(lambda: None, deadline=0.02)

    assert str(error) == "waited 0.02 s for every node idle; last seen: nothing"


def test_state_and_log_that_cannot_be_read_do_not_hide_the_failure() -> None:
    def gone() -> str:
        raise OSError("No such container")

    error = failure_of(lambda: None, deadline=0.01, state=gone, log=gone)

    assert str(error).count("No such container") == 2, str(error)


def test_reason_to_give_up_stops_at_once(clock: list[float]) -> None:
    looks: list[None] = []

    error = failure_of(
        lambda: looks.append(None),
        deadline=60,
        state=lambda: "n1 is down",
        give_up=lambda: "the container exited with 1" if len(looks) == 3 else None,
    )

    assert len(looks) == 3, f"it looked {len(looks)} times"
    assert sum(clock) < 0.1, f"it waited {sum(clock)} s"
    assert error.last_state == "the container exited with 1; n1 is down", f"last seen: {error.last_state}"
    assert "waited 60 s" not in str(error), "it claims to have waited for the whole deadline"


def test_reason_to_give_up_is_not_asked_for_where_the_condition_holds() -> None:
    answer = wait_until(lambda: "idle", "every node idle", deadline=1, give_up=lambda: "the container exited")

    assert answer == "idle", f"the answer is {answer}"


def test_condition_that_raises_is_heard() -> None:
    def broken() -> None:
        raise ZeroDivisionError("a mistake in the condition")

    with pytest.raises(ZeroDivisionError, match="a mistake in the condition"):
        wait_until(broken, "every node idle", deadline=1)


def test_timeline_is_read_between_other_lines() -> None:
    log = (
        "slurm-testbed: +0.004 configuration: rendered\r\n"
        "slurmctld: error: slurm-testbed: no entry\n"
        "slurm-testbed: +12 late\n"
        "slurm-testbed: +0.1.2 no number\n"
    )

    entries = Timeline.parse(log).entries

    assert entries == ((0.004, "configuration: rendered"), (12.0, "late")), f"the entries are {entries}"


def test_timeline_is_read_from_composes_log() -> None:
    timeline = Timeline.parse("n1-1  | slurm-testbed: +0.250 slurmd: idle\n")

    assert timeline.entries == (TimelineEntry(0.25, "slurmd: idle"),), f"the entries are {timeline.entries}"


def test_timeline_of_nothing_is_empty() -> None:
    timeline = Timeline.parse("")

    assert timeline.entries == (), f"the entries are {timeline.entries}"
    assert timeline.at("munged") is None, "there is a time for what did not happen"
    assert len(str(timeline).splitlines()) == 1, str(timeline)


def test_timeline_shown_is_a_table_with_steps() -> None:
    timeline = Timeline.parse("slurm-testbed: +0.100 munged: listening\nslurm-testbed: +1.350 slurmd: idle\n")

    rows = [line.split(maxsplit=2) for line in str(timeline).splitlines()]
    assert rows == [
        ["seconds", "step", "what"],
        ["0.100", "+0.100", "munged: listening"],
        ["1.350", "+1.250", "slurmd: idle"],
    ], str(timeline)
