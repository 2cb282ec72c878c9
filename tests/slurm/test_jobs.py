"""Jobs through the library: what a user submits runs, ends as it ended, and can be read."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from slurm_testbed.errors import CommandError, NotReadyError, UsageError
from slurm_testbed.slurm import Slurm


@pytest.mark.smoke
@pytest.mark.vm
@pytest.mark.row("C-01", "U-02.1")
def test_batch_job_of_the_test_user_completes(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="id --name --user; srun hostname")

    record = job.wait()

    assert (record.state, record.exit_code) == ("COMPLETED", 0), record
    user, host = job.output().split()
    assert user == "alice", "the job ran as somebody else"
    assert host == slurm.run(["hostname"], host=slurm.host_of_node(record.nodes)).stdout.strip()


@pytest.mark.smoke
@pytest.mark.vm
@pytest.mark.parametrize(("script", "exit_code", "signal"), [("exit 42", 42, 0), ("kill -9 $$", 0, 9)])
def test_exit_code_and_signal_are_the_scripts_own(slurm: Slurm, script: str, exit_code: int, signal: int) -> None:
    record = slurm.sbatch(script=f"#!/bin/bash\n{script}\n").wait()

    assert (record.state, record.exit_code, record.signal) == ("FAILED", exit_code, signal), record.fields


def test_options_and_environment_reach_the_job(slurm: Slurm) -> None:
    job = slurm.sbatch(
        wrap='echo "$SLURM_JOB_NAME $SLURM_CPUS_PER_TASK $COLOUR"',
        job_name="named",
        cpus_per_task=2,
        env={"COLOUR": "blue"},
        user="bob",
    )
    job.wait()

    assert job.output().split() == ["named", "2", "blue"]
    assert job.record().fields["UserId"].startswith("bob(")


@pytest.mark.smoke
def test_record_is_read_right_whatever_the_command_holds(slurm: Slurm) -> None:
    """Since 26.05 the record has the command itself, before its last fields."""
    job = slurm.sbatch(wrap="true a\nJobState=FAILED ExitCode=3:0\necho JobId=9")
    record = job.wait()

    assert (record.id, record.state, record.exit_code) == (job.id, "COMPLETED", 0), record
    assert job.output() == "JobId=9\n"
    assert len(job.records()) == 1


def test_held_job_waits_until_it_is_cancelled(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="true", hold=True)
    assert (job.state, job.record().reason) == ("PENDING", "JobHeldUser")

    job.cancel()

    assert job.wait().state == "CANCELLED"


@pytest.mark.smoke
@pytest.mark.vm
def test_array_has_a_record_for_each_task(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="exit $((SLURM_ARRAY_TASK_ID % 2))", array="1-4", output="/dev/null")
    job.wait()

    assert sorted(record.exit_code for record in job.records()) == [0, 0, 1, 1]


def test_wait_for_an_array_tells_of_the_task_that_failed(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="exit $((SLURM_ARRAY_TASK_ID == 2 ? 3 : 0))", array="1-3", output="/dev/null")

    over = job.wait()

    assert (over.state, over.exit_code, over.fields["ArrayTaskId"]) == ("FAILED", 3, "2")


@pytest.mark.smoke
def test_job_runs_on_two_nodes(two_nodes: Slurm) -> None:
    answer = two_nodes.srun("printenv", "SLURMD_NODENAME", nodes=2, ntasks_per_node=1)

    assert sorted(answer.split()) == ["n1", "n2"]


def test_nodes_have_the_size_that_was_asked_for(two_nodes: Slurm) -> None:
    nodes = two_nodes.nodes()

    assert {name: (node["CPUTot"], node["RealMemory"]) for name, node in nodes.items()} == {
        "n1": ("4", "4000"),
        "n2": ("4", "4000"),
    }


def test_refused_job_says_what_sbatch_says(slurm: Slurm) -> None:
    with pytest.raises(CommandError, match=re.escape("invalid partition specified: nowhere")) as error:
        slurm.sbatch(wrap="true", partition="nowhere")

    assert error.value.returncode == 1


def test_sbatch_without_a_script_is_refused_before_anything_runs(slurm: Slurm) -> None:
    with pytest.raises(UsageError, match="exactly one of wrap, script and path"):
        slurm.sbatch()


def test_script_is_the_file_as_it_is(slurm: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_bytes(b"#!/bin/bash\n#SBATCH --output=out\nprintf 'caf\xe9'\n")
    job = slurm.sbatch(path=script)
    job.wait()
    script.write_bytes(b"#!/bin/bash\r\ntrue\r\n")

    with pytest.raises(CommandError, match="DOS line breaks"):
        slurm.sbatch(path=script)

    out = slurm.run(["base64", "/home/alice/out"], host=slurm.host_of_node(job.record().nodes)).stdout
    assert base64.b64decode(out) == b"caf\xe9"


def test_submission_that_makes_no_job_says_so(slurm: Slurm) -> None:
    with pytest.raises(UsageError, match="sbatch submitted nothing: .*to start at"):
        slurm.sbatch(wrap="true", test_only=True)


def test_nodes_comment_may_have_lines(slurm: Slurm) -> None:
    slurm.run(["scontrol", "update", "NodeName=n1", "Comment=one\nState=DOWN"])

    assert slurm.nodes()["n1"]["State"] == "IDLE"
    slurm.run(["scontrol", "update", "NodeName=n1", "Comment="])


def test_deadline_names_the_job_its_state_and_the_log(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="true", hold=True)

    with pytest.raises(NotReadyError) as error:
        job.wait(deadline=0.3)

    said = str(error.value)
    assert f"job {job.id} to be over" in said
    assert "PENDING (JobHeldUser)" in said, "the last state is missing"
    assert f"JobId={job.id}" in said, "the controller's log is missing"


def test_reset_leaves_an_idle_cluster(slurm: Slurm) -> None:
    slurm.sbatch(wrap="sleep 600")
    slurm.run(
        [
            "scontrol",
            "create",
            "reservation",
            "user=root",
            "starttime=now",
            "duration=5",
            "nodes=n1",
            "flags=ignore_jobs",
        ]
    )
    slurm.run(["scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test"])

    slurm.reset()

    assert slurm.queue() == []
    assert slurm.nodes()["n1"]["State"] == "IDLE"
    assert "No reservations" in slurm.run(["scontrol", "show", "reservation"]).stdout


@pytest.mark.smoke
@pytest.mark.vm
def test_killed_daemon_comes_back(slurm: Slurm) -> None:
    processes = ["s6-svstat", "-o", "pid", "/run/slurm-testbed/services/slurmdbd"]
    slurmdbd = slurm.run(processes, host=slurm.host_of("slurmdbd")).stdout

    slurm.substrate.service(slurm.host_of("slurmd"), "slurmd", "kill")

    assert slurm.sbatch(wrap="true").wait().state == "COMPLETED"
    assert slurm.run(processes, host=slurm.host_of("slurmdbd")).stdout == slurmdbd, "it has slurmd's name in its own"
