"""`invoke matrix` that is ended in the middle of real clusters leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from slurm_testbed import engine
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def matrix(built_release: Release, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A matrix of two suites that has just started."""
    argv = [sys.executable, "-m", "invoke", "matrix", "--releases", built_release.version]
    argv += ["--suites", "slurm,rest", "--substrates", "single", "--jobs", "2", "--json", str(tmp_path / "m.json")]
    process = subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def cells_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes of the cells: the matrix's children."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def owned_by(client: docker.DockerClient, pids: list[int]) -> set[str]:
    """Names of the containers and networks that processes have started."""
    everything = [*client.containers.list(all=True, sparse=True), *client.networks.list()]
    found = set()
    for thing in everything:
        owner = (thing.attrs.get("Labels") or {}).get(engine.LABEL_OWNER, "")
        if any(f":{pid}:" in owner for pid in pids):
            found.add(f"{type(thing).__name__} {thing.id}")
    return found


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.deep)], ids=["Ctrl-C", "kill"]
)
def test_matrix_that_is_ended_leaves_no_cluster_and_no_process(
    matrix: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    client = engine.connect()
    wait_until(
        lambda: matrix.poll() is not None or len(owned_by(client, cells_of(matrix))) >= 4,
        "a container and a network of each of two cells",
        deadline=120,
    )
    assert matrix.poll() is None, matrix.communicate()[0]
    cells = cells_of(matrix)
    assert len(cells) == 2, cells

    matrix.send_signal(number)
    said, _ = matrix.communicate(timeout=90)

    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in cells), "the cells' end", deadline=90)
    left = owned_by(client, cells)
    assert left == set(), said
    if number == signal.SIGINT:
        assert matrix.returncode == 130, said
        report = json.loads((tmp_path / "m.json").read_text())
        assert {cell["outcome"] for cell in report["cells"]} == {"not run"}, said
        assert "0 proved" not in said, said
        assert "2 not run" in said, said
