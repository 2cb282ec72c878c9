"""The benchmark's arithmetic, goals, table and options; its figures need clusters: `invoke bench`."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from slurm_testbed import bench, data, engine
from slurm_testbed.bench import Bench, Goal, Measure, Report, Row
from slurm_testbed.bench.inside import PRELUDE
from slurm_testbed.errors import EngineError, SlurmTestbedError, UsageError

#: The measures of this file need nothing of it.
NOTHING = cast(Bench, None)
FACTS = {
    "image": "slurm-testbed/slurm-single-node:24.11.5",
    "machine": {"cpus": 2, "engine": "26.1.5", "load_before": 0.1},
}


def row(*samples: float, goals: tuple[Goal, ...] = (), failures: int = 0, **about: object) -> Row:
    made = Row("start", "docker run to srun", goals, **about)  # type: ignore[arg-type]
    made.samples, made.failures = list(samples), ["no answer"] * failures
    return made


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table())
    return cast(io.StringIO, console.file).getvalue()


# --- statistics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([7.0], 7.0), ([1.0, 9.0, 2.0], 9.0), (list(range(1, 101)), 99), (list(range(1, 201)), 198)],
    ids=["one", "three", "a hundred", "two hundred"],
)
def test_p99_is_the_nearest_rank_and_of_few_the_largest(samples: list[float], expected: float) -> None:
    found = bench.percentile(samples, 99)

    assert found == expected, f"p99 is {found}"


def test_median_of_an_even_number_lies_between() -> None:
    assert row(1.0, 2.0, 3.0, 10.0).median == 2.5, "the median of 1, 2, 3 and 10"


def test_row_without_samples_has_no_statistics() -> None:
    empty = row(failures=2)

    found = (empty.median, empty.p99, empty.per_second, empty.multiple(0.25))

    assert found == (None, None, None, None), f"there are {found}"


def test_rate_counts_the_jobs_of_a_sample() -> None:
    assert row(5.0, count=200).per_second == 40, "200 jobs in 5 s"
    assert row(5.0).per_second is None, "a single thing has no rate"


def test_multiple_is_of_a_bare_start_and_of_seconds_only() -> None:
    assert row(1.0).multiple(0.25) == 4, "1 s over 0.25 s"
    assert row(126.0, unit="MB").multiple(0.25) is None, "megabytes are no multiple of seconds"


# --- goals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "measured", "expected"),
    [
        (Goal("median", 1.0), row(0.9, 1.0, 5.0), "met"),
        (Goal("median", 1.0), row(0.9, 1.1, 5.0), "missed"),
        (Goal("median", 0.8, over_bare=True), row(1.0), "met"),
        (Goal("median", 0.8, over_bare=True), row(1.1), "missed"),
        (Goal("p99", 2.0, least=100), row(*[1.0] * 99), "undecided"),
        (Goal("p99", 2.0, least=100), row(*[1.0] * 100), "met"),
        (Goal("p99", 2.0, least=100), row(1.0, 2.1), "missed"),
        (Goal("failed", 0, least=3), row(1.0, 1.0), "undecided"),
        (Goal("failed", 0, least=3), row(1.0, 1.0, 1.0), "met"),
        (Goal("failed", 0, least=3), row(1.0, failures=1), "missed"),
        (Goal("median", 1.0), row(), "undecided"),
        (Goal("median", 1.0), row(failures=1), "missed"),
    ],
)
def test_goal_is_met_missed_or_undecided(goal: Goal, measured: Row, expected: str) -> None:
    verdict = goal.verdict(measured, 0.25)

    assert verdict == expected, f"{goal} of {measured.samples} is {verdict}"


def test_goal_over_bare_is_undecided_without_a_bare_start() -> None:
    verdict = Goal("median", 0.8, over_bare=True).verdict(row(1.0), None)

    assert verdict == "undecided", f"it is {verdict}"


def test_report_names_missed_goals_and_failed_rows() -> None:
    report = Report(FACTS, row(0.25), [row(3.0, goals=(Goal("median", 2.0),)), row(1.0, failures=1)])

    missed = report.missed()

    assert missed == ["docker run to srun: median ≤ 2 s", "docker run to srun: 1 of 2 failed"], missed


def test_undecided_goal_is_not_missed() -> None:
    report = Report(FACTS, row(0.25), [row(1.0, goals=(Goal("p99", 2.0, least=100),))])

    assert report.missed() == [], f"missed: {report.missed()}"


# --- table and JSON --------------------------------------------------------------------------------------


def test_table_shows_figures_multiple_rate_and_verdict() -> None:
    goal = Goal("median", 8)
    report = Report(FACTS, row(0.25), [row(5.0, goals=(goal,), count=200)])

    lines = shown(report).splitlines()

    words = " ".join(lines[-1].split())
    assert words == "docker run to srun 1 5.00 s 5.00 s 20.00 40 median ≤ 8 s: met", lines


def test_table_shows_failures_and_what_is_not_there() -> None:
    text = shown(Report(FACTS, row(0.25), [row(failures=2)]))

    assert "2 (2 failed)" in text, text
    assert text.splitlines()[-1].split()[-2:] == ["-", "-"], text


def test_table_says_how_many_samples_a_goal_needs() -> None:
    goal = Goal("p99", 2.0, over_bare=True, least=100)

    text = shown(Report(FACTS, row(0.25), [row(1.25, goals=(goal,))]))

    assert "p99 ≤ 2 s over bare: undecided, 1.00 s (n < 100)" in text, text


def test_json_holds_samples_statistics_and_verdicts() -> None:
    report = Report(FACTS, row(0.25), [row(1.0, 2.0, goals=(Goal("median", 1.5),), failures=1)])

    found = json.loads(json.dumps(report.to_json()))

    assert found["machine"]["cpus"] == 2, found
    assert [r["median"] for r in found["rows"]] == [0.25, 1.5], found
    assert found["rows"][1]["samples"] == [1.0, 2.0], found
    assert found["rows"][1]["multiple_of_bare"] == 6, found
    assert found["rows"][1]["failures"] == ["no answer"], found
    assert found["rows"][1]["goals"][0]["verdict"] == "met", found


def test_equal_reasons_of_failures_are_told_once() -> None:
    first, second = row(failures=2), row(failures=1)
    first.title, second.title = "sbatch", "sacct"

    reasons = Report(FACTS, row(0.25), [first, second]).reasons()

    assert reasons == {"no answer": ["sbatch", "sacct"]}, reasons


# --- options ---------------------------------------------------------------------------------------------


def test_all_measures_but_the_builds_are_chosen_by_default() -> None:
    names = [measure.name for measure in bench.choose()]

    assert "start" in names, names
    assert not [name for name in names if name.startswith("build")], names


def test_build_adds_the_builds() -> None:
    names = [measure.name for measure in bench.choose("stop", build=True)]

    assert names == ["stop", "build-cold", "build-warm", "build-entrypoint"], names


def test_only_takes_names_in_any_order() -> None:
    names = [measure.name for measure in bench.choose("build-warm, start")]

    assert names == ["start", "build-warm"], names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only": "strat"}, "no measure strat; there are start, "),
        ({"repeat": 0}, "--repeat is 1 or more, not 0"),
        ({"json_file": Path("/nowhere/figures.json")}, "--json: there is no folder /nowhere"),
        ({"json_file": Path("/")}, "--json: / is a folder"),
    ],
)
def test_wrong_option_is_told_before_anything_is_measured(
    options: Mapping[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "connect", lambda: pytest.fail("it went on to the engine"))

    with pytest.raises(UsageError) as failure:
        bench.run(**options)  # type: ignore[arg-type]

    assert str(failure.value).startswith(said), f"it said: {failure.value}"


def test_rows_have_names_of_their_own() -> None:
    names = [found.name for measure in bench.catalogue().values() for found in measure.rows]

    assert len(names) == len(set(names)), f"a name is there twice: {sorted(names)}"


# --- taking samples --------------------------------------------------------------------------------------


def measure(*outcomes: float | Exception, closed: list[str] | None = None) -> Measure:
    """A measure whose samples are these numbers, or fail so."""
    left: Iterator[float | Exception] = iter(outcomes)

    def samples(_: Bench) -> bench.Samples:
        try:
            for outcome in left:
                if isinstance(outcome, Exception):
                    raise outcome
                yield {"start": outcome}
        finally:
            if closed is not None:
                closed.append("closed")

    return Measure("start", len(outcomes), (Row("start", "start"), Row("other", "other")), samples)


def test_samples_come_into_the_row_of_their_name() -> None:
    taken = measure(1.0, 2.0)

    list(bench.take(taken, NOTHING, 2))

    assert [found.samples for found in taken.rows] == [[1.0, 2.0], []], taken.rows


def test_failed_sample_is_counted_and_the_next_ones_are_taken() -> None:
    taken = measure(1.0, SlurmTestbedError("no answer"), 3.0)

    list(bench.take(taken, NOTHING, 3))

    assert taken.rows[0].samples == [1.0, 3.0], taken.rows
    assert taken.rows[0].failures == ["no answer"], taken.rows


def test_failures_in_a_row_end_a_measure() -> None:
    taken = measure(*[EngineError("gone")] * 10)

    list(bench.take(taken, NOTHING, 10))

    assert len(taken.rows[0].failures) == bench.FAILURES_IN_A_ROW, taken.rows


def test_interrupt_closes_what_the_samples_hold() -> None:
    closed: list[str] = []
    held = measure(1.0, 2.0, closed=closed).samples(NOTHING)  # else it is closed when nobody has it any more
    taking = bench.take(Measure("start", 2, (Row("start", "start"),), lambda _: held), NOTHING, 2)
    next(taking)

    with pytest.raises(KeyboardInterrupt):
        taking.throw(KeyboardInterrupt)

    assert closed == ["closed"], "the samples were left open"


# --- inside a cluster ------------------------------------------------------------------------------------


def scripted(tmp_path: Path, squeue: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the functions of the benchmark, where squeue is another script."""
    command = tmp_path / "squeue"
    command.write_text(f"#!/bin/sh\n{squeue}\n")
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["bash", "-c", PRELUDE + script]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_jobs_that_did_not_complete_give_no_figure(tmp_path: Path) -> None:
    done = scripted(tmp_path, "printf 'COMPLETED\\nFAILED\\nCOMPLETED\\n'", "all_completed 3")

    assert done.returncode == 1, f"it exited with {done.returncode}"
    assert "expected 3 COMPLETED, there are: 2 COMPLETED 1 FAILED" in done.stderr, done.stderr


