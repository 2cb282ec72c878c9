"""A server stays with the hub unless Slurm says that its job has ended."""

from __future__ import annotations

from pathlib import Path

import batchspawner
import pytest
from jupyterhub_slurmspawner import SlurmSpawner

from tests.unit.slurmspawner.conftest import Make, prints, run

STOCK, OURS = batchspawner.SlurmSpawner, SlurmSpawner
GONE = prints(err="slurm_load_jobs error: Invalid job id specified", code=1)
UNKNOWN = (
    "slurm_load_jobs error: Protocol authentication error",
    "sudo: a password is required",
    "squeue: error: Munge encode failed: Failed to access /run/munge/munge.socket.2",
)


@pytest.mark.row("H-18.2")
@pytest.mark.parametrize("error", UNKNOWN)
@pytest.mark.parametrize(("kind", "polled"), [(STOCK, 1), (OURS, None)])
def test_error_that_says_nothing_about_the_job_keeps_the_server(
    make_spawner: Make, kind: type, polled: int | None, error: str
) -> None:
    """https://github.com/jupyterhub/batchspawner/issues/315"""
    spawner = make_spawner(kind, job_id="5", batch_query_cmd=prints(err=error, code=1))

    assert run(spawner.poll()) == polled
    assert spawner.job_id == ("5" if polled is None else "")


@pytest.mark.parametrize(("kind", "polled"), [(STOCK, 1), (OURS, None)])
@pytest.mark.parametrize("state", ["SUSPENDED", "STOPPED", "RESIZING"])
def test_job_that_is_held_up_keeps_the_server(make_spawner: Make, kind: type, polled: int | None, state: str) -> None:
    spawner = make_spawner(kind, job_id="5", batch_query_cmd=prints(f"{state} n1"))

    assert run(spawner.poll()) == polled


@pytest.mark.parametrize(("kind", "polled", "cancelled"), [(STOCK, None, ""), (OURS, 1, "5\n")])
@pytest.mark.parametrize("answer", ["PENDING 2026-01-01T10:02:01 BeginTime n2", "RUNNING 2026-01-01T10:02:02 None n2"])
def test_requeued_job_is_no_server_any_more(
    make_spawner: Make, kind: type, polled: int | None, cancelled: str, answer: str, tmp_path: Path
) -> None:
    """It comes back on another node and port, which the proxy never learns."""
    log = tmp_path / "cancelled"
    log.touch()
    make_spawner(kind).orm_spawner.state = {"job_id": "5", "job_mark": "m", "job_run": "2026-01-01T10:00:00 n1"}
    # Cancelled, it is gone.
    query = f"if [ -s {log} ]; then {GONE}; else {prints(answer)}; fi"
    spawner = make_spawner(kind, batch_query_cmd=query, batch_cancel_cmd=f"echo {{job_id}} >> {log}")

    assert (run(spawner.poll()), log.read_text()) == (polled, cancelled)


@pytest.mark.parametrize("answer", [GONE, prints(), prints("FAILED 2026-01-01T10:00:00 None n1")])
def test_job_that_has_ended_is_noticed(make_spawner: Make, answer: str) -> None:
    spawner = make_spawner(OURS, job_id="5", batch_query_cmd=answer)

    assert run(spawner.poll()) == 1
    assert spawner.get_state() == {}


def test_state_that_nobody_knows_keeps_the_server(make_spawner: Make) -> None:
    spawner = make_spawner(OURS, job_id="5", batch_query_cmd=prints("HIBERNATING 2030-01-01T10:00:00 None n1"))

    assert run(spawner.poll()) is None
