"""A cluster of several hosts, one container each, from compose/cluster.yaml or a file that includes it."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import math
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import docker.errors
import yaml

from slurm_testbed import data, engine, vm
from slurm_testbed.compose.app_sessions import AppSessions
from slurm_testbed.compose.hub import Hub
from slurm_testbed.compose.observability import Observability
from slurm_testbed.compose.project import Project, literal
from slurm_testbed.compose.ssh import ssh_config
from slurm_testbed.compose.substrate import ComposeSubstrate
from slurm_testbed.compose.viz import Viz
from slurm_testbed.container.life import check_image
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.errors import EngineError, NotReadyError, UsageError, tail
from slurm_testbed.evidence import leave
from slurm_testbed.images import image_name
from slurm_testbed.keys import ClusterKeys
from slurm_testbed.releases import Releases
from slurm_testbed.share import shared_paths
from slurm_testbed.slurm import Slurm

#: Nodes that compose/cluster.yaml has by itself.
_NODES_IN_FILE = 2

#: Where a daemon ends at once that refuses a state or a database.
_DAEMON_HOSTS = ("slurmdbd", "slurmctld")


@dataclass(frozen=True)
class _Stack:
    """What a compose file has: images, hosts besides the nodes, those whose start is complete last, seconds for it."""

    images: tuple[str, ...]
    hosts: tuple[str, ...]
    last_ready: tuple[str, ...]
    deadline: float = 90


_CLUSTER = _Stack(
    images=("slurm-single-node", "slurm-client"),
    hosts=("database", "slurmdbd", "slurmctld", "slurmrestd", "client", "login"),
    last_ready=("slurmctld", "slurmrestd", "client", "login"),
)
#: By the name of the file.
_STACKS = {
    "cluster": _CLUSTER,
    "hub": _Stack(
        images=(*_CLUSTER.images, "slurm-jupyter", "jupyterhub"),
        hosts=(*_CLUSTER.hosts, "hub", "proxy", "jupyter"),
        last_ready=(*_CLUSTER.last_ready, "hub", "proxy", "jupyter"),
        deadline=240,
    ),
    "observability": _Stack(
        images=(*_CLUSTER.images, "observability", "postgresql", "prometheus"),
        hosts=(*_CLUSTER.hosts, "postgres", "observability", "prometheus"),
        last_ready=(*_CLUSTER.last_ready, "observability", "prometheus"),
        deadline=180,
    ),
    "viz": _Stack(
        images=(*_CLUSTER.images, "slurm-viz", "app-sessions"),
        hosts=(*_CLUSTER.hosts, "app-sessions"),
        last_ready=(*_CLUSTER.last_ready, "app-sessions"),
        deadline=180,
    ),
}


class SlurmCluster(Slurm):
    """A cluster of several hosts: database, slurmdbd, slurmctld, nodes, slurmrestd, a client and a login host.

    Args:
        release: a version or minor release; the default release where none is given.
        stack: the name of a compose file: `cluster`; `hub`, with JupyterHub and a standalone JupyterLab;
            `observability`, with the service of job observability, its agents and Prometheus; or `viz`, with nodes
            that run applications of a desktop, and the service of their sessions.
        nodes: how many nodes, n1 … nN, each in a container of its own.
        cpus: processors of each node; by default the machine's own, or 8 if that is more and nothing binds
            jobs to cores.
        memory: MiB of each node.
        cgroups: hold jobs in cgroups on the nodes: compose/cgroups.yaml.
        keys: keys to use; by default the head node makes them.
        conf: fragments of slurm.conf by file name; the name of one of ours replaces it.
        hub_conf: fragments of JupyterHub's configuration likewise, for the stack `hub`.
        env: further settings of all hosts: docs/images.md.
        share: folders of this machine that every host sees under the same path, for `on_path`;
            `this_python()` names those that its jobs need to run the caller's Python.
        shared_nfs: an NFS export, `server:/path`, for the shared tree: compose/nfs.yaml.
        repository: of other images than ours, derived from them, instead of REPOSITORY of the environment.
        images: of single hosts by name, derived from the one that the host has else.
        files: further compose files, which change what the stack's own have, or add to it; Docker Compose takes
            relative paths in them as relative to the folder of the stack's own.
        deadline: seconds until the cluster must be ready; by default 90, and 240 with a hub.
        user: who submits where no user is named.
        owner: value of the owner label; by default this process, after whose death a sweep removes the cluster.
        name: of the compose project; made up if not given.

    Raises:
        EngineError: an image is missing, or the engine refuses.
        NotReadyError: with the hosts' logs.

    Example:
        >>> with SlurmCluster("24.11", nodes=4) as slurm:  # doctest: +SKIP
        ...     slurm.srun("hostname", nodes=4)
        'n1\\nn2\\nn3\\nn4\\n'
    """

    def __init__(
        self,
        release: str | None = None,
        *,
        stack: str = "cluster",
        nodes: int = 2,
        cpus: int | None = None,
        memory: int | None = None,
        cgroups: bool = False,
        keys: ClusterKeys | None = None,
        conf: Mapping[str, str] | None = None,
        hub_conf: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        share: Sequence[str | Path] = (),
        shared_nfs: str = "",
        repository: str | None = None,
        images: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
        deadline: float | None = None,
        user: str = "alice",
        owner: str | None = None,
        name: str | None = None,
    ) -> None:
        if nodes < 1:
            raise UsageError(f"a cluster has at least one node, not {nodes}")
        if stack not in _STACKS:
            raise UsageError(f"there is no stack {stack}", hint=f"there are {', '.join(_STACKS)}")
        server, _, path = shared_nfs.partition(":")
        if shared_nfs and not (server and path.startswith("/")):
            raise UsageError(f"{shared_nfs} names no NFS export", hint="give it as server:/path")
        self.release = Releases.load().find(release)
        self.stack = stack
        self.nodes_wanted = nodes
        self.repository = repository
        self.keys = keys
        self.deadline = deadline or _STACKS[stack].deadline
        self.user = user
        self.name = name or f"slurm-{secrets.token_hex(4)}"
        if hub_conf and stack != "hub":
            raise UsageError(f"the stack {stack} has no hub that hub_conf could be for", hint='give stack="hub"')
        self._conf = {"slurmctld": _fragments("/etc/slurm/slurm.conf.d", conf)}
        if hub_conf:
            self._conf["hub"] = _fragments("/etc/jupyterhub/jupyterhub_config.d", hub_conf)
        self._owner, self._outlives = owner, owner is not None
        self._folder = engine.cluster_folder(self.name)
        folder = data.compose()
        own = [folder / f"{stack}.yaml"]
        if cgroups:
            own.append(folder / "cgroups.yaml")
        if shared_nfs:
            own.append(folder / "nfs.yaml")
        shared = shared_paths(share)
        self._further_node = further_node(shared, env or {}, cgroups=cgroups, stack=stack)
        self._override = override(nodes, shared, env or {}, cgroups=cgroups, stack=stack)
        self._images = dict(images or {})
        for host, image in self._images.items():
            if host not in self.host_names():
                raise UsageError(f"there is no host {host}", hint=f"there are {', '.join(self.host_names())}")
            self._override["services"].setdefault(host, {})["image"] = image
        settings = {
            "VERSION": self.release.version,
            "SLURM_NODES": str(nodes),
            "SLURM_CPUS": str(cpus or ""),
            "SLURM_MEMORY": str(memory or ""),
            "SLURM_TESTBED_OWNER": owner or engine.owner(),
            "NFS_SERVER": server,
            "NFS_PATH": path,
            **({"REPOSITORY": repository} if repository else {}),
        }
        self.project = Project(self.name, [*own, *files, self._folder / "nodes.yaml"], settings)

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start all hosts at once and wait until the cluster is ready; nothing is left of one that fails."""
        client = engine.connect()
        self.check_images(client)
        engine.sweep_once(client)
        if not self._outlives:
            atexit.register(self.stop)
        try:
            self._start(client)
        except docker.errors.APIError as error:
            self.stop()
            raise EngineError(f"the engine refused to start {self.name}: {error.explanation}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def host_names(self) -> tuple[str, ...]:
        """The names of the hosts that the compose files have, whether they run or not; the nodes last."""
        return (*_STACKS[self.stack].hosts, *(f"n{number}" for number in range(1, self.nodes_wanted + 1)))

    def check_images(self, client: docker.DockerClient) -> None:
        """Say which image is missing before anything is made.

        Raises:
            EngineError: one is; how to build it.
        """
        for image in _STACKS[self.stack].images:
            check_image(client, image_name(image, self.release.version, self.repository))
        for image in self._images.values():
            check_image(client, image)

    def _start(self, client: docker.DockerClient) -> None:
        self.write_override()
        self._run_hosts(client)

    def write_override(self) -> None:
        """Write what differs from the compose files into this cluster's folder, where compose reads it."""
        engine.make_folder(self.name, self.project.settings["SLURM_TESTBED_OWNER"])
        (self._folder / "nodes.yaml").write_text(yaml.safe_dump(self._override))

    def start_hosts(self, hosts: Sequence[str]) -> None:
        """Start some of the hosts beside those that run, and wait until these are ready; `start` starts all at once.

        Args:
            hosts: their names.

        Raises:
            NotReadyError: with the hosts' logs; they are left as they are.

        Example:
            >>> slurm.start_hosts(["jupyter"])  # doctest: +SKIP
        """
        self.write_override()
        self._run_hosts(engine.connect(), hosts)

    def _run_hosts(self, client: docker.DockerClient, only: Sequence[str] = ()) -> None:
        """Make the hosts, or some of them only, what the compose files say, and wait until they are ready."""
        began = time.monotonic()
        speed = vm.place_of(client).speed
        deadline = math.ceil(self.deadline * speed)
        patience = {
            # The hosts' own deadlines, too; they join for 300 s or longer.
            "SLURM_TESTBED_DEADLINE": str(deadline),
            "SLURM_TESTBED_JOIN_DEADLINE": str(max(300, deadline)),
            # Nobody here waits for the engine's checks, and each takes time from the start of all.
            "SLURM_TESTBED_START_INTERVAL": f"{math.ceil(10 * speed)}s",
            "SLURM_TESTBED_PUBLISH": engine.publishes_on(client),
        }
        self.project = dataclasses.replace(self.project, settings={**self.project.settings, **patience})
        if self.keys or any(self._conf.values()):
            # Copied in before the first process runs, not mounted: any engine can.
            self.project.run("up", "--no-start", *only)
            created = self.project.containers(client)
            for host in self._conf.keys() & created.keys():
                ContainerSubstrate(created[host]).put(host, self._conf[host])
            if self.keys:
                keys = {"munge.key": self.keys.munge.data, "jwt_hs256.key": self.keys.jwt.data}
                head = ContainerSubstrate(created["slurmctld"])
                head.put("slurmctld", {f"/run/secrets/{name}": key for name, key in keys.items()}, mode=0o400)
        self.project.run("up", "--detach", *only)
        for name in ("observability", "app_sessions"):
            self.__dict__.pop(name, None)  # its port may be another one now
        substrate = ComposeSubstrate(
            self.project.containers(client),
            host=engine.address(client),
            project=self.project,
            node=self._further_node,
        )
        Slurm.__init__(self, substrate, user=self.user)
        last = _STACKS[self.stack].last_ready
        self._wait_ready(client, began, [name for name in last if not only or name in only] or list(only))

    def _wait_ready(self, client: docker.DockerClient, began: float, waiting: list[str]) -> None:
        deadline = self.deadline * vm.place_of(client).speed
        with ThreadPoolExecutor(len(waiting)) as threads:
            while waiting:
                # In short pieces, to see soon that a host has ended, for which the others would wait in vain.
                ask = functools.partial(self.substrate.exec, argv=["slurm-ready", "--wait", "2"])
                answers = dict(zip(waiting, threads.map(ask, waiting), strict=True))
                waiting = [host for host, done in answers.items() if done.returncode]
                if waiting:
                    self._check_start(client, began, deadline, waiting[0], answers[waiting[0]])

    def _check_start(
        self,
        client: docker.DockerClient,
        began: float,
        deadline: float,
        host: str,
        done: subprocess.CompletedProcess[str],
    ) -> None:
        """Give up a start that has failed, or that takes too long; a host is not ready yet, and said why."""
        # What other compose files add may end when it is done.
        known = {each.name for each in self.substrate.hosts()}
        for name, container in self.project.containers(client).items():
            if container.status != "running" and name in known:
                lines = self.substrate.logs(name).splitlines()
                said = [line for line in lines if "slurm-testbed: " in line] or lines
                state = f"{container.status}, exit status {container.attrs['State']['ExitCode']}"
                raise EngineError(f"{name} of {self.name} ended at its start ({state}): " + "\n".join(said[-4:]))
        if time.monotonic() - began > deadline or self._refuses(began):
            fatal = [line for name in _DAEMON_HOSTS for line in _fatal(self.substrate.logs(name))]
            # A node that does not answer says why itself.
            nodes = [node.name for node in self.substrate.hosts() if "slurmd" in node.daemons]
            of_nodes = "".join(f"\n--- {name}\n{tail(self.substrate.logs(name), 6)}" for name in nodes[:8])
            raise NotReadyError(
                f"{host} of {self.name} to be ready",
                deadline=deadline,
                last_state="; ".join(fatal) or (done.stdout + done.stderr).strip(),
                log=self.substrate.logs(host)[-4000:] + of_nodes,
                hint=f"the release is {self.release.version}",
            )

    def _refuses(self, began: float) -> bool:
        """Whether a daemon has ended by itself again and again, which no waiting mends."""
        return time.monotonic() - began > 5 and any(
            len(_fatal(self.substrate.logs(name))) > 2 for name in _DAEMON_HOSTS
        )

    def stop(self) -> None:
        """Remove every host, volume and network; a second call does nothing."""
        atexit.unregister(self.stop)
        if self._folder.exists():
            # Whoever wants an orderly end stops the daemons first; nothing of this cluster is kept.
            self.project.run("down", "--volumes", "--remove-orphans", "--timeout", "0")
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self, error)
        self.stop()

    # --- upgrade ----------------------------------------------------------------------------------------

    def upgrade(self, release: str, *, hosts: Sequence[str] = (), force: bool = False) -> None:
        """Run other hosts' images on the kept state and database: slurmdbd and slurmctld first, then the nodes.

        What a release takes over is in releases.yaml, from https://slurm.schedmd.com/upgrades.html. Jobs go on while
        slurmdbd and slurmctld are upgraded; a node's jobs end with its container. Until every host has the release,
        slurm.conf has no key that the former one does not know; then from slurmctld's next start on.

        Args:
            release: a version or minor release.
            hosts: which hosts, e.g. `["slurmdbd", "slurmctld"]`; all if not given. Each gets the image that it has,
                also one of yours, under the tag of the release.
            force: try also what the release does not take over, to see it refuse. Only slurmctld refuses to go back:
                an older slurmdbd marks a newer database as its own, and the newer one refuses it from then on.

        Raises:
            UsageError: the release does not take over this one's state; nothing was touched.
            NotReadyError: the daemons refuse; their logs say why. The state is as it was.

        Example:
            >>> with SlurmCluster("24.11") as slurm:  # doctest: +SKIP
            ...     slurm.upgrade("26.05", hosts=["slurmdbd", "slurmctld"])
            ...     slurm.upgrade("26.05")
        """
        client = engine.connect()
        target = Releases.load().find(release)
        if target.version != self.release.version and not force and not target.may_follow(self.release):
            raise UsageError(
                f"Slurm {target.version} does not take over the state of Slurm {self.release.version}: "
                f"it takes over {', '.join(target.follows)}",
                hint="go step by step, or start a new cluster; going back is never possible",
            )
        chosen = list(hosts) or [host.name for host in self.substrate.hosts()]
        images = {host.name: self._image_of(host.name) for host in self.substrate.hosts()}
        images |= {host: f"{_without_tag(self._image_of(host))}:{target.version}" for host in chosen}
        for host in chosen:
            check_image(client, images[host])
        for host in chosen:
            self._override["services"].setdefault(host, {})["image"] = images[host]
        whole = all(image.endswith(f":{target.version}") for image in images.values())
        if whole:  # nodes that are added later, too
            self.project = dataclasses.replace(
                self.project, settings={**self.project.settings, "VERSION": target.version}
            )
        self.write_override()
        self._run_hosts(client)
        self.release = target
        replaced = set(chosen) & set(self.nodes())

        def registered() -> bool:
            nodes = self.nodes()
            return all(nodes[node].get("Version") == target.version for node in replaced)

        # Until then slurmctld speaks to a slurmd that is gone, and takes its jobs for lost.
        self.wait_until(registered, f"the nodes to register with slurmd {target.version}", deadline=self.deadline)
        if whole:
            self.run(["rm", "--force", "/shared/slurm-config/abilities"], host="slurmctld")

    def _image_of(self, host: str) -> str:
        assert isinstance(self.substrate, ComposeSubstrate)
        return str(self.substrate.container(host).attrs["Config"]["Image"])

    # --- the hub and the login host ---------------------------------------------------------------------------------

    @property
    def hub(self) -> Hub:
        """The JupyterHub of the stack `hub`.

        Raises:
            UsageError: this cluster has none.
        """
        return Hub(self)

    @functools.cached_property
    def observability(self) -> Observability:
        """The service of job observability of the stack `observability`.

        Raises:
            UsageError: this cluster has none.
        """
        return Observability(self)

    @property
    def viz(self) -> Viz:
        """The nodes of the stack `viz` that run applications.

        Raises:
            UsageError: this cluster has none.
        """
        return Viz(self)

    @functools.cached_property
    def app_sessions(self) -> AppSessions:
        """The service of application sessions of the stack `viz`.

        Raises:
            UsageError: this cluster has none.
        """
        return AppSessions(self)

    def jupyter_url(self) -> str:
        """Where the standalone JupyterLab of the stack `hub` is, with its token."""
        address, port = self.substrate.endpoint("jupyter", 8888)
        token = self.read("/run/slurm-testbed/jupyter/token", host="jupyter").strip()
        return f"http://{address}:{port}/lab?token={token}"

    def ssh_config(self, user: str | None = None) -> Path:
        """A configuration for ssh(1) with a new key of a user, to log in to the hosts that run sshd.

        The key is made for this call, and goes with the cluster.

        Args:
            user: who logs in.

        Returns:
            The configuration's path, in a folder that only the caller can read.

        Example:
            >>> config = slurm.ssh_config()  # doctest: +SKIP
            >>> subprocess.run(["ssh", "-F", config, "login", "sinfo"], check=True)  # doctest: +SKIP
        """
        user = user or self.user
        return ssh_config(self, user, self._folder / f"ssh-{user}")


