"""Requeue: by hand, and when a node fails; the job knows that it runs again."""

from __future__ import annotations

from slurm_testbed.slurm import Job, Slurm

#: Waits the first time, and ends at once when it runs again.
SCRIPT = 'echo run ${SLURM_RESTART_COUNT-0} on $SLURMD_NODENAME; [ -n "${SLURM_RESTART_COUNT-}" ] || sleep 600'


def run_again(slurm: Slurm, job: Job) -> None:
    """A requeued job is eligible only after its credential has run out, two minutes later: do not wait for that."""
    slurm.wait_until(lambda: job.state == "PENDING", f"job {job.id} to wait again", deadline=30)
    slurm.run(["scontrol", "update", f"JobId={job.id}", "StartTime=now"])


def test_job_is_requeued_by_hand_and_knows_it(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap=SCRIPT, requeue=True, open_mode="append")
    job.wait(until={"RUNNING"})

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


def test_job_of_a_failed_node_runs_again_on_another(two_nodes: Slurm) -> None:
    again = two_nodes.sbatch(wrap=SCRIPT, requeue=True, nodelist="n1", open_mode="append")
    never = two_nodes.sbatch(wrap=SCRIPT, no_requeue=True, nodelist="n1")
    for job in (again, never):
        job.wait(until={"RUNNING"})

    two_nodes.run(["scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=failed"])
    assert never.wait().state == "NODE_FAIL"
    two_nodes.wait_until(lambda: again.state == "PENDING", f"job {again.id} to wait again", deadline=30)
    two_nodes.run(["scontrol", "update", f"JobId={again.id}", "ReqNodeList=n2", "StartTime=now"])
    record = again.wait()

    assert (record.state, record.nodes, record.fields["Restarts"]) == ("COMPLETED", "n2", "1")

    def runs() -> list[str]:
        rows = two_nodes.sacct("--allocations", "--duplicates", f"--jobs={again.id}", "--format=State")
        states = [row["State"] for row in rows]
        return states if states[-1:] == ["COMPLETED"] else []

    assert two_nodes.wait_until(runs, "both runs in the accounting", deadline=20) == ["NODE_FAIL", "COMPLETED"]
