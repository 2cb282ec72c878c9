"""Jobs that end by themselves or never start: the hub notices, says so, and a new server can be started."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.hub import make_known, refused, spawn
from fixtures.spawners import servers
from slurm_testbed import SlurmCluster

pytestmark = pytest.mark.hub_config("ours.py", "asked.py", "quick.py")


@pytest.mark.row("H-20.1", "H-20.4")
def test_job_cancelled_from_outside_is_noticed_within_the_poll_interval(hub_cluster: SlurmCluster) -> None:
    server = spawn(hub_cluster, "alice")

    server.job.cancel()
    server.job.wait(30)
    ended = time.monotonic()
    hub_cluster.wait_until(lambda: not servers(hub_cluster.hub, "alice"), "the hub to notice", deadline=60)

    # Its interval is a second, where a hub that is told nothing looks every 30 s; a busy machine's may be late.
    assert time.monotonic() - ended < 30
    assert spawn(hub_cluster, "alice").job.id != server.job.id


@pytest.mark.deep
@pytest.mark.row("H-20.2", "H-20.3")
def test_time_limit_and_node_down_are_noticed(hub_cluster: SlurmCluster) -> None:
    asked = {"alice": ["--nodelist=n1"], "bob": ["--nodelist=n2"]}
    with ThreadPoolExecutor() as threads:
        late, lost = threads.map(lambda user: spawn(hub_cluster, user, directives=asked[user]), asked)

    # Its end is moved to where it is over: slurmctld looks every 30 s.
    hub_cluster.run(["scontrol", "update", f"JobId={late.job.id}", "EndTime=now+1"])
    hub_cluster.run(["scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test"])
    hub_cluster.wait_until(lambda: not servers(hub_cluster.hub, "bob"), "the hub to notice the node", deadline=30)
    hub_cluster.wait_until(lambda: not servers(hub_cluster.hub, "alice"), "the hub to notice the limit", deadline=90)

    assert late.job.wait(30).state == "TIMEOUT"
    # slurmctld requeued it, and nobody would find the server that it starts elsewhere.
    assert lost.job.wait(30).state in {"CANCELLED", "NODE_FAIL"}
    hub_cluster.reset()
    assert spawn(hub_cluster, "bob", directives=["--nodelist=n2"]).job.id != lost.job.id


@pytest.mark.row("H-20.5")
def test_job_that_waits_too_long_is_cancelled_in_words(hub_cluster: SlurmCluster) -> None:
    error = refused(hub_cluster, "alice", directives=["--hold"], start_timeout=3)

    assert error.status == 503
    assert "still waits in the queue (JobHeldUser). It was cancelled" in str(error)
    assert hub_cluster.queue() == []
    assert servers(hub_cluster.hub, "alice") == {}


@pytest.mark.deep
def test_job_that_dies_before_its_server_is_noticed_at_once(hub_cluster: SlurmCluster) -> None:
    began = time.monotonic()
    error = refused(hub_cluster, "alice", before="exit 3")

    # The patience of this hub is 60 s.
    assert (error.status, time.monotonic() - began < 40) == (500, True)
    assert "ended before its server answered: FAILED" in str(error)
    assert spawn(hub_cluster, "alice", before="").job.record().state == "RUNNING"


def test_progress_tells_job_and_reason(hub_cluster: SlurmCluster) -> None:
    hub = hub_cluster.hub
    make_known(hub, "alice")
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(refused, hub_cluster, "alice", directives=["--hold"], start_timeout=4)
        hub_cluster.wait_until(hub_cluster.queue, "the job to be in the queue", deadline=30)
        text = hub.api("GET", "users/alice/server/progress").text
        asked.result()

    assert "waits in the queue: JobHeldUser" in text, text
