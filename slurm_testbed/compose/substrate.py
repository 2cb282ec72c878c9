"""A compose project as a substrate: each host is a container."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import docker
from docker.models.containers import Container

from slurm_testbed import vm
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.errors import UsageError
from slurm_testbed.substrate import Attach, Facts, Host

#: The services of compose/cluster.yaml by what they run besides munged; controller first. Nodes are n1 … nN.
_ROLES = {
    "slurmctld": {"munged", "slurmctld"},
    "slurmdbd": {"munged", "slurmdbd"},
    "database": {"mariadbd"},
    "slurmrestd": {"munged", "slurmrestd"},
    "client": {"munged"},
    "login": {"munged", "sshd"},
}
_NODE = re.compile(r"n([1-9][0-9]*)")


class ComposeSubstrate:
    """The containers of a project, each a host by the name of its service.

    Args:
        containers: the containers by service.
        host: at which name or address the engine publishes ports.
    """

    def __init__(self, containers: Mapping[str, Container], *, host: str = "127.0.0.1") -> None:
        nodes = sorted((int(found[1]), name) for name in containers if (found := _NODE.fullmatch(name)))
        self._nodes = [name for _, name in nodes]
        names = [name for name in _ROLES if name in containers] + self._nodes
        place = vm.place_of(cast(docker.DockerClient, containers[names[0]].client))
        self._hosts = {name: ContainerSubstrate(containers[name], host=host, place=place) for name in names}

    def container(self, host: str) -> Container:
        """The container that is a host."""
        return self._of(host).container

    def _of(self, host: str) -> ContainerSubstrate:
        if host not in self._hosts:
            raise UsageError(f"this cluster has no host {host}", hint=f"its hosts are {', '.join(self._hosts)}")
        return self._hosts[host]

    def hosts(self) -> Sequence[Host]:
        """Every host, controller first, the nodes last."""
        return [Host(name, frozenset(_ROLES.get(name, {"munged", "slurmd"}))) for name in self._hosts]

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
        """Run a command on a host."""
        return self._of(host).exec(host, argv, user=user, stdin=stdin, env=env, workdir=workdir)

    def put(self, host: str, files: Mapping[str, bytes], *, mode: int = 0o644, owner: str = "root") -> None:
        """Write files on a host."""
        self._of(host).put(host, files, mode=mode, owner=owner)

    def logs(self, host: str, daemon: str | None = None) -> str:
        """A daemon's log, or the log of the host's start."""
        return self._of(host).logs(host, daemon)

    def attach(self, host: str) -> Attach:
        """Through the docker command, which speaks to the same engine."""
        return self._of(host).attach(host)

    def endpoint(self, role: str, port: int) -> tuple[str, int]:
        """Where the caller reaches a published port of a host."""
        return self._of(role).endpoint(role, port)

    def service(self, host: str, daemon: str, action: Literal["stop", "start", "kill"]) -> None:
        """Stop, start or kill a daemon by its host's supervisor."""
        self._of(host).service(host, daemon, action)

    def network(self, host: str, action: Literal["cut", "restore"]) -> None:
        """Disconnect a host from the cluster's network, or connect it again under its name."""
        self._of(host).network(host, action)

    def facts(self) -> Facts:
        """What the first node's start said of cgroups."""
        return dataclasses.replace(self._of(self._nodes[0]).facts(), kind="cluster")
