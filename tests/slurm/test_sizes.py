"""Nodes have the size that is asked for, also when the host has less."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from slurm_testbed import SlurmCluster, SlurmContainer, engine


@pytest.mark.row("H-03.1", "H-03.2", "H-03a.1", "H-03a.2")
def test_nodes_are_larger_than_the_host(slurm_start: Callable[..., SlurmContainer | SlurmCluster]) -> None:
    host = engine.connect().info()
    cpus, memory = max(4, host["NCPU"] + 2), max(32094, host["MemTotal"] // 2**20 + 8000)

    with slurm_start(nodes=2, cpus=cpus, memory=memory) as slurm:
        conf = slurm.read("/etc/slurm/slurm.conf")
        nodes = slurm.nodes()
        ran = slurm.srun("true", nodes=2, cpus_per_task=cpus, mem=f"{memory}M")
        log = slurm.substrate.logs(slurm.controller)

    assert re.search(rf"^NodeName=n\[1-2\] .*NodeAddr=\S+ .*CPUs={cpus} RealMemory={memory} ", conf, re.MULTILINE), conf
    expected = {"State": "IDLE", "CPUTot": str(cpus), "RealMemory": str(memory), "Partitions": "debug"}
    assert {name: {key: node[key] for key in expected} for name, node in nodes.items()} == {
        "n1": expected,
        "n2": expected,
    }
    assert ran == ""
    assert "nodes: larger than this host, which has " in log
