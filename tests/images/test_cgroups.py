"""What the flags of `docker run` give: no limits by default, and with two capabilities memory, cores and devices."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from slurm_testbed import data
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm
from tests.images.conftest import Image

FLAGS = ("--cap-add=SYS_ADMIN", "--cap-add=SYS_NICE", "--cap-add=SYS_PTRACE", "--cgroupns=private")
EAT_MEMORY = "x=$(head --bytes=200M /dev/zero | tr '\\0' x); echo survived"
#: A device that refuses every byte takes a GPU's place: a job may write to it only with the GRES.
DEVICE = "/dev/full"
HOST_TREE = Path("/sys/fs/cgroup")
#: A site's fragment of cgroup.conf.
PATHS = "/etc/slurm/cgroup.conf.d/30-paths.conf"


@pytest.fixture
def start_limited(image: Image, not_checkable: Callable[[str, str], NoReturn]) -> Iterator[Callable[..., Slurm]]:
    """Start a cluster by hand with the named capabilities and a device as GRES; nothing is left on the host."""
    ours = (data.images() / "slurm/rootfs/usr/share/slurm-testbed/slurm.conf.d/60-nodes.conf").read_text()
    gres = {
        "/etc/slurm/gres.conf": f"Name=gpu File={DEVICE}\n",
        "/etc/slurm/slurm.conf.d/60-nodes.conf": "GresTypes=gpu\n"
        + ours.replace("State=UNKNOWN", "State=UNKNOWN Gres=gpu:1"),
    }
    options = [*FLAGS, "--env=SLURM_CPUS=2"]
    if "apparmor" in " ".join(image.client.info()["SecurityOptions"] or []):
        options.append("--security-opt=apparmor=unconfined")

    with contextlib.ExitStack() as stack:

        def start(more: Mapping[str, str] | None = None) -> Slurm:
            slurm = stack.enter_context(image.started(options=options, files={**gres, **(more or {})}))
            told = slurm.substrate.logs(slurm.controller)
            if "cgroups: none" in told and "the host has no " in told:
                not_checkable("cgroup", "this host lacks a controller that Slurm needs")
            assert "memory, cores and devices of jobs are enforced" in told, told
            return slurm

        yield start


@pytest.fixture
def limited(start_limited: Callable[..., Slurm]) -> Slurm:
    """A cluster with our own cgroup.conf."""
    return start_limited()


def host_groups(name: str) -> list[str]:
    """Groups of this host's tree whose name has a word in it."""
    # os.walk passes over a group that vanishes meanwhile; Path.rglob would end there, and miss all others.
    return [f"{path}/{group}" for path, groups, _ in os.walk(HOST_TREE) for group in groups if name in group]


@dataclass(frozen=True)
class Group:
    """Where a job's task was held, and what its job's group said while it ran."""

    job: int
    path: str
    limits: Mapping[str, str]


def group_of_a_job(slurm: Slurm, memory: int) -> Group:
    """Run a job of so many MiB and one core, and let it read its own group: cgroups(7)."""
    # The job's group is the one above those of step, user and task.
    script = """
        path=$(sed -n 's/^0:://p' /proc/self/cgroup)
        echo "$SLURM_JOB_ID $path"
        cd "/sys/fs/cgroup${path%/step_*}" && grep -H . memory.max memory.swap.max cpuset.cpus.effective
    """
    lines = slurm.srun("sh", "-c", script, mem=f"{memory}M", cpus_per_task=1).splitlines()
    job, path = lines[0].split()
    return Group(int(job), path, dict(line.split(":", 1) for line in lines[1:]))


