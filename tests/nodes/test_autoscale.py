"""Auto-scaling: dynamic nodes come while jobs wait for room, and leave when they have had nothing to do."""

from __future__ import annotations

import pytest

from slurm_testbed import Autoscaler, autoscale
from slurm_testbed.errors import UsageError
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm


@pytest.mark.row("H-15.2", "H-15.3")
@pytest.mark.requires("dynamic_nodes")
def test_nodes_come_for_a_job_that_waits_and_leave_when_idle(room: Slurm) -> None:
    told: list[str] = []
    with Autoscaler(room, max_nodes=2, idle=1, say=told.append) as autoscaler:
        job = room.sbatch(wrap="srun printenv SLURMD_NODENAME", nodes=4, ntasks_per_node=1)
        assert job.wait(deadline=90).state == "COMPLETED"
        room.wait_until(lambda: not autoscaler.nodes, "the added nodes to leave", deadline=60)

        assert sorted(job.output().split()) == ["auto1", "auto2", "n1", "n2"]
        assert sorted(room.nodes()) == ["n1", "n2"]
        assert told[0] == "auto1 joined: 1 job waits for room"
        assert sorted(told[2:]) == [f"auto{n} left: idle for 1 s" for n in (1, 2)]


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
def test_no_more_nodes_than_were_asked_for(room: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscale, "_SETTLED", 0)
    jobs = [room.sbatch(wrap="sleep 600", nodes=1, exclusive=True) for _ in range(4)]
    autoscaler = Autoscaler(room, max_nodes=1)

    autoscaler.look()
    room.wait_until(
        lambda: [job.state for job in jobs].count("RUNNING") == 3, "a job to run on the node that came", deadline=60
    )
    autoscaler.look()

    assert autoscaler.nodes == ["auto1"]
    assert [job.state for job in jobs].count("PENDING") == 1


def test_what_makes_no_sense_is_refused(slurm: Slurm, slurm_release: Release) -> None:
    with pytest.raises(UsageError, match="an autoscaler of 0 nodes"):
        Autoscaler(slurm, max_nodes=0)

    if not slurm_release.has("dynamic_nodes"):
        with pytest.raises(UsageError, match="has no dynamic_nodes"), Autoscaler(slurm):
            pass
