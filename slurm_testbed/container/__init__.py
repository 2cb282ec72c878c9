"""A whole cluster in one container: the substrate, and `SlurmContainer` over it."""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import secrets
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Literal, Self, cast

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from slurm_testbed import engine
from slurm_testbed.errors import CommandError, EngineError, NotReadyError, SlurmTestbedError, UsageError
from slurm_testbed.images import exists, image_name
from slurm_testbed.keys import ClusterKeys, Key
from slurm_testbed.readiness import Timeline, wait_until
from slurm_testbed.releases import Releases
from slurm_testbed.slurm import REST_PORT, Slurm
from slurm_testbed.substrate import Attach, Facts, Host

#: Capabilities that jobs need to be held in cgroups, by the host's cgroup version, and why:
#: SYS_ADMIN remounts the container's own cgroup tree writable, SYS_NICE binds other users' processes to cores.
CGROUP_CAPABILITIES = ("SYS_ADMIN", "SYS_NICE")

#: Head of a frame: 1 for output or 2 for error output, three zeros, the length; Docker Engine API, ContainerAttach.
_FRAME = struct.Struct(">BxxxL")
_SERVICES = "/run/slurm-testbed/services"
_COMMON = "/usr/lib/slurm-testbed/common.sh"
#: How a daemon that was started shows that it takes requests.
_LISTENS = {
    "munged": "test -S /run/munge/munge.socket.2",
    "slurmctld": "listening 6817",
    "slurmdbd": "listening 6819",
    "slurmrestd": f"listening {REST_PORT}",
}
#: Everybody may remove a file there whose random name they know; nobody may list it.
_STDIN = "/run/slurm-testbed/stdin"


class _Started(DockerContainer):
    """A container of testcontainers, without Ryuk where its image is not at hand: we clean up by our labels."""

    def start(self) -> Self:
        before = testcontainers_config.ryuk_disabled
        testcontainers_config.ryuk_disabled = before or not self._has_ryuk()
        try:
            return super().start()
        finally:
            testcontainers_config.ryuk_disabled = before

    def _has_ryuk(self) -> bool:
        try:
            self.get_docker_client().client.images.get(testcontainers_config.ryuk_image)
        except docker.errors.ImageNotFound:
            return False
        return True


def _exec(
    container: Container, argv: list[str], user: str, env: Mapping[str, str], workdir: str | None
) -> tuple[int, bytes, bytes]:
    """Run a command in a container: exit status, output, error output.

    Not by docker's own `exec_run`: it reads from the socket behind the HTTP reader's back, and loses what came
    together with the headers, which happens under load. Here the answer is read as a plain body.
    """
    api = cast(docker.DockerClient, container.client).api
    made = api.exec_create(container.id, argv, user=user, environment=dict(env), workdir=workdir)["Id"]
    # Private, but what every call of the API in docker itself is made of.
    answer = api._post_json(api._url("/exec/{0}/start", made), data={"Tty": False, "Detach": False}, stream=True)  # type: ignore[attr-defined]
    api._raise_for_status(answer)  # type: ignore[attr-defined]
    body = answer.raw.read()
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
    )
    return int(state["ExitCode"]), bytes(streams[1]), bytes(streams[2])


