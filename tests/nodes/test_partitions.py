"""Features and partitions, from a site's own fragments of slurm.conf."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from slurm_testbed import SlurmCluster, SlurmContainer
from slurm_testbed.errors import CommandError
from slurm_testbed.slurm import Slurm

CONF = {
    "50-features.conf": "NodeName=DEFAULT Feature=common\n",
    "80-partitions.conf": "EnforcePartLimits=ALL\n"
    "PartitionName=short Nodes=n1 MaxTime=10 DefaultTime=2 MaxNodes=1\n"
    "PartitionName=bobs Nodes=n2 AllowGroups=bob\n"
    "PartitionName=high Nodes=ALL PriorityTier=10\n",
}


@pytest.fixture(scope="module")
def _parted(slurm_start: Callable[..., SlurmContainer | SlurmCluster]) -> Iterator[Slurm]:
    with slurm_start(nodes=2, cpus=4, memory=4000, conf=CONF) as cluster:
        yield cluster


@pytest.fixture
def parted(_parted: Slurm) -> Slurm:
    """An idle cluster of two nodes with features, and four partitions."""
    _parted.reset()
    return _parted


def test_partitions_are_those_of_the_fragments(parted: Slurm) -> None:
    listed = parted.run(["sinfo", "--noheader", "--format=%R %N %l"]).stdout

    assert sorted(line.split() for line in listed.splitlines()) == [
        ["bobs", "n2", "infinite"],
        ["debug", "n[1-2]", "infinite"],
        ["high", "n[1-2]", "infinite"],
        ["short", "n1", "10:00"],
    ]


def test_job_gets_the_partitions_node_and_default_time(parted: Slurm) -> None:
    record = parted.sbatch(wrap="true", partition="short").wait()

    assert (record.state, record.nodes, record.fields["TimeLimit"]) == ("COMPLETED", "n1", "00:02:00")


def test_time_over_the_partitions_limit_is_refused(parted: Slurm) -> None:
    with pytest.raises(CommandError, match="Requested time limit is invalid"):
        parted.sbatch(wrap="true", partition="short", time=11)


def test_partition_is_for_its_group_only(parted: Slurm) -> None:
    with pytest.raises(CommandError, match=r"(?i)user.* group not permitted to use this partition"):
        parted.sbatch(wrap="true", partition="bobs", user="alice")

    assert parted.sbatch(wrap="true", partition="bobs", user="bob").wait().nodes == "n2"


def test_job_runs_where_its_features_are(parted: Slurm) -> None:
    parted.run(["scontrol", "update", "NodeName=n2", "AvailableFeatures=common,fast", "ActiveFeatures=common,fast"])

    assert parted.srun("printenv", "SLURMD_NODENAME", constraint="fast") == "n2\n"
    both = parted.srun("printenv", "SLURMD_NODENAME", constraint="common", nodes=2, ntasks_per_node=1)
    assert sorted(both.split()) == ["n1", "n2"]
    assert parted.srun("printenv", "SLURMD_NODENAME", constraint="[fast*1&common*1]", nodes=2).split()
    with pytest.raises(CommandError, match="Invalid feature specification"):
        parted.sbatch(wrap="true", constraint="nowhere")


def test_waiting_job_of_a_partition_of_higher_priority_goes_first(parted: Slurm) -> None:
    full = parted.sbatch(wrap="sleep 60", nodes=2, exclusive=True)
    full.wait(until={"RUNNING"})
    low = parted.sbatch(wrap="date +%s.%N", nodes=2, exclusive=True)
    high = parted.sbatch(wrap="date +%s.%N", nodes=2, exclusive=True, partition="high")

    full.cancel()

    assert low.wait().state == high.wait().state == "COMPLETED"
    assert float(high.output()) < float(low.output())
