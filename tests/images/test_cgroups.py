"""What the flags of `docker run` give: no limits by default, and with two capabilities memory, cores and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from slurm_testbed import data
from slurm_testbed.slurm import Slurm
from tests.images.conftest import Image

FLAGS = ("--cap-add=SYS_ADMIN", "--cap-add=SYS_NICE", "--cgroupns=private")
EAT_MEMORY = "x=$(head --bytes=200M /dev/zero | tr '\\0' x); echo survived"
#: A device that refuses every byte takes a GPU's place: a job may write to it only with the GRES.
DEVICE = "/dev/full"
HOST_TREE = Path("/sys/fs/cgroup")


@pytest.fixture
def limited(image: Image, tmp_path: Path, not_checkable: Callable[[str, str], NoReturn]) -> Iterator[Slurm]:
    """A cluster started by hand with the named capabilities, and a device as GRES; nothing is left on the host."""
    gres, nodes = tmp_path / "gres.conf", tmp_path / "60-nodes.conf"
    gres.write_text(f"Name=gpu File={DEVICE}\n")
    ours = (data.images() / "slurm/rootfs/usr/share/slurm-testbed/slurm.conf.d/60-nodes.conf").read_text()
    nodes.write_text("GresTypes=gpu\n" + ours.replace("State=UNKNOWN", "State=UNKNOWN Gres=gpu:1"))
    options = [
        *FLAGS,
        f"--volume={gres}:/etc/slurm/gres.conf:ro",
        f"--volume={nodes}:/etc/slurm/slurm.conf.d/60-nodes.conf:ro",
        "--env=SLURM_CPUS=2",
    ]
    if "apparmor" in " ".join(image.client.info()["SecurityOptions"] or []):
        options.append("--security-opt=apparmor=unconfined")
    with image.started(options=options) as slurm:
        told = slurm.substrate.logs(slurm.controller)
        if "cgroups: none" in told and "the host has no " in told:
            not_checkable("cgroup", "this host lacks a controller that Slurm needs")
        assert "memory, cores and devices of jobs are enforced" in told, told
        yield slurm


def host_groups(name: str) -> list[str]:
    """Groups of this host's tree whose name has a word in it; groups come and go while we look."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        found = [str(path) for path in HOST_TREE.rglob(f"*{name}*") if path.is_dir()]
    return found


@pytest.mark.row("C-06.4")
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
    assert (batch.state, batch.exit_code, batch.signal) == ("OUT_OF_MEMORY", 0, 125), batch.fields
    assert cores.isdigit(), f"a job of one core may use {cores}"
    assert "Operation not permitted" in without, f"a job without GRES opened {DEVICE}: {without}"
    assert "Operation not permitted" not in with_gres, f"a job with GRES could not open {DEVICE}: {with_gres}"


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
