"""A cluster for programs in Python that submit jobs, and how they run: on this machine, or in an image of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients import base_of, build_clients
from slurm_testbed import SlurmCluster, SlurmContainer, this_python
from slurm_testbed.images import image_name
from slurm_testbed.pytest_plugin import note_cluster
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Slurm

Start = Callable[..., SlurmContainer | SlurmCluster]


@dataclass
class Sessions:
    """Runs a program beside a cluster, once, and keeps what it saw."""

    slurm: Slurm
    run: Callable[[Path], subprocess.CompletedProcess[str]]
    user: str
    _seen: dict[str, dict[str, Any]]

    def __call__(self, name: str) -> Mapping[str, Any]:
        """What the program of this folder printed."""
        if name not in self._seen:
            done = self.run(Path(__file__).with_name(name))
            assert done.returncode == 0, done.stdout + done.stderr
            self._seen[name] = json.loads(done.stdout.splitlines()[-1])
        return self._seen[name]


@pytest.fixture(scope="session", params=["on-path", "in-image"])
def _sessions(
    request: pytest.FixtureRequest,
    slurm_start: Start,
    slurm_on: str,
    slurm_release: Release,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sessions]:
    if "bullseye" in base_of(slurm_release):
        pytest.skip(
            f"not checkable here because Slurm {slurm_release} is on Debian 11: no Python new enough runs there"
        )
    if request.param == "on-path":
        folder = tmp_path_factory.mktemp("clients")
        with slurm_start(nodes=2, cpus=4, share=[folder, *this_python()]) as slurm:

            def on_path(program: Path) -> subprocess.CompletedProcess[str]:
                with slurm.on_path(folder):
                    argv = [sys.executable, str(program)]
                    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=120)

            yield Sessions(slurm, on_path, slurm.run(["id", "--name", "--user", str(os.getuid())]).stdout.strip(), {})
    else:
        repository = build_clients(slurm_release)
        single = slurm_on == "single"
        image = image_name("slurm-single-node", slurm_release, repository)
        with slurm_start(nodes=2, cpus=4, **({"image": image} if single else {"repository": repository})) as slurm:

            def in_image(program: Path) -> subprocess.CompletedProcess[str]:
                host = slurm.controller if single else "client"
                text, home = program.read_text(), slurm.home("alice")
                options: dict[str, Any] = {"host": host, "user": "alice", "workdir": home, "env": {"HOME": home}}
                return slurm.run(["python", "-"], stdin=text, check=False, **options)

            yield Sessions(slurm, in_image, "alice", {})


@pytest.fixture
def session(request: pytest.FixtureRequest, _sessions: Sessions, slurm_release: Release) -> Sessions:
    """What a program of this folder saw, by the program's name."""
    note_cluster(request, _sessions.slurm, slurm_release)
    return _sessions
