"""The chart slurm-jupyter: a client of the chart's cluster, and of a single node outside Kubernetes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from docker.models.containers import Container

from slurm_testbed import ClusterKeys, SlurmContainer, SlurmOnKubernetes, engine
from slurm_testbed.doctor import diagnose_text
from slurm_testbed.errors import EngineError
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.releases import Release
from tests.kubernetes.conftest import in_pod, installed

pytestmark = pytest.mark.requires("kubernetes")
NAME = "slurm-jupyter"
#: What runs a command as alice, as JupyterLab does.
ALICE = ("runuser", "-u", "alice", "--")


def test_lab_is_a_client_of_the_cluster_beside_it(cluster: SlurmOnKubernetes) -> None:
    notes = installed(NAME, cluster.kubectl, cluster.release, "--set=cluster=slurm-cluster")

    assert f"kubectl --namespace {cluster.name} exec deployment/slurm-jupyter -- sinfo" in notes
    said = in_pod(cluster.kubectl, NAME, "sinfo", "--noheader", "--format=%D %t")
    assert said == "2 idle\n"
    # srun's nodes speak to the pod, whose name they know.
    assert in_pod(cluster.kubectl, NAME, *ALICE, "srun", "--nodes=2", "printenv", "SLURM_NNODES") == "2\n2\n"
    token = in_pod(cluster.kubectl, NAME, "cat", "/run/secrets/jupyter_token")
    forwards = Forwards(cluster.kubectl)
    try:
        (pod,) = cluster.kubectl.get("pods", f"--selector=app.kubernetes.io/name={NAME}")["items"]
        url = f"http://127.0.0.1:{forwards.port(pod['metadata']['name'], 8888)}"
        assert requests.get(f"{url}/api/status", timeout=30).status_code == requests.codes.forbidden
        answer = requests.get(f"{url}/api/status", headers={"Authorization": f"token {token}"}, timeout=30)
        assert answer.json()["kernels"] == 0
    finally:
        forwards.close()


@pytest.fixture
def outside(slurm_release: Release, not_checkable: Callable[[str, str], None]) -> Iterator[SlurmContainer]:
    """A single node on this machine's engine, whose addresses the pods reach."""
    client = engine.connect()
    nodes = client.containers.list(filters={"label": f"{engine.LABEL_CLUSTER}=kubernetes"})
    if not nodes:
        not_checkable("kubernetes", "the Kubernetes is no container of this engine, and may reach none of it")
    with SlurmContainer(slurm_release.version, keys=ClusterKeys.generate()) as single:
        network = client.networks.get(single.network_name)
        network.connect(nodes[0])
        try:
            yield single
        finally:
            network.disconnect(nodes[0], force=True)


def address_of(single: SlurmContainer) -> str:
    """Where the single node is in its own network."""
    container: Container = engine.connect().containers.get(single.name)
    return str(container.attrs["NetworkSettings"]["Networks"][single.network_name]["IPAddress"])


def give_key(kubectl: Kubectl, key: bytes, folder: Path) -> None:
    """Make the Secret slurm-munge-key, by the command of the document."""
    (folder / "munge.key").write_bytes(key)
    kubectl("create", "secret", "generic", "slurm-munge-key", f"--from-file={folder}/munge.key")


@pytest.mark.row("C-10.1", "C-10.2", "C-12a.1")
def test_lab_submits_to_a_single_node_outside(
    outside: SlurmContainer, namespace: Callable[[str], Kubectl], slurm_release: Release, tmp_path: Path
) -> None:
    kubectl = namespace("slurm-integration")
    key = outside.munge_key()
    give_key(kubectl, key, tmp_path)

    given = [f"--set=slurmctld.host={outside.name}", f"--set=slurmctld.address={address_of(outside)}"]
    installed(NAME, kubectl, slurm_release, *given)

    assert in_pod(kubectl, NAME, "sha256sum", "/etc/munge/munge.key").split()[0] == hashlib.sha256(key).hexdigest()
    assert "idle" in in_pod(kubectl, NAME, "sinfo")
    submit = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/tmp/out.txt", "--wrap=hostname"]
    job = outside.job(int(in_pod(kubectl, NAME, *ALICE, *submit)))
    assert job.wait().state == "COMPLETED"
    assert outside.read("/tmp/out.txt") == f"{outside.name}\n"


@pytest.mark.row("C-12a.2")
def test_another_key_is_told_as_on_any_host(
    outside: SlurmContainer, namespace: Callable[[str], Kubectl], slurm_release: Release, tmp_path: Path
) -> None:
    kubectl = namespace("slurm-integration")
    give_key(kubectl, ClusterKeys.generate().munge.data, tmp_path)

    given = [f"--set=slurmctld.host={outside.name}", f"--set=slurmctld.address={address_of(outside)}"]
    installed(NAME, kubectl, slurm_release, *given)

    with pytest.raises(EngineError) as refused:
        in_pod(kubectl, NAME, "sinfo")
    log = outside.substrate.logs(outside.name, "slurmctld")
    assert "Invalid credential" in log, log
    assert diagnose_text(str(refused.value) + log).names == ["munge-mismatch"]
