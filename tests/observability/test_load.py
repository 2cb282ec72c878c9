"""A thousand jobs as fast as the nodes run them, and the service away for half of them."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from fixtures.observability import ObservedStart, kinds
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

JOBS = 1000


def ended(slurm: SlurmCluster) -> int:
    """How many tasks of the array slurmctld has seen the end of."""
    states = slurm.run(["squeue", "--noheader", "--all", "--array", "--states=all", "--format=%T"]).stdout.split()
    return sum(state in {"COMPLETED", "FAILED"} for state in states)


def shown(slurm: SlurmCluster) -> list[dict[str, Any]]:
    """All jobs that the service has."""
    jobs: list[dict[str, Any]] = slurm.observability.api("GET", "v1/jobs", params={"limit": JOBS}).json()["jobs"]
    return jobs


@pytest.mark.row("O-06.1", "O-06.3", "O-06.4")
def test_each_of_a_thousand_jobs_is_there_once_and_in_its_state(observed_start: ObservedStart) -> None:
    conf = {"25-arrays.conf": f"MaxArraySize={JOBS + 1}\nMaxJobCount={3 * JOBS}\nMinJobAge=3600\n"}
    with observed_start(nodes=2, cpus=2, memory=2000, conf=conf) as slurm:
        wrap = "exit $((SLURM_ARRAY_TASK_ID % 5 == 0))"
        slurm.sbatch(wrap=wrap, array=f"0-{JOBS - 1}", output="/dev/null", mem="50M")
        slurm.wait_until(lambda: ended(slurm) > JOBS / 5, "a fifth of the jobs", deadline=120)
        slurm.substrate.service("observability", "slurm-observability", "stop")
        slurm.wait_until(lambda: ended(slurm) > JOBS * 4 / 5, "four fifths of the jobs", deadline=300)
        slurm.substrate.service("observability", "slurm-observability", "start")
        slurm.wait_until(lambda: ended(slurm) == JOBS, "all jobs", deadline=120)

        slurm.wait_until(
            lambda: len(jobs := shown(slurm)) == JOBS and all(job["settled"] for job in jobs),
            "every job, settled",
            deadline=300,
            state=lambda: str(collections.Counter((job["state"], job["settled"]) for job in shown(slurm))),
        )
        assert slurm.observability.api("GET", "v1/jobs", params={"limit": 1}).json()["total"] == JOBS
        found = {job["job_id"]: job["state"] for job in shown(slurm)}
        records = slurm.sacct("--allocations", "--allusers", "--format=JobIDRaw,State")
        assert found == {int(record["JobIDRaw"]): record["State"].lower() for record in records}
        assert collections.Counter(found.values()) == {"completed": JOBS * 4 // 5, "failed": JOBS // 5}
        twice = [job for job in found if kinds(slurm, job) != [(0, "finished"), (0, "started")]]
        assert twice == []