def test_jobs_that_are_missing_give_no_figure(tmp_path: Path) -> None:
    done = scripted(tmp_path, "printf 'COMPLETED\\nCOMPLETED\\n'", "all_completed 3")

    assert "expected 3 COMPLETED, there are: 2 COMPLETED" in done.stderr, done.stderr


def test_failed_job_gives_no_figure(tmp_path: Path) -> None:
    done = scripted(tmp_path, "echo FAILED", 'await 5 0.01 "it to be over" over 7; completed 7; mark end')

    assert "job 7 is FAILED, not COMPLETED" in done.stderr, done.stderr
    assert "end" not in done.stdout, done.stdout


def test_job_is_awaited_while_it_runs(tmp_path: Path) -> None:
    states = "cat state 2> /dev/null || echo RUNNING; echo COMPLETED > state"
    script = f'cd {tmp_path}; await 5 0.01 "it to be over" over 7; completed 7; mark end'

    done = scripted(tmp_path, states, script)

    assert done.stdout.startswith("@ end "), f"{done.stdout}{done.stderr}"


def test_wait_in_vain_says_what_was_seen(tmp_path: Path) -> None:
    done = scripted(tmp_path, "echo PENDING", 'await 1 0.01 "the job to be over" over 7')

    assert "waited in vain for the job to be over; last seen: PENDING" in done.stderr, done.stderr


