"""The chart slurm-cluster on a Kubernetes: jobs, REST, upgrade, scaling, a pod that is killed, and the end."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slurm_testbed import ClusterKeys, SlurmOnKubernetes
from slurm_testbed.errors import EngineError, NotReadyError, UsageError
from slurm_testbed.kubernetes import KubernetesSubstrate
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.releases import Release

pytestmark = pytest.mark.requires("kubernetes")


def idle(cluster: SlurmOnKubernetes) -> set[str]:
    """The nodes that can take a job."""
    said = cluster.run(["sinfo", "--noheader", "--Node", "--format=%N %t"], host="login").stdout
    return {line.split()[0] for line in said.splitlines() if line.split()[1] == "idle"}


def pod_uid(cluster: SlurmOnKubernetes, host: str) -> str:
    """What tells a pod from another one of the same name."""
    assert isinstance(cluster.substrate, KubernetesSubstrate)
    return str(cluster.kubectl.get("pod", cluster.substrate.pod(host))["metadata"]["uid"])


def namespaces(cluster: SlurmOnKubernetes) -> list[dict[str, Any]]:
    """All that there are."""
    found: list[dict[str, Any]] = Kubectl(cluster.kubectl.program, "default").get("namespaces")["items"]
    return found


def test_job_runs_on_both_nodes(cluster: SlurmOnKubernetes) -> None:
    assert idle(cluster) == {"n1", "n2"}

    job = cluster.sbatch(wrap="srun printenv SLURMD_NODENAME", nodes=2)

    assert job.wait().state == "COMPLETED"
    assert sorted(job.output().split()) == ["n1", "n2"]


def test_job_over_rest_is_in_the_accounting(cluster: SlurmOnKubernetes) -> None:
    job_id = cluster.rest(user="alice").submit("#!/bin/sh\nexit 3", partition="debug")

    assert cluster.job(job_id).wait().exit_code == 3
    asked = ["--allocations", f"--jobs={job_id}", "--format=State,ExitCode"]
    cluster.wait_until(
        lambda: cluster.sacct(*asked) == [{"State": "FAILED", "ExitCode": "3:0"}],
        "the job's end in the accounting",
        state=lambda: str(cluster.sacct(*asked)),
    )


def test_key_is_the_secrets_and_nobody_elses(cluster: SlurmOnKubernetes) -> None:
    secret = cluster.kubectl.get("secret", "slurm-cluster-munge-key")["data"]["munge.key"]

    for host in ("slurmctld", "slurmdbd", "slurmrestd", "login", "n1", "n2"):
        said = cluster.run(
            ["sh", "-c", "base64 --wrap=0 /etc/munge/munge.key; stat -c ' %a %U' /etc/munge/munge.key"], host=host
        )
        assert said.stdout == f"{secret} 400 munge\n", host
    assert len(base64.b64decode(secret)) == 128


def test_upgrade_keeps_keys_and_jobs(cluster: SlurmOnKubernetes) -> None:
    def keys() -> list[object]:
        return [cluster.kubectl.get("secret", f"slurm-cluster-{kind}-key")["data"] for kind in ("munge", "jwt")]

    before = keys()
    job = cluster.sbatch(wrap="until [ -e ~/go-on ]; do sleep 0.2; done", nodelist="n1")
    job.wait(until={"RUNNING"})
    nodes = [pod_uid(cluster, name) for name in ("n1", "n2")]
    controller = pod_uid(cluster, "slurmctld")

    cluster.upgrade({"config": {"slurm": {"80-late.conf": "MaxJobCount=4711\n"}}})

    assert keys() == before
    assert [pod_uid(cluster, name) for name in ("n1", "n2")] == nodes, "nodes were made anew, and jobs ended"
    assert pod_uid(cluster, "slurmctld") != controller
    assert "MaxJobCount             = 4711" in cluster.run(["scontrol", "show", "config"]).stdout
    cluster.run(["touch", "/home/alice/go-on"], user="alice", host="login")
    assert job.wait().state == "COMPLETED"


def test_cluster_grows_to_four_nodes_and_back_while_a_job_runs(cluster: SlurmOnKubernetes) -> None:
    job = cluster.sbatch(wrap="until [ -e ~/grown ]; do sleep 0.2; done", nodelist="n1")
    job.wait(until={"RUNNING"})

    cluster.scale(4)

    cluster.wait_until(lambda: idle(cluster) == {"n2", "n3", "n4"}, "the new nodes", state=lambda: str(idle(cluster)))
    assert sorted(cluster.srun("printenv", "SLURMD_NODENAME", nodelist="n[2-4]", nodes=3).split()) == ["n2", "n3", "n4"]

    cluster.scale(2)

    assert sorted(cluster.nodes()) == ["n1", "n2"]
    assert job.state == "RUNNING"
    cluster.run(["touch", "/home/alice/grown"], user="alice", host="login")
    assert job.wait().state == "COMPLETED"


def test_node_whose_pod_is_killed_comes_back_under_its_name(cluster: SlurmOnKubernetes) -> None:
    assert isinstance(cluster.substrate, KubernetesSubstrate)
    job = cluster.sbatch(wrap="until [ -e ~/restarted ]; do sleep 0.2; done; echo done", nodelist="n2", requeue=True)
    job.wait(until={"RUNNING"})
    before = pod_uid(cluster, "n2")

    cluster.kubectl("delete", "pod", cluster.substrate.pod("n2"), "--grace-period=0", "--force", "--wait=false")
    cluster.wait_rolled_out()

    assert pod_uid(cluster, "n2") != before
    # The job went with the pod. A requeued one is held back until its credential has run out.
    cluster.run(["touch", "/home/alice/restarted"], user="alice", host="login")
    cluster.wait_until(lambda: job.state == "PENDING", "the job to be requeued", state=lambda: job.state)
    cluster.run(["scontrol", "update", f"JobId={job.id}", "StartTime=now"])
    assert job.wait().state == "COMPLETED"
    assert job.output() == "done\n"
    assert cluster.srun("printenv", "SLURMD_NODENAME", nodelist="n2") == "n2\n"


@pytest.mark.requires("dynamic_nodes")
def test_dynamic_node_joins_and_leaves(cluster: SlurmOnKubernetes) -> None:
    cluster.add_node("burst1", conf="CPUs=2 RealMemory=500 Feature=burst", deadline=90)

    assert cluster.srun("printenv", "SLURMD_NODENAME", constraint="burst") == "burst1\n"

    cluster.remove_node("burst1")
    assert "burst1" not in cluster.nodes()
    assert "burst1" not in [host.name for host in cluster.substrate.hosts()]


def test_login_host_lets_in_who_has_a_key(slurm_release: Release, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    public = (tmp_path / "key.pub").read_text().strip()
    values = {"login": {"authorizedKeys": {"alice": public}}}

    with SlurmOnKubernetes(slurm_release.version, nodes=1, values=values) as one:
        address, port = one.substrate.endpoint("login", 22)
        settings = ["BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path}/hosts"]
        options = ["-i", str(tmp_path / "key"), "-p", str(port), *(f"-o{setting}" for setting in settings)]
        argv = ["ssh", *options, f"alice@{address}", "srun printenv SLURMD_NODENAME"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.stdout == "n1\n", done.stderr


def test_own_keys_and_settings_are_the_clusters(slurm_release: Release) -> None:
    keys = ClusterKeys.generate()

    with SlurmOnKubernetes(slurm_release.version, nodes=1, keys=keys, cpus=7, memory=900) as one:
        assert base64.b64decode(one.run(["base64", "--wrap=0", "/etc/munge/munge.key"]).stdout) == keys.munge.data
        node = one.nodes()["n1"]
        assert (node["CPUTot"], node["RealMemory"]) == ("7", "900")


def test_cgroups_hold_jobs_or_the_start_says_why_not(slurm_release: Release) -> None:
    said = ""
    try:
        with SlurmOnKubernetes(slurm_release.version, nodes=1, cgroups=True) as one:
            enforced = one.substrate.facts().cgroup
    except EngineError as error:
        enforced, said = "none", str(error)

    assert enforced != "none" or "cgroup" in said.partition("jobs are not held in cgroups on this Kubernetes: ")[2]


def test_nothing_is_left(slurm_release: Release) -> None:
    one = SlurmOnKubernetes(slurm_release.version, nodes=1).start()
    assert one.name in [each["metadata"]["name"] for each in namespaces(one)]

    one.stop()
    one.stop()

    assert one.name not in [each["metadata"]["name"] for each in namespaces(one)]
    volumes = Kubectl(one.kubectl.program, "default").get("persistentvolumes")["items"]
    assert one.name not in [each["spec"].get("claimRef", {}).get("namespace") for each in volumes]


#: A process that dies when the namespace is there and the chart is not.
_DIES = """
import os, sys
from slurm_testbed.kubernetes import SlurmOnKubernetes
one = SlurmOnKubernetes(sys.argv[1], nodes=1)
one._install = lambda: (print(one.name, flush=True), os._exit(1))
one.start()
"""


def test_cluster_of_a_dead_process_is_removed_by_the_next(slurm_release: Release) -> None:
    argv = [sys.executable, "-c", _DIES, slurm_release.version]
    name = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    assert name.startswith("slurm-")

    with SlurmOnKubernetes(slurm_release.version, nodes=1) as one:
        left = [each["metadata"] for each in namespaces(one) if each["metadata"]["name"] == name]
        assert all("deletionTimestamp" in each for each in left), left


def test_image_that_is_not_there_is_named(slurm_release: Release) -> None:
    values = {"image": {"repository": "nowhere.invalid/slurm"}}

    with pytest.raises(NotReadyError) as caught:
        SlurmOnKubernetes(slurm_release.version, nodes=1, values=values, deadline=15).start()

    assert "nowhere.invalid/slurm/slurm-single-node" in str(caught.value)
    assert "are they where this Kubernetes finds them?" in str(caught.value)


def test_value_that_the_chart_does_not_know_is_told(slurm_release: Release) -> None:
    with pytest.raises(EngineError, match="(?s)helm install: .*nodse"):
        SlurmOnKubernetes(slurm_release.version, values={"nodse": {"replicas": 3}}).start()


def test_commands_on_this_machines_path_are_refused_with_the_way_out(
    cluster: SlurmOnKubernetes, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="jobs in pods do not see its folders"), cluster.on_path(tmp_path):
        pass
