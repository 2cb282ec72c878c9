"""Dependencies: which job waits for which, and what becomes of one whose condition cannot come true."""

from __future__ import annotations

import pytest

from slurm_testbed.slurm import Slurm


@pytest.mark.parametrize(
    ("kind", "script", "met"),
    [
        ("afterok", "exit 0", True),
        ("afterok", "exit 3", False),
        ("afternotok", "exit 3", True),
        ("afternotok", "exit 0", False),
        ("afterany", "exit 3", True),
    ],
)
def test_job_runs_when_its_dependency_is_met_and_only_then(slurm: Slurm, kind: str, script: str, met: bool) -> None:
    first = slurm.sbatch(wrap=script, hold=True)
    second = slurm.sbatch(wrap="true", dependency=f"{kind}:{first.id}")
    assert (second.state, second.record().reason) == ("PENDING", "Dependency")

    slurm.run(["scontrol", "release", str(first.id)])
    first.wait()

    if met:
        assert second.wait().state == "COMPLETED"
    else:
        slurm.wait_until(
            lambda: second.record().reason == "DependencyNeverSatisfied", "the dependency to be given up", deadline=30
        )
        assert second.state == "PENDING"


def test_job_whose_dependency_cannot_be_met_is_cancelled_if_it_asks_for_that(slurm: Slurm) -> None:
    first = slurm.sbatch(wrap="exit 1")
    second = slurm.sbatch(wrap="true", dependency=f"afterok:{first.id}", kill_on_invalid_dep="yes")

    assert second.wait().state == "CANCELLED"


def test_singletons_of_a_name_run_one_after_the_other(slurm: Slurm) -> None:
    script = "date +%s.%N; sleep 1; date +%s.%N"
    jobs = [slurm.sbatch(wrap=script, job_name="alone", dependency="singleton") for _ in range(2)]
    other = slurm.sbatch(wrap="true", job_name="other", dependency="singleton")

    assert other.wait().state == "COMPLETED"
    for job in jobs:
        assert job.wait().state == "COMPLETED"
    times = [float(word) for job in jobs for word in job.output().split()]
    assert times == sorted(times), f"they ran at once: {times}"