def test_marks_of_the_same_clock_are_left_alone() -> None:
    marks = bench.on_our_clock({"accepted": 10.2, "completed": 11.0}, began=10.0, ended=11.5)

    assert marks == {"accepted": 10.2, "completed": 11.0}, marks


def test_marks_of_another_clock_end_when_the_command_did() -> None:
    marks = bench.on_our_clock({"accepted": 99.0, "completed": 99.5}, began=10.0, ended=11.5)

    assert marks == {"accepted": 11.0, "completed": 11.5}, marks


# --- builds ----------------------------------------------------------------------------------------------


def test_every_cache_mount_of_our_dockerfiles_gets_an_id_of_its_own() -> None:
    for dockerfile in data.images().rglob("Dockerfile"):
        text = dockerfile.read_text()

        changed = bench.with_own_caches(text, "bench-1")

        mounts = text.count("type=cache")
        assert changed.count("type=cache,id=bench-1/") == mounts, f"{dockerfile} has {mounts} cache mounts"


def test_cache_mount_that_would_stay_warm_is_refused() -> None:
    with pytest.raises(SlurmTestbedError) as failure:
        bench.with_own_caches("RUN --mount=type=cache,id=ccache,target=/root/.cache make", "bench-1")

    assert "type=cache,id=ccache" in str(failure.value), f"it said: {failure.value}"


def test_only_our_caches_are_found_for_removal() -> None:
    listed = """ID:\t\tours1
Size:\t\t0B
Description:\tcached mount /var/foo from exec /bin/sh -c make with id "/bench-1/var/foo"
Type:\t\texec.cachemount

ID:\t\tours2
Size:\t\t222.1MB
Description:\tcached mount /var/cache/apt from exec /bin/sh -c set -eu

apt-get update -qq
 with id "/bench-1/var/cache/apt"
Type:\t\texec.cachemount

ID:\t\ttheirs
Description:\tcached mount /var/foo from exec /bin/sh -c make with id "/bench-12/var/foo"

ID:\t\tshared
Description:\tcached mount /root/.cache/ccache from exec /bin/sh -c make with id "/root/.cache/ccache"

Reclaimable:\t2.384GB
"""

    found = bench.cache_records(listed, "bench-1")

    assert found == ["ours1", "ours2"], f"it would remove {found}"
