"""slurm-jupyter-notebook as the pod that KubeSpawner asks Kubernetes for, run by the container engine."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from jupyterhub.objects import Hub, Server
from kubernetes_asyncio.client import V1PodSpec
from kubernetes_asyncio.config import kube_config
from kubespawner import KubeSpawner

from fixtures.hub import Jupyter
from fixtures.made import MakeImages
from slurm_testbed import SlurmCluster, engine
from slurm_testbed.container import ContainerSubstrate
from slurm_testbed.images import image_name
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release

#: KubeSpawner reads one when it is made; nothing is asked of Kubernetes here.
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
"""
SUBMIT = """
import getpass, subprocess
print(getpass.getuser())
for command in (["sbatch", "--parsable", "--wait", "--wrap=true"], ["sinfo", "--noheader", "--format=%N"]):
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
"""


@pytest.fixture
def pod(
    hub_cluster: SlurmCluster,
    slurm_release: Release,
    make_images: MakeImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Jupyter]:
    """Alice's server in a container on the cluster's network, with the cluster's slurm.conf and munge key."""
    make_images(slurm_release, "slurm-jupyter-notebook")
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    if "alice" not in {user["name"] for user in hub_cluster.hub.api("GET", "users").json()}:
        hub_cluster.hub.api("POST", "users/alice")
    token = hub_cluster.hub.api("POST", "users/alice/tokens", {"expires_in": 3600}).json()["token"]
    spec = asyncio.run(pod_spec(image_name("slurm-jupyter-notebook", slurm_release), token))
    notebook = spec.containers[0]

    project = hub_cluster.project.name
    container = engine.connect().containers.create(
        notebook.image,
        command=notebook.args,
        environment={variable.name: variable.value for variable in notebook.env},
        network=f"{project}_default",
        ports={f"{notebook.ports[0].container_port}/tcp": ("127.0.0.1", None)},
        security_opt=["no-new-privileges"],  # allowPrivilegeEscalation: false
        labels={engine.LABEL_CLUSTER: project, engine.LABEL_OWNER: engine.owner()},
    )
    try:
        substrate = ContainerSubstrate(container)
        key = base64.b64decode(hub_cluster.run(["base64", "/etc/munge/munge.key"]).stdout)
        conf = hub_cluster.read("/etc/slurm/slurm.conf", host="client").encode()
        substrate.put("", {"/etc/munge/munge.key": key}, mode=0o444)
        substrate.put("", {"/etc/slurm/slurm.conf": conf})
        container.start()
        address, port = substrate.endpoint("", 8888)
        server = Jupyter(f"http://{address}:{port}/user/alice/", token)
        wait_until(lambda: answers(server), "the server to answer", deadline=60, log=lambda: container.logs().decode())
        yield server
    finally:
        container.remove(force=True, v=True)


async def pod_spec(image: str, token: str) -> V1PodSpec:
    """The pod that KubeSpawner would create for alice."""
    spawner = KubeSpawner(
        hub=Hub(connect_ip="hub", port=8081, base_url="/hub/"),
        user=SimpleNamespace(name="alice", escaped_name="alice", url="/user/alice/", id=1, groups=[], state={}),
        api_token=token,
        oauth_client_id="jupyterhub-user-alice",
        image=image,
        _mock=True,
    )
    spawner.server = Server(base_url="/user/alice/", ip="0.0.0.0", port=8888)  # noqa: S104
    return (await spawner.get_pod_manifest()).spec


def answers(server: Jupyter) -> bool:
    """Whether the server's own API answers its user."""
    try:
        server.get("status")
    except requests.RequestException:
        return False
    return True


@pytest.mark.row("C-04")
def test_pod_of_kubespawner_is_a_server_of_its_user_and_submits_jobs(hub_cluster: SlurmCluster, pod: Jupyter) -> None:
    stranger = Jupyter(pod.url, "not-a-token-of-the-hub")

    user, job, nodes = pod.start_kernel().run(SUBMIT).split()

    assert user == "alice"
    assert hub_cluster.job(int(job)).record().state == "COMPLETED"
    assert nodes == "n[1-2]"
    assert not answers(stranger), "whoever comes is taken"
