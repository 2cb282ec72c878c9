"""What Slurm refuses: HTTP 400 with sbatch's own words in the API, on the page and in the progress, and no job."""

from __future__ import annotations

import json

import pytest

from fixtures.hub import refused, spawn
from fixtures.spawners import log_in, servers
from slurm_testbed import SlurmCluster

pytestmark = pytest.mark.hub_config("ours.py", "asked.py", "quick.py")

REFUSED = [
    pytest.param("--partition=none", "invalid partition specified: none", marks=pytest.mark.row("H-19.1")),
    pytest.param("--mem=9999G", "Memory specification can not be satisfied", marks=pytest.mark.row("H-19.2")),
    pytest.param("--account=nobody", "Invalid account or account/partition", marks=pytest.mark.row("H-19.3")),
]


@pytest.mark.row("H-19.4", "H-19.5", "H-19.6")
@pytest.mark.parametrize(("directive", "words"), REFUSED)
def test_refusal_is_sbatchs_own_words_everywhere(hub_cluster: SlurmCluster, directive: str, words: str) -> None:
    hub = hub_cluster.hub

    error = refused(hub_cluster, "alice", directives=[directive])
    progress = hub.api("GET", "users/alice/server/progress").text
    page = log_in(hub, "alice").get(f"{hub.url}/hub/spawn-pending/alice", timeout=30)

    assert error.status == 400
    assert "Slurm refused the job: " in str(error)
    assert words in str(error)
    (event,) = [json.loads(line.removeprefix("data: ")) for line in progress.splitlines() if line.startswith("data: ")]
    assert event["failed"]
    assert words in event["message"]
    assert page.status_code == 400
    assert words in page.text
    assert hub_cluster.queue() == []
    assert servers(hub, "alice") == {}


def test_refusal_stands_on_the_page_that_starts_a_server(hub_cluster: SlurmCluster) -> None:
    """Asked for again with the options of last time, which the hub keeps."""
    hub = hub_cluster.hub
    refused(hub_cluster, "alice", directives=["--partition=none"])

    page = log_in(hub, "alice").get(f"{hub.url}/hub/spawn/alice", timeout=30)

    assert page.status_code == 400, page.text
    assert "invalid partition specified: none" in page.text


@pytest.mark.deep
def test_server_starts_after_a_refusal(hub_cluster: SlurmCluster) -> None:
    refused(hub_cluster, "alice", directives=["--qos=none"])

    assert spawn(hub_cluster, "alice", directives=[]).job.record().state == "RUNNING"


def test_slurmctld_that_is_away_is_no_fault_of_the_user(hub_cluster: SlurmCluster) -> None:
    substrate = hub_cluster.substrate
    substrate.service(hub_cluster.controller, "slurmctld", "stop")
    try:
        error = refused(hub_cluster, "alice", directives=[])
    finally:
        substrate.service(hub_cluster.controller, "slurmctld", "start")

    assert error.status == 503, error
    assert "Slurm does not answer: Batch job submission failed: Unable to contact slurm controller" in str(error)
    assert servers(hub_cluster.hub, "alice") == {}
    assert hub_cluster.queue() == []
