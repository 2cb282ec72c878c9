"""With the named capabilities, a job's memory, cores and devices are enforced."""

from __future__ import annotations

import pytest

from slurm_testbed import SlurmContainer, engine
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

EAT_MEMORY = "x=$(head --bytes=200M /dev/zero | tr '\\0' x); echo survived"


@pytest.mark.requires("containers")
@pytest.mark.vm
def test_job_over_its_memory_is_killed_and_reported_so(slurm_with_cgroups: Slurm) -> None:
    job = slurm_with_cgroups.sbatch(wrap=EAT_MEMORY, mem="50M")

    record = job.wait()

    assert record.state == "OUT_OF_MEMORY", record.fields
    assert "survived" not in job.output()


@pytest.mark.vm
def test_job_over_its_memory_lives_without_cgroups(slurm: Slurm) -> None:
    job = slurm.sbatch(wrap=EAT_MEMORY, mem="50M")

    assert job.wait().state == "COMPLETED", "memory is enforced although the start says that it is not"


@pytest.mark.requires("containers")
@pytest.mark.vm
def test_job_sees_only_its_cores(slurm_with_cgroups: Slurm) -> None:
    assert slurm_with_cgroups.srun("nproc", cpus_per_task=1).strip() == "1"


@pytest.mark.requires("containers")
@pytest.mark.vm
def test_facts_name_what_is_enforced(slurm: Slurm, slurm_with_cgroups: Slurm) -> None:
    assert slurm.substrate.facts().cgroup == "none"
    assert slurm_with_cgroups.substrate.facts().cgroup == f"v{engine.connect().info()['CgroupVersion']}"


@pytest.mark.deep
@pytest.mark.requires("cgroup_v1")
def test_container_that_was_killed_while_slurm_froze_a_step_is_removed(slurm_release: Release) -> None:
    freeze = "cd /sys/fs/cgroup/freezer/slurm_*/uid_1000/job_1; echo FROZEN > freezer.state; cat freezer.state"
    client, owner = engine.connect(), f"{engine.owner()}/frozen"
    slurm = SlurmContainer(slurm_release.version, accounting=False, cgroups=True, owner=owner).start()
    try:
        slurm.sbatch(wrap="sleep 600").wait(until={"RUNNING"})
        assert slurm.run(["sh", "-c", freeze]).stdout.strip() in {"FREEZING", "FROZEN"}
    finally:
        removed = engine.sweep(client, owned_by=owner)

    assert removed == [f"container {slurm.name}", f"network {slurm.name}"]
    assert client.containers.list(all=True, ignore_removed=True, filters={"name": slurm.name}) == []
