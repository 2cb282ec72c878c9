"""dask-jobqueue's SLURMCluster, unmodified, on a real Slurm: https://jobqueue.dask.org."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.clients.conftest import Sessions

#: Dask asks a worker to end before it cancels the worker's job: either may come first.
OVER = {"CANCELLED", "COMPLETED"}


@pytest.fixture
def seen(session: Sessions) -> Mapping[str, Any]:
    """What a session with dask-jobqueue saw."""
    return session("dask_session.py")


def test_workers_compute_in_two_jobs(seen: Mapping[str, Any], session: Sessions) -> None:
    assert len(seen["two"]) == 2
    assert [job for job, _ in seen["places"]] == seen["two"]
    assert seen["sum"] == 6
    assert seen["error"] == "a value that nobody likes"
    names = {job: name for job in seen["two"] for name in session.slurm.sacct("-X", "-j", job, "-o", "JobName,User")}
    assert set(names) == set(seen["two"])


def test_scaling_down_ends_a_job(seen: Mapping[str, Any], session: Sessions) -> None:
    assert len(seen["one"]) == 1
    (gone,) = set(seen["two"]) - set(seen["one"])
    assert states(session, gone) <= OVER
    assert seen["after"] == 9, "the worker that stayed does not compute"


def test_adapting_ends_idle_jobs_and_submits_one_for_work(seen: Mapping[str, Any], session: Sessions) -> None:
    assert seen["none"] == []
    job, _ = seen["woken"]
    assert job not in seen["two"]
    assert states(session, *seen["one"]) <= OVER


def test_closing_leaves_no_job(seen: Mapping[str, Any], session: Sessions) -> None:
    assert seen["closed"] == []
    job, _ = seen["woken"]
    assert states(session, job) <= OVER


def states(session: Sessions, *jobs: str) -> set[str]:
    """The states of jobs for sacct, without by whom they were cancelled."""
    records = session.slurm.sacct("--allocations", "--jobs", ",".join(jobs), "--format=State")
    assert len(records) == len(jobs), records
    return {record["State"].split()[0] for record in records}
