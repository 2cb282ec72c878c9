"""Pods as hosts of a cluster: their names, their storage, and what a larger cluster changes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.charts import Chart, environment, find, pods
from slurm_testbed import data
from slurm_testbed.kubernetes import HELM, tools

PREFIX = "t-slurm-cluster-"


def containers(chart: Chart, *arguments: str) -> dict[str, dict[str, Any]]:
    """The containers of a rendered chart by their names."""
    made = pods(chart.template(*arguments)).values()
    return {container["name"]: container for pod in made for container in pod["containers"]}


def test_hosts_and_roles_are_those_of_compose(cluster_chart: Chart) -> None:
    compose = yaml.safe_load((data.compose() / "cluster.yaml").read_text())["services"]
    of_compose = {service["command"][0] for service in compose.values() if "command" in service}

    found = containers(cluster_chart)
    roles = {each.get("args", ["slurmd"])[0] for each in found.values()}

    assert roles == of_compose | {"slurmd"}
    for name in ("slurmctld", "slurmdbd", "slurmrestd", "login"):
        assert pods(cluster_chart.template())[f"{PREFIX}{name}"]["hostname"] == name
        assert environment(found[name])["SLURMCTLD_HOST"] == "slurmctld"


def test_every_host_of_slurm_keeps_the_names(cluster_chart: Chart) -> None:
    found = containers(cluster_chart)

    assert {name for name, each in found.items() if environment(each).get("SLURM_TESTBED_SERVICES") == "hosts"} == {
        *(found.keys() - {"database"})
    }
    assert (data.images() / "slurm/rootfs/usr/share/slurm-testbed/services/hosts/run").exists()


def test_services_set_no_variables_that_the_image_would_take_for_settings(cluster_chart: Chart) -> None:
    # A release called slurm has services such as slurm-nodes: SLURM_NODES_PORT.
    assert all(pod["enableServiceLinks"] is False for pod in pods(cluster_chart.template()).values())


@pytest.mark.parametrize(("pod", "node"), [("slurm-node-0", "n1"), ("a-b-node-11", "n12")])
def test_node_is_called_as_slurm_counts(cluster_chart: Chart, tmp_path: Path, pod: str, node: str) -> None:
    command = containers(cluster_chart)["slurmd"]["command"]
    (tmp_path / "slurm-entrypoint").write_text('#!/bin/sh\necho "$SLURM_NODE_NAME $*"\n')
    (tmp_path / "slurm-entrypoint").chmod(0o755)

    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOSTNAME": pod}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)

    assert done.stdout == f"{node} slurmd\n"


def test_more_nodes_leave_those_that_run_as_they_are(cluster_chart: Chart) -> None:
    two, four = (cluster_chart.template(f"--set=nodes.replicas={number}") for number in (2, 4))

    before, after = (find(each, "StatefulSet")["spec"] for each in (two, four))
    assert (before.pop("replicas"), after.pop("replicas")) == (2, 4)
    assert before == after, "their pods would be made anew, and their jobs end"
    before, after = (
        environment(find(each, "Deployment", "slurmctld")["spec"]["template"]["spec"]["containers"][0])
        for each in (two, four)
    )
    assert (before.pop("SLURM_NODES"), after.pop("SLURM_NODES")) == ("2", "4")
    assert before == after


def test_newer_chart_that_changes_nothing_else_ends_no_pod(cluster_chart: Chart) -> None:
    templates = [
        each["spec"]["template"] for each in cluster_chart.template() if each["kind"] in {"Deployment", "StatefulSet"}
    ]

    assert "helm.sh/chart" not in json.dumps(templates)


def test_database_is_reached_by_its_socket_alone(cluster_chart: Chart) -> None:
    pod = pods(cluster_chart.template())[f"{PREFIX}slurmdbd"]
    database, slurmdbd = pod["containers"]

    assert "ports" not in database
    sockets = [
        [each["name"] for each in one["volumeMounts"] if each["mountPath"] == "/run/mysqld"]
        for one in (database, slurmdbd)
    ]
    assert sockets == [["socket"], ["socket"]]
    assert {"name": "socket", "emptyDir": {}} in pod["volumes"]


def test_all_hosts_share_home_and_tree(cluster_chart: Chart) -> None:
    own = {"database": {"/var/lib/mysql": "mysql"}, "slurmctld": {"/var/spool/slurmctld": "slurmctld"}}
    for name, container in containers(cluster_chart).items():
        shared = {each["mountPath"]: each["subPath"] for each in container["volumeMounts"] if each["name"] == "shared"}
        tree = {} if name == "database" else {"/shared": "shared", "/home": "home"}
        assert shared == tree | own.get(name, {}), name


@pytest.mark.parametrize(("chart", "given"), [("slurm-cluster", []), ("slurm-jupyterhub", ["--set=cluster=hpc"])])
def test_no_pod_has_one_claim_as_two_volumes(chart: str, given: list[str]) -> None:
    """Such a pod waits for good, seen on Kubernetes 1.20."""
    for name, pod in pods(Chart(chart, tools(HELM[-1]).helm).template(*given)).items():
        volumes = [each["persistentVolumeClaim"] for each in pod["volumes"] if "persistentVolumeClaim" in each]
        claims = [each["claimName"] for each in volumes]
        assert len(claims) == len(set(claims)), name


@pytest.mark.parametrize(("part", "pod"), [("controller", "slurmctld"), ("database", "slurmdbd")])
def test_state_has_a_claim_of_its_own_where_one_is_given(cluster_chart: Chart, part: str, pod: str) -> None:
    made = pods(cluster_chart.template(f"--set={part}.existingClaim=fast"))[f"{PREFIX}{pod}"]

    (volume,) = [each for each in made["volumes"] if each.get("persistentVolumeClaim") == {"claimName": "fast"}]
    mounts = [each["name"] for container in made["containers"] for each in container["volumeMounts"]]
    assert volume["name"] in mounts


def test_folder_of_the_machine_is_a_volume_of_this_claim_alone(cluster_chart: Chart) -> None:
    manifests = cluster_chart.template("--set=storage.hostPath=/srv/slurm")
    volume, claim = find(manifests, "PersistentVolume"), find(manifests, "PersistentVolumeClaim")

    assert volume["spec"]["claimRef"] == {"namespace": "hpc", "name": claim["metadata"]["name"]}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert claim["spec"]["storageClassName"] == volume["spec"]["storageClassName"] == ""


def test_policies_open_rest_and_ssh_alone(cluster_chart: Chart) -> None:
    manifests = cluster_chart.template()
    policies = [each for each in manifests if each["kind"] == "NetworkPolicy"]
    member = {"org.slurm-testbed.cluster": "t-slurm-cluster"}

    opened = {
        port["port"]: each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for each in policies
        for rule in each["spec"]["ingress"]
        for port in rule.get("ports", [])
    }
    assert opened == {"slurmrestd": "slurmrestd", "ssh": "login"}
    within = find(manifests, "NetworkPolicy", "t-slurm-cluster")["spec"]
    assert within["podSelector"]["matchLabels"] == member
    assert within["ingress"] == [{"from": [{"podSelector": {"matchLabels": member}}]}]
    for each in manifests:
        if each["kind"] in {"Deployment", "StatefulSet"}:
            assert member.items() <= each["spec"]["template"]["metadata"]["labels"].items(), each["metadata"]["name"]


@pytest.mark.parametrize(("chart", "port"), [("slurm-jupyter", None), ("slurm-jupyterhub", "hub")])
def test_clients_let_in_the_cluster_also_where_it_has_no_policy(chart: str, port: str | None, helm: Path) -> None:
    for manifest in Chart(chart, helm).template("--set=cluster=hpc"):
        if manifest["kind"] == "NetworkPolicy":
            member = [{"podSelector": {"matchLabels": {"org.slurm-testbed.cluster": "hpc"}}}]
            (rule,) = [rule for rule in manifest["spec"]["ingress"] if rule.get("from") == member]
            wants = None if manifest["metadata"]["name"].endswith("-singleuser") else port
            assert [each["port"] for each in rule.get("ports", [])] == [each for each in [wants] if each]


@pytest.mark.parametrize("text", ["  # ours\nDebugFlags=Gres\n", "\n  A=1\nB=2", "plain", "a: {b}\n"])
def test_fragment_arrives_as_it_was_written(text: str, cluster_chart: Chart, tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text(text)

    manifests = cluster_chart.template(f"--set-file=config.slurm.80-site\\.conf={tmp_path}/site.conf")

    assert find(manifests, "ConfigMap", "-slurm-conf-d")["data"] == {"80-site.conf": text}


def test_clients_join_the_cluster_that_they_name(helm: Path) -> None:
    cluster = Chart("slurm-cluster", helm).template()
    claim = find(cluster, "PersistentVolumeClaim")["metadata"]["name"]
    for name in ("slurm-jupyter", "slurm-jupyterhub"):
        manifests = Chart(name, helm).template("--set=cluster=t-slurm-cluster")
        template = find(manifests, "Deployment")["spec"]["template"]
        claims = {
            each["persistentVolumeClaim"]["claimName"]
            for each in template["spec"]["volumes"]
            if "persistentVolumeClaim" in each
        }
        assert claims == {claim}
        assert template["metadata"]["labels"]["org.slurm-testbed.cluster"] == "t-slurm-cluster"
        assert environment(template["spec"]["containers"][0])["SLURM_TESTBED_SERVICES"] == "hosts"


@pytest.mark.parametrize("name", ["slurm-jupyter", "slurm-jupyterhub"])
def test_client_of_a_cluster_outside_has_its_name_and_address(name: str) -> None:
    given = ["--set=slurmctld.host=single", "--set=slurmctld.address=192.0.2.7", "--set=munge.existingSecret=key"]
    pod = pods(Chart(name, tools(HELM[-1]).helm).template(*given))[f"t-{name}"]

    assert pod["hostAliases"] == [{"ip": "192.0.2.7", "hostnames": ["single"]}]
    assert environment(pod["containers"][0])["SLURM_CONF_SERVER"] == "single:6817"


@pytest.mark.parametrize("name", ["slurm-cluster", "slurm-jupyter", "slurm-jupyterhub"])
def test_notes_name_what_there_is(tmp_path: Path, name: str) -> None:
    # Helm 3 shows notes of what is installed only.
    chart = Chart(name, tools(HELM[-1]).helm)
    values = "--values=" + str(chart.cases()[0])
    # Nothing is asked of any cluster.
    done = chart.run(
        "install",
        "t",
        str(chart.folder),
        "--namespace=hpc",
        "--dry-run=client",
        values,
        env={**os.environ, "KUBECONFIG": str(tmp_path / "none")},
    )

    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    made = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in chart.template(values)}
    named = {word for word in notes.replace("'", " ").split() if word.startswith(("deployment/", "service/"))}
    assert named, notes
    assert named <= made
    assert "--namespace hpc" in notes
