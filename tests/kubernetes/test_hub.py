"""The chart slurm-jupyterhub: servers that are pods, clients of the cluster; slurm.conf and munge.key by extraFiles."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_testbed import SlurmOnKubernetes
from slurm_testbed.kubernetes import KubernetesSubstrate
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release
from tests.kubernetes.conftest import DEADLINE, SERVERS, installed, logged_in

pytestmark = pytest.mark.requires("kubernetes")
NAME = "slurm-jupyterhub"


@pytest.fixture
def forwards(cluster: SlurmOnKubernetes) -> Iterator[Forwards]:
    """Ports of the cluster's namespace."""
    made = Forwards(cluster.kubectl)
    yield made
    made.close()


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
