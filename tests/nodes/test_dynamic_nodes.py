"""Dynamic nodes: they join a running cluster, run jobs, and leave."""

from __future__ import annotations

import re

import pytest

from slurm_testbed import SlurmContainer
from slurm_testbed.errors import NotReadyError, UsageError
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

pytestmark = pytest.mark.requires("dynamic_nodes")


@pytest.mark.row("H-15.1")
def test_dynamic_node_joins_runs_jobs_and_leaves(room: Slurm) -> None:
    room.add_node("d1", conf="CPUs=2 RealMemory=1000 Feature=burst")

    joined = room.nodes()["d1"]
    assert (joined["CPUTot"], joined["RealMemory"], joined["ActiveFeatures"]) == ("2", "1000", "burst")
    assert joined["Partitions"] == "debug"
    names = room.srun("printenv", "SLURMD_NODENAME", nodes=3, ntasks_per_node=1)
    assert sorted(names.split()) == ["d1", "n1", "n2"]
    job = room.sbatch(wrap="srun printenv SLURMD_NODENAME", constraint="burst")
    assert job.wait().state == "COMPLETED"
    assert job.output() == "d1\n"

    room.remove_node("d1")

    assert sorted(room.nodes()) == ["n1", "n2"]
    assert "d1" not in [host.name for host in room.substrate.hosts()]
    assert room.sbatch(wrap="true", nodes=2).wait().state == "COMPLETED"


def test_nodes_come_and_go_beside_each_other_and_may_come_again(room: Slurm) -> None:
    room.add_node("d1", conf="Feature=one")
    room.add_node("d2", conf="Feature=two")
    assert room.srun("printenv", "SLURMD_NODENAME", constraint="two") == "d2\n"

    room.remove_node("d1")
    room.add_node("d1", conf="Feature=again")

    assert room.srun("printenv", "SLURMD_NODENAME", constraint="again") == "d1\n"
    room.reset()
    assert sorted(room.nodes()) == ["n1", "n2"]


def test_job_finishes_on_a_node_that_is_about_to_leave(room: Slurm) -> None:
    room.add_node("d1")
    job = room.sbatch(wrap="sleep 2; echo done", nodelist="d1")
    job.wait(until={"RUNNING"})

    with pytest.raises(NotReadyError, match="the node d1 to be left by its jobs"):
        room.remove_node("d1", deadline=0.5)
    assert "DRAIN" in room.nodes()["d1"]["State"]
    room.remove_node("d1")

    assert job.record().state == "COMPLETED"


def test_more_nodes_than_the_controller_takes_are_refused(room: Slurm, slurm_release: Release) -> None:
    # SLURM_MAX_NODES, by default 32 more than there are.
    config = room.run(["scontrol", "show", "config"]).stdout
    assert re.search(r"^MaxNodeCount\s*= 34$", config, re.MULTILINE), config
    if room.substrate.facts().kind != "single":
        return

    with SlurmContainer(slurm_release.version, accounting=False, env={"SLURM_MAX_NODES": "2"}) as slurm:
        slurm.add_node("d1")
        with pytest.raises(NotReadyError, match="the dynamic node d2 to join"):
            slurm.add_node("d2", deadline=3)

        assert sorted(slurm.nodes()) == ["d1", "n1"]
        assert slurm.srun("printenv", "SLURMD_NODENAME", nodelist="d1") == "d1\n"


def test_name_that_is_taken_is_refused(room: Slurm) -> None:
    with pytest.raises(UsageError, match="there is a node n1 already"):
        room.add_node("n1")


def test_node_of_slurm_conf_stays(room: Slurm) -> None:
    with pytest.raises(UsageError, match="there is no dynamic node n1"):
        room.remove_node("n1")

    assert room.nodes()["n1"]["State"] == "IDLE"


def test_node_that_registers_but_is_never_idle_leaves_nothing(room: Slurm) -> None:
    with pytest.raises(NotReadyError, match="the dynamic node d1 to join"):
        room.add_node("d1", conf="State=DRAIN", deadline=5)

    assert sorted(room.nodes()) == ["n1", "n2"]
    room.add_node("d1")


@pytest.mark.deep
def test_node_with_a_wrong_configuration_is_refused_with_slurms_reason(room: Slurm) -> None:
    with pytest.raises(NotReadyError, match="NodeName="):
        room.add_node("d1", conf="NodeName=other", deadline=20)

    assert sorted(room.nodes()) == ["n1", "n2"]


def test_release_that_needs_a_host_for_each_says_so(slurm: Slurm, slurm_release: Release) -> None:
    if slurm.substrate.facts().kind != "single" or slurm_release.has("dynamic_node_ports"):
        pytest.skip("not checkable here because this release takes several on one host")

    with pytest.raises(UsageError, match=f"a dynamic node of Slurm {slurm_release.version} needs a host of its own"):
        slurm.add_node("d1")
