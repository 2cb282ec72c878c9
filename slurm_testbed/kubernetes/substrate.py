"""A release of the chart slurm-cluster as a substrate: each host is a pod."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slurm_testbed.errors import EngineError, UsageError
from slurm_testbed.hosts import archive, cgroup_of, control, log_of
from slurm_testbed.kubernetes.forward import Forwards
from slurm_testbed.kubernetes.kubectl import Kubectl
from slurm_testbed.substrate import Attach, Facts, Host

#: Daemons by the container's name in the chart; controller first. Nodes are n1 … nN.
_ROLES = {
    "slurmctld": {"munged", "slurmctld"},
    "slurmdbd": {"munged", "slurmdbd"},
    "database": {"mariadbd"},
    "slurmrestd": {"munged", "slurmrestd"},
    "login": {"munged", "sshd"},
}
_NODE = "slurmd"
_DYNAMIC = "slurmd-dynamic"
_COMPONENT = "app.kubernetes.io/component"
#: Becomes another user, as `docker exec --user` does: root's groups, HOME and folder are left behind.
_AS_USER = (
    'user=$1 folder=$2; shift 2; HOME=$(getent passwd "$user" | cut -d: -f6); export HOME; cd "${folder:-/}" && '
    'exec setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --init-groups "$@"'
)


@dataclass(frozen=True)
class _Pod:
    name: str
    container: str
    capabilities: frozenset[str]


class KubernetesSubstrate:
    """The pods of a release, each a host by its name in Slurm.

    Args:
        kubectl: kubectl in the release's namespace.
        name: what the names of its objects begin with.
    """

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl = kubectl
        self._name = name
        self._forwards = Forwards(kubectl)
        self._pods = self._found()

    def _found(self) -> dict[str, _Pod]:
        """Every host with its pod, controller first, the nodes last."""
        label = f"org.slurm-testbed.cluster={self._name}"
        running = [
            pod
            for pod in self._kubectl.get("pods", f"--selector={label}")["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]
        by_container = {
            container["name"]: (pod, container) for pod in running for container in pod["spec"]["containers"]
        }
        hosts = {name: _as_pod(*by_container[name]) for name in _ROLES if name in by_container}
        nodes = {
            _node_name(pod): _as_pod(pod, pod["spec"]["containers"][0])
            for pod in running
            if pod["metadata"]["labels"].get(_COMPONENT) in {_NODE, _DYNAMIC}
        }
        order = sorted(
            nodes, key=lambda name: [int(word) if word.isdigit() else 0 for word in re.split(r"(\d+)", name)]
        )
        return hosts | {name: nodes[name] for name in order}

    def refresh(self) -> None:
        """Look again which pods there are: one that was made anew has another name."""
        self._pods = self._found()

    def pod(self, host: str) -> str:
        """The name of the pod that is a host.

        Raises:
            UsageError: there is no such host.
        """
        return self._of(host).name

    def _of(self, host: str) -> _Pod:
        if host not in self._pods:
            raise UsageError(f"this cluster has no host {host}", hint=f"its hosts are {', '.join(self._pods)}")
        return self._pods[host]

    def hosts(self) -> Sequence[Host]:
        """Every host, controller first, the nodes last."""
        return [Host(name, frozenset(_ROLES.get(name, {"munged", "slurmd"}))) for name in self._pods]

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod."""
        pod = self._of(host)
        settings = [f"{name}={value}" for name, value in {"USER": user, "LOGNAME": user, **(env or {})}.items()]
        if user != "root":
            command = ["env", *settings, "sh", "-c", _AS_USER, "sh", user, workdir or "", *argv]
        else:
            command = ["env", *(["--chdir", workdir] if workdir else []), *settings, *argv]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        code, out, err = self._kubectl.exec(pod.name, pod.container, command, given)
        return subprocess.CompletedProcess(list(argv), code, out, err)

    def put(self, host: str, files: Mapping[str, bytes], *, mode: int = 0o644, owner: str = "root") -> None:
        """Write files in a pod; a change of owner comes last, so that nobody reads a key in between."""
        done = self.exec(host, ["tar", "-C", "/", "-xpf", "-"], stdin=archive(files, mode))
        if done.returncode:
            raise EngineError(f"{', '.join(files)} did not come to {host}: {done.stderr.strip()}")
        if owner != "root":
            self.exec(host, ["chown", owner, *files])

    def logs(self, host: str, daemon: str | None = None) -> str:
        """A daemon's log file, or the log of the pod's start."""
        if daemon is None:
            pod = self._of(host)
            return self._kubectl("logs", pod.name, f"--container={pod.container}")
        return log_of(self, host, daemon)

    def attach(self, host: str) -> Attach:
        """Not by the caller's own programs: folders of this machine are not in pods."""
        raise UsageError(
            f"Slurm's commands of {host} do not come to this machine's PATH: jobs in pods do not see its folders",
            hint="run them in the cluster: slurm.run, slurm.sbatch; or on a cluster of containers: SlurmCluster",
        )

    def endpoint(self, role: str, port: int) -> tuple[str, int]:
        """Where `kubectl port-forward` brings the caller to a port of a pod."""
        return "127.0.0.1", self._forwards.port(self._of(role).name, port)

    def service(self, host: str, daemon: str, action: Literal["stop", "start", "kill"]) -> None:
        """Stop, start or kill a daemon by its pod's supervisor."""
        control(self, host, daemon, action)

    def network(self, host: str, action: Literal["cut", "restore"]) -> None:
        """Not here: whether a NetworkPolicy holds is up to the network of the Kubernetes."""
        raise UsageError(f"{action} of {host}'s network is not possible on Kubernetes", hint="use a SlurmCluster")

    def add_node(self, name: str, conf: str) -> None:
        """Start one more pod like those of the nodes, as a dynamic node."""
        if name in self._pods:
            raise UsageError(f"there is a host {name} already", hint=f"its hosts are {', '.join(self._pods)}")
        template = self._kubectl.get("statefulset", f"{self._name}-node")["spec"]["template"]
        pod = dynamic_pod(template, f"{self._name}-{name}", name, conf)
        self._kubectl("create", "--filename=-", stdin=json.dumps(pod))
        self._kubectl("wait", "--for=condition=Initialized", f"pod/{self._name}-{name}", "--timeout=60s")
        self._pods[name] = _as_pod(pod, pod["spec"]["containers"][0])

    def remove_node(self, name: str) -> None:
        """Remove the pod of a dynamic node."""
        self._kubectl("delete", "pod", self._of(name).name, "--wait", "--timeout=120s")
        del self._pods[name]

    def facts(self) -> Facts:
        """What the first node's configuration says of cgroups."""
        node = next(host.name for host in self.hosts() if "slurmd" in host.daemons)
        conf = self.exec(node, ["cat", "/etc/slurm/cgroup.conf"]).stdout
        return Facts("kubernetes", cgroup=cgroup_of(conf), capabilities=self._of(node).capabilities)

    def close(self) -> None:
        """End what brings the caller to ports."""
        self._forwards.close()


