"""What the chart slurm-jupyterhub tells KubeSpawner: a pod that Kubernetes takes, a client of the cluster."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.objects import Hub, Server
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.config import kube_config
from kubespawner import KubeSpawner
from traitlets.config import Config

from fixtures.charts import KUBERNETES, Chart, environment, find, pods, problem
from slurm_testbed import data

#: KubeSpawner reads one when it is made; nothing is asked of Kubernetes here.
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
"""
HOSTS = {"n1": "10.0.0.6 n1 t-node-0", "slurmctld": "10.0.0.5 slurmctld", ".n2.t-node-1": ""}


def hub_config(settings: str, hosts: Path, folder: Path) -> Config:
    """What the chart's fragment makes of its settings, with the files where these are here."""
    (folder / "singleuser.json").write_text(settings)
    text = (data.charts() / "slurm-jupyterhub/files/30-spawner.py").read_text()
    for there, here in {
        "/etc/jupyterhub/singleuser.json": folder / "singleuser.json",
        "/shared/slurm-config/hosts": hosts,
    }.items():
        assert there in text
        text = text.replace(there, str(here))
    config = Config()
    exec(compile(text, "30-spawner.py", "exec"), {"get_config": lambda: config})  # noqa: S102  # as traitlets does
    return config


@pytest.fixture
def spawn(hub_chart: Chart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pod that the hub of a rendered chart asks Kubernetes for, for bob."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))

    async def manifest(config: Config) -> dict[str, Any]:
        spawner = KubeSpawner(
            config=config,
            hub=Hub(connect_ip="10.96.0.9", port=8081, base_url="/hub/"),
            user=SimpleNamespace(name="bob", escaped_name="bob", url="/user/bob/", id=1, groups=[], state={}),
            api_token="token",
            oauth_client_id="jupyterhub-user-bob",
            _mock=True,
        )
        spawner.server = Server(base_url="/user/bob/", ip="0.0.0.0", port=8888)  # noqa: S104
        spawner.pre_spawn_hook(spawner)
        async with ApiClient() as client:
            found: dict[str, Any] = client.sanitize_for_serialization(await spawner.get_pod_manifest())
        return found

    def of(*arguments: str, hosts: Path = tmp_path / "nowhere") -> dict[str, Any]:
        manifests = hub_chart.template(*arguments)
        settings = find(manifests, "ConfigMap", "-singleuser")["data"]["singleuser.json"]
        return asyncio.run(manifest(hub_config(settings, hosts, tmp_path)))

    return of


@pytest.mark.parametrize("case", ["kube", "outside", "everything"])
def test_kubernetes_takes_the_pod(spawn: Any, case: str) -> None:
    pod = spawn(f"--values={data.charts() / 'slurm-jupyterhub/ci' / case}.yaml")

    assert [text for version in KUBERNETES if (text := problem(pod, version))] == []
    container = pod["spec"]["containers"][0]
    assert container["image"].rpartition("/")[2].startswith("slurm-jupyter-notebook:")
    # The image's own entry point starts munged, and the server of one user.
    assert "command" not in container
    assert container["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False


def test_policies_are_for_the_pods_that_kubespawner_makes(spawn: Any, hub_chart: Chart) -> None:
    policies = [each for each in hub_chart.template("--set=cluster=hpc") if each["kind"] == "NetworkPolicy"]
    labels = spawn("--set=cluster=hpc")["metadata"]["labels"].items()

    (own,) = [each["spec"] for each in policies if each["metadata"]["name"].endswith("-singleuser")]
    assert own["podSelector"]["matchLabels"].items() <= labels
    (hub,) = [each["spec"] for each in policies if not each["metadata"]["name"].endswith("-singleuser")]
    peers = [rule["from"][0]["podSelector"] for rule in hub["ingress"] if rule["ports"][0]["port"] == "hub"]
    assert any("component" in str(peer) and peer["matchLabels"].items() <= labels for peer in peers)


def test_hubs_of_one_namespace_have_pods_of_their_own(spawn: Any) -> None:
    """KubeSpawner ends a pod of the name that it wants to give."""
    assert spawn("--set=cluster=hpc")["metadata"]["name"] == "t-slurm-jupyterhub-bob"


def test_pod_in_a_cluster_knows_its_hosts_as_they_are_now(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    for name, line in HOSTS.items():
        (tmp_path / "hosts" / name).write_text(line)

    pod = spawn("--set=cluster=hpc", hosts=tmp_path / "hosts")

    names = {each["ip"]: each["hostnames"] for each in pod["spec"]["hostAliases"]}
    assert names == {"10.0.0.5": ["slurmctld"], "10.0.0.6": ["n1", "t-node-0"]}
    # By which the cluster's own policy lets it in.
    assert pod["metadata"]["labels"]["org.slurm-testbed.cluster"] == "hpc"
    mounts = {each["mountPath"]: each.get("subPath") for each in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {
        "/etc/munge/munge.key": "munge.key",
        "/etc/slurm/slurm.conf": "shared/slurm-config/slurm.conf",
        "/home": "home",
        "/shared": "shared",
    }


def test_pod_leaves_the_groups_of_the_clusters_volume_as_they_are(spawn: Any) -> None:
    """Kubernetes gives all volumes of a pod to its fsGroup, slurm.conf's keys on the shared tree included."""
    pod = spawn("--set=cluster=hpc")["spec"]

    assert "fsGroup" not in (pod.get("securityContext") or {})
    # So the key's file is root's.
    (munge,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "munge"]
    assert munge["items"] == [{"key": "munge.key", "path": "munge.key", "mode": 0o444}]


def test_pod_of_a_cluster_outside_asks_its_slurmctld(spawn: Any) -> None:
    pod = spawn(
        f"--values={data.charts()}/slurm-jupyterhub/ci/outside.yaml",
        "--set=hostAliases[0].ip=192.0.2.8,hostAliases[0].hostnames={n1}",
    )

    assert environment(pod["spec"]["containers"][0])["SLURM_CONF_SERVER"] == "single:6817"
    assert {each["ip"]: each["hostnames"] for each in pod["spec"]["hostAliases"]} == {
        "192.0.2.7": ["single"],
        "192.0.2.8": ["n1"],
    }


def test_hub_may_do_what_kubespawner_asks_and_reads_no_secret(hub_chart: Chart) -> None:
    manifests = hub_chart.template("--set=cluster=hpc")
    role, account = find(manifests, "Role"), find(manifests, "ServiceAccount")

    may = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert may == {
        *(("pods", verb) for verb in ("get", "watch", "list", "create", "delete")),
        *(("events", verb) for verb in ("get", "watch", "list")),
    }
    # KubeSpawner would delete a claim for each user who is deleted.
    assert json.loads(find(manifests, "ConfigMap", "-singleuser")["data"]["singleuser.json"])["delete_pvc"] is False
    assert find(manifests, "RoleBinding")["subjects"][0]["name"] == account["metadata"]["name"]


def test_hub_is_reached_by_the_address_of_its_service(hub_chart: Chart) -> None:
    manifests = hub_chart.template("--set=cluster=hpc")
    service = find(manifests, "Service")
    container = pods(manifests)["t-slurm-jupyterhub"]["containers"][0]

    variable = service["metadata"]["name"].upper().replace("-", "_") + "_SERVICE_HOST"
    assert environment(container)["JUPYTERHUB_IP"] == f"$({variable})"
    assert 8081 in [port["port"] for port in service["spec"]["ports"]]


def test_hub_whose_service_was_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (data.charts() / "slurm-jupyterhub/files/15-address.py").read_text()
    config = Config()

    monkeypatch.setenv("JUPYTERHUB_IP", "10.96.0.9")
    exec(compile(text, "15-address.py", "exec"), {"get_config": lambda: config})  # noqa: S102  # as traitlets does
    assert config.Spawner.hub_connect_url == "http://10.96.0.9:8081"
    assert config.JupyterHub.hub_connect_url == "http://127.0.0.1:8081"
    monkeypatch.setenv("JUPYTERHUB_IP", "$(T_SERVICE_HOST)")
    with pytest.raises(SystemExit, match="Kubernetes did not set T_SERVICE_HOST"):
        exec(compile(text, "15-address.py", "exec"), {"get_config": lambda: config})  # noqa: S102  # as traitlets does


def test_hub_of_jobs_makes_no_pods(hub_chart: Chart) -> None:
    manifests = hub_chart.template("--set=cluster=hpc", "--set=spawner=batch")

    assert not {each["kind"] for each in manifests} & {"Role", "RoleBinding", "ServiceAccount"}
    fragments = find(manifests, "ConfigMap", "-hub")["data"]
    assert list(fragments) == ["15-address.py"], "the image's own fragment has BatchSpawner"


def test_fragment_of_a_site_replaces_the_charts(hub_chart: Chart) -> None:
    given = json.dumps({"30-spawner.py": "c.JupyterHub.spawner_class = 'simple'"})
    manifests = hub_chart.template("--set=cluster=hpc", f"--set-json=hub.config={given}")

    assert find(manifests, "ConfigMap", "-hub")["data"]["30-spawner.py"] == "c.JupyterHub.spawner_class = 'simple'"
    mounts = [each["mountPath"] for each in pods(manifests)["t-slurm-jupyterhub"]["containers"][0]["volumeMounts"]]
    assert len(mounts) == len(set(mounts)), "Kubernetes refuses two mounts in one place"
