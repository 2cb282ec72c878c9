"""Auto-scaling: dynamic nodes come while jobs wait for room, and leave when they have had nothing to do."""

from __future__ import annotations

import re

import pytest

from slurm_testbed import Autoscaler
from slurm_testbed.errors import UsageError
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm


@pytest.mark.row("H-15.2", "H-15.3")
@pytest.mark.requires("dynamic_nodes")
def test_nodes_come_for_a_job_that_waits_and_leave_when_idle(room: Slurm) -> None:
    full = [room.sbatch(wrap="sleep 600", exclusive=True) for _ in range(2)]
    told: list[str] = []
    with Autoscaler(room, max_nodes=1, idle=0.1, say=told.append) as autoscaler:
        jobs = [room.sbatch(wrap="printenv SLURMD_NODENAME", exclusive=True) for _ in range(3)]
        assert {job.wait(deadline=90).state for job in jobs} == {"COMPLETED"}
        room.wait_until(lambda: not autoscaler.nodes, "the added node to leave", deadline=60)

    assert {job.output() for job in jobs} == {"auto1\n"}
    assert sorted(room.nodes()) == ["n1", "n2"]
    assert re.fullmatch(r"auto1 joined: \d jobs? waits? for room", told[0]), told
    assert told[-1] == "auto1 left: idle for 0.1 s"
    assert {job.state for job in full} == {"RUNNING"}


@pytest.mark.requires("dynamic_nodes")
def test_job_that_waits_for_something_else_brings_no_node(room: Slurm) -> None:
    held = room.sbatch(wrap="true", hold=True)
    after = room.sbatch(wrap="true", dependency=f"afterok:{held.id}")
    autoscaler = Autoscaler(room)
    room.wait_until(lambda: (held.state, after.state) == ("PENDING",) * 2, "both jobs to be queued")

    autoscaler.look()

    assert autoscaler.nodes == []
    assert sorted(room.queue()) == [held.id, after.id]


@pytest.mark.requires("dynamic_nodes")
def test_node_that_somebody_else_removes_is_forgotten(room: Slurm) -> None:
    room.sbatch(wrap="sleep 600", exclusive=True, nodes=2)
    told: list[str] = []
    with Autoscaler(room, max_nodes=1, say=told.append) as autoscaler:
        first = room.sbatch(wrap="true", exclusive=True)
        assert first.wait(deadline=90).state == "COMPLETED"
        room.remove_node("auto1")
        second = room.sbatch(wrap="true", exclusive=True)
        assert second.wait(deadline=90).state == "COMPLETED"
        assert len(autoscaler.nodes) == 1

    assert [line for line in told if "joined" in line] == ["auto1 joined: 1 job waits for room"] * 2


def test_what_makes_no_sense_is_refused(two_nodes: Slurm, slurm_release: Release) -> None:
    with pytest.raises(UsageError, match="an autoscaler of 0 nodes"):
        Autoscaler(two_nodes, max_nodes=0)

    if not slurm_release.has("dynamic_nodes"):
        with pytest.raises(UsageError, match="has no dynamic_nodes"), Autoscaler(two_nodes):
            pass