def dynamic_pod(template: Mapping[str, Any], pod: str, node: str, conf: str) -> dict[str, Any]:
    """A pod for a dynamic node, made of the template of the others.

    Args:
        template: of the StatefulSet.
        pod: its name.
        node: the node's name.
        conf: the node's configuration: slurmd(8), `--conf`.

    Example:
        >>> template = {"metadata": {"labels": {}}, "spec": {"containers": [{"env": []}]}}
        >>> made = dynamic_pod(template, "c-b1", "b1", "CPUs=2")
        >>> made["spec"]["hostname"], made["spec"]["containers"][0]["args"]
        ('b1', ['slurmd'])
    """
    spec = {**template["spec"], "hostname": node, "restartPolicy": "Always"}
    first = {**spec["containers"][0], "args": ["slurmd"]}
    first.pop("command", None)
    first["env"] = [*first["env"], {"name": "SLURM_NODE_CONF", "value": conf}]
    spec["containers"] = [first]
    labels = {**template["metadata"]["labels"], _COMPONENT: _DYNAMIC}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels}, "spec": spec}


def _by_number(name: str) -> list[int]:
    return [int(word) if word.isdigit() else 0 for word in re.split(r"(\d+)", name)]


def _as_pod(pod: Mapping[str, Any], container: Mapping[str, Any]) -> _Pod:
    added = container.get("securityContext", {}).get("capabilities", {}).get("add", [])
    return _Pod(pod["metadata"]["name"], container["name"], frozenset(added))


def _node_name(pod: Mapping[str, Any]) -> str:
    """Pods of the StatefulSet are counted from 0, Slurm's nodes from 1; a dynamic node's is its host name."""
    if pod["metadata"]["labels"][_COMPONENT] == _DYNAMIC:
        return str(pod["spec"]["hostname"])
    return f"n{int(pod['metadata']['name'].rpartition('-')[2]) + 1}"
