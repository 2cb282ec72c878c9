"""A spawn that finds no node brings one up; an idle one leaves."""

from __future__ import annotations

import pytest

from fixtures.hub import spawn
from slurm_testbed import Autoscaler, SlurmCluster


@pytest.mark.deep
@pytest.mark.row("H-15.2", "H-15.3")
@pytest.mark.requires("dynamic_nodes")
def test_spawn_that_finds_no_node_brings_one_up(hub_cluster: SlurmCluster) -> None:
    full = [hub_cluster.sbatch(wrap="sleep 600", nodes=1, exclusive=True) for _ in range(2)]
    for job in full:
        job.wait(until={"RUNNING"})

    with Autoscaler(hub_cluster, max_nodes=1, idle=1) as autoscaler:
        server = spawn(hub_cluster, "alice", deadline=90)
        host = server.start_kernel().run("import socket; print(socket.gethostname())")
        server.stop()
        hub_cluster.wait_until(lambda: not autoscaler.nodes, "the node to leave", deadline=60)

    assert host == "auto1\n"
    assert sorted(hub_cluster.nodes()) == ["n1", "n2"]
    assert {job.state for job in full} == {"RUNNING"}
