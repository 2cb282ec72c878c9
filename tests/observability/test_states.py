"""Each job ends in exactly one state, the one that slurmdbd has."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.observability import ObservedStart, await_state, kinds
from slurm_testbed import SlurmCluster
from slurm_testbed.slurm import Job

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep


def accounted(slurm: SlurmCluster, job: Job) -> str:
    """What slurmdbd has, in the service's words."""

    def ended() -> str | None:
        records = slurm.sacct("--allocations", f"--jobs={job.id}", "--format=State,End")
        return records[0]["State"].split()[0].lower() if records and records[0]["End"] != "Unknown" else None

    return slurm.wait_until(ended, "the job's end in the accounting", deadline=60)


def ends_as(slurm: SlurmCluster, job: Job, state: str) -> dict[str, Any]:
    """Check that the service comes to the accounting's state, with one event of each kind."""
    found = await_state(slurm, job, state, deadline=90)
    assert accounted(slurm, job) == state
    assert kinds(slurm, job.id) == [(0, "finished"), (0, "started")]
    return found


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("script", "state", "code", "signal"),
    [
        pytest.param("exit 0", "completed", 0, 0, marks=pytest.mark.row("O-10.2")),
        pytest.param("exit 1", "failed", 1, 0, marks=pytest.mark.row("O-10.3")),
        pytest.param("exit 42", "failed", 42, 0, marks=pytest.mark.row("O-10.4")),
        pytest.param("kill -USR2 $$", "failed", 0, 12, marks=pytest.mark.row("O-10.5")),
    ],
)
def test_script_that_ends(observed: SlurmCluster, script: str, state: str, code: int, signal: int) -> None:
    job = observed.sbatch(wrap=script)
    job.wait()

    found = ends_as(observed, job, state)
    assert (found["exit_code"], found["signal"]) == (code, signal)


@pytest.mark.row("O-10.1", "O-10.6")
def test_job_that_is_cancelled(observed: SlurmCluster) -> None:
    job = observed.sbatch(wrap="sleep 600", hold=True)
    await_state(observed, job, "pending")
    observed.run(["scontrol", "release", str(job.id)])
    job.wait(until={"RUNNING"})
    await_state(observed, job, "running")
    job.cancel()
    job.wait()

    ends_as(observed, job, "cancelled")


@pytest.mark.row("O-10.7")
def test_job_at_its_time_limit(observed: SlurmCluster) -> None:
    job = observed.sbatch(wrap="sleep 600")
    job.wait(until={"RUNNING"})
    # A limit is in whole minutes; an administrator may set its end.
    observed.run(["scontrol", "update", f"JobId={job.id}", "EndTime=now"])
    job.wait(180)

    ends_as(observed, job, "timeout")


@pytest.mark.row("O-10.8", "O-09.5", "O-09.6")
def test_job_over_its_memory(observed: SlurmCluster) -> None:
    other = observed.sbatch(wrap="until [ -e go ]; do sleep 0.1; done", mem="200M", nodelist="n1")
    job = observed.sbatch(wrap="head -c 300M /dev/zero | tail", mem="100M", nodelist="n1")
    job.wait()

    ends_as(observed, job, "out_of_memory")
    assert other.state == "RUNNING", "another job went with it"
    observed.run(["touch", "go"], user="alice", workdir="/home/alice")
    other.wait()
    observed.run(["rm", "go"], user="alice", workdir="/home/alice")


@pytest.mark.row("O-10.9")
def test_job_whose_node_fails(observed_start: ObservedStart) -> None:
    with observed_start(nodes=1) as slurm:
        job = slurm.sbatch(wrap="sleep 600", no_requeue=True)
        job.wait(until={"RUNNING"})
        await_state(slurm, job, "running")
        slurm.run(["scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=broken"])
        job.wait()

        ends_as(slurm, job, "node_fail")
