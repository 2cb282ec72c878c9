"""Requeue: by hand, and when a node fails; the job knows that it runs again."""

from __future__ import annotations

import pytest

from slurm_testbed.slurm import Job, Slurm

#: Waits the first time, and ends at once when it runs again.
SCRIPT = 'echo run ${SLURM_RESTART_COUNT-0} on $SLURMD_NODENAME; [ -n "${SLURM_RESTART_COUNT-}" ] || sleep 600'


def await_script(slurm: Slurm, job: Job) -> None:
    """A job is RUNNING before its script is; one that is requeued in between ends as FAILED."""
    job.wait(until={"RUNNING"})
    path, host = job.record().fields["StdOut"], slurm.host_of_node("n1")
    slurm.wait_until(lambda: slurm.run(["cat", path], host=host, check=False).stdout, f"the script of {job} to begin")


def run_again(slurm: Slurm, job: Job, *changes: str) -> None:
    """A requeued job may start when its credential has run out, two minutes later; here five seconds have to do.

    The delay has a reason: the first run's end, told late, would be taken for the second's.
    """
    slurm.wait_until(lambda: job.state == "PENDING", f"{job} to wait again")
    slurm.run(["scontrol", "update", f"JobId={job.id}", "StartTime=now+5", *changes])


def test_job_is_requeued_by_hand_and_knows_it(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap=SCRIPT, requeue=True, open_mode="append")
    await_script(slurm, job)

    slurm.run(["scontrol", "requeue", str(job.id)])
    run_again(slurm, job)
    record = job.wait()

    assert (record.state, record.fields["Restarts"]) == ("COMPLETED", "1")
    assert job.output().splitlines()[-1].startswith("run 1 on n1")


def test_job_that_must_not_be_requeued_is_refused(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap=SCRIPT, no_requeue=True)
    job.wait(until={"RUNNING"})

    done = slurm.run(["scontrol", "requeue", str(job.id)], check=False)

    assert "disabled" in done.stderr, done
    assert job.state == "RUNNING"


@pytest.mark.deep
def test_job_of_a_failed_node_runs_again_on_another(two_nodes: Slurm) -> None:
    again = two_nodes.sbatch(wrap=SCRIPT, requeue=True, nodelist="n1", open_mode="append")
    never = two_nodes.sbatch(wrap=SCRIPT, no_requeue=True, nodelist="n1")
    for job in (again, never):
        await_script(two_nodes, job)

    two_nodes.run(["scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=failed"])
    assert never.wait().state == "NODE_FAIL"
    run_again(two_nodes, again, "ReqNodeList=n2")
    record = again.wait()

    assert (record.state, record.nodes, record.fields["Restarts"]) == ("COMPLETED", "n2", "1")

    def runs() -> list[str]:
        rows = two_nodes.sacct("--allocations", "--duplicates", f"--jobs={again.id}", "--format=State")
        states = [row["State"] for row in rows]
        return states if states[-1:] == ["COMPLETED"] else []

    assert two_nodes.wait_until(runs, "both runs in the accounting", deadline=20) == ["NODE_FAIL", "COMPLETED"]
