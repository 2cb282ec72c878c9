"""Find the container engine: where it may answer, how it is reached, and what to do where none is."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.errors
import requests
from docker.context import ContextAPI
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from slurm_testbed.engine.machine import THIS, Machine
from slurm_testbed.engine.packages import DEBIAN_ENOUGH, PACKAGES, WHERE_KNOWN, version_of
from slurm_testbed.errors import EngineNotFoundError

CLI_DEFAULT = "unix:///var/run/docker.sock"
PROBE_SECONDS = 20
REQUEST_SECONDS = 120


@dataclass(frozen=True)
class Endpoint:
    """A place where an engine may answer."""

    url: str
    source: str
    #: Named by the user: then no other place is tried, and none is started.
    chosen: bool = False
    tls: TLSConfig | None = None


def chosen_endpoint(machine: Machine) -> Endpoint | None:
    """What DOCKER_HOST, or else the current docker context, names."""
    if machine.environ.get("DOCKER_HOST"):
        try:
            settings = kwargs_from_env(environment=dict(machine.environ))
        except docker.errors.DockerException as error:
            folder = machine.environ.get("DOCKER_CERT_PATH")
            raise EngineNotFoundError(
                f"{'DOCKER_CERT_PATH' if folder else 'DOCKER_TLS_VERIFY'} asks for TLS, but {folder or '~/.docker'} "
                "has not all of cert.pem, key.pem and ca.pem: bring them there, or unset it"
            ) from error
        tls = settings.get("tls")
        return Endpoint(machine.environ["DOCKER_HOST"], "DOCKER_HOST", True, tls or None)
    context = ContextAPI.get_context(machine.environ.get("DOCKER_CONTEXT"))
    # The stubs deny it, but an unknown context is None.
    if context is None:
        name = machine.environ.get("DOCKER_CONTEXT") or "that docker's config.json names"
        raise EngineNotFoundError(
            f"there is no docker context {name}: choose another with `docker context use` or DOCKER_CONTEXT"
        )
    if context.name == "default":
        return None
    url = str(context.Host).removeprefix("http+")  # how the SDK, but not the command line, writes it
    return Endpoint(url, f"the docker context {context.name}", True, context.TLSConfig)


def _sockets(machine: Machine) -> list[Endpoint]:
    """The places where Docker and Podman listen when nobody says otherwise."""
    places = [(machine.root / "var/run/docker.sock", "Docker's socket")]
    if runtime := machine.environ.get("XDG_RUNTIME_DIR"):
        places.append((Path(runtime) / "docker.sock", "rootless Docker's socket"))
        places.append((Path(runtime) / "podman/podman.sock", "the user's Podman socket"))
    places.append((machine.root / "run/podman/podman.sock", "Podman's socket"))
    return [Endpoint(f"unix://{path}", source) for path, source in places]


def _why_unreachable(url: str) -> str:
    """Why nobody answers at a Unix socket, in words; empty where somebody does, and for other addresses."""
    if not url.startswith("unix://"):
        return ""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(url.removeprefix("unix://"))
        except FileNotFoundError:
            return "no such socket"
        except ConnectionRefusedError:
            return "nobody listens on it"
        except PermissionError:
            return "permission denied"
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _client(endpoint: Endpoint) -> docker.DockerClient | str:
    """A client of the engine at an endpoint, or why there is none."""
    if reason := _why_unreachable(endpoint.url):
        return reason
    try:
        client = docker.DockerClient(
            base_url=endpoint.url,
            tls=endpoint.tls or False,
            timeout=PROBE_SECONDS,
            use_ssh_client=endpoint.url.startswith("ssh://"),
        )
        if not client.ping():
            return "something else listens there"
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        if "paramiko" in said:
            raise EngineNotFoundError(
                f"{endpoint.source} says {endpoint.url}, and ssh:// needs paramiko: pip install 'docker[ssh]'"
            ) from error
        return said
    client.api.timeout = REQUEST_SECONDS
    return client


def _find(machine: Machine) -> tuple[Endpoint, docker.DockerClient]:
    if chosen := chosen_endpoint(machine):
        found = _client(chosen)
        if isinstance(found, str):
            raise EngineNotFoundError(
                f"{chosen.source} says {chosen.url}, but no container engine answers there ({found}): "
                "start that engine, or choose another"
            )
        return chosen, found
    reasons: dict[str, str] = {}
    for endpoint in _sockets(machine):
        found = _client(endpoint)
        if not isinstance(found, str):
            return endpoint, found
        reasons[endpoint.url.removeprefix("unix://")] = found
    raise EngineNotFoundError(what_to_do(machine, reasons))


def what_to_do(machine: Machine, reasons: Mapping[str, str]) -> str:
    """One sentence that says what to install or start, from what was found at the usual sockets."""
    for path, reason in reasons.items():
        if reason == "permission denied":
            return (
                f"this user may not use the container engine at {path}: join the group that owns it "
                "(Docker: `sudo usermod -aG docker $USER`), and log in again"
            )
    for path, reason in reasons.items():
        if reason not in {"no such socket", "nobody listens on it"}:
            return f"the container engine at {path} does not answer ({reason}): start it again"
    if machine.which("dockerd"):
        start = "systemctl start docker" if machine.has_systemd else "invoke engine"
        return f"a container engine is installed, but does not run: start it as root with `{start}`"
    release = machine.os_release()
    packages = [name for name in PACKAGES.get(release.get("ID", ""), ()) if name not in WHERE_KNOWN]
    how = ""
    if packages:
        # An older Debian also needs the sources that only we add.
        old = release.get("ID") == "debian" and version_of(release) < DEBIAN_ENOUGH[0]
        how = f" (as root: {'invoke engine' if old else 'apt-get install ' + ' '.join(packages)})"
    return f"no container engine answers here: install Docker Engine with buildx and compose{how} and start it"


def connect(*, machine: Machine = THIS) -> docker.DockerClient:
    """Connect to the container engine that docker's command line would use, else to Podman's.

    In this order: DOCKER_HOST, DOCKER_CONTEXT or the current docker context, Docker's socket, the user's
    sockets of rootless Docker and Podman, Podman's socket.

    Args:
        machine: where to look.

    Raises:
        EngineNotFoundError: none answers; the message says what to install or start.

    Example:
        >>> connect().ping()
        True
    """
    return _find(machine)[1]


def address(client: docker.DockerClient) -> str:
    """The address at which the ports of an engine's containers are reached: of a remote one its machine's.

    Args:
        client: the engine.

    Example:
        >>> address(docker.DockerClient("tcp://engine.example:2375", version="1.41"))
        'engine.example'
    """
    url = client.api.base_url
    if url == "http+docker://ssh":
        adapter: Any = client.api.get_adapter(url)
        return str(urlsplit(f"ssh://{adapter.ssh_host}").hostname)
    if url.startswith(("http+docker://", "http+unix://")):
        return "127.0.0.1"
    return str(urlsplit(url).hostname)


def publishes_on(client: docker.DockerClient) -> str:
    """The address of the engine's machine on which containers publish ports: all of them where we are elsewhere.

    Args:
        client: the engine.

    Example:
        >>> publishes_on(docker.DockerClient("unix:///var/run/docker.sock", version="1.41"))
        '127.0.0.1'
    """
    return "127.0.0.1" if address(client) == "127.0.0.1" else "0.0.0.0"  # noqa: S104


def environment(*, machine: Machine = THIS) -> dict[str, str]:
    """The environment with which `docker` as a child process talks to the engine that `connect` found.

    Args:
        machine: where to look.

    Raises:
        EngineNotFoundError: no engine answers.

    Example:
        >>> "PATH" in environment()
        True
    """
    endpoint, client = _find(machine)
    client.close()
    env = dict(machine.environ)
    if not endpoint.chosen and endpoint.url != CLI_DEFAULT:
        env["DOCKER_HOST"] = endpoint.url
    return env