@pytest.mark.vm
@pytest.mark.row("C-06.4", "O-03.4")
def test_jobs_are_held_by_memory_cores_and_devices(limited: Slurm) -> None:
    killed = limited.run(["srun", "--mem=50M", "sh", "-c", EAT_MEMORY], user="alice", check=False)
    batch = limited.sbatch(wrap=EAT_MEMORY, mem="50M").wait()
    cores = limited.srun("grep", "^Cpus_allowed_list", "/proc/self/status", cpus_per_task=1).split()[1]
    without, with_gres = (
        limited.run(["srun", *gres, "sh", "-c", f"echo byte > {DEVICE}"], check=False).stderr
        for gres in ([], ["--gres=gpu:1"])
    )

    assert killed.returncode != 0
    assert "survived" not in killed.stdout
    assert "Out Of Memory" in killed.stderr, killed.stderr
    assert re.search(r"Detected \d+ oom.kill event", killed.stderr), killed.stderr
    assert (batch.state, batch.exit_code, batch.signal) == ("OUT_OF_MEMORY", 0, 125), batch.fields
    assert cores.isdigit(), f"a job of one core may use {cores}"
    assert "Operation not permitted" in without, f"a job without GRES opened {DEVICE}: {without}"
    assert "Operation not permitted" not in with_gres, f"a job with GRES could not open {DEVICE}: {with_gres}"


@pytest.mark.vm
def test_sstat_and_sacct_have_the_memory_of_a_job(limited: Slurm) -> None:
    # It ends when it is told: slurmstepd takes samples, and the first and the last see little.
    job = limited.sbatch(
        wrap="x=$(head --bytes=100M /dev/zero | tr '\\0' x); until [ -e go ]; do sleep 0.1; done", mem="500M"
    )

    def read(command: str) -> int:
        """MaxRSS of the batch step, in bytes."""
        asked = [command, "--noheader", "--noconvert", "--format=MaxRSS", f"--jobs={job.id}.batch"]
        return int(limited.run(asked).stdout.strip() or 0)

    def found() -> str:
        output = limited.run(["cat", f"slurm-{job.id}.out"], user="alice", workdir=limited.home("alice"), check=False)
        return f"{read('sstat')} bytes, {job.state}: {output.stdout}"

    limited.wait_until(lambda: read("sstat") > 100 * 2**20, "100 MiB in sstat", state=found)
    limited.run(["touch", "go"], user="alice", workdir=limited.home("alice"))
    job.wait()
    limited.wait_until(lambda: read("sacct") > 100 * 2**20, "100 MiB in sacct", state=lambda: f"{read('sacct')} bytes")


@pytest.mark.vm
@pytest.mark.row("O-03.1", "O-03.4")
@pytest.mark.requires("cgroup_v2")
def test_limits_stand_on_the_group_of_the_job(start_limited: Callable[..., Slurm], slurm_release: Release) -> None:
    sluid = slurm_release.has("sluid_cgroups")
    slurm = start_limited({PATHS: "CgroupJobIdPaths=yes\n"} if sluid else None)

    group = group_of_a_job(slurm, memory=64)

    # A slurmd that may have others beside it puts its node's name in front.
    scope = r"/system\.slice/(n1_)?slurmstepd\.scope"
    assert re.fullmatch(rf"{scope}/job_{group.job}/step_0/user/task_0", group.path), group.path
    assert group.limits["memory.max"] == str(64 << 20)
    # 22.05 writes what cgroup v1 wants, the sum of memory and swap.
    swap = 64 << 20 if slurm_release.minor == "22.05" else 0
    assert group.limits["memory.swap.max"] == str(swap)
    assert group.limits["cpuset.cpus.effective"].isdigit(), "not one core"


@pytest.mark.vm
@pytest.mark.requires("cgroup_v2", "sluid_cgroups")
def test_group_is_named_by_the_sluid_by_default(limited: Slurm) -> None:
    group = group_of_a_job(limited, memory=64)

    name = re.search(r"slurmstepd\.scope/([^/]+)/step_0/", group.path)
    assert name, group.path
    assert name[1] != f"job_{group.job}"
    assert re.search(r"(^|_)s[0-9A-Z]{13}$", name[1]), name[1]
    assert group.limits["memory.max"] == str(64 << 20)


def test_nothing_is_left_in_the_hosts_tree(image: Image) -> None:
    before = set(host_groups("slurm"))
    with image.started(options=[*FLAGS, "--env=SLURM_ACCOUNTING=no"]) as slurm:
        slurm.srun("true")
        name = slurm.run(["cat", "/proc/sys/kernel/hostname"]).stdout.strip()
        container = image.client.containers.get(name).id
        assert container
        during = host_groups(container)

    assert during or not HOST_TREE.exists(), "the container's groups were not seen: nothing was checked"
    assert host_groups(container) == []
    assert {path for path in set(host_groups("slurm")) - before if "/docker/" not in path} == set()
