"""The configurations to start from: each runs, and the job is exactly what it says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from fixtures.hub import refused, spawn
from fixtures.spawners import log_in, servers
from slurm_testbed import SlurmCluster

#: The hub starts anew for each configuration.
pytestmark = pytest.mark.deep
PROFILES = pytest.mark.hub_config("examples/profiles.py")
TEMPLATES = pytest.mark.hub_config("examples/templates.py", "quick.py")


def fields_of(slurm: SlurmCluster, user: str, **options: str) -> dict[str, str]:
    """The job of a server with these options, as scontrol shows it."""
    server = spawn(slurm, user, **options)
    fields = server.job.record().fields
    server.stop()
    names = ("JobName", "Partition", "NumNodes", "CPUs/Task", "NumTasks", "MinMemoryNode", "TimeLimit")
    return {name: fields[name] for name in names}


@pytest.mark.row("H-07.1")
def test_plain_example_is_what_the_image_has(hub_cluster: SlurmCluster) -> None:
    """tests/hub/test_spawn.py has its job."""
    there = hub_cluster.read("/usr/share/slurm-testbed/jupyterhub_config.d/30-spawner.py", host="hub")

    assert there == hub_cluster.read("/usr/share/slurm-testbed/examples/plain.py", host="hub")
    assert hub_cluster.hub.api("GET", "info").json()["spawner"]["class"] == "batchspawner.batchspawner.SlurmSpawner"


@PROFILES
@pytest.mark.row("H-12.1", "H-12.2")
def test_profiles_are_those_of_the_users_groups(hub_cluster: SlurmCluster) -> None:
    hub = hub_cluster.hub
    page = log_in(hub, "alice").get(f"{hub.url}/hub/spawn/alice", timeout=30).text
    assert [f'<option value="{name}">' in page for name in ("small", "large", "course")] == [True, True, False]

    common = {"Partition": "debug", "NumNodes": "1", "NumTasks": "1"}
    assert fields_of(hub_cluster, "alice", profile="large") == {
        **common, "JobName": "jupyterhub-alice", "CPUs/Task": "2", "MinMemoryNode": "4G", "TimeLimit": "02:00:00",
    }  # fmt: skip
    # What is no profile changes nothing.
    assert fields_of(hub_cluster, "carol", memory="9G", partition="none") == {
        **common, "JobName": "jupyterhub-carol", "CPUs/Task": "1", "MinMemoryNode": "1G", "TimeLimit": "01:00:00",
    }  # fmt: skip
    error = refused(hub_cluster, "carol", profile="large")
    assert (error.status, "there is no profile large for you; there are course" in str(error)) == (400, True)
    assert hub_cluster.queue() == []


@TEMPLATES
@pytest.mark.row("H-13.1", "H-13.2")
def test_every_template_is_offered_and_runs_to_its_end(hub_cluster: SlurmCluster) -> None:
    """A server that its user shuts down is a job that is COMPLETED."""
    expected = {
        "explore": ("alice", "1", "1", "2G", "04:00:00", "print(1 + 1)", "2"),
        "threads": ("bob", "1", "2", "2G", "02:00:00", "import os; print(os.environ['OMP_NUM_THREADS'])", "2"),
        "parallel": ("carol", "2", "1", "2G", "01:00:00", "!srun hostname | wc -l", "2"),
        "scratch": ("dave", "1", "1", "1G", "02:00:00", "import os; print(os.listdir(os.environ['SCRATCH']))", "[]"),
    }
    page = log_in(hub_cluster.hub, "alice").get(f"{hub_cluster.hub.url}/hub/spawn/alice", timeout=30).text
    assert page.count('<option value="') == len(expected)

    def run(task: str) -> tuple[str, ...]:
        user, *_, code, _ = expected[task]
        server = spawn(hub_cluster, user, task=task, deadline=120)
        fields = server.job.record().fields
        printed = server.start_kernel().run(code).strip()
        headers = {"Authorization": f"token {server.token}"}
        requests.post(f"{server.url}api/shutdown", headers=headers, timeout=30).raise_for_status()
        ended = server.job.wait(60)
        assert (fields["JobName"], ended.state) == (f"{task}-{user}", "COMPLETED")
        return (fields["NumTasks"], fields["CPUs/Task"], fields["MinMemoryNode"], fields["TimeLimit"], printed)

    # All at once, more than the nodes hold: some wait for others.
    with ThreadPoolExecutor() as threads:
        found = dict(zip(expected, threads.map(run, expected), strict=True))

    assert found == {name: (*values[1:5], values[6]) for name, values in expected.items()}
    hub_cluster.wait_until(
        lambda: not any(servers(hub_cluster.hub, user) for user, *_ in expected.values()),
        "the hub to notice",
        deadline=30,
    )
