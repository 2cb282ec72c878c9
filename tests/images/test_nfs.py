"""Jobs on an NFS export, mounted by Docker's local driver: what one host writes, another one reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from slurm_testbed import SlurmCluster
from slurm_testbed.pytest_plugin import NFS_VARIABLE
from slurm_testbed.releases import Release
from tests.images.conftest import Image, our_labels


@pytest.fixture
def export(image: Image) -> Iterator[str]:
    """A volume of Docker's that is the NFS export; the export itself keeps what was in it."""
    server, _, path = os.environ[NFS_VARIABLE].rpartition(":")
    name = f"slurm-nfs-{secrets.token_hex(4)}"
    volume = image.client.volumes.create(
        name,
        driver="local",
        driver_opts={"type": "nfs", "o": f"addr={server},rw,nfsvers=4", "device": f":{path}"},
        labels=our_labels(name),
    )
    yield name
    volume.remove()


@pytest.mark.vm
@pytest.mark.requires("nfs")
def test_job_writes_on_the_export_and_another_host_reads_it(image: Image, export: str) -> None:
    options = [f"--volume={export}:/export", "--env=SLURM_ACCOUNTING=no"]
    folder = f"/export/{export}"
    with image.started(options=options) as first, image.started(options=options) as second:
        kind = first.srun("stat", "--file-system", "--format=%T", "/export").strip()
        first.run(["mkdir", folder], user="alice")
        job = first.sbatch(wrap="hostname", workdir=folder, output=f"{folder}/out")
        record = job.wait()
        read = second.run(["cat", f"{folder}/out"], user="alice").stdout.strip()
        owner = second.run(["stat", "--format=%U", f"{folder}/out"]).stdout.strip()
        second.run(["rm", "--recursive", folder], user="alice")

    assert kind == "nfs", f"/export is {kind}"
    assert record.state == "COMPLETED", record
    assert read == first.controller
    assert owner == "alice", "the export does not keep the owner"


@pytest.mark.vm
@pytest.mark.row("H-05.4")
@pytest.mark.requires("nfs")
def test_one_setting_puts_a_clusters_shared_tree_on_the_export(
    image: Image, export: str, slurm_release: Release
) -> None:
    mounted = f"--volume={export}:/export"
    made = image.run("--mode=1777", f"/export/{export}", options=["--entrypoint=mkdir", mounted])
    assert made.returncode == 0, made.stderr

    with SlurmCluster(slurm_release.version, nodes=1, shared_nfs=f"{os.environ[NFS_VARIABLE]}/{export}") as slurm:
        kinds = {
            host: slurm.run(["stat", "--file-system", "--format=%T", "/shared"], host=host).stdout.strip()
            for host in ("slurmctld", "n1", "client")
        }
        job = slurm.sbatch(wrap="hostname > /shared/$SLURM_JOB_ID")
        record = job.wait()
        on_export = image.run(f"/export/{export}/{job.id}", options=["--entrypoint=cat", mounted])
        configuration = slurm.run(["ls", "/shared/slurm-config"]).stdout.split()
    image.run("--recursive", f"/export/{export}", options=["--entrypoint=rm", mounted])

    assert kinds == dict.fromkeys(("slurmctld", "n1", "client"), "nfs")
    assert record.state == "COMPLETED", record
    assert on_export.stdout == "n1\n", on_export.stderr
    assert {"slurm.conf", "munge.key"} <= set(configuration)
