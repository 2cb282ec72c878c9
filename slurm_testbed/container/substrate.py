"""A single container as a substrate: how a cluster in it is spoken to."""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import docker
import docker.errors
import requests
from docker.models.containers import Container

from slurm_testbed import engine, vm
from slurm_testbed.errors import EngineError, UsageError
from slurm_testbed.hosts import archive, cgroup_of, control, log_of
from slurm_testbed.readiness import wait_until
from slurm_testbed.substrate import Attach, Facts, Host

#: Head of a frame: 1 for output or 2 for error output, three zeros, the length; Docker Engine API, ContainerAttach.
_FRAME = struct.Struct(">BxxxL")
_READY = "/run/slurm-testbed/ready"
#: Seconds in which an ordinary machine's engine says something.
_REQUEST_SECONDS = 120
#: Seconds that a command may be silent on an ordinary machine: a job that srun waits for, for example.
_SILENT_SECONDS = 600
#: Everybody may remove a file there whose random name they know; nobody may list it.
_STDIN = "/run/slurm-testbed/stdin"

#: What leads the docker command to its engine: https://docs.docker.com/reference/cli/docker/#environment-variables.
#: Others of this beginning are somebody's passwords.
_ENGINE_VARIABLES = frozenset(
    f"DOCKER_{name}" for name in ("API_VERSION", "CERT_PATH", "CONFIG", "CONTEXT", "HOST", "TLS", "TLS_VERIFY")
)


def _exec(
    container: Container, argv: list[str], user: str, env: Mapping[str, str], workdir: str | None, speed: float
) -> tuple[int, bytes, bytes]:
    """Run a command in a container: exit status, output, error output.

    Not by docker's own `exec_run`: it reads from the socket behind the HTTP reader's back, and loses what came
    together with the headers, which happens under load. Here the answer is read as a plain body.
    """
    api = cast(docker.DockerClient, container.client).api
    made = api.exec_create(container.id, argv, user=user, environment=dict(env), workdir=workdir)["Id"]
    # Private, but what every call of the API in docker itself is made of.
    start = {"data": {"Tty": False, "Detach": False}, "stream": True, "timeout": _SILENT_SECONDS * speed}
    answer = api._post_json(api._url("/exec/{0}/start", made), **start)  # type: ignore[attr-defined]
    api._raise_for_status(answer)  # type: ignore[attr-defined]
    try:
        body = answer.content
    except requests.ConnectionError as error:
        raise EngineError(
            f"{argv[0]} in {container.name} said nothing for {_SILENT_SECONDS * speed:.0f} s",
            hint="let a command that is silent for so long write to a file, and wait for that",
        ) from error
    streams = {1: bytearray(), 2: bytearray()}
    at = 0
    while at + _FRAME.size <= len(body):
        stream, length = _FRAME.unpack_from(body, at)
        streams[stream] += body[at + _FRAME.size : at + _FRAME.size + length]
        at += _FRAME.size + length

    def ended() -> Mapping[str, Any] | None:
        found = cast(Mapping[str, Any], api.exec_inspect(made))
        return None if found["Running"] else found

    state = wait_until(
        ended,
        f"the exit status of {argv[0]} in {container.name}",
        deadline=30,
        speed=speed,
    )
    return int(state["ExitCode"]), bytes(streams[1]), bytes(streams[2])


