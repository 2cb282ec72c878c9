"""Deployment of an application's image, with a shell of this machine in the place of ssh: the node's part is real."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from slurm_testbed.deploy import Deployed, deploy
from slurm_testbed.errors import DeployError, UsageError
from slurm_testbed.readiness import wait_until

#: What ssh does with a command: its last argument is for the shell there. A node called `far` is not reached, and to
#: one called `lossy` a part of the image comes.
SSH = """#!/bin/sh
for last; do before=$node node=$now now=$last; done
case $node in
  far) echo 'ssh: connect to host far port 22: No route to host' >&2; exit 255 ;;
  lossy) case $last in *"cat >"*) head -c 1000 | sh -c "$last"; exit ;; esac ;;
esac
exec sh -c "$last"
"""


@pytest.fixture
def ssh(tmp_path: Path) -> list[str]:
    """A program that runs commands here."""
    program = tmp_path / "ssh"
    program.write_text(SSH)
    program.chmod(0o755)
    return [str(program)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What begins as an image for Apptainer does."""
    path = tmp_path / "gedit.sif"
    path.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + os.urandom(100_000))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of all applications on the node."""
    return tmp_path / "apps"


def test_image_is_copied_once(ssh: list[str], image: Path, folder: Path) -> None:
    target = folder / "gedit" / "gedit.sif"

    first = deploy(image, "gedit", ["near"], ssh=ssh, folder=str(folder))
    second = deploy(image, "gedit", ["near"], ssh=ssh, folder=str(folder))

    assert first == [Deployed("near", str(target), copied=True)]
    assert second == [Deployed("near", str(target), copied=False)]
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o644


def test_copy_that_differs_is_thrown_away(ssh: list[str], image: Path, folder: Path) -> None:
    (folder / "gedit").mkdir(parents=True)
    (folder / "gedit" / "gedit.sif").write_text("before")

    with pytest.raises(DeployError, match="lossy: the copy has the SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}"):
        deploy(image, "gedit", ["lossy"], ssh=ssh, folder=str(folder))

    assert [path.name for path in (folder / "gedit").iterdir()] == ["gedit.sif"]
    assert (folder / "gedit" / "gedit.sif").read_text() == "before"


def test_node_that_is_not_reached_is_named_and_the_others_get_the_image(
    ssh: list[str], image: Path, folder: Path
) -> None:
    with pytest.raises(DeployError, match="1 of 2 nodes:\nfar: cannot be reached over SSH: .*No route to host"):
        deploy(image, "gedit", ["far", "near"], ssh=ssh, folder=str(folder))

    assert (folder / "gedit" / "gedit.sif").read_bytes() == image.read_bytes()


def test_deployment_that_is_cut_leaves_nothing(ssh: list[str], folder: Path) -> None:
    from slurm_testbed.deploy import _TAKE

    argv = ["sh", "-c", _TAKE, "deploy", f"{folder}/gedit/gedit.sif", "0" * 64]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as taking:
        assert taking.stdin
        taking.stdin.write(b"half of it")
        taking.stdin.flush()
        wait_until(lambda: list(folder.glob("gedit/.gedit.sif.*")), "the copy to begin", deadline=30)
        # As sshd does when the connection is lost: to all of the session.
        taking.send_signal(signal.SIGHUP)

    assert taking.returncode != 0
    assert not list((folder / "gedit").iterdir())


@pytest.mark.parametrize(
    ("app", "nodes", "said"),
    [
        ("../gedit", ["near"], "'../gedit' is no name of an application"),
        ("gedit", [], "no node is named"),
        ("gedit", ["-oProxyCommand=x"], "'-oProxyCommand=x' is no node"),
    ],
)
def test_wrong_argument_is_refused_before_anything_is_done(image: Path, app: str, nodes: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        deploy(image, app, nodes, ssh=["false"])


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.sif").touch()

    with pytest.raises(UsageError, match=r"empty\.sif is no image for Apptainer"):
        deploy(tmp_path / "empty.sif", "gedit", ["near"], ssh=["false"])
    with pytest.raises(UsageError, match="cannot be read: No such file") as error:
        deploy(tmp_path / "none.sif", "gedit", ["near"], ssh=["false"])

    assert "invoke build --image viz-app --sif" in error.value.hint
