"""Heterogeneous jobs: components of different size in one job."""

from __future__ import annotations

from slurm_testbed.slurm import Slurm

SCRIPT = """#!/bin/bash
#SBATCH --ntasks=1 --cpus-per-task=1 --mem-per-cpu=50 --nodelist=n1
#SBATCH hetjob
#SBATCH --ntasks=2 --cpus-per-task=1 --mem-per-cpu=100 --nodelist=n2
echo "components $SLURM_HET_SIZE"
srun --het-group=0 sh -c 'echo "first on $SLURMD_NODENAME"'
srun --het-group=1 sh -c 'echo "second on $SLURMD_NODENAME"'
srun --het-group=0,1 --label sh -c 'echo "both on $SLURMD_NODENAME"' | sort
"""


def test_components_run_together_each_with_its_own_resources(two_nodes: Slurm) -> None:
    job = two_nodes.sbatch(script=SCRIPT)

    assert job.wait().state == "COMPLETED", job.output()
    components = {record.fields["HetJobOffset"]: record for record in job.records()}

    assert {offset: (record.nodes, record.fields["NumTasks"]) for offset, record in components.items()} == {
        "0": ("n1", "1"),
        "1": ("n2", "2"),
    }
    assert job.output().splitlines() == [
        "components 2",
        "first on n1",
        "second on n2",
        "second on n2",
        "0: both on n1",
        "1: both on n2",
        "2: both on n2",
    ]


def test_cancelling_the_leader_cancels_every_component(two_nodes: Slurm) -> None:
    job = two_nodes.sbatch(script=SCRIPT + "sleep 600\n")
    job.wait(until={"RUNNING"})

    job.cancel()
    job.wait()

    assert [record.state for record in job.records()] == ["CANCELLED", "CANCELLED"]