class ContainerSubstrate:
    """A single container that carries every daemon.

    Args:
        container: a running container of slurm-single-node.
        host: at which name or address the engine publishes ports.
        place: where the engine runs; asked of it if not given.
    """

    def __init__(self, container: Container, *, host: str = "127.0.0.1", place: vm.Place | None = None) -> None:
        self.container = container
        self._host = host
        self._cgroup: str | None = None
        #: From which it is cut.
        self._networks: list[str] = []
        client = cast(docker.DockerClient, container.client)
        self.place = place or vm.place_of(client)
        client.api.timeout = max(client.api.timeout or 0, math.ceil(_REQUEST_SECONDS * self.place.speed))

    @property
    def name(self) -> str:
        """The container's name, which is its host name too."""
        return cast(str, self.container.name)

    def hosts(self) -> Sequence[Host]:
        """The one host with all daemons."""
        daemons = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmrestd"}
        return [Host(self.name, frozenset(daemons))]

    def exec(
        self,
        host: str,  # noqa: ARG002  # there is only one
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container; standard input goes through a file, so that any engine can do it."""
        command = list(argv)
        if stdin is not None:
            path = f"{_STDIN}/{secrets.token_hex(8)}"
            self.put(self.name, {path: stdin.encode() if isinstance(stdin, str) else stdin}, mode=0o644)
            command = ["sh", "-c", 'exec < "$0"; rm -f "$0" 2> /dev/null; exec "$@"', path, *command]
        environment = {"USER": user, "LOGNAME": user, **(env or {})}
        try:
            code, out, err = _exec(self.container, command, user, environment, workdir, self.place.speed)
        except docker.errors.APIError as error:
            raise EngineError(
                f"the engine did not run {argv[0]} in {self.name}: {error.explanation or error}",
                hint=self._why_gone(),
            ) from error
        return subprocess.CompletedProcess(list(argv), code, out.decode(errors="replace"), err.decode(errors="replace"))

    def _why_gone(self) -> str:
        with contextlib.suppress(docker.errors.APIError):
            self.container.reload()
            if self.container.status != "running":
                return f"the container is {self.container.status}; its log ends:\n{self.logs(self.name)[-2000:]}"
        return ""

    def put(self, host: str, files: Mapping[str, bytes], *, mode: int = 0o644, owner: str = "root") -> None:
        """Write files into the container; a change of owner comes last, so that nobody reads a key in between."""
        if not self.container.put_archive("/", archive(files, mode)):
            raise EngineError(f"the engine did not copy {', '.join(files)} into {self.name}")
        if owner != "root":
            self.exec(host, ["chown", owner, *files])

    def logs(self, host: str, daemon: str | None = None) -> str:
        """A daemon's log file, or the container's own log."""
        if daemon is None:
            return self.container.logs().decode(errors="replace")
        return log_of(self, host, daemon)

    def attach(self, host: str) -> Attach:  # noqa: ARG002  # there is only one
        """Through the docker command, which speaks to the same engine."""
        program = shutil.which("docker")
        if program is None:
            raise EngineError("on_path needs the docker command", hint="install docker-cli")
        env = {name: value for name, value in engine.environment().items() if name in _ENGINE_VARIABLES}
        return Attach((program, "exec"), self.name, env)

    def endpoint(self, role: str, port: int) -> tuple[str, int]:
        """Where the caller reaches a port that the container publishes."""
        self.container.reload()
        bindings = self.container.ports.get(f"{port}/tcp")
        if not bindings:
            raise UsageError(f"port {port} of {role} is not published by {self.name}")
        published = int(bindings[0]["HostPort"])
        machine = self.place.machine
        return machine.reach(published) if machine else (self._host, published)

    def service(self, host: str, daemon: str, action: Literal["stop", "start", "kill"]) -> None:
        """Stop, start or kill a daemon by its supervisor, s6; all slurmd of the container are one daemon here."""
        control(self, host, daemon, action, speed=self.place.speed)

    def network(self, host: str, action: Literal["cut", "restore"]) -> None:
        """Disconnect the container from its networks, or connect it again under its name."""
        client = cast(docker.DockerClient, self.container.client)
        self.container.reload()
        if action == "cut":
            if self._networks:
                raise UsageError(f"{host} is cut already", hint="restore it first")
            networks = list(self.container.attrs["NetworkSettings"]["Networks"])
            if not networks:
                raise UsageError(f"{host} has no network of its own", hint="cut the host whose network it uses")
            for network in networks:
                client.networks.get(network).disconnect(self.container, force=True)
            self._networks = networks
        else:
            if not self._networks:
                raise UsageError(f"{host} is not cut", hint="cut it first")
            for network in self._networks:
                client.networks.get(network).connect(self.container, aliases=[host])
            self._networks = []

    def add_node(self, name: str, conf: str) -> None:
        """Start one more slurmd in the container, as a dynamic node."""
        self._slurm_node("add", name, conf)

    def remove_node(self, name: str) -> None:
        """End the slurmd of a dynamic node."""
        self._slurm_node("remove", name)

    def _slurm_node(self, *arguments: str) -> None:
        done = self.exec(self.name, ["slurm-node", *arguments])
        if done.returncode:
            said, _, hint = done.stderr.strip().removeprefix("slurm-testbed: ").partition("\nslurm-testbed: hint: ")
            raise UsageError(said, hint=hint)

    def facts(self) -> Facts:
        """What the container's start said of cgroups."""
        cgroup = self._cgroup
        if cgroup is None:
            done = self.exec(self.name, ["sh", "-c", f"cat /etc/slurm/cgroup.conf; test -e {_READY}"])
            cgroup = cgroup_of(done.stdout)
            if done.returncode == 0:  # before, the file may not have been written yet
                self._cgroup = cgroup
        capabilities = self.container.attrs["HostConfig"]["CapAdd"] or []
        return Facts("single", cgroup=cgroup, speed=self.place.speed, capabilities=frozenset(capabilities))
