"""Keys are made at the installation, are none of another release, and stay what they are at an upgrade."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fixtures.charts import Chart, Manifests, find, pods

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: here, user: {{}}}}]
contexts: [{{name: here, context: {{cluster: here, user: here}}}}]
current-context: here
"""
#: What the API has, by group.
KINDS = {
    "v1": ["PersistentVolumeClaim", "Secret", "Service"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
}
NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def discovery() -> dict[str, Any]:
    """By path, what the API says that it has."""
    groups = [
        {"name": group.partition("/")[0], "versions": [version], "preferredVersion": version}
        for group in KINDS
        if "/" in group
        for version in [{"groupVersion": group, "version": "v1"}]
    ]
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for group, kinds in KINDS.items():
        plurals = {kind: kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s") for kind in kinds}
        resources = [
            {"name": plurals[kind], "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
            for kind in kinds
        ]
        path = f"/apis/{group}" if "/" in group else f"/api/{group}"
        answers[path] = {"kind": "APIResourceList", "groupVersion": group, "resources": resources}
    return answers


class Namespace:
    """As much of Kubernetes's API as Helm's `lookup` asks: which Secrets are there."""

    def __init__(self, port: int, kubeconfig: Path) -> None:
        self.secrets: dict[str, Any] = {}
        self.asked: list[str] = []
        kubeconfig.write_text(KUBECONFIG.format(port=port))
        self.env = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def template(self, chart: Chart, *arguments: str) -> Manifests:
        """Render as an installation or an upgrade does, which ask."""
        return chart.template("--dry-run=server", "--disable-openapi-validation", *arguments, env=self.env)


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    """The namespace of the releases, with no Secret."""

    answers = discovery()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's own name
            path = self.path.partition("?")[0]
            found.asked.append(path)
            answer = answers.get(path) or found.secrets.get(path, NOT_FOUND)
            self.send_response(404 if answer is NOT_FOUND else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: Any) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Namespace(server.server_port, tmp_path / "kubeconfig")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "arguments", "lengths"),
    [
        ("slurm-cluster", [], {"munge.key": 128, "jwt_hs256.key": 32}),
        ("slurm-jupyter", ["--set=cluster=hpc"], {"jupyter_token": 40}),
    ],
)
def test_upgrade_keeps_keys(
    helm: Path, namespace: Namespace, name: str, arguments: list[str], lengths: dict[str, int]
) -> None:
    chart = Chart(name, helm)

    installed = keys(namespace.template(chart, *arguments))
    for secret in installed.values():
        namespace.secrets[f"/api/v1/namespaces/hpc/secrets/{secret['metadata']['name']}"] = secret
    upgraded = keys(namespace.template(chart, *arguments, "--set=image.tag=26.05.5", "--is-upgrade"))

    assert {key: len(base64.b64decode(each["data"][key])) for key, each in installed.items()} == lengths
    assert {key: each["data"] for key, each in upgraded.items()} == {
        key: each["data"] for key, each in installed.items()
    }
    assert set(namespace.secrets) <= set(namespace.asked), "Helm did not ask for them"


def test_each_installation_has_keys_of_its_own(cluster_chart: Chart) -> None:
    first, second = (keys(cluster_chart.template()) for _ in range(2))

    assert all(first[key]["data"] != second[key]["data"] for key in first)


def test_secret_that_is_there_is_used_and_none_is_made(cluster_chart: Chart) -> None:
    given = ["--set=keys.munge.existingSecret=slurm-munge-key", "--set=keys.jwt.existingSecret=jwt"]
    manifests = cluster_chart.template(*given)

    assert not any(each["kind"] == "Secret" for each in manifests)
    volumes = pods(manifests)["t-slurm-cluster-slurmctld"]["volumes"]
    sources = next(each for each in volumes if each["name"] == "keys")["projected"]["sources"]
    assert [each["secret"]["name"] for each in sources] == ["slurm-munge-key", "jwt"]


def test_jupyterlab_takes_the_secret_slurm_munge_key(helm: Path) -> None:
    chart = Chart("slurm-jupyter", helm)
    pod = pods(chart.template("--set=slurmctld.host=single"))["t-slurm-jupyter"]

    secrets = next(each for each in pod["volumes"] if each["name"] == "secrets")["projected"]
    assert {"name": "slurm-munge-key", "items": [{"key": "munge.key", "path": "munge.key"}]} in [
        each["secret"] for each in secrets["sources"]
    ]
    assert secrets["defaultMode"] == 0o400
    # Where slurm-keys looks for it: docs/images.md.
    assert {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_key_is_in_no_manifest_but_its_secret(cluster_chart: Chart) -> None:
    manifests = cluster_chart.template()

    others = json.dumps([each for each in manifests if each["kind"] != "Secret"])
    for each in keys(manifests).values():
        assert all(value not in others for value in each["data"].values())
    assert find(manifests, "Secret", "-jwt-key")["type"] == "Opaque"


def keys(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Secrets by the key that is in each."""
    return {next(iter(each["data"])): each for each in manifests if each["kind"] == "Secret"}
