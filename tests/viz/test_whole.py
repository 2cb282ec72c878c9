"""The whole way on one stack: a job, a server of JupyterHub with its event and metric, an application's picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.app_sessions import running, screen
from fixtures.hub import spawn
from fixtures.made import MakeImages
from fixtures.observability import await_state, events, prometheus
from fixtures.screen import colours
from fixtures.whole import whole_stack
from slurm_testbed.releases import Release

#: A stack of fourteen containers.
pytestmark = pytest.mark.deep


@pytest.mark.row("U-03.1", "U-03.2", "U-03.3", "U-03.4", "U-03.5", "U-03.6")
def test_whole_way_is_walked_on_one_stack(slurm_release: Release, app_sif: Path, make_images: MakeImages) -> None:
    with whole_stack(slurm_release, app_sif, make_images) as slurm:
        assert sorted(slurm.run(["sinfo", "--noheader", "--format=%R %N %t"]).stdout.splitlines()) == [
            "debug n1 idle",
            "viz n2 idle",
        ]
        job = slurm.sbatch(wrap="srun hostname")
        assert (job.wait().state, job.output()) == ("COMPLETED", "n1\n")

        server = spawn(slurm, "alice")
        assert server.job.record().nodes == "n1"
        watched = await_state(slurm, server.job, "running")
        told = events(slurm, server.job.id)
        assert [event["kind"] for event in told] == ["started"], told
        assert watched["user"] == "alice"

        series = f'hpc_job_memory_usage_bytes{{job_id="{server.job.id}",node="n1",user="alice"}}'
        (metric,) = slurm.wait_until(lambda: prometheus(slurm, series), "the server's metric", deadline=60)
        # JupyterLab takes more than this before anybody uses it.
        assert float(metric["value"][1]) > 20e6
        assert f"job_{server.job.id}" in watched["cgroup_path"] or "/s" in watched["cgroup_path"]

        session = running(slurm, "gedit", "bob")
        assert session["node"] == "n2"
        with screen(slurm, session) as display:
            assert display.size == (1280, 800)
            assert colours(display.await_calm()) > 50
