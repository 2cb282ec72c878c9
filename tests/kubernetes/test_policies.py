"""The charts' NetworkPolicies where they hold: strangers reach what they may, and all works for those who belong.

The Kubernetes of the tests enforces none; fixtures/kubernetes/policies.py stands in for the network that does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.kubernetes.policies import enforced
from slurm_testbed import SlurmOnKubernetes, engine
from slurm_testbed.kubernetes import KubernetesSubstrate, tools
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.releases import Release
from tests.kubernetes.conftest import DEADLINE, SERVERS, in_pod, installed, logged_in

pytestmark = pytest.mark.requires("kubernetes")

#: What listens in a cluster, by the component.
LISTENS = {"slurmctld": 6817, "slurmdbd": 6819, "slurmd": 6818, "slurmrestd": 6820, "login": 22}
#: A port that nobody but the test uses.
ANY_PORT = 4711
#: Listens for a minute.
LISTENER = f"""
import socket
with socket.create_server(("", {ANY_PORT})) as server:
    server.settimeout(60)
    while True:
        server.accept()[0].close()
"""


@pytest.fixture(scope="module", autouse=True)
def policies_hold() -> Iterator[None]:
    """Policies hold while the tests of this file run, from before their cluster is there."""
    nodes = engine.connect().containers.list(filters={"label": f"{engine.LABEL_CLUSTER}=kubernetes"})
    if not nodes:
        pytest.skip(
            "not checkable here because only its owner knows whether the network of this Kubernetes has policies"
        )
    with enforced(Kubectl(tools().kubectl, "default"), nodes[0]):
        yield


@pytest.fixture(scope="module")
def cluster(policies_hold: None, slurm_release: Release) -> Iterator[SlurmOnKubernetes]:
    """Two nodes, whose pods have never been without policies."""
    with SlurmOnKubernetes(slurm_release.version, nodes=2, deadline=DEADLINE) as running:
        yield running


@pytest.fixture(scope="module")
def stranger(cluster: SlurmOnKubernetes) -> str:
    """See `add_stranger`."""
    return add_stranger(cluster)


def add_stranger(cluster: SlurmOnKubernetes) -> str:
    """A pod in the cluster's namespace that does not belong to it."""
    selector = "--selector=app.kubernetes.io/component=login"
    container = cluster.kubectl.get("pods", selector)["items"][0]["spec"]["containers"][0]
    settings = [f"--image={container['image']}", f"--image-pull-policy={container['imagePullPolicy']}"]
    cluster.kubectl("run", "stranger", *settings, "--command", "--", "sleep", "infinity")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/stranger", f"--timeout={DEADLINE}s")
    return "stranger"


def reaches(kubectl: Kubectl, pod: str, address: str, port: int) -> bool:
    """Whether a pod opens a connection within 3 s."""
    opens = f"timeout 3 bash -c ': < /dev/tcp/{address}/{port}' 2> /dev/null"
    return kubectl("exec", pod, "--", "bash", "-c", f"{opens} && echo yes || echo no") == "yes\n"


def address_of(kubectl: Kubectl, selector: str) -> str:
    """Where the first pod of a selector is."""
    return str(kubectl.get("pods", f"--selector={selector}")["items"][0]["status"]["podIP"])


def reached(cluster: SlurmOnKubernetes, pod: str) -> set[str]:
    """The components that a pod reaches on their ports."""
    kubectl = cluster.kubectl
    where = {name: address_of(kubectl, f"app.kubernetes.io/component={name}") for name in LISTENS}
    return {name for name, port in LISTENS.items() if reaches(kubectl, pod, where[name], port)}


def test_stranger_reaches_rest_and_ssh_alone(cluster: SlurmOnKubernetes, stranger: str) -> None:
    assert isinstance(cluster.substrate, KubernetesSubstrate)

    assert reached(cluster, cluster.substrate.pod("login")) == set(LISTENS)
    assert reached(cluster, stranger) == {"slurmrestd", "login"}


def test_jobs_run_on_all_nodes_and_on_a_new_one(cluster: SlurmOnKubernetes) -> None:
    assert sorted(cluster.srun("printenv", "SLURMD_NODENAME", nodes=2).split()) == ["n1", "n2"]
    assert cluster.sbatch(wrap="srun hostname", nodes=2).wait().state == "COMPLETED"

    cluster.scale(3)

    assert cluster.srun("printenv", "SLURMD_NODENAME", nodelist="n3") == "n3\n"


def test_lab_takes_what_the_cluster_sends_and_strangers_reach_its_page_alone(
    cluster: SlurmOnKubernetes, stranger: str
) -> None:
    name, kubectl = "slurm-jupyter", cluster.kubectl
    installed(name, kubectl, cluster.release, "--set=cluster=slurm-cluster")

    alice = ("runuser", "-u", "alice", "--")
    assert in_pod(kubectl, name, *alice, "srun", "--nodes=2", "printenv", "SLURM_NNODES") == "2\n2\n"
    in_pod(kubectl, name, "sh", "-c", f"setsid python3 -c '{LISTENER}' > /dev/null 2>&1 &")
    lab = address_of(kubectl, f"app.kubernetes.io/name={name}")
    assert isinstance(cluster.substrate, KubernetesSubstrate)
    node = cluster.substrate.pod("n1")
    cluster.wait_until(lambda: reaches(kubectl, node, lab, ANY_PORT), "the listener in the lab's pod")
    assert [reaches(kubectl, stranger, lab, port) for port in (8888, ANY_PORT)] == [True, False]


def test_hub_starts_a_server_that_strangers_do_not_reach(cluster: SlurmOnKubernetes, stranger: str) -> None:
    name, kubectl = "slurm-jupyterhub", cluster.kubectl
    installed(name, kubectl, cluster.release, "--set=cluster=slurm-cluster")
    forwards = Forwards(kubectl)
    try:
        logged_in(kubectl, forwards, "bob").spawn()
    finally:
        forwards.close()

    (server,) = kubectl.get("pods", f"--selector={SERVERS}")["items"]
    assert kubectl("exec", server["metadata"]["name"], "--", "sinfo", "--noheader", "--format=%D %t").endswith("idle\n")
    hub = address_of(kubectl, f"app.kubernetes.io/instance={name},app.kubernetes.io/component=hub")
    assert [reaches(kubectl, stranger, hub, port) for port in (8000, 8081)] == [True, False]
    assert not reaches(kubectl, stranger, server["status"]["podIP"], 8888)


def test_stranger_reaches_all_without_policies(slurm_release: Release) -> None:
    """Else what the others show would be something else's doing."""
    values = {"networkPolicy": {"enabled": False}}
    with SlurmOnKubernetes(slurm_release.version, nodes=1, values=values, deadline=DEADLINE) as one:
        assert reached(one, add_stranger(one)) == set(LISTENS)