class ContainerSubstrate:
    """A single container that carries every daemon.

    Args:
        container: a running container of slurm-single-node.
        host: at which name or address the engine publishes ports.
    """

    def __init__(self, container: Container, *, host: str = "127.0.0.1") -> None:
        self.container = container
        self._host = host
        self._cgroup: str | None = None

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
            code, out, err = _exec(self.container, command, user, environment, workdir)
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
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, data in files.items():
                member = tarfile.TarInfo(str(PurePosixPath(path).relative_to("/")))
                member.size, member.mode, member.mtime = len(data), mode, int(time.time())
                archive.addfile(member, io.BytesIO(data))
        if not self.container.put_archive("/", buffer.getvalue()):
            raise EngineError(f"the engine did not copy {', '.join(files)} into {self.name}")
        if owner != "root":
            self.exec(host, ["chown", owner, *files])

    def logs(self, host: str, daemon: str | None = None) -> str:
        """A daemon's log file, or the container's own log."""
        if daemon is None:
            return self.container.logs().decode(errors="replace")
        # Each slurmd has a log of its own, by the name of its node.
        files = "/var/log/munge/munged.log" if daemon == "munged" else f"/var/log/slurm/{daemon}.log"
        files = "/var/log/slurm/slurmd-*.log" if daemon == "slurmd" else files
        return self.exec(host, ["sh", "-c", f"cat {files}"]).stdout

    def attach(self, host: str) -> Attach:  # noqa: ARG002  # there is only one
        """Through the docker command, which speaks to the same engine."""
        program = shutil.which("docker")
        if program is None:
            raise EngineError("on_path needs the docker command", hint="install docker-cli")
        env = {name: value for name, value in engine.environment().items() if name.startswith("DOCKER_")}
        return Attach((program, "exec"), self.name, env)

    def endpoint(self, role: str, port: int) -> tuple[str, int]:
        """Where the caller reaches a port that the container publishes."""
        self.container.reload()
        bindings = self.container.ports.get(f"{port}/tcp")
        if not bindings:
            raise UsageError(f"port {port} of {role} is not published by {self.name}")
        return self._host, int(bindings[0]["HostPort"])

    def service(self, host: str, daemon: str, action: Literal["stop", "start", "kill"]) -> None:
        """Stop, start or kill a daemon by its supervisor, s6; all slurmd of the container are one daemon here."""
        flags = {"stop": "-wD -d", "start": "-wu -u", "kill": "-wr -k"}[action]
        script = f"cd {_SERVICES} && for one in {daemon}*; do s6-svc -T 15000 {flags} $one || exit; done"
        if action != "stop" and daemon in _LISTENS:
            # s6 knows that the process is there; the daemon takes requests once it listens.
            script += f"; . {_COMMON}; await {daemon} 'see its log.' {_LISTENS[daemon]}"
        done = self.exec(host, ["bash", "-c", script], env={"SLURM_TESTBED_DEADLINE": "15"})
        if done.returncode:
            raise SlurmTestbedError(
                f"{daemon} on {host} did not {action} within 15 s: {done.stderr.strip()}",
                hint=f"its log ends: {self.logs(host, daemon)[-500:]}",
            )

    def network(self, host: str, action: Literal["cut", "restore"]) -> None:
        """Disconnect the container from its networks, or connect it again under its name."""
        client = cast(docker.DockerClient, self.container.client)
        self.container.reload()
        if action == "cut":
            self._networks = list(self.container.attrs["NetworkSettings"]["Networks"])
            for network in self._networks:
                client.networks.get(network).disconnect(self.container, force=True)
        else:
            for network in self._networks:
                client.networks.get(network).connect(self.container, aliases=[host])

    def facts(self) -> Facts:
        """What the container's start said of cgroups."""
        if self._cgroup is None:
            conf = self.exec(self.name, ["cat", "/etc/slurm/cgroup.conf"]).stdout
            self._cgroup = next((v for v in ("v1", "v2") if f"cgroup/{v}" in conf), "none")
        capabilities = self.container.attrs["HostConfig"]["CapAdd"] or []
        return Facts("single", cgroup=self._cgroup, capabilities=frozenset(capabilities))


