"""Sessions that are submitted by slurmrestd, and kept in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fixtures
from fixtures.app_sessions import await_status, delete, job_of, jobs, kill_service, running, screen, show, start
from fixtures.made import MakeImages
from fixtures.screen import colours
from fixtures.viz import VizStart
from slurm_testbed import SlurmCluster
from slurm_testbed.releases import Release

#: A stack of ten containers of its own.
pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def elsewhere(
    viz_start: VizStart, app_sif: Path, slurm_release: Release, make_images: MakeImages
) -> Iterator[SlurmCluster]:
    """A cluster whose service submits by slurmrestd, and keeps its sessions in PostgreSQL."""
    make_images(slurm_release, "postgresql")
    files = [Path(fixtures.__file__).parent / "viz-postgresql.yaml"]
    env = {"APP_SESSIONS_SUBMIT": "slurmrestd"}
    with viz_start(nodes=2, cpus=8, memory=16000, env=env, files=files) as cluster:
        cluster.viz.deploy("gedit", app_sif)
        yield cluster


@pytest.mark.row("V-09.4")
def test_service_lives_on_slurmrestd_and_postgresql(elsewhere: SlurmCluster) -> None:
    health = elsewhere.app_sessions.api("GET", "app/health").json()
    assert (health["database"]["kind"], health["slurm"]["kind"]) == ("PostgreSQL", "slurmrestd")

    session = running(elsewhere)
    assert job_of(elsewhere, session).record().fields["UserId"] == "alice(1000)"
    kill_service(elsewhere)
    assert show(elsewhere, session) == session
    with screen(elsewhere, session) as display:
        assert colours(display.await_calm()) > 50
    delete(elsewhere, session)

    assert jobs(elsewhere) == []
    assert job_of(elsewhere, session).wait().state == "CANCELLED"


def test_what_goes_wrong_is_said_as_with_sbatch(elsewhere: SlurmCluster) -> None:
    elsewhere.run(["scontrol", "update", "PartitionName=viz", "State=DOWN"], user="root")
    session = await_status(elsewhere, start(elsewhere, "xterm", "bob"), "error")
    elsewhere.run(["scontrol", "update", "PartitionName=viz", "State=UP"], user="root")

    assert "the partition viz is down: an administrator sets it up, with scontrol" in session["message"]
    delete(elsewhere, session)
