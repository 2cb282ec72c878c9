"""Each value of a chart does something, and what cannot be meant is refused."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import yaml

from fixtures.charts import CHARTS, Chart, Manifests
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.kubernetes import HELM, tools

OUTSIDE = ['--set-json=slurmctld.host="head"']
IN_CLUSTER = ['--set-json=cluster="hpc"', '--set-json=slurmctld.host=""']
#: Arguments without which a chart does not render.
NEEDED = {
    "slurm-cluster": [],
    "slurm-jupyter": OUTSIDE,
    "slurm-jupyterhub": [*OUTSIDE, '--set-json=munge.existingSecret="key"'],
}
#: Beside which arguments a value has an effect, by what its name begins with.
BESIDE = {
    "cluster": ['--set-json=slurmctld.host=""'],
    "sharedClaim": IN_CLUSTER,
    "singleuser.extraFiles.munge-key": ['--set-json=singleuser.extraFiles.munge-key.binaryData="MDEy"'],
    "singleuser.extraFiles.slurm-conf": ['--set-json=singleuser.extraFiles.slurm-conf.stringData="ClusterName=x"'],
}
#: Another value than the default, by the last part of its name or all of it; the others are found by their type.
OTHER: dict[str, Any] = {
    "accessModes": ["ReadWriteOnce"],
    "affinity": {"nodeAffinity": {}},
    "authorizedKeys": {"alice": "ssh-ed25519 AAAA"},
    "capabilities": ["SYS_PTRACE"],
    "cgroup": {"80-site.conf": "AllowedRAMSpace=90"},
    "clusterAddresses": ["192.0.2.0/24"],
    "cpu.guarantee": 1,
    "cpu.limit": 3,
    "cpus": 4,
    "debug": "debug",
    "env": {"SLURM_TZ": "Europe/Berlin"},
    "extraEnv": {"TEAM": "hpc"},
    "from": [{"podSelector": {"matchLabels": {"team": "hpc"}}}],
    "gres": "gpu:2",
    "hostAliases": [{"ip": "192.0.2.8", "hostnames": ["n1"]}],
    "hostPath": "/srv/slurm",
    "hub.config": {"40-ours.py": "c.JupyterHub.active_server_limit = 5"},
    "memory": 2000,
    "memory.guarantee": "1G",
    "memory.limit": "3G",
    "mode": 256,
    "mountPath": "/elsewhere",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "podAnnotations": {"example.org/team": "hpc"},
    "pullPolicy": "Always",
    "size": "9Gi",
    "slurm": {"80-site.conf": "PartitionName=long Nodes=ALL"},
    "slurmdbd": {"80-site.conf": "PurgeJobAfter=12months"},
    "spawner": "batch",
    "tolerations": [{"key": "hpc", "operator": "Exists"}],
    "type": "NodePort",
}


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """The values that are set one by one, by their dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found += leaves(value, (*path, name))
        else:
            found.append((".".join([*path, name]), value))
    return found


def defaults(name: str) -> dict[str, Any]:
    """A chart's values.yaml."""
    found: dict[str, Any] = yaml.safe_load((Chart(name, tools(HELM[-1]).helm).folder / "values.yaml").read_text())
    return found


def other(name: str, value: Any) -> Any:
    """A value that is not the default."""
    short = name.rpartition(".")[2]
    for known in (name, ".".join(name.split(".")[-2:]), short):
        if known in OTHER:
            return OTHER[known]
    if "resources" in name:
        return "77m" if short == "cpu" else "777Mi"
    match value:
        case bool():
            return not value
        case int():
            return value + 7
        case str():
            return f"{value}x"
        case list():
            return ["other"]
    raise AssertionError(f"say in OTHER which value {name} may have beside {value!r}")


def without_keys(manifests: Manifests) -> str:
    """Rendered manifests to compare: what is made at random is not in them."""
    for each in manifests:
        if each["kind"] == "Secret":
            random = {"munge.key", "jwt_hs256.key", "jupyter_token"}
            each["data"] = {key: "random" if key in random else value for key, value in each["data"].items()}
    return json.dumps(manifests, sort_keys=True)


@pytest.mark.parametrize("name", CHARTS)
def test_every_value_has_an_effect(name: str) -> None:
    chart = Chart(name, tools(HELM[-1]).helm)
    render = functools.cache(lambda *arguments: without_keys(chart.template(*NEEDED[name], *arguments)))
    without = []
    for leaf, value in leaves(defaults(name)):
        beside = next((each for start, each in BESIDE.items() if f"{leaf}.".startswith(f"{start}.")), [])
        # A cluster inside takes the place of the one outside.
        before = [] if leaf == "cluster" else beside
        if render(*before) == render(*beside, f"--set-json={leaf}={json.dumps(other(leaf, value))}"):
            without.append(leaf)
    assert without == []


@pytest.mark.parametrize("name", CHARTS)
def test_schema_has_every_value(name: str) -> None:
    schema = json.loads((Chart(name, tools(HELM[-1]).helm).folder / "values.schema.json").read_text())

    def known(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> list[str]:
        if "$ref" in schema or "properties" not in schema:
            return []
        assert schema["additionalProperties"] is False, path or name
        missing = [f"{path}{key}" for key in values.keys() - schema["properties"].keys()]
        for key, value in values.items():
            if isinstance(value, dict) and key in schema["properties"]:
                missing += known(schema["properties"][key], value, f"{path}{key}.")
        return missing

    assert known(schema, defaults(name)) == []


@pytest.mark.parametrize(
    ("name", "argument", "says"),
    [
        ("slurm-cluster", "--set=nodes.replica=3", "replica"),
        ("slurm-cluster", "--set=nodes.replicas=0", "replicas"),
        ("slurm-cluster", "--set=nodes.replicas=two", "replicas"),
        ("slurm-cluster", "--set=nodes.capabilities={ALL}", "capabilities"),
        ("slurm-cluster", "--set=nodes.capabilities={CAP_SYS_ADMIN}", "capabilities"),
        ("slurm-cluster", "--set=nodes.gres=gpu", "gres"),
        ("slurm-cluster", "--set=slurmrestd.service.port=0", "port"),
        ("slurm-cluster", "--set=storage.hostPath=relative", "hostPath"),
        ("slurm-cluster", "--set=config.slurm.site=X", "site"),
        ("slurm-jupyter", "--set=cluster=hpc", "two clusters"),
        ("slurm-jupyter", '--set-json=slurmctld.host=""', "which cluster"),
        ("slurm-jupyterhub", "--set=cluster=hpc", "two clusters"),
        ("slurm-jupyterhub", '--set-json=slurmctld.host=""', "which cluster"),
        ("slurm-jupyterhub", '--set-json=munge.existingSecret=""', "no munge key"),
        ("slurm-jupyterhub", "--set=spawner=docker", "spawner"),
        ("slurm-jupyterhub", "--set=singleuser.extraFiles.munge-key.binaryData=a$b", "binaryData"),
    ],
)
def test_value_that_cannot_be_meant_is_refused_by_name(name: str, argument: str, says: str) -> None:
    with pytest.raises(SlurmTestbedError, match=says):
        Chart(name, tools(HELM[-1]).helm).template(*NEEDED[name], argument)