def override(
    nodes: int, share: Sequence[str], env: Mapping[str, str], *, cgroups: bool, stack: str = "cluster"
) -> dict[str, Any]:
    """What differs from the compose file: more nodes or fewer, folders and settings for every host.

    Args:
        nodes: how many nodes.
        share: folders of this machine, absolute.
        env: settings of all hosts.
        cgroups: whether further nodes hold jobs in cgroups.
        stack: the name of the compose file.

    Example:
        >>> override(3, [], {}, cgroups=False)["services"]["n3"]["hostname"]
        'n3'
        >>> override(1, [], {}, cgroups=False)["services"]["n2"]
        {'scale': 0}
    """
    services: dict[str, Any] = {}
    for number in range(_NODES_IN_FILE + 1, nodes + 1):
        services[f"n{number}"] = {**further_node(share, env, cgroups=cgroups, stack=stack), "hostname": f"n{number}"}
    for number in range(nodes + 1, _NODES_IN_FILE + 1):
        services[f"n{number}"] = {"scale": 0}
    if share or env:
        for name in [*_STACKS[stack].hosts, *(f"n{number}" for number in range(1, min(nodes, _NODES_IN_FILE) + 1))]:
            services.setdefault(name, {}).update(_settings(share, env))
    return {"services": services}


