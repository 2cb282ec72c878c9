"""A user's server is a Slurm job: with exactly the script's values, under the user's own uid, in the job's cgroup."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fixtures.hub import Server, spawn
from fixtures.spawners import answers
from slurm_testbed import SlurmCluster
from slurm_testbed.slurm import FINAL_STATES

#: The script of the document that this stack was made after, with {username} filled in.
SCRIPT = """#!/bin/bash
#SBATCH --job-name=jupyterhub-alice
#SBATCH --partition=debug
#SBATCH --nodes=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=04:00:00

"""


@pytest.fixture
def server(hub_cluster: SlurmCluster) -> Iterator[Server]:
    """A server of alice."""
    return spawn(hub_cluster, "alice")


@pytest.mark.row("H-07.1", "H-07.2", "H-07.3", "H-07.4", "H-07.5", "H-07.6")
@pytest.mark.smoke
def test_job_shows_exactly_what_the_script_says(hub_cluster: SlurmCluster, server: Server) -> None:
    fields = server.job.record().fields
    script = hub_cluster.run(["scontrol", "write", "batch_script", str(server.job.id), "-"]).stdout
    config = hub_cluster.run(
        ["grep", "-Rh", "spawner_class", "/usr/share/slurm-testbed/jupyterhub_config.d"], host="hub"
    ).stdout

    assert 'spawner_class = "batchspawner.SlurmSpawner"' in config
    assert script.startswith(SCRIPT), script
    assert script.removeprefix(SCRIPT).split()[:2] == ["batchspawner-singleuser", "jupyterhub-singleuser"]
    expected = {
        "JobName": "jupyterhub-alice",
        "Partition": "debug",
        "NumNodes": "1",
        "CPUs/Task": "2",
        "MinMemoryNode": "4G",
        "TimeLimit": "04:00:00",
        "JobState": "RUNNING",
    }
    assert {name: fields.get(name) for name in expected} == expected


@pytest.mark.row("H-09.3", "H-09.5", "H-09.6")
@pytest.mark.smoke
def test_a_cell_runs_as_the_user_on_the_node_in_the_jobs_cgroup(hub_cluster: SlurmCluster, server: Server) -> None:
    code = """
        import os, socket
        print(os.getuid(), socket.gethostname(), os.environ["SLURM_JOB_ID"], os.path.ismount("/shared"))
        print(open("/proc/self/cgroup").read())
    """
    printed = server.start_kernel().run("\n".join(line.strip() for line in code.splitlines()))

    record = server.job.record()
    first, groups = printed.split("\n", 1)
    assert first.split() == ["1000", record.nodes, str(server.job.id), "True"]
    assert re.search(rf"job_{server.job.id}\b", groups), groups
    assert record.fields["UserId"] == "alice(1000)"


@pytest.mark.row("H-08.1")
def test_jobs_log_is_in_the_shared_tree_under_the_users_name(hub_cluster: SlurmCluster, server: Server) -> None:
    paths = [f"/shared/jupyterhub-logs/alice-{server.job.id}.{kind}" for kind in ("out", "err")]

    owners = hub_cluster.run(["stat", "--format=%U", *paths], host="client").stdout.split()

    assert owners == ["alice", "alice"]
    log = hub_cluster.read(paths[1], host="client")
    assert "JupyterHubSingleUser] Starting jupyterhub single-user server" in log
    assert "Serving notebooks from local directory: /shared/notebooks/alice" in log


@pytest.mark.row("H-08.2")
def test_notebooks_are_in_the_users_folder_of_the_shared_tree(hub_cluster: SlurmCluster, server: Server) -> None:
    server.ask("PUT", "contents/hello.txt", json={"type": "file", "format": "text", "content": "hello"})

    assert hub_cluster.read("/shared/notebooks/alice/hello.txt", host="client") == "hello"
    others = hub_cluster.run(["ls", "/shared/notebooks/alice"], host="client", user="bob", check=False)
    assert others.returncode != 0, "another user may look into it"


def test_stop_ends_the_job(hub_cluster: SlurmCluster, server: Server) -> None:
    server.stop()

    assert server.job.wait(30).state == "CANCELLED"
    assert hub_cluster.queue() == []


@pytest.mark.row("H-17.1", "H-17.2")
def test_hub_that_is_killed_and_comes_back_keeps_server_and_kernel(hub_cluster: SlurmCluster, server: Server) -> None:
    kernel = server.start_kernel()
    kernel.run("kept = 41")
    hub, substrate = hub_cluster.hub, hub_cluster.substrate

    substrate.service("hub", "jupyterhub", "stop")
    assert kernel.run("kept += 1; print(kept)") == "42\n", "the proxy needs no hub"
    substrate.service("hub", "jupyterhub", "start")
    substrate.service("hub", "jupyterhub", "kill")
    hub_cluster.wait_until(lambda: answers(hub), "the hub to answer", deadline=60)

    found = hub.api("GET", "users/alice").json()["servers"][""]
    assert found["ready"]
    assert int(found["state"]["job_id"]) == server.job.id
    assert server.job.state not in FINAL_STATES
    assert [one["id"] for one in server.get("kernels")] == [kernel.id]
    assert kernel.run("print(kept)") == "42\n"
    # The proxy still has the way to it, and the hub may still stop it.
    server.stop()
    assert server.job.wait(30).state == "CANCELLED"
