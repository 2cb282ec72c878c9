"""Holding the folders of jobs, with the kernel's own inotify."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from slurm_observability.node import keeper as keepers
from slurm_observability.node.cgroups import Cgroups, CgroupsV1, CgroupsV2, JobFolder
from slurm_observability.node.jobs import Jobs
from slurm_observability.node.keeper import Keeper
from slurm_observability.node.spool import RunningJob, Spool

from tests.unit.observability.node.conftest import SLUID, Tree

JOB = JobFolder("/slurm_n1/uid_0/job_12", "n1")


def running(spool: Spool, **values: str) -> Jobs:
    return Jobs(spool, [RunningJob.model_validate({"node": "n1", "job_id": 12, "begun_ns": 1, **values})])


def make(tree: Tree, *paths: str) -> None:
    for path in paths:
        (tree.root / path).mkdir(parents=True)


def look_until(keeper: Keeper, wanted: object, *, seconds: float = 10) -> None:
    """Let the keeper look until a condition holds."""
    assert callable(wanted)
    deadline = time.monotonic() + seconds
    while not wanted() and time.monotonic() < deadline:
        keeper.look(timeout=0.05)


def test_v1_job_of_a_user_who_was_not_there_is_held_in_both_hierarchies(tree: Tree, spool: Spool) -> None:
    make(tree, "memory", "cpuacct")
    cgroups = CgroupsV1(tree.root)
    keeper = Keeper(cgroups, running(spool))

    make(tree, "memory/slurm_n1/uid_0/job_12/step_extern")
    look_until(keeper, lambda: cgroups.is_held(JOB))
    make(tree, "cpuacct/slurm_n1/uid_0/job_12/step_extern")
    look_until(keeper, lambda: (tree.root / "cpuacct/slurm_n1/uid_0/job_12/observability").is_dir())

    assert cgroups.is_held(JOB)


def test_v1_cpu_time_is_kept_from_the_jobs_first_moment(tree: Tree, spool: Spool) -> None:
    make(tree, "memory", "cpuacct/slurm_n1")
    keeper = Keeper(CgroupsV1(tree.root), running(spool))

    # Slurm makes this one for the whole job, and the other only for what a user starts.
    make(tree, "memory/slurm_n1/uid_0/job_12/step_extern")
    kept = tree.root / "cpuacct/slurm_n1/uid_0/job_12/observability"
    look_until(keeper, kept.is_dir)

    assert kept.is_dir()


def test_v1_nothing_is_made_where_slurm_counts_no_cpu_time(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0/job_12/step_extern", "cpuacct")

    Keeper(CgroupsV1(tree.root), running(spool))

    assert list((tree.root / "cpuacct").iterdir()) == []


@pytest.mark.parametrize("name", ["job_12", SLUID])
def test_v2_job_is_held(tree: Tree, spool: Spool, name: str) -> None:
    make(tree, "system.slice/n1_slurmstepd.scope/system")
    cgroups = CgroupsV2(tree.root)
    keeper = Keeper(cgroups, running(spool))

    make(tree, f"system.slice/n1_slurmstepd.scope/{name}")
    folder = JobFolder(f"/system.slice/n1_slurmstepd.scope/{name}", "n1")
    look_until(keeper, lambda: cgroups.is_held(folder))

    assert cgroups.is_held(folder)
    assert [path.name for path in (tree.root / "system.slice/n1_slurmstepd.scope/system").iterdir()] == []


def test_slurm_that_starts_later_is_watched(tree: Tree, spool: Spool) -> None:
    tree.write({"cgroup.controllers": "memory"})
    cgroups = CgroupsV2(tree.root)
    keeper = Keeper(cgroups, running(spool))

    for path in ("system.slice", "system.slice/slurmstepd.scope", "system.slice/slurmstepd.scope/job_12"):
        make(tree, path)
        keeper.look(timeout=0.2)
    folder = JobFolder("/system.slice/slurmstepd.scope/job_12")
    look_until(keeper, lambda: cgroups.is_held(folder))

    assert cgroups.is_held(folder)


def test_folder_that_went_before_it_was_held_is_said(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0", "cpuacct")
    jobs = running(spool)
    keeper = Keeper(CgroupsV1(tree.root), jobs)
    make(tree, "memory/slurm_n1/uid_0/job_12")
    (tree.root / "memory/slurm_n1/uid_0/job_12").rmdir()

    look_until(keeper, lambda: jobs.all()[0].incomplete)

    assert "before it could be held" in (jobs.all()[0].incomplete or "")


def test_folder_that_we_let_go_is_not_said(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0", "cpuacct")
    jobs = running(spool)
    cgroups = CgroupsV1(tree.root)
    keeper = Keeper(cgroups, jobs)
    make(tree, "memory/slurm_n1/uid_0/job_12")
    look_until(keeper, lambda: cgroups.is_held(JOB))

    keeper.let_go(JOB)
    for _ in range(3):
        keeper.look(timeout=0.05)

    assert (cgroups.folders(), jobs.all()[0].incomplete) == ([], None)


def test_folder_of_a_requeued_job_is_held_again(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0", "cpuacct")
    cgroups = CgroupsV1(tree.root)
    keeper = Keeper(cgroups, running(spool))
    for _ in range(2):
        make(tree, "memory/slurm_n1/uid_0/job_12")
        look_until(keeper, lambda: cgroups.is_held(JOB))
        assert cgroups.is_held(JOB)
        keeper.let_go(JOB)
        make(tree, "memory/slurm_n1/uid_0")


@pytest.mark.parametrize(("step", "complete"), [("step_extern", True), ("step_0", False)])
def test_job_that_ran_before_the_agent_is_whole_only_with_its_extern_step(
    tree: Tree, spool: Spool, step: str, complete: bool
) -> None:
    make(tree, f"memory/slurm_n1/uid_0/job_12/{step}", "cpuacct")
    jobs = running(spool)
    cgroups = CgroupsV1(tree.root)

    Keeper(cgroups, jobs)

    assert cgroups.is_held(JOB)
    assert (jobs.all()[0].incomplete is None) is complete


def test_job_that_an_earlier_agent_held_is_whole(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0/job_12/observability", "memory/slurm_n1/uid_0/job_12/step_0", "cpuacct")
    jobs = running(spool)

    Keeper(CgroupsV1(tree.root), jobs)

    assert jobs.all()[0].incomplete is None


def test_folder_goes_as_soon_as_slurms_lock_is_free(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0/job_12/observability", "cpuacct")
    keeper = Keeper(CgroupsV1(tree.root), running(spool))
    lock = os.open(tree.root / "memory", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    keeper.let_go(JOB)
    keeper.look(timeout=0.05)
    there = (tree.root / "memory/slurm_n1/uid_0/job_12").is_dir()
    os.close(lock)
    look_until(keeper, lambda: not (tree.root / "memory/slurm_n1/uid_0/job_12").is_dir())

    assert there
    assert not (tree.root / "memory/slurm_n1/uid_0").exists()


def test_what_no_epilog_ended_is_let_go(tree: Tree, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tree, *(f"memory/slurm_n1/uid_0/{job}/observability" for job in ("job_12", "job_13", "job_14")), "cpuacct")
    make(tree, "memory/slurm_n1/uid_0/job_14/step_0")
    cgroups = CgroupsV1(tree.root)
    keeper = Keeper(cgroups, running(spool))
    # Any time is longer than that, and the second look comes at once.
    monkeypatch.setattr(keepers, "ABANDONED_AFTER", -1.0)

    keeper.sweep()
    keeper.sweep()

    # Job 12 runs, and may have a step again; job 14 has one.
    assert sorted(folder.path[-6:] for folder in cgroups.folders()) == ["job_12", "job_14"]


def test_kernel_that_refuses_is_said(tree: Tree, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tree, "memory/slurm_n1/uid_0/job_12", "cpuacct")

    def refuse(_: Cgroups, __: JobFolder) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(CgroupsV1, "hold", refuse)
    keeper = Keeper(CgroupsV1(tree.root), running(spool))

    assert keeper.trouble == "/slurm_n1/uid_0/job_12 could not be held: Read-only file system"


def test_thread_holds_by_itself(tree: Tree, spool: Spool) -> None:
    make(tree, "memory/slurm_n1/uid_0", "cpuacct")
    cgroups = CgroupsV1(tree.root)
    keeper = Keeper(cgroups, running(spool))
    keeper.start()
    make(tree, "memory/slurm_n1/uid_0/job_12")

    deadline = time.monotonic() + 10
    while not cgroups.is_held(JOB) and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert cgroups.is_held(JOB)


# --- whose folder --------------------------------------------------------------------------------------------


def test_sluid_is_the_job_whose_prolog_had_it(tree: Tree, spool: Spool) -> None:
    folder = JobFolder(tree.job_v2(SLUID), "n1")
    cgroups = CgroupsV2(tree.root)

    assert running(spool, sluid=SLUID).job_id_of(folder, cgroups) == 12
    assert running(spool, sluid=SLUID[:-1] + "Z").job_id_of(folder, cgroups) is None
    assert running(spool, sluid=SLUID).folder(cgroups, "n1", 12, SLUID) == folder
    assert running(spool, sluid=SLUID).folder(cgroups, "n2", 12, SLUID) is None


def test_sluid_without_a_prolog_is_the_job_of_its_slurmstepd(tree: Tree, spool: Spool, tmp_path: Path) -> None:
    folder = JobFolder(tree.job_v2(SLUID), "n1")
    tree.write({f"{folder.path.lstrip('/')}/step_0/slurm/cgroup.procs": "41\n42"})
    for pid, title in ((41, b"sleep\0100"), (42, b"slurmstepd: [77.0]")):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cmdline").write_bytes(title)

    job_id = Jobs(spool).job_id_of(folder, CgroupsV2(tree.root), tmp_path / "proc")

    assert job_id == (77 if os.getuid() == 0 else None)


def test_sluid_of_processes_that_are_not_roots_tells_nothing(tree: Tree, spool: Spool, tmp_path: Path) -> None:
    folder = JobFolder(tree.job_v2(SLUID), "n1")
    tree.write({f"{folder.path.lstrip('/')}/step_0/user/task_0/cgroup.procs": "41"})
    process = tmp_path / "proc/41"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"slurmstepd: [78.0]")
    if os.getuid() == 0:
        os.chown(process, 1000, 1000)

    assert Jobs(spool).job_id_of(folder, CgroupsV2(tree.root), tmp_path / "proc") is None
