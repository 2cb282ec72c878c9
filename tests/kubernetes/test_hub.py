"""The chart slurm-jupyterhub: servers that are pods, clients of the cluster; slurm.conf and munge.key by extraFiles."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from slurm_testbed import SlurmOnKubernetes
from slurm_testbed.kubernetes import KubernetesSubstrate
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release
from tests.kubernetes.conftest import DEADLINE, in_pod, installed

pytestmark = pytest.mark.requires("kubernetes")
NAME = "slurm-jupyterhub"
SERVERS = "app.kubernetes.io/component=singleuser"


class Page:
    """The hub's page, as a browser has it.

    Args:
        url: where it is.
        user: who logs in.
        password: with it.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self.user = url, user
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.get(f"{url}/hub/login", timeout=30)
        form = {"username": user, "password": password, "_xsrf": self.session.cookies["_xsrf"]}
        answer = self.session.post(f"{url}/hub/login", data=form, timeout=30, allow_redirects=False)
        assert answer.status_code == requests.codes.found, answer.text

    def api(self, method: str, path: str) -> requests.Response:
        """Ask the hub's API, as its page does."""
        # A server has one of its own, on its path.
        headers = {
            "X-XSRFToken": str(self.session.cookies.get("_xsrf", path="/hub/")),
            "Referer": f"{self.url}/hub/home",
        }
        return self.session.request(method, f"{self.url}/hub/api/{path}", headers=headers, timeout=60)

    def spawn(self) -> None:
        """Start the user's server, and wait until it is ready."""
        answer = self.api("POST", f"users/{self.user}/server")
        assert answer.status_code in {201, 202}, answer.text

        def server() -> dict[str, object]:
            found: dict[str, object] = self.api("GET", f"users/{self.user}").json()["servers"].get("", {})
            return found

        wait_until(lambda: server().get("ready"), "the server", deadline=DEADLINE, state=lambda: str(server()))


@pytest.fixture
def forwards(cluster: SlurmOnKubernetes) -> Iterator[Forwards]:
    """Ports of the cluster's namespace."""
    made = Forwards(cluster.kubectl)
    yield made
    made.close()


def logged_in(kubectl: Kubectl, forwards: Forwards, user: str, name: str = NAME) -> Page:
    """A user on a hub's page."""
    (pod,) = kubectl.get("pods", f"--selector=app.kubernetes.io/instance={name},app.kubernetes.io/component=hub")[
        "items"
    ]
    lines = in_pod(kubectl, name, "cat", "/var/lib/jupyterhub/passwords").splitlines()
    passwords = dict(line.split(":", 1) for line in lines)
    url = f"http://127.0.0.1:{forwards.port(pod['metadata']['name'], 8000)}"
    return Page(url, user, passwords[user])


@pytest.mark.row("C-11.2")
def test_server_is_a_pod_that_submits_jobs(cluster: SlurmOnKubernetes, forwards: Forwards) -> None:
    kubectl = cluster.kubectl
    installed(NAME, kubectl, cluster.release, "--set=cluster=slurm-cluster")

    page = logged_in(kubectl, forwards, "bob")
    page.spawn()

    (pod,) = kubectl.get("pods", f"--selector={SERVERS}")["items"]
    container = pod["spec"]["containers"][0]
    assert container["image"].rpartition("/")[2] == f"slurm-jupyter-notebook:{cluster.release.version}"
    name = pod["metadata"]["name"]
    assert kubectl("exec", name, "--", "sinfo", "--noheader", "--format=%D %t") == "2 idle\n"
    submit = ["sbatch", "--parsable", "--chdir=/home/alice", "--output=from-pod.txt", "--wrap=hostname"]
    job = cluster.job(int(kubectl("exec", name, "--", *submit)))
    assert job.wait().state == "COMPLETED"
    assert job.output() in {"slurm-cluster-node-0\n", "slurm-cluster-node-1\n"}

    assert page.api("DELETE", "users/bob/server").status_code in {202, 204}
    wait_until(
        lambda: not kubectl.get("pods", f"--selector={SERVERS}")["items"],
        "the server's pod to go",
        deadline=DEADLINE,
    )


@pytest.mark.row("C-12.1", "C-12.2", "C-12.4")
def test_server_has_slurm_conf_and_key_by_the_documents_commands(
    cluster: SlurmOnKubernetes, forwards: Forwards, tmp_path: Path
) -> None:
    kubectl, name = cluster.kubectl, f"outside-{NAME}"
    conf = cluster.read("/etc/slurm/slurm.conf", host="login")
    key = base64.b64decode(kubectl.get("secret", "slurm-cluster-munge-key")["data"]["munge.key"])
    (tmp_path / "slurm.conf").write_text(conf)
    (tmp_path / "munge.key").write_bytes(key)
    (tmp_path / "munge.key.b64").write_bytes(subprocess.check_output(["base64", tmp_path / "munge.key"]))
    assert isinstance(cluster.substrate, KubernetesSubstrate)
    # The cluster is one outside to this hub: it names none of the chart.
    address = kubectl.get("pod", cluster.substrate.pod("slurmctld"))["status"]["podIP"]

    installed(
        NAME,
        kubectl,
        cluster.release,
        f"--set-file=singleuser.extraFiles.slurm-conf.stringData={tmp_path}/slurm.conf",
        f"--set-file=singleuser.extraFiles.munge-key.binaryData={tmp_path}/munge.key.b64",
        f"--set-json=hostAliases={json.dumps([{'ip': address, 'hostnames': ['slurmctld']}])}",
        name=name,
    )
    logged_in(kubectl, forwards, "alice", name).spawn()

    (pod,) = kubectl.get("pods", f"--selector=app.kubernetes.io/instance={name},{SERVERS}")["items"]
    server = pod["metadata"]["name"]
    assert kubectl("exec", server, "--", "cat", "/etc/slurm/slurm.conf") == conf
    assert (
        kubectl("exec", server, "--", "sha256sum", "/etc/munge/munge.key").split()[0] == hashlib.sha256(key).hexdigest()
    )
    assert kubectl("exec", server, "--", "sinfo", "--noheader", "--format=%D %t") == "2 idle\n"


def test_server_is_a_job_on_a_node(slurm_release: Release) -> None:
    values = {"nodes": {"image": "slurm-jupyter"}}
    with SlurmOnKubernetes(
        slurm_release.version, nodes=1, cpus=4, memory=5000, values=values, deadline=DEADLINE
    ) as one:
        installed(NAME, one.kubectl, one.release, "--set=cluster=slurm-cluster", "--set=spawner=batch")
        forwards = Forwards(one.kubectl)
        try:
            page = logged_in(one.kubectl, forwards, "alice")
            page.spawn()
            (job,) = map(one.job, one.queue())
            assert (job.record().nodes, job.record().fields["UserId"]) == ("n1", "alice(1000)")
            page.session.get(f"{page.url}/user/alice/lab", timeout=60)  # by the hub, which vouches for alice
            answer = page.session.get(f"{page.url}/user/alice/api/status", timeout=60)
            assert answer.ok, answer.text
            assert answer.json()["kernels"] == 0, answer.text
            assert page.api("DELETE", "users/alice/server").status_code in {202, 204}
            assert job.wait().state == "CANCELLED"
        finally:
            forwards.close()
