"""One started and one finished event for each run of a job, from a real prolog and epilog."""

from __future__ import annotations

import re

import pytest

from fixtures.observability import ObservedStart, await_state, events, kinds
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

ONE_RUN = [(0, "finished"), (0, "started")]


@pytest.mark.smoke
@pytest.mark.row("O-01.1", "O-01.2", "O-03.2", "O-04.1", "O-04.2", "O-04.3", "O-04.6", "O-04.7", "O-04.9")
def test_events_carry_what_slurm_knows(observed: SlurmCluster) -> None:
    job = observed.sbatch(wrap="exit 42", job_name="fields", mem="200M", ntasks=2, account="research")
    job.wait()
    found = await_state(observed, job, "failed")

    assert kinds(observed, job.id) == ONE_RUN
    # Of the memory slurmctld's prolog, which is the first to tell, does not know; the node's completes it.
    assert (found["cpu_allocation"], found["memory_allocation_mb"]) == (2, 200)
    started, finished = (event["body"] for event in events(observed, job.id))
    record = job.record()
    assert (started["user"], started["name"]) == ("alice", "fields")
    assert (started["partition"], started["account"]) == ("debug", "research")
    assert started["node_list"] == finished["node_list"] == [record.nodes]
    assert started["cpu_allocation"] == 2
    assert (finished["final_state"], finished["exit_code"], finished["signal"]) == ("failed", 42, 0)
    times = [event["timestamp"] for event in events(observed, job.id)]
    assert times == sorted(times)
    assert {started["source"], finished["source"]} <= {"prolog", "epilog", "prologslurmctld", "epilogslurmctld"}


@pytest.mark.row("O-05.1")
def test_job_on_two_nodes_is_one_job(observed: SlurmCluster) -> None:
    job = observed.sbatch(wrap="srun hostname", nodes=2)
    job.wait()
    await_state(observed, job, "completed")

    assert kinds(observed, job.id) == ONE_RUN
    assert events(observed, job.id)[0]["body"]["node_list"] == ["n1", "n2"]


@pytest.mark.row("O-05.2")
def test_each_task_of_an_array_is_a_job(observed: SlurmCluster) -> None:
    array = observed.sbatch(wrap="exit $SLURM_ARRAY_TASK_ID", array="0-2")
    array.wait()
    tasks = {record.id: record.fields["ArrayTaskId"] for record in array.records()}

    for number, task in tasks.items():
        found = await_state(observed, number, "failed" if int(task) else "completed")
        assert (found["array_job_id"], found["array_task_id"]) == (array.id, int(task))
        assert found["exit_code"] == int(task)
        assert kinds(observed, number) == ONE_RUN


@pytest.mark.row("O-05.3")
def test_each_part_of_a_heterogeneous_job_is_a_job(observed: SlurmCluster) -> None:
    parts = ["#!/bin/sh", "#SBATCH --nodelist=n1", "#SBATCH hetjob", "#SBATCH --nodelist=n2"]
    job = observed.sbatch(script="\n".join([*parts, "srun --het-group=0,1 hostname\n"]))
    job.wait()

    for number, node in ((job.id, "n1"), (job.id + 1, "n2")):
        found = await_state(observed, number, "completed")
        assert (found["het_job_id"], found["node_list"]) == (job.id, [node])
        assert kinds(observed, number) == ONE_RUN


@pytest.mark.row("O-05.4")
def test_each_run_of_a_requeued_job_has_its_events(observed: SlurmCluster) -> None:
    job = observed.sbatch(wrap="[ $SLURM_RESTART_COUNT ] || sleep 600", requeue=True)
    job.wait(until={"RUNNING"})
    await_state(observed, job, "running")
    observed.run(["scontrol", "requeue", str(job.id)])
    # Slurm holds a requeued job back for two minutes. In the second in which it ended slurmd takes it for killed.
    observed.wait_until(lambda: job.state == "PENDING", "the job to wait again", deadline=60)
    observed.run(["scontrol", "update", f"JobId={job.id}", "StartTime=now+2"])
    assert job.wait(180).state == "COMPLETED"
    await_state(observed, job, "completed")

    assert kinds(observed, job.id) == [(0, "finished"), (0, "started"), (1, "finished"), (1, "started")]

    def first() -> str:
        found: str = observed.observability.api("GET", f"v1/jobs/{job.id}", params={"run": 0}).json()["state"]
        return found

    # Its epilog took it for completed; slurmdbd knows better.
    observed.wait_until(lambda: first() == "requeued", "the first run to be settled", deadline=60, state=first)


@pytest.mark.row("O-05.5", "O-05.7", "O-03.3")
def test_salloc_without_a_step_is_a_job(observed: SlurmCluster) -> None:
    done = observed.run(["salloc", "--nodes=1", "true"], user="alice", workdir="/home/alice")
    number = int(done.stderr.split("Granted job allocation ")[1].split()[0])
    await_state(observed, number, "completed")

    assert kinds(observed, number) == ONE_RUN
    # No prolog ran on the node: slurmctld's own told of it.
    assert [event["source"] for event in events(observed, number)] == ["prologslurmctld", "epilogslurmctld"]


@pytest.mark.row("O-05.6")
def test_with_prologflags_alloc_it_is_the_same(observed_start: ObservedStart) -> None:
    with observed_start(nodes=1, conf={"35-flags.conf": "PrologFlags=Alloc\n"}) as slurm:
        done = slurm.run(["salloc", "--nodes=1", "true"], user="alice", workdir="/home/alice")
        number = int(done.stderr.split("Granted job allocation ")[1].split()[0])
        batch = slurm.sbatch(wrap="srun true")
        batch.wait()

        for job in (number, batch.id):
            await_state(slurm, job, "completed")
            assert kinds(slurm, job) == ONE_RUN
        config = slurm.run(["scontrol", "show", "config"]).stdout
        assert re.search(r"^PrologFlags +=.*Alloc", config, re.MULTILINE), config
