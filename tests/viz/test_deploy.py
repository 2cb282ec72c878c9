"""An application's image is brought to nodes over SSH: all of it, or nothing."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_testbed import SlurmCluster
from slurm_testbed.deploy import Deployed, deploy
from slurm_testbed.errors import DeployError

#: A stack of eight containers: `invoke test --deep -- tests/viz`.
pytestmark = pytest.mark.deep

FOLDER = "/opt/apptainers/apps/other"
PATH = f"{FOLDER}/other.sif"


@pytest.fixture
def without_other(viz: SlurmCluster) -> Iterator[SlurmCluster]:
    """A cluster whose nodes have no image of the application `other`, before and after."""
    remove = ["sh", "-c", f"umount {FOLDER} 2> /dev/null; rm -rf {FOLDER}"]
    for node in viz.viz.nodes:
        viz.run(remove, host=node)
    yield viz
    for node in viz.viz.nodes:
        viz.run(remove, host=node)


@pytest.mark.row("V-04.1", "V-04.2", "V-04.3")
def test_image_is_on_every_node_with_its_digest(without_other: SlurmCluster, app_sif: Path) -> None:
    slurm = without_other

    first = slurm.viz.deploy("other", app_sif)
    second = slurm.viz.deploy("other", app_sif)

    assert first == [Deployed("n1", PATH, copied=True), Deployed("n2", PATH, copied=True)]
    assert second == [Deployed("n1", PATH, copied=False), Deployed("n2", PATH, copied=False)]
    with app_sif.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for node in ("n1", "n2"):
        assert slurm.run(["sha256sum", PATH], host=node).stdout.split()[0] == digest
        assert slurm.run(["ls", "-A", FOLDER], host=node).stdout == "other.sif\n"
        assert slurm.run(["stat", "--format=%a %U", FOLDER, PATH], host=node).stdout == "755 root\n644 root\n"


@pytest.mark.row("V-04.3")
def test_node_without_room_keeps_what_it_had_and_the_others_get_theirs(
    without_other: SlurmCluster, app_sif: Path
) -> None:
    slurm = without_other
    small = f"mkdir -p {FOLDER} && mount -t tmpfs -o size=1m none {FOLDER} && echo before > {PATH}"
    slurm.run(["sh", "-c", small], host="n1")

    with pytest.raises(DeployError) as error:
        slurm.viz.deploy("other", app_sif)

    assert "the image of other did not come to 1 of 2 nodes:\nn1: " in error.value.message
    assert "No space left on device" in error.value.message
    assert slurm.read(PATH, host="n1") == "before\n"
    assert slurm.run(["ls", "-A", FOLDER], host="n1").stdout == "other.sif\n"
    assert slurm.run(["ls", "-A", FOLDER], host="n2").stdout == "other.sif\n"


def test_node_that_cannot_be_reached_is_named(without_other: SlurmCluster, app_sif: Path) -> None:
    viz = without_other.viz
    config = without_other.ssh_config("root")
    without_other.substrate.service("n1", "sshd", "stop")
    try:
        with pytest.raises(DeployError, match="n1: cannot be reached over SSH: ") as error:
            deploy(app_sif, "other", viz.nodes[:1], ssh=["ssh", "-F", str(config)])
    finally:
        without_other.substrate.service("n1", "sshd", "start")

    assert error.value.hint


def test_nodes_take_no_password(viz: SlurmCluster) -> None:
    config = viz.ssh_config("root")
    argv = ["ssh", "-F", str(config), "-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes", "n1", "true"]

    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
