"""Many virtual nodes in one container: all idle, and one job over all of them."""

from __future__ import annotations

import pytest

from slurm_testbed import SlurmContainer
from slurm_testbed.releases import Release


@pytest.mark.parametrize("count", [64, pytest.param(256, marks=pytest.mark.deep)])
def test_one_job_runs_on_every_one_of_many_nodes(slurm_release: Release, count: int) -> None:
    with SlurmContainer(slurm_release.version, nodes=count, cpus=1, memory=1000, deadline=180) as slurm:
        states = {name: node["State"] for name, node in slurm.nodes().items()}
        names = slurm.srun("printenv", "SLURMD_NODENAME", nodes=count)

    expected = {f"n{number}" for number in range(1, count + 1)}
    assert states == dict.fromkeys(expected, "IDLE")
    assert set(names.split()) == expected
