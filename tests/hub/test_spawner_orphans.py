"""Never a live job without a record: Slurm away, errors that nobody knows, a hub that ends in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.hub import Server, make_known, refused, spawn
from fixtures.spawners import restart, servers
from slurm_testbed import SlurmCluster
from slurm_testbed.errors import HubError
from slurm_testbed.slurm import FINAL_STATES

pytestmark = pytest.mark.hub_config("ours.py", "asked.py", "quick.py")


@pytest.fixture
def server(hub_cluster: SlurmCluster) -> Iterator[Server]:
    """A server of alice; Slurm answers the hub again afterwards."""
    yield spawn(hub_cluster, "alice")
    hub_cluster.substrate.service("hub", "munged", "start")
    hub_cluster.substrate.service(hub_cluster.controller, "slurmctld", "start")


def asked(slurm: SlurmCluster, job: int) -> int:
    """How often the hub asked for the job and learned nothing."""
    return slurm.substrate.logs("hub", "jupyterhub").count(f"does not say how job {job} is")


@pytest.mark.deep
@pytest.mark.row("H-18.2")
def test_unknown_error_of_squeue_keeps_the_server(hub_cluster: SlurmCluster, server: Server) -> None:
    kernel = server.start_kernel()
    hub_cluster.substrate.service("hub", "munged", "stop")
    hub_cluster.wait_until(lambda: asked(hub_cluster, server.job.id) >= 3, "three questions to fail", deadline=60)

    assert servers(hub_cluster.hub, "alice")[""]["ready"]
    hub_cluster.substrate.service("hub", "munged", "start")
    assert kernel.run("print('still here')") == "still here\n"
    assert server.job.state not in FINAL_STATES


@pytest.mark.deep
@pytest.mark.row("H-18.1", "H-18.3")
def test_slurmctld_away_keeps_the_server_and_stop_ends_the_job_when_it_is_back(
    hub_cluster: SlurmCluster, server: Server
) -> None:
    kernel = server.start_kernel()
    hub_cluster.substrate.service(hub_cluster.controller, "slurmctld", "stop")
    away = time.monotonic()
    hub_cluster.wait_until(
        lambda: asked(hub_cluster, server.job.id) >= 2 and time.monotonic() - away > 60,
        "two questions to fail, and 60 s",
        deadline=120,
    )
    assert servers(hub_cluster.hub, "alice")[""]["ready"]
    assert kernel.run("print('still here')") == "still here\n"

    # It is at it, and goes on until Slurm has taken it.
    assert hub_cluster.hub.api("DELETE", "users/alice/server").status_code == 202
    hub_cluster.substrate.service(hub_cluster.controller, "slurmctld", "start")

    assert server.job.wait(60).state == "CANCELLED"
    hub_cluster.wait_until(lambda: not servers(hub_cluster.hub, "alice"), "the hub to have stopped it", deadline=60)


@pytest.mark.deep
@pytest.mark.row("H-18.3")
def test_hub_that_is_killed_while_a_server_starts_leaves_no_job(hub_cluster: SlurmCluster) -> None:
    make_known(hub_cluster.hub, "alice")
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(refused, hub_cluster, "alice", directives=["--hold"])
        hub_cluster.wait_until(hub_cluster.queue, "the job to be in the queue", deadline=30)
        restart(hub_cluster, "kill")
        hub_cluster.wait_until(lambda: not hub_cluster.queue(), "the next hub to end the job", deadline=60)
        asking.result()

    hub_cluster.wait_until(lambda: not servers(hub_cluster.hub, "alice"), "the next hub to know it", deadline=30)
    assert spawn(hub_cluster, "alice", directives=[]).job.record().state == "RUNNING"


@pytest.mark.row("H-18.3")
def test_start_that_is_stopped_leaves_no_job(hub_cluster: SlurmCluster) -> None:
    hub = hub_cluster.hub
    make_known(hub, "alice")
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(refused, hub_cluster, "alice", directives=["--hold"])
        hub_cluster.wait_until(hub_cluster.queue, "the job to be in the queue", deadline=30)
        hub.api("DELETE", "users/alice/server")
        hub_cluster.wait_until(lambda: not hub_cluster.queue(), "the job to be cancelled", deadline=30)
        asking.result()
    hub_cluster.wait_until(lambda: not servers(hub, "alice"), "the hub to have stopped it", deadline=30)


@pytest.mark.deep
def test_suspended_job_keeps_its_server(hub_cluster: SlurmCluster, server: Server) -> None:
    kernel = server.start_kernel()
    hub_cluster.run(["scontrol", "suspend", str(server.job.id)])
    # The hub asks Slurm before it answers.
    with pytest.raises(HubError, match="already running"):
        hub_cluster.hub.api("POST", "users/alice/server")
    hub_cluster.run(["scontrol", "resume", str(server.job.id)])

    assert kernel.run("print('still here')") == "still here\n"
