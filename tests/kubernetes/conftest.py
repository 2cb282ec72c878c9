"""A cluster of the chart slurm-cluster for the tests of a file, and charts beside it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

from slurm_testbed import SlurmOnKubernetes, data
from slurm_testbed.engine import LABEL_CLUSTER, LABEL_OWNER, owner
from slurm_testbed.kubernetes import VALUES_VARIABLE, tools
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release

#: Seconds in which a chart's pods must come.
DEADLINE = 240
#: Pods that KubeSpawner makes.
SERVERS = "app.kubernetes.io/component=singleuser"


@pytest.fixture(scope="module")
def cluster(slurm_release: Release) -> Iterator[SlurmOnKubernetes]:
    """Two nodes; the chart makes their keys."""
    with SlurmOnKubernetes(slurm_release.version, nodes=2, deadline=DEADLINE) as running:
        yield running


@pytest.fixture
def namespace() -> Iterator[Callable[[str], Kubectl]]:
    """Make a namespace of a name, with something added, so that several tests may ask for the same; it is removed."""
    made: list[Kubectl] = []

    def make(name: str) -> Kubectl:
        kubectl = Kubectl(tools().kubectl, f"{name}-{secrets.token_hex(4)}")
        metadata = {
            "name": kubectl.namespace,
            "labels": {LABEL_CLUSTER: kubectl.namespace},
            "annotations": {LABEL_OWNER: owner()},
        }
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        kubectl("create", "--filename=-", stdin=json.dumps(manifest))
        made.append(kubectl)
        return kubectl

    yield make
    for kubectl in made:
        kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


def helm_install(
    chart: str, kubectl: Kubectl, release: Release, *arguments: str, name: str = ""
) -> subprocess.CompletedProcess[str]:
    """Install a chart of ours, with the images that this Kubernetes has.

    Args:
        chart: the chart.
        kubectl: kubectl in the namespace.
        release: of Slurm.
        arguments: of helm.
        name: of the release; that of the chart if not given.
    """
    files = [Path(path) for path in os.environ.get(VALUES_VARIABLE, "").split(os.pathsep) if path]
    image = {"tag": release.version}
    for path in files:
        image |= yaml.safe_load(path.read_text()).get("image", {})
    argv = [str(tools().helm), "install", name or chart, str(data.charts() / chart), f"--namespace={kubectl.namespace}"]
    argv += [f"--set-json=image={json.dumps(image)}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def installed(chart: str, kubectl: Kubectl, release: Release, *arguments: str, name: str = "") -> str:
    """Install a chart and wait until its pods are ready; what Helm says of it: see `helm_install`."""
    done = helm_install(chart, kubectl, release, "--wait", f"--timeout={DEADLINE}s", *arguments, name=name)
    state = f"{done.stderr}{kubectl('get', 'pods')}{kubectl('get', 'events')}" if done.returncode else ""
    assert done.returncode == 0, state
    return done.stdout


def in_pod(kubectl: Kubectl, deployment: str, *command: str) -> str:
    """What a command says in the pod of a deployment, as root."""
    return kubectl("exec", f"deployment/{deployment}", "--", *command)


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
        # The proxy ends a connection that is idle for 5 s, which may be as the next request comes.
        self.session.headers["Connection"] = "close"
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


def logged_in(kubectl: Kubectl, forwards: Forwards, user: str, name: str = "slurm-jupyterhub") -> Page:
    """A user on a hub's page."""
    (pod,) = kubectl.get("pods", f"--selector=app.kubernetes.io/instance={name},app.kubernetes.io/component=hub")[
        "items"
    ]
    lines = in_pod(kubectl, name, "cat", "/var/lib/jupyterhub/passwords").splitlines()
    passwords = dict(line.split(":", 1) for line in lines)
    url = f"http://127.0.0.1:{forwards.port(pod['metadata']['name'], 8000)}"
    return Page(url, user, passwords[user])
