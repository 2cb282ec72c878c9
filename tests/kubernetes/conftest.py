"""A cluster of the chart slurm-cluster for the tests of a file, and charts beside it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from slurm_testbed import SlurmOnKubernetes, data
from slurm_testbed.engine import LABEL_CLUSTER, LABEL_OWNER, owner
from slurm_testbed.kubernetes import VALUES_VARIABLE, tools
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.releases import Release

#: Seconds in which a chart's pods must come.
DEADLINE = 240


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
