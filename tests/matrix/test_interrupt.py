"""`invoke matrix` and `invoke test` that are ended in the middle of real clusters leave nothing."""

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


@contextlib.contextmanager
def started(*task: str, background: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A task of ours that has just started, in a group of its own; nothing of it is left.

    Args:
        task: its words.
        background: as a script's `&` starts it, which has it ignore SIGINT.
    """
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if background else []
    argv = [*shell, sys.executable, "-m", "invoke", *task]
    process = subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def matrix(built_release: Release, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A matrix of two suites that has just started."""
    options = ["--suites", "slurm,rest", "--substrates", "single", "--jobs", "2", "--json", str(tmp_path / "m.json")]
    with started("matrix", "--releases", built_release.version, *options) as process:
        yield process


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, as the cells of a matrix; none where it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


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
        lambda: matrix.poll() is not None or len(owned_by(client, children_of(matrix.pid))) >= 4,
        "a container and a network of each of two cells",
        deadline=120,
    )
    assert matrix.poll() is None, matrix.communicate()[0]
    cells = children_of(matrix.pid)
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


@pytest.mark.deep
@pytest.mark.parametrize(
    ("number", "background"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_tests_that_are_told_to_end_leave_no_cluster_and_no_process(
    built_release: Release, number: signal.Signals, background: bool
) -> None:
    client = engine.connect()
    suite = ["--workers", "1", "--", "tests/slurm"]

    def workers() -> list[int]:
        return [worker for tests in children_of(task.pid) for worker in children_of(tests)]

    with started("test", "--release", built_release.version, *suite, background=background) as task:
        wait_until(
            lambda: task.poll() is not None or len(owned_by(client, workers())) >= 2,
            "a container and a network of a worker",
            deadline=120,
        )
        assert task.poll() is None, task.communicate()[0]
        before = [*children_of(task.pid), *workers()]

        # Ctrl-C on a terminal is sent to all of them; who ends a process tells that one alone.
        if number == signal.SIGINT:
            os.killpg(task.pid, number)
        else:
            task.send_signal(number)
        said, _ = task.communicate(timeout=120)

        assert task.returncode, said
        assert "KeyboardInterrupt" in said, "pytest does not sum up what it has seen"
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), "the tests' end", deadline=30)
        assert owned_by(client, before) == set(), said
