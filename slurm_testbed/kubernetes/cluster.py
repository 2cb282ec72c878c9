"""A cluster on Kubernetes, from charts/slurm-cluster."""

from __future__ import annotations

import atexit
import base64
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from slurm_testbed import data
from slurm_testbed.children import output_of
from slurm_testbed.engine import LABEL_CLUSTER, LABEL_OWNER, is_dead, owner
from slurm_testbed.errors import EngineError, NotReadyError, UsageError, tail
from slurm_testbed.evidence import leave
from slurm_testbed.keys import ClusterKeys
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.kubernetes.substrate import KubernetesSubstrate
from slurm_testbed.kubernetes.tools import tools
from slurm_testbed.releases import Releases
from slurm_testbed.slurm import Slurm

#: Files of values for every cluster, in the order in which Helm takes them: what a site's Kubernetes wants.
VALUES_VARIABLE = "SLURM_TESTBED_HELM_VALUES"
#: The release of Helm, which the names of all objects begin with.
_NAME = "slurm-cluster"
#: What has to come, the head node last.
_WORKLOADS = ("statefulset/{}-node", "deployment/{}-slurmrestd", "deployment/{}-login", "deployment/{}-slurmctld")


class SlurmOnKubernetes(Slurm):
    """A cluster on the Kubernetes that KUBECONFIG names, in a namespace of its own: the chart slurm-cluster.

    Its images must be where that Kubernetes finds them: `image.repository` of the values.

    Args:
        release: a version or minor release; the default release where none is given.
        nodes: how many nodes, n1 … nN, each a pod.
        cpus: processors of each node; by default the machine's own.
        memory: MiB of each node.
        cgroups: hold jobs in cgroups on the nodes.
        keys: keys to use; by default the chart makes them.
        conf: fragments of slurm.conf by file name; the name of one of ours replaces it.
        env: further settings of all hosts: docs/images.md.
        values: further values of the chart; what is given above counts more, and `image.tag` here more than the
            release: charts/slurm-cluster/values.yaml.
        deadline: seconds until the cluster must be ready; images that are pulled count.
        user: who submits where no user is named.
        owner: who removes it; by default this process, after whose death the next one does.

    Raises:
        EngineError: no Kubernetes answers, or it refuses.
        NotReadyError: with the pods' events and logs.

    Example:
        >>> with SlurmOnKubernetes("24.11", nodes=2) as slurm:  # doctest: +SKIP
        ...     slurm.srun("hostname", nodes=2)
        'slurm-cluster-node-0\\nslurm-cluster-node-1\\n'
    """

    def __init__(
        self,
        release: str | None = None,
        *,
        nodes: int = 2,
        cpus: int | None = None,
        memory: int | None = None,
        cgroups: bool = False,
        keys: ClusterKeys | None = None,
        conf: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        deadline: float = 180,
        user: str = "alice",
        owner: str | None = None,
    ) -> None:
        if nodes < 1:
            raise UsageError(f"a cluster has at least one node, not {nodes}")
        self.release = Releases.load().find(release)
        self.keys = keys
        self.deadline = deadline
        self.user = user
        self.name = f"slurm-{secrets.token_hex(4)}"
        self._owner = owner
        self._started = False
        # One that was not given leaves what a site, or `values`, says.
        size = {name: value for name, value in {"cpus": cpus, "memory": memory, "cgroups": cgroups}.items() if value}
        self._values: dict[str, Any] = {
            "nodes": {"replicas": nodes, **size},
            "config": {"slurm": dict(conf or {})},
            "env": dict(env or {}),
            "startDeadline": int(deadline),
            **({"keys": {kind: {"existingSecret": f"given-{kind}"} for kind in ("munge", "jwt")}} if keys else {}),
        }
        self._more = dict(values or {})

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Install the chart and wait until every daemon answers.

        Raises:
            EngineError: no Kubernetes answers, or it refuses.
            NotReadyError: the pods did not come.
        """
        programs = tools()
        self._helm = programs.helm
        self.kubectl = Kubectl(programs.kubectl, self.name)
        sweep(self.kubectl)
        self._started = True
        if self._owner is None:
            atexit.register(self.stop)
        try:
            self.kubectl("create", "--filename=-", stdin=json.dumps(self._namespace()))
            if self.keys:
                self.kubectl("create", "--filename=-", stdin=json.dumps(self._secrets(self.keys)))
            self._install()
            Slurm.__init__(self, KubernetesSubstrate(self.kubectl, _NAME), user=self.user)
            if _merged(self._more, self._values)["nodes"].get("cgroups"):
                self._check_cgroups()
        except BaseException:
            self.stop()
            raise
        return self

    def _check_cgroups(self) -> None:
        if self.substrate.facts().cgroup == "none":
            said = [line for line in self.substrate.logs("n1").splitlines() if "cgroup" in line]
            raise EngineError(
                f"jobs are not held in cgroups on this Kubernetes: {' '.join(said[:2])}",
                hint="its pods need cgroups of their own, as with cgroup v2; or start without cgroups",
            )

    def _namespace(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.name,
                "labels": {LABEL_CLUSTER: self.name},
                # No label: its value has characters that those must not have.
                "annotations": {LABEL_OWNER: self._owner or owner()},
            },
        }

    def _secrets(self, keys: ClusterKeys) -> dict[str, Any]:
        given = {"given-munge": ("munge.key", keys.munge), "given-jwt": ("jwt_hs256.key", keys.jwt)}
        items = [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "data": {file: base64.b64encode(key.data).decode()},
            }
            for name, (file, key) in given.items()
        ]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def _install(self) -> None:
        self._run_helm("install")
        self.wait_rolled_out()

    def _run_helm(self, action: str) -> None:
        site = [path for path in os.environ.get(VALUES_VARIABLE, "").split(os.pathsep) if path]
        with tempfile.TemporaryDirectory(prefix="slurm-testbed-values-") as folder:
            ours = []
            for number, values in enumerate(({"image": {"tag": self.release.version}}, self._more, self._values)):
                ours.append(f"{folder}/{number}.yaml")
                Path(ours[-1]).write_text(yaml.safe_dump(values))
            files = [ours[0], *site, *ours[1:]]
            argv = [str(self._helm), action, _NAME, str(data.charts() / "slurm-cluster"), f"--namespace={self.name}"]
            code, text = output_of([*argv, *(f"--values={file}" for file in files)])
        if code:
            raise EngineError(f"helm {action}: {tail(text.strip(), 10)}", hint="KUBECONFIG names the Kubernetes")

    def wait_rolled_out(self) -> None:
        """Wait until all pods are there, of the newest configuration, and their daemons answer.

        Raises:
            NotReadyError: with the pods' events and logs.
        """
        ends = time.monotonic() + self.deadline
        for workload in _WORKLOADS:
            left = max(1, round(ends - time.monotonic()))
            argv = self.kubectl.argv("rollout", "status", workload.format(_NAME), f"--timeout={left}s")
            code, text = output_of(argv)
            if code:
                raise NotReadyError(
                    f"{workload.format(_NAME)} of {self.name} to be ready",
                    deadline=self.deadline,
                    last_state=f"{tail(text.strip(), 3)}\n{self._pods_now()}",
                    log=self._said(),
                    hint=f"the images are {self.release.version}; are they where this Kubernetes finds them?",
                )
        if isinstance(self._substrate, KubernetesSubstrate):
            self._substrate.refresh()

    def _pods_now(self) -> str:
        return self.kubectl("get", "pods", "--no-headers").strip()

    def _said(self) -> str:
        """The events that warn, and the last lines of each container."""
        events = self.kubectl("get", "events", "--field-selector=type=Warning", "--output=custom-columns=:message")
        label = f"--selector={LABEL_CLUSTER}={_NAME}"
        logs = output_of(self.kubectl.argv("logs", label, "--all-containers", "--prefix", "--tail=4"))[1]
        return f"{tail(events.strip(), 8)}\n{tail(logs, 30)}"

    def scale(self, nodes: int) -> None:
        """Make the cluster larger or smaller, by `helm upgrade`: jobs on nodes that stay go on.

        Args:
            nodes: how many nodes from now on.

        Raises:
            NotReadyError: the pods did not come.

        Example:
            >>> slurm.scale(4)  # doctest: +SKIP
        """
        self._values["nodes"]["replicas"] = nodes
        self.upgrade({})

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Give the chart other values, by `helm upgrade`, and wait until their pods are there.

        Args:
            values: of the chart, besides those that it has: charts/slurm-cluster/values.yaml.

        Raises:
            EngineError: Helm or Kubernetes refuses.
            NotReadyError: the pods did not come.

        Example:
            >>> slurm.upgrade({"debug": "debug2"})  # doctest: +SKIP
        """
        self._values = _merged(self._values, values)
        self._run_helm("upgrade")
        self.wait_rolled_out()

    def stop(self) -> None:
        """Uninstall the chart and remove the namespace; a second call does nothing."""
        atexit.unregister(self.stop)
        if not self._started:
            return
        self._started = False
        if isinstance(self._substrate, KubernetesSubstrate):
            self._substrate.close()
        output_of([str(self._helm), "uninstall", _NAME, f"--namespace={self.name}"])
        # Nothing of this cluster is kept: whoever wants an orderly end stops the daemons first.
        self.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")
        self.kubectl(
            "delete", "namespace", self.name, "--ignore-not-found", "--wait", f"--timeout={self.deadline:.0f}s"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self, error)
        self.stop()


