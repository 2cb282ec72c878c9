"""Readers of cgroups, on trees like those of a kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from slurm_observability.node.cgroups import HOLD, CgroupsV1, CgroupsV2, JobFolder, find_cgroups
from slurm_observability.node.cgroups.base import count_cpus

from tests.unit.observability.node.conftest import SLUID, Tree


def test_version_is_found_by_the_root(tree: Tree) -> None:
    assert find_cgroups(tree.root) is None

    (tree.root / "memory").mkdir()
    assert isinstance(find_cgroups(tree.root), CgroupsV1)

    tree.write({"cgroup.controllers": "memory"})
    assert isinstance(find_cgroups(tree.root), CgroupsV2)


@pytest.mark.parametrize("top", ["slurm", "slurm_n1"])
def test_v1_finds_a_job_by_its_id(tree: Tree, top: str) -> None:
    tree.write({f"memory/{top}/uid_0/job_7/memory.usage_in_bytes": 1, "memory/other/job_8/x": 1, "memory/slurm/x": 1})

    [folder] = CgroupsV1(tree.root).folders()

    assert (folder.path, folder.job_id) == (f"/{top}/uid_0/job_7", 7)
    assert folder.node == ("n1" if top == "slurm_n1" else None)


@pytest.mark.parametrize("scope", ["slurmstepd.scope", "n1_slurmstepd.scope"])
@pytest.mark.parametrize("name", ["job_7", SLUID])
@pytest.mark.parametrize("parent", ["system.slice/", "site.slice/", ""])
def test_v2_finds_a_job_by_its_id_and_by_its_sluid(tree: Tree, parent: str, scope: str, name: str) -> None:
    others = {f"{parent}{scope}/{other}/x": 1 for other in ("system", "slurmd", "job_x", SLUID.lower())}
    tree.write({f"{parent}{scope}/{name}/memory.current": 1, **others, "system.slice/ssh.service/job_9/x": 1})

    [folder] = CgroupsV2(tree.root).folders()

    assert folder.path == f"/{parent}{scope}/{name}"
    assert folder.job_id == (7 if name == "job_7" else None)
    assert folder.node == ("n1" if scope.startswith("n1_") else None)


def test_v1_reads_what_the_kernel_says(tree: Tree) -> None:
    path = tree.job_v1(12, steps=("0", "extern"))

    reading = CgroupsV1(tree.root).read(JobFolder(path, "n1"))

    assert (reading.cpu_seconds, reading.memory_bytes, reading.peak_memory_bytes) == (1.5, 1000, 3000)
    assert (reading.memory_limit_bytes, reading.cpus, reading.suspended) == (200 * 2**20, 2, False)
    assert [(step.name, step.cpu_seconds, step.memory_bytes) for step in reading.steps] == [
        ("0", 0.5, 400),
        ("extern", 0.5, 400),
    ]
    assert reading.unread == ()


def test_v2_reads_what_the_kernel_says(tree: Tree) -> None:
    path = tree.job_v2(SLUID, steps=("0", "batch"))

    reading = CgroupsV2(tree.root).read(JobFolder(path, "n1"))

    assert (reading.cpu_seconds, reading.memory_bytes, reading.peak_memory_bytes) == (1.5, 1000, 3000)
    assert (reading.memory_limit_bytes, reading.cpus, reading.suspended) == (200 * 2**20, 2, False)
    assert [(step.name, step.cpu_seconds, step.memory_bytes) for step in reading.steps] == [
        ("0", 0.5, 400),
        ("batch", 0.5, 400),
    ]
    assert reading.unread == ()


def test_v2_without_memory_peak_says_so(tree: Tree) -> None:
    path = tree.job_v2("job_7")
    (tree.root / path.lstrip("/") / "memory.peak").unlink()

    reading = CgroupsV2(tree.root).read(JobFolder(path, "n1"))

    assert reading.peak_memory_bytes is None
    assert "5.19" in "".join(reading.unread)


def test_no_limit_and_no_cpuset_are_none(tree: Tree) -> None:
    v1 = tree.job_v1(12, limit=9223372036854771712)
    (tree.root / "cpuset" / v1.lstrip("/") / "cpuset.cpus").unlink()
    v2 = tree.job_v2("job_12")
    (tree.root / v2.lstrip("/") / "memory.max").write_text("max\n")
    (tree.root / v2.lstrip("/") / "cpuset.cpus").write_text("\n")

    readings = [CgroupsV1(tree.root).read(JobFolder(v1)), CgroupsV2(tree.root).read(JobFolder(v2))]

    assert [(r.memory_limit_bytes, r.cpus, r.unread) for r in readings] == [(None, None, ())] * 2


def test_what_cannot_be_read_is_none_with_the_reason(tree: Tree) -> None:
    path = tree.job_v1(12)
    (tree.root / "cpuacct" / path.lstrip("/") / "cpuacct.usage").unlink()
    (tree.root / "memory" / path.lstrip("/") / "memory.max_usage_in_bytes").write_text("much\n")

    reading = CgroupsV1(tree.root).read(JobFolder(path))

    assert (reading.cpu_seconds, reading.peak_memory_bytes, reading.memory_bytes) == (None, None, 1000)
    assert len(reading.unread) == 2
    assert "cpuacct.usage: No such file" in reading.unread[0]
    assert "max_usage_in_bytes: not understood" in reading.unread[1]


@pytest.mark.parametrize("state", ["FROZEN", "FREEZING", "THAWED"])
def test_v1_suspended_is_frozen(tree: Tree, state: str) -> None:
    path = tree.job_v1(12, steps=("0", "extern"))
    tree.write({f"freezer{path}/step_0/freezer.state": state})

    assert CgroupsV1(tree.root).read(JobFolder(path)).suspended is (state != "THAWED")


def test_v2_suspended_is_frozen(tree: Tree) -> None:
    path = tree.job_v2("job_7", steps=("0", "1"))
    tree.write({f"{path.lstrip('/')}/step_1/user/cgroup.freeze": 1})

    assert CgroupsV2(tree.root).read(JobFolder(path)).suspended is True


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-3", 4), ("0,2,4-5", 4), ("", None)])
def test_cpus_are_counted(text: str, count: int | None) -> None:
    assert count_cpus(text) == count


# --- holding -------------------------------------------------------------------------------------------------


def bare(tree: Tree, *jobs: str) -> CgroupsV1:
    """Jobs without files, which a kernel removes together with their folder, and a disk does not."""
    for job in jobs:
        for controller in ("memory", "cpuacct"):
            (tree.root / controller / job / "step_extern").mkdir(parents=True)
    return CgroupsV1(tree.root)


def steps_go(tree: Tree, job: str) -> None:
    for controller in ("memory", "cpuacct"):
        (tree.root / controller / job / "step_extern").rmdir()


def test_held_folder_stays_and_goes_when_released(tree: Tree) -> None:
    cgroups = bare(tree, "slurm/uid_0/job_7")
    [folder] = cgroups.folders()
    cgroups.hold(folder)
    cgroups.hold(folder)
    steps_go(tree, "slurm/uid_0/job_7")

    assert cgroups.is_held(folder)
    with pytest.raises(OSError, match="not empty"):
        (tree.root / "memory/slurm/uid_0/job_7").rmdir()

    assert cgroups.release(folder)
    assert list(tree.root.rglob("uid_*")) == []
    assert [path.name for path in sorted((tree.root / "memory").rglob("*"))] == ["slurm"]


def test_release_leaves_what_others_need(tree: Tree) -> None:
    cgroups = bare(tree, "slurm/uid_0/job_7", "slurm/uid_0/job_8")
    first, second = sorted(cgroups.folders(), key=lambda folder: folder.path)
    cgroups.hold(first)
    cgroups.hold(second)

    assert cgroups.release(first)
    assert sorted(path.name for path in (tree.root / "memory/slurm/uid_0/job_7").iterdir()) == ["step_extern"]
    steps_go(tree, "slurm/uid_0/job_8")
    assert cgroups.release(second)
    assert sorted(path.name for path in (tree.root / "memory/slurm/uid_0").iterdir()) == ["job_7"]


@pytest.mark.parametrize("controller", ["memory", "cpuacct"])
def test_release_waits_for_slurms_lock(tree: Tree, controller: str) -> None:
    cgroups = bare(tree, "slurm/uid_0/job_7")
    [folder] = cgroups.folders()
    cgroups.hold(folder)
    steps_go(tree, "slurm/uid_0/job_7")
    lock = os.open(tree.root / controller, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    assert not cgroups.release(folder)
    assert (tree.root / controller / "slurm/uid_0/job_7" / HOLD).is_dir()

    os.close(lock)
    assert cgroups.release(folder)
    assert list(tree.root.rglob("job_7")) == []


def test_v2_locks_the_scope(tree: Tree) -> None:
    scope = tree.root / "system.slice/slurmstepd.scope"
    (scope / "job_7").mkdir(parents=True)
    cgroups = CgroupsV2(tree.root)
    [folder] = cgroups.folders()
    cgroups.hold(folder)
    lock = os.open(scope, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    assert not cgroups.release(folder)
    os.close(lock)
    assert cgroups.release(folder)
    assert list(scope.iterdir()) == []


def test_holding_what_is_gone_is_nothing(tree: Tree) -> None:
    CgroupsV1(tree.root).hold(JobFolder("/slurm/uid_0/job_7"))

    assert list(tree.root.iterdir()) == []


def test_folder_is_known_by_its_path(tree: Tree) -> None:
    v1, v2 = CgroupsV1(tree.root), CgroupsV2(tree.root)
    job = JobFolder("/slurm_n1/uid_0/job_7", "n1")

    assert v1.folder_at(tree.root / "memory/slurm_n1/uid_0/job_7") == job
    assert v1.folder_at(tree.root / "cpuacct/slurm_n1/uid_0/job_7") == job
    assert v1.folder_at(tree.root / "memory/slurm_n1/uid_0") is None
    assert v1.folder_at(Path(tree.root / "memory/slurm_n1/uid_0/job_7/step_0")) is None
    scope = tree.root / "system.slice/n1_slurmstepd.scope"
    assert v2.folder_at(scope / SLUID) == JobFolder(f"/system.slice/n1_slurmstepd.scope/{SLUID}", "n1")
    assert v2.folder_at(scope / "system") is None
    assert v2.folder_at(tree.root / "system.slice/job_7") is None