def further_node(
    share: Sequence[str], env: Mapping[str, str], *, cgroups: bool, stack: str = "cluster"
) -> dict[str, Any]:
    """The service of a node that compose/cluster.yaml does not have, but for its name.

    Args:
        share: folders of this machine, absolute.
        env: settings of all hosts.
        cgroups: whether it holds jobs in cgroups.
        stack: the name of the compose file, beside which STACK-nodes.yaml changes the nodes.

    Example:
        >>> further_node([], {"SLURM_DEBUG": "debug"}, cgroups=False)["environment"]
        {'SLURM_DEBUG': 'debug'}
    """
    folder = data.compose()
    changes = [folder / f"{stack}-nodes.yaml", *([folder / "cgroups.yaml"] if cgroups else [])]
    first: dict[str, Any] = {"extends": {"file": str(folder / "cluster.yaml"), "service": "n1"}}
    for path in changes:
        first |= _read(path)["services"]["n1"] if path.exists() else {}
    more = _settings(share, env)
    more["environment"] = {**first.get("environment", {}), **more.get("environment", {})}
    return {**first, **more}


class _ComposeFile(yaml.SafeLoader):
    """Takes a list that replaces another one as a list: https://docs.docker.com/reference/compose-file/merge/"""

    def replacing(self, node: yaml.SequenceNode) -> list[Any]:
        """A list under the tag `!override`."""
        return self.construct_sequence(node)


_ComposeFile.add_constructor("!override", _ComposeFile.replacing)


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_ComposeFile)  # noqa: S506  # it is a safe one


def _settings(share: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    volumes = {"volumes": [literal(f"{place}:{place}") for place in share]} if share else {}
    return {**volumes, **({"environment": {name: literal(value) for name, value in env.items()}} if env else {})}


def _without_tag(image: str) -> str:
    folder, slash, name = image.rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"


def _fragments(folder: str, texts: Mapping[str, str] | None) -> dict[str, bytes]:
    return {f"{folder}/{name}": text.encode() for name, text in (texts or {}).items()}


def _fatal(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if "fatal:" in line]
