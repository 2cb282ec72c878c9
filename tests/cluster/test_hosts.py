"""Hosts that no name server knows, as pods: the service hosts; and a head node that comes back with more to say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm_testbed import SlurmCluster
from slurm_testbed.compose import ComposeSubstrate
from slurm_testbed.releases import Release

NAMES = ["client", "login", "n1", "n2", "slurmctld", "slurmdbd", "slurmrestd"]


@pytest.fixture(scope="module")
def hosts(slurm_release: Release) -> Iterator[SlurmCluster]:
    """A cluster whose hosts keep the names of all."""
    with SlurmCluster(slurm_release.version, nodes=2, env={"SLURM_TESTBED_SERVICES": "hosts"}) as cluster:
        yield cluster


def known(cluster: SlurmCluster, host: str) -> dict[str, str]:
    """The addresses that a host's own /etc/hosts has, by name."""
    names = cluster.run(["getent", "-s", "files", "ahostsv4", *NAMES], host=host, check=False).stdout
    return {line.split()[2]: line.split()[0] for line in names.splitlines() if len(line.split()) == 3}


def test_every_host_has_the_names_of_all(hosts: SlurmCluster) -> None:
    addresses = {host: hosts.run(["hostname", "--ip-address"], host=host).stdout.split()[0] for host in NAMES}

    for host in NAMES:
        hosts.wait_until(lambda host=host: known(hosts, host) == addresses, f"{host} to know all", deadline=60)


def test_host_that_is_made_anew_is_found_by_all(hosts: SlurmCluster) -> None:
    # As one of another address would be, whose own entry is written over.
    hosts.run(["sh", "-c", "echo '203.0.113.9 n2' > /shared/slurm-config/hosts/n2"], host="client")
    address = hosts.run(["hostname", "--ip-address"], host="n2").stdout.split()[0]

    def told() -> bool:
        return hosts.read("/shared/slurm-config/hosts/n2", host="client") == f"{address} n2\n"

    hosts.wait_until(told, "n2 to say where it is", deadline=60)
    hosts.wait_until(lambda: known(hosts, "n1").get("n2") == address, "n1 to know where n2 is", deadline=60)
    assert "localhost" in hosts.read("/etc/hosts", host="n1"), "what the engine wrote there is lost"


def test_jobs_of_a_node_whose_container_is_killed_are_over_when_it_is_back(hosts: SlurmCluster) -> None:
    again = hosts.sbatch(wrap="sleep 600", requeue=True, nodelist="n1")
    never = hosts.sbatch(wrap="sleep 600", no_requeue=True, nodelist="n1")
    other = hosts.sbatch(wrap="until [ -e ~/go-on ]; do sleep 0.2; done", nodelist="n2")
    for job in (again, never, other):
        job.wait(until={"RUNNING"})
    assert isinstance(hosts.substrate, ComposeSubstrate)

    hosts.substrate.container("n1").kill()
    hosts.substrate.container("n1").start()

    assert never.wait().state == "NODE_FAIL"
    hosts.wait_until(lambda: again.state == "PENDING", "the job to wait again", state=lambda: again.state)
    again.cancel()
    assert hosts.srun("printenv", "SLURMD_NODENAME", nodelist="n1") == "n1\n"
    assert other.state == "RUNNING"
    hosts.run(["touch", "/home/alice/go-on"], host="client", user="alice")
    assert other.wait().state == "COMPLETED"


def test_changed_configuration_comes_to_the_nodes_and_ends_no_job(hosts: SlurmCluster) -> None:
    job = hosts.sbatch(wrap="until [ -e ~/changed ]; do sleep 0.2; done", nodelist="n1")
    job.wait(until={"RUNNING"})
    assert isinstance(hosts.substrate, ComposeSubstrate)

    # Each slurmd runs the prolog that its own configuration names.
    prolog = b"#!/bin/sh\necho $SLURMD_NODENAME > /shared/prolog-of-$SLURM_JOB_ID\n"
    hosts.substrate.put("client", {"/shared/prolog": prolog}, mode=0o755)
    hosts.substrate.put("slurmctld", {"/etc/slurm/slurm.conf.d/80-late.conf": b"Prolog=/shared/prolog\n"})
    hosts.substrate.container("slurmctld").restart(timeout=30)
    hosts.run(["slurm-ready", "--wait", "60"], host="slurmctld")

    assert "configuration: it has changed, and the nodes have it" in hosts.substrate.logs("slurmctld")
    later = hosts.sbatch(wrap="true", nodelist="n2")
    assert later.wait().state == "COMPLETED"
    assert hosts.read(f"/shared/prolog-of-{later.id}", host="client") == "n2\n"
    hosts.run(["touch", "/home/alice/changed"], host="client", user="alice")
    assert job.wait().state == "COMPLETED"
