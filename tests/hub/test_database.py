"""The hub's state in PostgreSQL: the next hub finds its servers there."""

from __future__ import annotations

from pathlib import Path

import pytest

import fixtures
from fixtures.hub import HubStart, spawn
from fixtures.made import MakeImages
from fixtures.spawners import restart, servers
from slurm_testbed.releases import Release

#: A stack of eleven containers of its own.
pytestmark = pytest.mark.deep


@pytest.mark.row("H-17.1")
def test_hub_on_postgresql_keeps_its_servers(
    hub_start: HubStart, slurm_release: Release, make_images: MakeImages
) -> None:
    make_images(slurm_release, "postgresql")
    files = [Path(fixtures.__file__).parent / "hub-postgresql.yaml"]
    with hub_start(nodes=1, cpus=2, memory=6000, files=files) as slurm:
        server = spawn(slurm, "alice")
        kernel = server.start_kernel()
        kernel.run("kept = 42")

        restart(slurm, "kill")

        (found,) = servers(slurm.hub, "alice").values()
        assert found["ready"]
        assert kernel.run("print(kept)") == "42\n"
        asked = [
            "psql",
            "--tuples-only",
            "--no-align",
            "--command=select server_id is not null from spawners",
            "jupyterhub",
        ]
        assert slurm.run(asked, host="postgres").stdout.split() == ["t"]
        assert (
            "No such file" in slurm.run(["ls", "/var/lib/jupyterhub/jupyterhub.sqlite"], host="hub", check=False).stderr
        )
        server.stop()
