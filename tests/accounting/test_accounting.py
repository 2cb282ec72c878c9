"""Accounting: what slurmdbd on MariaDB records of real jobs, and who may use what."""

from __future__ import annotations

import pytest

from slurm_testbed.errors import CommandError
from slurm_testbed.slurm import Slurm


def accounted(slurm: Slurm, job_id: int) -> dict[str, str]:
    """The job's own record, once slurmdbd has its end.

    The start of a job that is over by the time slurmctld sends it comes with the final state, and without an exit code.
    """
    columns = "--format=JobID,User,Account,State,ExitCode,AllocTRES,NodeList,End"

    def ended() -> dict[str, str] | None:
        found = slurm.sacct("--allocations", f"--jobs={job_id}", columns)
        return found[0] if found and found[0]["End"] != "Unknown" else None

    return slurm.wait_until(ended, f"job {job_id} in the accounting")


@pytest.mark.smoke
@pytest.mark.vm
def test_job_is_accounted_as_it_ended(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="exit 3", user="carol")
    job.wait()

    record = accounted(slurm, job.id)

    assert (record["User"], record["Account"]) == ("carol", "research")
    assert (record["State"], record["ExitCode"]) == ("FAILED", "3:0")
    assert record["NodeList"] == "n1"
    assert "cpu=1" in record["AllocTRES"]


def test_record_keeps_its_columns_whatever_the_job_is_called(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="true", job_name="a|b")
    job.wait()
    accounted(slurm, job.id)

    (record,) = slurm.sacct("--allocations", f"--jobs={job.id}", "--format=JobID,JobName,State")

    assert record == {"JobID": str(job.id), "JobName": "a|b", "State": "COMPLETED"}


@pytest.mark.vm
def test_steps_are_accounted(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="srun true; srun sh -c 'exit 2'")
    job.wait()
    accounted(slurm, job.id)

    steps = {step["JobID"]: step["ExitCode"] for step in slurm.sacct(f"--jobs={job.id}", "--format=JobID,ExitCode")}

    assert steps[f"{job.id}.0"] == "0:0"
    assert steps[f"{job.id}.1"] == "2:0"


def test_every_task_of_an_array_is_accounted(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="true", array="1-20", output="/dev/null")
    job.wait()

    def all_there() -> bool:
        records = slurm.sacct("--allocations", f"--jobs={job.id}", "--format=JobID,State")
        return [record["State"] for record in records] == ["COMPLETED"] * 20

    slurm.wait_until(all_there, "20 completed tasks in the accounting")


def test_users_have_their_associations(slurm: Slurm) -> None:
    text = slurm.run(["sacctmgr", "--noheader", "--parsable2", "show", "association", "format=Account,User"]).stdout

    for user in ("alice", "bob", "carol", "dave"):
        assert f"research|{user}" in text.splitlines()


def test_user_without_an_association_is_refused(slurm: Slurm) -> None:
    with pytest.raises(CommandError, match="Invalid account or account/partition combination"):
        slurm.sbatch(wrap="true", user="slurmrestd", workdir="/tmp")  # inside the container


def test_limit_of_an_association_holds_a_job_back(slurm: Slurm) -> None:
    set_limit = ["sacctmgr", "--immediate", "modify", "user", "dave", "set"]
    slurm.run([*set_limit, "MaxJobs=0"])
    try:
        job = slurm.sbatch(wrap="true", user="dave")
        slurm.wait_until(lambda: "AssocMaxJobsLimit" in job.record().reason, "the limit as reason")
        assert job.state == "PENDING"
    finally:
        slurm.run([*set_limit, "MaxJobs=-1"])


def test_jobs_wait_for_a_slurmdbd_that_is_away_and_are_accounted_later(slurm: Slurm) -> None:
    host = slurm.host_of("slurmdbd")
    slurm.substrate.service(host, "slurmdbd", "stop")
    try:
        job = slurm.sbatch(wrap="true")
        assert job.wait().state == "COMPLETED", "a job needs slurmdbd to run"
    finally:
        slurm.substrate.service(host, "slurmdbd", "start")

    assert accounted(slurm, job.id)["State"] == "COMPLETED"
