"""The stack `hub` part by part, each made by a process of its own: network, storage, Slurm, JupyterHub, Jupyter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import docker

from slurm_testbed import engine
from slurm_testbed.compose.cluster import SlurmCluster
from slurm_testbed.errors import UsageError

#: Every part with the one that it needs, which needs others in turn.
PARTS: Mapping[str, str | None] = {
    "network": None,
    "storage": "network",
    "slurm": "storage",
    "jupyterhub": "slurm",
    "jupyter": "slurm",
}
#: The hosts of the parts that are no matter of the engine alone; Slurm has all others.
_HOSTS = {"jupyterhub": ("proxy", "hub"), "jupyter": ("jupyter",)}
#: On the network: what the cluster was asked to be, for the processes that make the other parts.
_SETTINGS = f"{engine.LABEL}.settings"


@dataclass(frozen=True)
class Parts:
    """A stack `hub` of which not all parts may be there.

    Attributes:
        cluster: all of it.

    Example:
        >>> parts = Parts.begin(owner="up", nodes=2)  # doctest: +SKIP
        >>> for part in ("storage", "slurm", "jupyterhub", "jupyter"):  # doctest: +SKIP
        ...     parts.make(part)
    """

    cluster: SlurmCluster

    @classmethod
    def begin(cls, owner: str, **settings: str | int | bool | None) -> Parts:
        """Make the network of a new stack.

        Args:
            owner: value of the owner label.
            settings: of `SlurmCluster`: release, nodes, cgroups, shared_nfs.

        Raises:
            UsageError: this owner has a stack of parts already.
            EngineError: an image is missing.
        """
        client = engine.connect()
        if _network_labels(client, owner):
            raise UsageError("there is a network already", hint="invoke down removes it, and what is on it")
        cluster = _cluster(owner, None, settings)
        cluster.check_images(client)
        cluster.write_override()
        cluster.project.make_networks(client, {_SETTINGS: json.dumps(settings)})
        return cls(cluster)

    @classmethod
    def find(cls, owner: str) -> Parts:
        """The stack whose network is there.

        Args:
            owner: value of the owner label.

        Raises:
            UsageError: there is none.
        """
        labels = _network_labels(engine.connect(), owner)
        if not labels:
            raise UsageError("there is no network for it", hint="make one first: invoke up.network")
        return cls(_cluster(owner, labels[engine.LABEL_CLUSTER], json.loads(labels[_SETTINGS])))

    def make(self, part: str) -> None:
        """Make one more part, and wait until it is ready.

        Args:
            part: `storage`, `slurm`, `jupyterhub` or `jupyter`.

        Raises:
            UsageError: the part that it needs is not there.
            NotReadyError: it does not become ready; it is left as it is.
        """
        needed = PARTS[part]
        if needed and not self._is_there(needed):
            raise UsageError(f"{part} needs {needed}", hint=f"make it first: invoke up.{needed}")
        if part == "storage":
            self.cluster.write_override()
            self.cluster.project.make_volumes(engine.connect())
        else:
            self.cluster.start_hosts(self._hosts(part))

    def _hosts(self, part: str) -> tuple[str, ...]:
        apart = {host for hosts in _HOSTS.values() for host in hosts}
        return _HOSTS.get(part) or tuple(host for host in self.cluster.host_names() if host not in apart)

    def _is_there(self, part: str) -> bool:
        client = engine.connect()
        if part == "network":
            return True  # by which this stack was found
        if part == "storage":
            return bool(client.volumes.list(filters={"label": f"{engine.LABEL_CLUSTER}={self.cluster.name}"}))
        running = self.cluster.project.containers(client)
        return all(host in running and running[host].status == "running" for host in self._hosts(part))


def _cluster(owner: str, name: str | None, settings: Mapping[str, str | int | bool | None]) -> SlurmCluster:
    return SlurmCluster(**{**settings, "stack": "hub", "owner": owner, "name": name})  # type: ignore[arg-type]


def _network_labels(client: docker.DockerClient, owner: str) -> Mapping[str, str]:
    """The labels of the network of an owner's stack; empty where there is none."""
    found = client.networks.list(filters={"label": [f"{engine.LABEL_OWNER}={owner}", _SETTINGS]})
    labels: Mapping[str, str] = found[0].attrs["Labels"] if found else {}
    return labels
