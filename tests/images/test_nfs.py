"""Jobs on an NFS export, mounted by Docker's local driver: what one host writes, another one reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from slurm_testbed.pytest_plugin import NFS_VARIABLE
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
    options = [f"--volume={export}:/shared", "--env=SLURM_ACCOUNTING=no"]
    folder = f"/shared/{export}"
    with image.started(options=options) as first, image.started(options=options) as second:
        kind = first.srun("stat", "--file-system", "--format=%T", "/shared").strip()
        first.run(["mkdir", folder], user="alice")
        job = first.sbatch(wrap="hostname", workdir=folder, output=f"{folder}/out")
        record = job.wait()
        read = second.run(["cat", f"{folder}/out"], user="alice").stdout.strip()
        owner = second.run(["stat", "--format=%U", f"{folder}/out"]).stdout.strip()
        second.run(["rm", "--recursive", folder], user="alice")

    assert kind == "nfs", f"/shared is {kind}"
    assert record.state == "COMPLETED", record
    assert read == first.controller
    assert owner == "alice", "the export does not keep the owner"