def _merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them.

    Example:
        >>> _merged({"nodes": {"replicas": 2, "cpus": 1}}, {"nodes": {"replicas": 4}})
        {'nodes': {'replicas': 4, 'cpus': 1}}
    """
    both = {
        key: _merged(values[key], more[key]) for key in values.keys() & more.keys() if isinstance(more[key], Mapping)
    }
    return {**values, **more, **both}


def sweep(kubectl: Kubectl) -> list[str]:
    """Remove the namespaces of clusters whose owner has died.

    Args:
        kubectl: in any namespace.

    Returns:
        Their names.

    Raises:
        EngineError: no Kubernetes answers.
    """
    try:
        found = kubectl.get("namespaces", f"--selector={LABEL_CLUSTER}")["items"]
    except EngineError as error:
        raise EngineError(
            f"no Kubernetes answers: {error.message}", hint="KUBECONFIG is the file that says where it is"
        ) from None
    due = [
        one["metadata"]["name"] for one in found if is_dead(one["metadata"].get("annotations", {}).get(LABEL_OWNER, ""))
    ]
    for name in due:
        kubectl("delete", "namespace", name, "--wait=false")
    if due:
        # Those of storage.hostPath, which belong to no namespace.
        for volume in kubectl.get("persistentvolumes")["items"]:
            if volume["spec"].get("claimRef", {}).get("namespace") in due:
                kubectl("delete", "persistentvolume", volume["metadata"]["name"], "--ignore-not-found", "--wait=false")
    return due
