"""How a host joins a cluster as a client, and what the shared tree has with a hub and without."""

from __future__ import annotations

import pytest

from slurm_testbed import SlurmCluster
from slurm_testbed.compose import ComposeSubstrate
from slurm_testbed.pytest_plugin import note_cluster
from slurm_testbed.releases import Release

JOINING = ("hub", "jupyter")


@pytest.mark.row("H-02.1", "H-02.2")
def test_cluster_without_a_hub_comes_up_and_says_so(
    request: pytest.FixtureRequest, slurm_release: Release, hub_cluster: SlurmCluster
) -> None:
    with SlurmCluster(slurm_release.version, nodes=1) as without:
        note_cluster(request, without, slurm_release)
        assert without.srun("hostname").strip() == "n1"
        said = without.substrate.logs("slurmctld")

    assert "hub: JUPYTERHUB_IP is not set, hub integration is skipped" in said
    assert "hub: JupyterHub on hub joins as a client" in hub_cluster.substrate.logs("slurmctld")


@pytest.mark.row("H-03.3", "H-03.4")
def test_hub_and_jupyter_hosts_are_no_nodes(hub_cluster: SlurmCluster) -> None:
    listed = hub_cluster.run(["sinfo", "-N", "--noheader", "--format=%N"], host="hub").stdout.split()

    assert listed == ["n1", "n2"]
    for host in (*JOINING, "proxy"):
        running = hub_cluster.run(["sh", "-c", "cat /proc/[0-9]*/comm"], host=host).stdout.split()
        assert "slurmd" not in running, host


@pytest.mark.row("H-04.1", "H-04.2", "H-04.5", "H-04.6", "H-04.7")
@pytest.mark.parametrize("host", JOINING)
def test_host_that_joins_installs_nothing_and_says_whether_it_reaches_slurm(
    hub_cluster: SlurmCluster, host: str
) -> None:
    assert isinstance(hub_cluster.substrate, ComposeSubstrate)
    changed = {entry["Path"] for entry in hub_cluster.substrate.container(host).diff()}
    key = hub_cluster.run(["stat", "--format=%U:%G %a", "/etc/munge/munge.key"], host=host).stdout.strip()
    conf = hub_cluster.run(["readlink", "/etc/slurm/slurm.conf"], host=host).stdout.strip()
    hub_cluster.wait_until(
        lambda: "connection: " in hub_cluster.substrate.logs(host), "the result of the connection's test", deadline=30
    )

    assert not [path for path in changed if path.startswith(("/usr", "/opt", "/lib", "/var/lib/dpkg", "/var/lib/apt"))]
    assert hub_cluster.run(["mountpoint", "/shared"], host=host).returncode == 0
    assert (key, conf) == ("munge:munge 400", "/shared/slurm-config/slurm.conf")
    assert "STATUS:" in hub_cluster.run(["sh", "-c", "munge -n | unmunge"], host=host).stdout
    assert "connection: Slurmctld(primary) at slurmctld is UP" in hub_cluster.substrate.logs(host)


@pytest.mark.row("H-06.3", "H-06.4")
@pytest.mark.parametrize("host", JOINING)
def test_host_that_joins_may_submit(hub_cluster: SlurmCluster, host: str) -> None:
    done = hub_cluster.run(["sbatch", "--parsable", "--wrap=hostname"], host=host, user="bob", workdir="/home/bob")

    assert hub_cluster.job(int(done.stdout)).wait().state == "COMPLETED"


@pytest.mark.row("H-04.8", "H-05.2")
def test_shared_tree_has_its_folders(hub_cluster: SlurmCluster) -> None:
    paths = ["/shared/jupyterhub-logs", *(f"/shared/notebooks/{user}" for user in ("alice", "bob", "carol", "dave"))]
    paths += ["/shared/jupyter-workspace", "/shared/jupyter-workspace/slurm_examples.py"]

    listed = hub_cluster.run(["stat", "--format=%n %U %a", *paths], host="client").stdout.splitlines()

    users = [f"/shared/notebooks/{user} {user} 700" for user in ("alice", "bob", "carol", "dave")]
    workspace = ["/shared/jupyter-workspace alice 755", "/shared/jupyter-workspace/slurm_examples.py alice 644"]
    assert listed == ["/shared/jupyterhub-logs root 1777", *users, *workspace]


@pytest.mark.row("H-04.3", "H-04.4")
def test_client_waits_for_the_head_nodes_files_and_gives_up_in_words(hub_cluster: SlurmCluster) -> None:
    """On the client of the stack, whose head node's files are taken away."""
    tree = "/shared/slurm-config"
    script = f"""
        . /usr/lib/slurm-testbed/common.sh
        echo "default $SLURM_TESTBED_JOIN_DEADLINE"
        SLURM_TESTBED_JOIN_DEADLINE=1 SLURM_TESTBED_ROLE=client slurm-keys; echo "without: $?"
        (await_tree munge.key makes; echo goes on) & mv {tree}/away {tree}/munge.key; wait
        SLURM_TESTBED_ROLE=client slurm-keys; echo "with: $?"
    """
    hub_cluster.run(["mv", f"{tree}/munge.key", f"{tree}/away"], host="slurmctld")
    try:
        done = hub_cluster.run(["bash", "-c", script], host="client")
    finally:
        hub_cluster.run(["sh", "-c", f"! test -e {tree}/away || mv {tree}/away {tree}/munge.key"], host="slurmctld")

    assert done.stdout.splitlines() == ["default 300", "without: 1", "goes on", "with: 0"]
    assert f"waited 1 s for {tree}/munge.key, which the head node makes" in done.stderr
    assert "hint: is a container with the role slurmctld on the same shared tree?" in done.stderr
