"""Job arrays: their indices, how many run at once, and what becomes of one task."""

from __future__ import annotations

import pytest

from slurm_testbed.slurm import Slurm


def test_tasks_have_the_indices_that_were_asked_for(slurm: Slurm) -> None:
    job = slurm.sbatch(
        wrap='echo "$SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT $SLURM_ARRAY_TASK_MAX"',
        array="3,5-9:2",
    )
    job.wait()

    records = {int(record.fields["ArrayTaskId"]): record for record in job.records()}
    outputs = [
        slurm.read(record.fields["StdOut"], host=slurm.host_of_node(record.nodes)) for record in records.values()
    ]
    assert sorted(records) == [3, 5, 7, 9]
    assert sorted(outputs) == [f"{job.id} {index} 4 9\n" for index in (3, 5, 7, 9)]


def test_throttle_holds_tasks_back(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="sleep 0.5; date +%s.%N", array="1-6%2")
    most = 0
    while job.id in slurm.queue():
        most = max(most, sum(record.state == "RUNNING" for record in job.records()))

    assert {record.state for record in job.records()} == {"COMPLETED"}
    # There is room for more: a node has four processors or more where nothing is bound, and a task takes one.
    assert most == 2, f"{most} ran at once"


def test_one_task_is_cancelled_and_the_others_complete(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="[ $SLURM_ARRAY_TASK_ID != 1 ] || sleep 600", array="0-2")
    slurm.wait_until(
        lambda: any(r.fields["ArrayTaskId"] == "1" and r.state == "RUNNING" for r in job.records()), "task 1 to run"
    )

    slurm.run(["scancel", f"{job.id}_1"])
    job.wait()

    assert {record.fields["ArrayTaskId"]: record.state for record in job.records()} == {
        "0": "COMPLETED",
        "1": "CANCELLED",
        "2": "COMPLETED",
    }


def test_every_task_is_accounted_by_its_index(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap="exit $SLURM_ARRAY_TASK_ID", array="0-2")
    job.wait()

    def accounted() -> dict[str, str]:
        rows = slurm.sacct("--allocations", f"--jobs={job.id}", "--format=JobID,ExitCode,End")
        found = {row["JobID"]: row["ExitCode"] for row in rows if row["End"] != "Unknown"}
        return found if len(found) == 3 else {}

    found = slurm.wait_until(accounted, "three tasks in the accounting", deadline=20)
    assert found == {f"{job.id}_0": "0:0", f"{job.id}_1": "1:0", f"{job.id}_2": "2:0"}


@pytest.mark.parametrize("count", [1, 50])
def test_dependency_on_an_array_waits_for_all_of_it(slurm: Slurm, count: int) -> None:
    array = slurm.sbatch(wrap="true", array=f"1-{count}", output="/dev/null")
    after = slurm.sbatch(wrap="true", dependency=f"afterok:{array.id}")

    assert after.wait().state == "COMPLETED"
    assert [record.state for record in array.records()] == ["COMPLETED"] * count
