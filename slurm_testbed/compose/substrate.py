"""A compose project as a substrate: each host is a container."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import docker
import yaml
from docker.models.containers import Container

from slurm_testbed import vm
from slurm_testbed.compose.project import Project, literal
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.errors import UsageError
from slurm_testbed.substrate import Attach, Facts, Host

#: The services of the files in compose/ by what they run; controller first. Nodes are n1 … nN.
_ROLES = {
    "slurmctld": {"munged", "slurmctld"},
    "slurmdbd": {"munged", "slurmdbd"},
    "database": {"mariadbd"},
    "slurmrestd": {"munged", "slurmrestd"},
    "client": {"munged"},
    "login": {"munged", "sshd"},
    "hub": {"munged", "jupyterhub"},
    "proxy": {"configurable-http-proxy"},
    "jupyter": {"munged", "jupyter-lab"},
    "postgres": {"postgres"},
    "observability": {"slurm-observability"},
    "prometheus": {"prometheus"},
    "app-sessions": {"munged", "app-sessions"},
}


class ComposeSubstrate:
    """The containers of a project, each a host by the name of its service.

    Args:
        containers: the containers by service.
        host: at which name or address the engine publishes ports.
        project: the project, to add nodes to it.
        node: what the service of a further node has besides its name.
    """

    def __init__(
        self,
        containers: Mapping[str, Container],
        *,
        host: str = "127.0.0.1",
        project: Project | None = None,
        node: Mapping[str, Any] | None = None,
    ) -> None:
        # A node is what runs the role slurmd, whatever its name.
        nodes = [name for name, found in containers.items() if (found.attrs["Config"]["Cmd"] or [])[:1] == ["slurmd"]]
        self._nodes = sorted(
            nodes, key=lambda name: [int(word) if word.isdigit() else 0 for word in re.split(r"(\d+)", name)]
        )
        names = [name for name in _ROLES if name in containers] + self._nodes
        self._client = cast(docker.DockerClient, containers[names[0]].client)
        self._host, self._place = host, vm.place_of(self._client)
        self._hosts = {name: self._as_host(containers[name]) for name in names}
        self._project = project
        self._node = dict(node or {})

    def _as_host(self, container: Container) -> ContainerSubstrate:
        return ContainerSubstrate(container, host=self._host, place=self._place)

    def container(self, host: str) -> Container:
        """The container that is a host."""
        return self._of(host).container

    def _of(self, host: str) -> ContainerSubstrate:
        if host not in self._hosts:
            raise UsageError(f"this cluster has no host {host}", hint=f"its hosts are {', '.join(self._hosts)}")
        return self._hosts[host]

    def hosts(self) -> Sequence[Host]:
        """Every host, controller first, the nodes last."""
        return [Host(name, self._daemons(name)) for name in self._hosts]

    def _daemons(self, name: str) -> frozenset[str]:
        """The daemons of a host's role, and the services beside them."""
        settings = dict(line.split("=", 1) for line in self._of(name).container.attrs["Config"]["Env"])
        services = settings.get("SLURM_TESTBED_SERVICES", "").split()
        return frozenset(_ROLES.get(name, {"munged", "slurmd"})) | frozenset(services)

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

    def add_node(self, name: str, conf: str) -> None:
        """Start one more container with the role slurmd, as a dynamic node."""
        if self._project is None:
            raise UsageError("nodes are added by the process that started this cluster")
        if name in self._hosts:
            raise UsageError(f"there is a host {name} already", hint=f"its hosts are {', '.join(self._hosts)}")
        settings = {**self._node.get("environment", {}), "SLURM_NODE_CONF": literal(conf)}
        service = {**self._node, "hostname": name, "environment": settings}
        path = self._project.files[-1].with_name(f"node-{name}.yaml")
        path.write_text(yaml.safe_dump({"services": {name: service}}))
        project = dataclasses.replace(self._project, files=[*self._project.files, path])
        project.run("up", "--detach", "--no-deps", "--no-recreate", name)
        self._hosts[name] = self._as_host(project.containers(self._client)[name])

    def remove_node(self, name: str) -> None:
        """Remove the container of a dynamic node."""
        self._of(name).container.remove(force=True, v=True)
        del self._hosts[name]

    def facts(self) -> Facts:
        """What the first node's start said of cgroups."""
        return dataclasses.replace(self._of(self._nodes[0]).facts(), kind="cluster")
