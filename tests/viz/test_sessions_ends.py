"""How sessions wait and end: in the queue, from outside, and when the service is killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fixtures.app_sessions import (
    HOST,
    answers,
    await_status,
    connection,
    delete,
    job_of,
    jobs,
    kill_service,
    running,
    screen,
    show,
    start,
)
from fixtures.screen import colours
from slurm_testbed import SlurmCluster
from slurm_testbed.errors import AppSessionsError

pytestmark = pytest.mark.deep

#: Before Slurm's own on the PATH of the service: holds sbatch where a file asks for it, and runs Slurm's own.
SBATCH = """#!/bin/bash
for word; do case $word in --job-name=*) name=${word#*=} ;; esac; done
touch /run/sbatch/called.$name
until [ ! -e /run/sbatch/hold-before ] || [ -e /run/sbatch/go.$name ]; do read -rt 0.05 <> <(:); done
answer=$(/usr/bin/sbatch "$@") || exit
touch /run/sbatch/submitted.$name
while [ -e /run/sbatch/hold-after ]; do read -rt 0.05 <> <(:); done
echo "$answer"
"""


@pytest.fixture
def held(apps: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, where sbatch of the service can be held."""
    apps.substrate.put(HOST, {"/usr/local/bin/sbatch": SBATCH.encode()}, mode=0o755)
    apps.run(["install", "-d", "-m", "1777", "/run/sbatch"], host=HOST, user="root")
    yield apps
    apps.run(["rm", "-rf", "/usr/local/bin/sbatch", "/run/sbatch"], host=HOST, user="root")


def touch(slurm: SlurmCluster, name: str) -> None:
    """Make one of the files that hold sbatch."""
    slurm.run(["touch", f"/run/sbatch/{name}"], host=HOST, user="root")


def await_file(slurm: SlurmCluster, name: str) -> None:
    """Wait until sbatch has come so far."""
    path = f"/run/sbatch/{name}"
    slurm.wait_until(
        lambda: slurm.run(["test", "-e", path], host=HOST, user="root", check=False).returncode == 0,
        f"{path} on {HOST}",
        deadline=60,
        state=lambda: slurm.run(["ls", "/run/sbatch"], host=HOST, user="root").stdout,
    )


@pytest.mark.row("V-09.1")
def test_wait_of_more_than_a_minute_still_reaches_running(apps: SlurmCluster) -> None:
    blocker = apps.sbatch(wrap="sleep 600", nodes=2, exclusive=True, user="bob", partition="viz")
    blocker.wait(until={"RUNNING"})
    began = time.monotonic()
    session = await_status(apps, start(apps, "xterm"), "pending")
    apps.wait_until(lambda: (show(apps, session) or {})["reason"], "Slurm's reason", deadline=60)

    apps.wait_until(lambda: time.monotonic() - began > 62, "a minute to pass", deadline=90)
    waiting = show(apps, session)
    assert waiting
    assert (waiting["status"], waiting["reason"], waiting["node"]) == ("pending", "Resources", "")
    blocker.cancel()

    assert await_status(apps, session, "running")["job_id"] == waiting["job_id"]


@pytest.mark.row("V-09.2", "V-02.2")
def test_cancel_from_outside_is_seen_within_seconds(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    job_of(apps, session).cancel()

    stopped = await_status(apps, session, "stopped", deadline=30)

    assert (stopped["message"], stopped["displayUrl"]) == ("its job was cancelled", "")
    with pytest.raises(
        AppSessionsError, match="409 the session is stopped, it has no display now: its job was cancelled"
    ):
        connection(apps, session)
    delete(apps, session)


@pytest.mark.row("V-09.2")
def test_cancel_of_a_job_that_waits_is_seen(apps: SlurmCluster) -> None:
    blocker = apps.sbatch(wrap="sleep 600", nodes=2, exclusive=True, user="bob", partition="viz")
    blocker.wait(until={"RUNNING"})
    session = await_status(apps, start(apps, "xterm"), "pending")
    job_of(apps, session).cancel()

    assert await_status(apps, session, "stopped", deadline=30)["message"] == "its job was cancelled"
    blocker.cancel()


@pytest.mark.row("V-09.3")
def test_time_limit_stops_the_session(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    apps.run(["scontrol", "update", f"JobId={session['job_id']}", "TimeLimit=00:01:00"])

    assert await_status(apps, session, "stopped", deadline=180)["message"] == "its job reached its time limit"


def test_application_that_is_closed_stops_the_session(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    with screen(apps, session) as display:
        display.await_calm()
        display.write("exit\n")

        assert await_status(apps, session, "stopped", deadline=60)["message"] == "the application was closed"


@pytest.mark.row("V-09.4")
def test_service_killed_while_a_session_runs_loses_nothing(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    kill_service(apps)

    assert show(apps, session) == session
    with screen(apps, session) as display:
        assert colours(display.await_calm()) > 1
    delete(apps, session)
    assert jobs(apps) == []
    assert job_of(apps, session).wait().state == "CANCELLED"


@pytest.mark.row("V-09.4")
def test_service_killed_while_a_job_waits_loses_nothing(apps: SlurmCluster) -> None:
    blocker = apps.sbatch(wrap="sleep 600", nodes=2, exclusive=True, user="bob", partition="viz")
    blocker.wait(until={"RUNNING"})
    session = await_status(apps, start(apps, "xterm"), "pending")
    kill_service(apps)
    blocker.cancel()

    assert await_status(apps, session, "running")["job_id"] == session["job_id"]


@pytest.mark.row("V-09.4")
def test_job_that_ended_while_the_service_was_away_is_seen(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    apps.substrate.service(HOST, HOST, "stop")
    job_of(apps, session).cancel()
    job_of(apps, session).wait()
    apps.substrate.service(HOST, HOST, "start")
    apps.wait_until(lambda: answers(apps), "the service to be back", deadline=60)

    assert await_status(apps, session, "stopped", deadline=30)["message"] == "its job was cancelled"


@pytest.mark.row("V-09.4")
def test_job_whose_id_the_service_never_learned_is_found_again(held: SlurmCluster) -> None:
    touch(held, "hold-after")
    session = start(held, "xterm")
    await_file(held, f"submitted.app_session_{session['id']}.1")
    assert show(held, session)["status"] == "creating"  # type: ignore[index]
    kill_service(held)

    found = await_status(held, session, "running")

    assert jobs(held) == [found["job_id"]]
    assert found["run"] == 1


@pytest.mark.row("V-09.4")
def test_session_deleted_while_its_submission_is_unknown_leaves_no_job(held: SlurmCluster) -> None:
    touch(held, "hold-after")
    session = start(held, "xterm")
    await_file(held, f"submitted.app_session_{session['id']}.1")
    kill_service(held)
    delete(held, session)

    assert jobs(held) == []


@pytest.mark.row("V-09.4")
def test_job_that_is_submitted_after_its_service_died_is_ended(held: SlurmCluster) -> None:
    touch(held, "hold-before")
    session = start(held, "xterm")
    late = f"app_session_{session['id']}.1"
    await_file(held, f"called.{late}")
    kill_service(held)
    # The next process finds no job, and submits a new one; the old sbatch lives on.
    touch(held, f"go.app_session_{session['id']}.2")
    found = await_status(held, session, "running")
    touch(held, f"go.{late}")
    await_file(held, f"submitted.{late}")

    held.wait_until(
        lambda: jobs(held) == [found["job_id"]], "the late job to be ended", deadline=60, state=lambda: str(jobs(held))
    )
    assert found["run"] == 2
    assert show(held, session) == found
    assert f"({late}) of alice has no session: ending it" in held.substrate.logs(HOST, HOST)


@pytest.mark.row("V-09.4")
def test_service_killed_while_a_session_is_deleted_ends_it_all_the_same(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    # A node that is stopped does not end its job, so there is time to kill the service.
    apps.substrate.service(session["node"], "slurmd", "stop")
    try:
        left = apps.app_sessions.api("DELETE", f"app/sessions/{session['id']}")
        assert (left.status_code, left.json()["ending"]) == (202, True)
        kill_service(apps)
        assert show(apps, session)["ending"]  # type: ignore[index]
    finally:
        apps.substrate.service(session["node"], "slurmd", "start")

    apps.wait_until(
        lambda: show(apps, session) is None,
        "the session to be gone",
        deadline=120,
        state=lambda: str(show(apps, session)),
    )
    assert jobs(apps) == []


def test_somebody_elses_job_of_a_sessions_name_is_left_alone(apps: SlurmCluster) -> None:
    session = running(apps, "xterm")
    other = apps.sbatch(wrap="sleep 600", user="bob", job_name=f"app_session_{session['id']}.2", partition="viz")
    other.wait(until={"RUNNING"})
    delete(apps, session)

    assert other.record().state == "RUNNING"
    other.cancel()