class SlurmContainer(Slurm):
    """A cluster of one container, with any number of nodes, from the image slurm-single-node.

    Args:
        release: a version or minor release, `24.11.5` or `24.11`; the default release where none is given.
        nodes: how many compute nodes; each is a slurmd of its own.
        cpus: processors of each node; by default the machine's own, or 8 if that is more and nothing binds jobs to cores.
        memory: MiB of each node.
        accounting: with slurmdbd on MariaDB.
        cgroups: hold jobs in cgroups: memory, cores and devices are enforced. Needs the capabilities
            of `CGROUP_CAPABILITIES`.
        keys: keys to use; by default the cluster makes its own.
        conf: fragments of slurm.conf by file name; the name of one of ours, e.g. `60-nodes.conf`, replaces it.
        env: further settings of the image: docs/images.md.
        share: folders of this machine that the container sees under the same path, for `on_path`.
        image: an image instead of the one of the release.
        deadline: seconds until the cluster must be ready.
        user: who submits where no user is named.
        owner: value of the owner label; by default this process, after whose death a sweep removes the cluster.

    Raises:
        EngineError: the image is missing, or the engine refuses.
        NotReadyError: with the daemons' logs.

    Example:
        >>> with SlurmContainer("24.11", nodes=2) as slurm:  # doctest: +SKIP
        ...     slurm.sbatch(wrap="hostname", nodes=2).wait().state
        'COMPLETED'
    """

    def __init__(
        self,
        release: str | None = None,
        *,
        nodes: int = 1,
        cpus: int | None = None,
        memory: int | None = None,
        accounting: bool = True,
        cgroups: bool = False,
        keys: ClusterKeys | None = None,
        conf: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        share: Sequence[str | Path] = (),
        image: str | None = None,
        deadline: float = 60,
        user: str = "alice",
        owner: str | None = None,
    ) -> None:
        if nodes < 1:
            raise UsageError(f"a cluster has at least one node, not {nodes}")
        self.image = image or image_name("slurm-single-node", Releases.load().find(release).version)
        self.keys = keys
        self.deadline = deadline
        self.user = user
        self.name = f"slurm-{secrets.token_hex(4)}"
        self._conf = dict(conf or {})
        self._share = [Path(path).resolve() for path in share]
        self._cgroups = cgroups
        self._owner = owner
        self._env = {
            "SLURM_NODES": str(nodes),
            "SLURM_ACCOUNTING": "yes" if accounting else "no",
            **({"SLURM_CPUS": str(cpus)} if cpus else {}),
            **({"SLURM_MEMORY": str(memory)} if memory else {}),
            **(env or {}),
        }
        self._network: Network | None = None
        self._started: _Started | None = None

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the container and wait until every node is idle."""
        client = engine.connect()
        _check_image(client, self.image)
        if self._owner is None:
            atexit.register(self.stop)
        try:
            self._started = self._create(client)
            self._start_with_files()
            host = self._started.get_container_host_ip() if _is_remote(client) else "127.0.0.1"
            super().__init__(ContainerSubstrate(self.container, host=host), user=self.user)
            self._wait_ready()
        except docker.errors.APIError as error:
            self.stop()
            raise EngineError(f"the engine refused to start {self.image}: {error.explanation}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Remove the container, its volumes and its network; a second call does nothing."""
        atexit.unregister(self.stop)
        if self._started is not None:
            started, self._started = self._started, None
            with contextlib.suppress(docker.errors.NotFound):
                started.stop()
        if self._network is not None:
            network, self._network = self._network, None
            with contextlib.suppress(docker.errors.NotFound):
                network.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def container(self) -> Container:
        """The running container, as the docker library knows it."""
        if self._started is None:
            raise UsageError("this SlurmContainer is not started: use it in a with statement, or call start()")
        return self._started.get_wrapped_container()

    @property
    def network_name(self) -> str:
        """The cluster's own network: a container that joins it reaches the controller by this cluster's name."""
        if self._network is None:
            raise UsageError("this SlurmContainer is not started: use it in a with statement, or call start()")
        return cast(str, self._network.name)

    def munge_key(self) -> bytes:
        """The cluster's munge key, to give to another host: keep it out of logs."""
        text = self.run(["base64", "--wrap=0", "/etc/munge/munge.key"]).stdout
        return base64.b64decode(text)

    def timeline(self) -> Timeline:
        """What took how long at the start."""
        return Timeline.parse(self.substrate.logs(self.name))

    # --- parts of the start -----------------------------------------------------------------------------

    def _labels(self) -> dict[str, str]:
        return {engine.LABEL_CLUSTER: self.name, engine.LABEL_OWNER: self._owner or engine.owner()}

    def _create(self, client: docker.DockerClient) -> _Started:
        self._network = client.networks.create(self.name, labels=self._labels())
        started = _Started(self.image).with_name(self.name).with_envs(**self._env)
        for folder in self._share:
            started.with_volume_mapping(folder, str(folder), "rw")
        # testcontainers would publish on every address.
        publish = "0.0.0.0" if _is_remote(client) else "127.0.0.1"  # noqa: S104  # a remote engine's own address
        started.ports[f"{REST_PORT}/tcp"] = cast(int, (publish, None))
        options: dict[str, Any] = {
            "hostname": self.name,
            "network": self.name,
            "labels": self._labels(),
        }
        if self._cgroups:
            options |= {"cap_add": list(CGROUP_CAPABILITIES), "cgroupns": "private"}
            if "name=apparmor" in " ".join(client.info()["SecurityOptions"] or []):
                # Docker's profile forbids mounting, which SYS_ADMIN is there for.
                options["security_opt"] = ["apparmor=unconfined"]
        return started.with_kwargs(**options)

    def _start_with_files(self) -> None:
        """Start; keys and fragments are copied in before the first process runs, not mounted: any engine can."""
        assert self._started is not None
        if self.keys:
            self._started.with_copy_into_container(self.keys.munge.data, "/run/secrets/munge.key", 0o400)
            self._started.with_copy_into_container(self.keys.jwt.data, "/run/secrets/jwt_hs256.key", 0o400)
        for name, text in self._conf.items():
            self._started.with_copy_into_container(text.encode(), f"/etc/slurm/slurm.conf.d/{name}", 0o644)
        self._started.start()

    def _wait_ready(self) -> None:
        done = self.substrate.exec(self.name, ["slurm-ready", "--wait", str(int(self.deadline))])
        if done.returncode:
            self.container.reload()
            if self.container.status != "running":
                said = [line for line in self.substrate.logs(self.name).splitlines() if "slurm-testbed: " in line]
                raise EngineError(f"{self.image} ended at its start: " + "\n".join(said[-4:]))
            raise NotReadyError(
                f"the cluster in {self.name} to be ready",
                deadline=self.deadline,
                last_state=(done.stdout + done.stderr).strip(),
                log=self.substrate.logs(self.name)[-4000:],
                hint=f"the image is {self.image}",
            )


def _check_image(client: docker.DockerClient, image: str) -> None:
    """A name without a registry is ours and built here: a public registry may have a stranger's image of that name."""
    registry = image.partition("/")[0]
    if not exists(client, image) and not ("." in registry or ":" in registry):
        name, _, tag = image.rpartition("/")[2].partition(":")
        raise EngineError(
            f"there is no image {image}",
            hint=f"make it: invoke build --image {name} --release {tag or 'VERSION'}",
        )


def running(client: docker.DockerClient, *, owner: str) -> list[Slurm]:
    """The clusters of an owner that run, the newest first.

    Args:
        client: the engine.
        owner: value of the owner label.
    """
    labels = [engine.LABEL_CLUSTER, f"{engine.LABEL_OWNER}={owner}"]
    return [Slurm(ContainerSubstrate(found)) for found in client.containers.list(filters={"label": labels})]


def _is_remote(client: docker.DockerClient) -> bool:
    return not client.api.base_url.startswith(("http+docker://", "http+unix://"))


class SlurmClient:
    """A container of slurm-client beside a cluster: a host that only has Slurm's commands and munged.

    Args:
        cluster: the cluster whose controller it speaks to; it joins the cluster's network.
        munge_key: its munge key; by default the cluster's own.
        image: an image instead of the cluster's release's.
        env: further settings of the image: docs/images.md.

    Example:
        >>> with SlurmContainer("24.11") as slurm, SlurmClient(slurm) as client:  # doctest: +SKIP
        ...     client.run(["srun", "id", "--name", "--user"], user="alice").stdout
        'alice\\n'
    """

    def __init__(
        self,
        cluster: SlurmContainer,
        *,
        munge_key: Key | None = None,
        image: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.image = image or cluster.image.replace("slurm-single-node", "slurm-client")
        self.name = f"slurm-client-{secrets.token_hex(4)}"
        self._key = munge_key
        self._env = {"SLURMCTLD_HOST": cluster.name, **(env or {})}
        self._started: _Started | None = None

    def __enter__(self) -> Self:
        _check_image(engine.connect(), self.image)
        key = self._key or Key(kind="munge", data=self.cluster.munge_key())
        started = _Started(self.image).with_name(self.name).with_envs(**self._env)
        started.with_kwargs(
            hostname=self.name,
            network=self.cluster.network_name,
            labels={engine.LABEL_CLUSTER: self.cluster.name, engine.LABEL_OWNER: engine.owner()},
        )
        started.with_copy_into_container(key.data, "/run/secrets/munge.key", 0o400)
        self._started = started
        atexit.register(self.stop)
        try:
            started.start()
            self.substrate = ContainerSubstrate(started.get_wrapped_container())
            self.run(["slurm-ready", "--wait", "30"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the container; a second call does nothing."""
        atexit.unregister(self.stop)
        if self._started is not None:
            started, self._started = self._started, None
            with contextlib.suppress(docker.errors.NotFound):
                started.stop()

    def run(
        self, argv: Sequence[str], *, user: str = "root", stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the client; see `Slurm.run`."""
        done = self.substrate.exec(self.name, argv, user=user, stdin=stdin)
        if check and done.returncode:
            raise CommandError(argv, done.returncode, done.stdout, done.stderr)
        return done
