"""Find the container engine, say what it can do, and start our own where there is none."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import docker.errors
import filelock
import requests
import tenacity
from docker.context import ContextAPI
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from slurm_testbed.errors import EngineError, EngineNotFoundError, NotReadyError

#: Prefix of every label that we put on images, containers, networks and volumes.
LABEL = "org.slurm-testbed"
#: Carried by whatever belongs to a cluster; its value is the cluster's name.
LABEL_CLUSTER = f"{LABEL}.cluster"
#: Says who removes it: the value of `owner()`, or `UP_OWNER`.
LABEL_OWNER = f"{LABEL}.owner"
#: Carried by every image of ours; its value is the version of the image's interface.
LABEL_INTERFACE = f"{LABEL}.interface"
#: Owner of what a person started and stops by name.
UP_OWNER = os.environ.get("SLURM_TESTBED_UP_OWNER", "up")

CLI_DEFAULT = "unix:///var/run/docker.sock"
PROBE_SECONDS = 20
REQUEST_SECONDS = 120
REGISTRY_SECONDS = 5.0
START_SECONDS = 60.0
STOP_SECONDS = 60.0
INSTALL_SECONDS = 900.0
#: A /24 for each network: the engine's own pools are exhausted after about 29 networks.
ADDRESS_POOLS = {"default-address-pools": [{"base": "10.213.0.0/16", "size": 24}]}

_log = logging.getLogger(__name__)


def _run(argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, errors="replace"
    )


def _say(text: str) -> None:
    sys.stderr.write(f"slurm-testbed: {text}\n")
    sys.stderr.flush()


def _ask(question: str) -> bool:
    sys.stderr.write(f"slurm-testbed: {question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _processes() -> Iterable[int]:
    return (int(path.name) for path in Path("/proc").glob("[0-9]*"))


@dataclass(frozen=True)
class Machine:
    """This machine, as far as an engine is found, installed and started on it; tests hand in another."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    run: Callable[[Sequence[str], Mapping[str, str] | None], subprocess.CompletedProcess[str]] = _run
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    os_release: Callable[[], Mapping[str, str]] = _os_release
    processes: Callable[[], Iterable[int]] = _processes
    say: Callable[[str], None] = _say
    ask: Callable[[str], bool] = _ask

    @property
    def state(self) -> Path:
        """Folder of what we know about the engine that we started."""
        return self.root / "run/slurm-testbed"

    @property
    def record(self) -> Path:
        """What we started: `{"pid": …, "started": …}` or `{"unit": …}`."""
        return self.state / "engine.json"

    @property
    def log(self) -> Path:
        """Log of the dockerd that we started."""
        return self.state / "dockerd.log"

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs here, which then starts services."""
        return (self.root / "run/systemd/system").is_dir()

    @property
    def forbids(self) -> bool:
        """Whether the environment forbids to install and start an engine."""
        return self.environ.get("SLURM_TESTBED_INSTALL_ENGINE", "1").lower() in {"0", "no", "false"}

    @property
    def path(self) -> str:
        """PATH with the folders of administration, which `su` leaves out."""
        return f"{self.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"

    def which(self, program: str) -> str | None:
        """Path of a program, if it is installed."""
        return shutil.which(program, path=self.path)


THIS = Machine()


# --- finding ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Endpoint:
    """A place where an engine may answer."""

    url: str
    source: str
    #: Named by the user: then no other place is tried, and none is started.
    chosen: bool = False
    tls: TLSConfig | None = None


def _chosen(machine: Machine) -> _Endpoint | None:
    """What DOCKER_HOST, or else the current docker context, names."""
    if machine.environ.get("DOCKER_HOST"):
        settings = kwargs_from_env(environment=dict(machine.environ))
        tls = settings.get("tls")
        return _Endpoint(machine.environ["DOCKER_HOST"], "DOCKER_HOST", True, tls or None)
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
    return _Endpoint(url, f"the docker context {context.name}", True, context.TLSConfig)


def _sockets(machine: Machine) -> list[_Endpoint]:
    """The places where Docker and Podman listen when nobody says otherwise."""
    places = [(machine.root / "var/run/docker.sock", "Docker's socket")]
    if runtime := machine.environ.get("XDG_RUNTIME_DIR"):
        places.append((Path(runtime) / "docker.sock", "rootless Docker's socket"))
        places.append((Path(runtime) / "podman/podman.sock", "the user's Podman socket"))
    places.append((machine.root / "run/podman/podman.sock", "Podman's socket"))
    return [_Endpoint(f"unix://{path}", source) for path, source in places]


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


def _client(endpoint: _Endpoint) -> docker.DockerClient | str:
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
        return (str(error) or type(error).__name__).splitlines()[0]
    client.api.timeout = REQUEST_SECONDS
    return client


def _find(machine: Machine) -> tuple[_Endpoint, docker.DockerClient]:
    if chosen := _chosen(machine):
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
    raise EngineNotFoundError(_what_to_do(machine, reasons))


def _what_to_do(machine: Machine, reasons: Mapping[str, str]) -> str:
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
    packages = [name for name in _PACKAGES.get(release.get("ID", ""), ()) if name not in _WHERE_KNOWN]
    how = ""
    if packages:
        # An older Debian also needs the sources that only we add.
        old = release.get("ID") == "debian" and _version(release) < _DEBIAN_ENOUGH[0]
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


# --- installing ------------------------------------------------------------------------------------------

_PACKAGES = {
    "debian": ("docker.io", "docker-cli", "docker-buildx", "docker-compose"),
    "ubuntu": ("docker.io", "docker-cli", "docker-buildx", "docker-compose-v2"),
}
#: Packages of their own in some releases only; elsewhere another package holds what they hold.
_WHERE_KNOWN = {"docker-cli"}
#: Bootstraps a base image where no registry answers.
_BOOTSTRAP = "mmdebstrap"
#: The oldest Debian whose own engine is new enough, and its name.
_DEBIAN_ENOUGH = (13, "trixie")
#: The oldest Debian whose C library can run that one's engine.
_DEBIAN_OLDEST = 12
_APT_FILE = "slurm-testbed-engine"


def _version(release: Mapping[str, str]) -> int:
    return int(release.get("VERSION_ID", "").split(".")[0] or 999)  # testing and unstable have none


def _install(machine: Machine, interactive: bool | None) -> None:
    """Install the engine from the distribution's own packages, after asking on a terminal."""
    release = machine.os_release()
    distribution = release.get("ID", "")
    if distribution not in _PACKAGES:
        raise EngineNotFoundError(_what_to_do(machine, {}))
    version = _version(release)
    if distribution == "debian" and version < _DEBIAN_OLDEST:
        raise EngineNotFoundError(
            f"Debian {version} has no container engine that is new enough: install Docker Engine with buildx "
            f"and compose from elsewhere, or use Debian {_DEBIAN_OLDEST} or newer"
        )
    wanted = [*_PACKAGES[distribution], _BOOTSTRAP]
    if interactive is None:
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
    text = f"no container engine here; installing {', '.join(wanted)} from the packages of {release.get('NAME')}"
    if not interactive:
        machine.say(f"{text} (SLURM_TESTBED_INSTALL_ENGINE=0 forbids it)")
    elif not machine.ask(f"{text}: go on?"):
        raise EngineNotFoundError(_what_to_do(machine, {}))
    _apt(machine, "update")
    if distribution == "debian" and version < _DEBIAN_ENOUGH[0]:
        with _sources_of_newer_release(machine, release["VERSION_CODENAME"], [*wanted[:-1], "containerd"]):
            _apt(machine, "update")
            _install_packages(machine, wanted)
    else:
        _install_packages(machine, wanted)


def _install_packages(machine: Machine, wanted: Sequence[str]) -> None:
    known = _known_packages(machine, wanted)
    if missing := [name for name in wanted if name not in known and name not in _WHERE_KNOWN]:
        raise EngineNotFoundError(
            f"apt knows no package {', '.join(missing)}: enable the component that has it (on Ubuntu: "
            "universe), or install Docker Engine with buildx and compose from elsewhere"
        )
    with _no_service_starts(machine):
        _apt(machine, "install", "--yes", "--no-install-recommends", *(n for n in wanted if n in known))
    machine.say("the container engine is installed")


def _known_packages(machine: Machine, names: Sequence[str]) -> set[str]:
    """Those packages that apt could install."""
    known, name = set(), ""
    for line in machine.run(["apt-cache", "policy", *names], _apt_environment(machine)).stdout.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif "Candidate:" in line and "(none)" not in line:
            known.add(name)
    return known


def _apt_environment(machine: Machine) -> dict[str, str]:
    return {
        **machine.environ,
        "PATH": machine.path,
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_SUSPEND": "1",
        "LC_ALL": "C",
    }


def _apt(machine: Machine, *arguments: str) -> None:
    argv = ["apt-get", "--quiet", "--option", "DPkg::Lock::Timeout=300", *arguments]
    done = machine.run(argv, _apt_environment(machine))
    if done.returncode:
        said = _tail(done.stderr.strip() or done.stdout, 5)
        raise EngineNotFoundError(
            f"no container engine could be installed: `apt-get {arguments[0]}` failed: {said}",
            hint="put apt right, or install Docker Engine with buildx and compose yourself",
        )


@contextlib.contextmanager
def _sources_of_newer_release(machine: Machine, codename: str, packages: Sequence[str]) -> Iterator[None]:
    """Let apt take the engine, and only the engine, from a newer Debian; taken back if the body fails.

    The new sources are the machine's own with another suite, so that a mirror stays a mirror.
    """
    newer = _DEBIAN_ENOUGH[1]
    targets = machine.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN) $(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ],
        _apt_environment(machine),
    ).stdout
    debians = [line.split() for line in targets.splitlines() if line.startswith("Debian ")]
    etc = machine.root / "etc/apt"
    pins = _pin(" ".join(packages), newer, 600)
    files: dict[Path, str] = {}
    if newer not in {release for _, release, _ in debians}:
        uris = {uri.rstrip("/") for _, _, uri in debians}
        for kind, text in _newer_sources(etc, codename, newer, uris).items():
            files[etc / f"sources.list.d/{_APT_FILE}.{kind}"] = text
        if not files:
            raise EngineNotFoundError(
                f"apt's sources name no Debian {codename} archive from which a newer engine could be had: "
                "install Docker Engine with buildx and compose yourself"
            )
        # Without this pin apt would take everything from the newer release.
        pins = f"{_pin('*', newer, 100)}\n{pins}"
    files[etc / f"preferences.d/{_APT_FILE}"] = pins
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise


def _pin(packages: str, codename: str, priority: int) -> str:
    # The star also covers the security and update suites, whose codename has a suffix.
    return f"Package: {packages}\nPin: release n={codename}*\nPin-Priority: {priority}\n"


def _newer_sources(etc: Path, codename: str, newer: str, uris: set[str]) -> dict[str, str]:
    """The machine's own Debian sources with another suite, by kind of file: `sources` and `list`."""
    suite = re.compile(rf"{re.escape(codename)}(-updates|-security)?$")
    stanzas, lines = [], []
    # apt too ignores files with any other ending.
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        parts = re.split(r"\n\s*\n", path.read_text())
        stanzas += [_newer_stanza(part, suite, newer, uris) for part in parts]
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        if path.exists():
            lines += [_newer_line(line, suite, newer, uris) for line in path.read_text().splitlines()]
    found = {"sources": "\n".join(filter(None, stanzas)), "list": "".join(filter(None, lines))}
    return {kind: text for kind, text in found.items() if text}


def _newer_stanza(stanza: str, suite: re.Pattern[str], newer: str, uris: set[str]) -> str:
    """A stanza of a .sources file (deb822) with the newer suite; empty when it is no Debian archive."""
    fields: dict[str, list[str]] = {}
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace():  # the field goes on, as an embedded key does
            fields[list(fields)[-1]].append(line)
        else:
            name, _, value = line.partition(":")
            fields[name.capitalize()] = [value.strip()]

    def words(name: str) -> list[str]:
        return " ".join(fields.get(name, [])).split()

    suites = [_newer_suite(word, suite, newer) for word in words("Suites") if suite.match(word)]
    known = uris.intersection(uri.rstrip("/") for uri in words("Uris"))
    if not suites or not known or "deb" not in words("Types") or words("Enabled") == ["no"]:
        return ""
    fields |= {"Suites": [" ".join(suites)], "Types": ["deb"]}
    return "".join(f"{name}: " + "\n".join(lines) + "\n" for name, lines in fields.items())


def _newer_line(line: str, suite: re.Pattern[str], newer: str, uris: set[str]) -> str:
    """A line of a .list file with the newer suite; empty when it is no Debian archive."""
    match = re.match(r"(deb\s+(?:\[[^\]]*\]\s+)?)(\S+)(\s+)(\S+)(\s.*)", line)
    if not match or match[2].rstrip("/") not in uris or not suite.match(match[4]):
        return ""
    return f"{match[1]}{match[2]}{match[3]}{_newer_suite(match[4], suite, newer)}{match[5]}\n"


def _newer_suite(name: str, suite: re.Pattern[str], newer: str) -> str:
    return suite.sub(rf"{newer}\1", name)


@contextlib.contextmanager
def _no_service_starts(machine: Machine) -> Iterator[None]:
    """Keep the packages' scripts from starting a dockerd of their own; systemd's is the one we want."""
    policy = machine.root / "usr/sbin/policy-rc.d"
    if machine.has_systemd or policy.exists():
        yield
        return
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


# --- processes -------------------------------------------------------------------------------------------


def _process(pid: int) -> tuple[str, str] | None:
    """Name and start time of a live process; None when it is gone.

    The time is in clock ticks after boot, because the wall clock's may be corrected while we run.
    """
    if not Path("/proc/self/stat").exists():
        line = _run(["ps", "-o", "lstart=,comm=", "-p", str(pid)]).stdout.strip()  # macOS
        return (line[24:].strip(), line[:24]) if line else None
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return None if fields[0] in {"Z", "X"} else (name, fields[19])


def _namespace(pid: int | str, kind: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink()).strip(f"{kind}:[]")
    except OSError:
        return ""


def owner() -> str:
    """This process as the value of `LABEL_OWNER`: host, process id, start time and PID namespace.

    Example:
        >>> owner().count(":") >= 2
        True
    """
    process = _process(os.getpid())
    started = process[1] if process else ""
    return f"{socket.gethostname()}:{os.getpid()}:{started}@{_namespace('self', 'pid')}"


def _is_dead(label: str) -> bool:
    """Whether the owner is known to be gone: of this host and PID namespace, and not running."""
    host, _, rest = label.partition(":")
    pid, _, when = rest.partition(":")
    started, _, namespace = when.rpartition("@")
    if host != socket.gethostname() or namespace != _namespace("self", "pid") or not pid.isdigit():
        return False
    process = _process(int(pid))
    return process is None or process[1] != started


# --- starting and stopping -------------------------------------------------------------------------------


def ensure(*, interactive: bool | None = None, machine: Machine = THIS) -> docker.DockerClient:
    """Connect to the engine; where none answers, install and start one on Debian or Ubuntu as root.

    An engine that DOCKER_HOST or a docker context names is never replaced by another one, and
    SLURM_TESTBED_INSTALL_ENGINE=0 forbids to install or start any.

    Args:
        interactive: ask before packages are installed; by default on a terminal only.
        machine: where to look, install and start.

    Raises:
        EngineNotFoundError: none answers and none may or can be installed.
        NotReadyError: the engine was started, but did not answer in time.

    Example:
        >>> ensure().ping()
        True
    """
    try:
        return connect(machine=machine)
    except EngineNotFoundError as error:
        if machine.forbids:
            hint = "SLURM_TESTBED_INSTALL_ENGINE=0 forbids to install or start one here"
            raise EngineNotFoundError(error.message, hint=hint) from None
        if not machine.is_root() or _chosen(machine):
            raise
    with _lock(machine):
        # Whoever held the lock may have started one.
        with contextlib.suppress(EngineNotFoundError):
            return connect(machine=machine)
        if not machine.which("dockerd"):
            _install(machine, interactive)
        _start(machine)
    return connect(machine=machine)


@contextlib.contextmanager
def _lock(machine: Machine) -> Iterator[None]:
    machine.state.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(machine.state / "engine.lock", timeout=INSTALL_SECONDS)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise NotReadyError(
            "another process to install or start the container engine",
            deadline=INSTALL_SECONDS,
            last_state=f"{lock.lock_file} is locked",
            hint=f"see who holds it: fuser {lock.lock_file}",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _start(machine: Machine) -> None:
    """Start the engine and wait until it answers; never beside another dockerd."""
    if pid := _running_dockerd(machine):
        machine.say(f"dockerd runs already (process {pid}); waiting for its answer")
        _await_answer(machine, lambda: "" if _process(pid) else "it ended", log="")
        return
    machine.say("starting the container engine (invoke engine --stop ends it)")
    if machine.has_systemd:
        done = machine.run(["systemctl", "start", "docker"], None)
        if done.returncode:
            raise EngineError(
                f"systemd could not start docker: {_tail(done.stderr, 5)}", hint="see: journalctl -u docker"
            )
        _write_record(machine, {"unit": "docker"})
        _await_answer(machine, lambda: "", log="")
        return
    _remove_stale_pid_files(machine)
    daemon = _spawn_dockerd(machine)
    process = _process(daemon.pid)
    _write_record(machine, {"pid": daemon.pid, "started": process[1] if process else ""})

    def ended() -> str:
        return f"dockerd exited with {daemon.returncode}" if daemon.poll() is not None else ""

    try:
        _await_answer(machine, ended, log=str(machine.log))
    except BaseException:
        # Nobody can use it: leave nothing half started behind, also on Ctrl-C.
        _end_process(daemon.pid, deadline=STOP_SECONDS)
        machine.record.unlink(missing_ok=True)
        raise


def _spawn_dockerd(machine: Machine) -> subprocess.Popen[bytes]:
    argv = [machine.which("dockerd") or "dockerd"]
    if not (machine.root / "etc/docker/daemon.json").exists():
        config = machine.state / "daemon.json"
        config.write_text(json.dumps(ADDRESS_POOLS))
        argv += ["--config-file", str(config)]
    # A session of its own: Ctrl-C and the end of the terminal do not reach it.
    with machine.log.open("wb") as log:
        return subprocess.Popen(
            argv,
            env={**machine.environ, "PATH": machine.path},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _running_dockerd(machine: Machine) -> int | None:
    """Process id of a dockerd that shares our network, whoever started it and wherever its socket is."""
    network = _namespace("self", "net")
    for pid in machine.processes():
        process = _process(pid)
        if process and process[0] == "dockerd" and _namespace(pid, "net") == network:
            return pid
    return None


def _remove_stale_pid_files(machine: Machine) -> None:
    """Remove what an unclean end left: another process may have that number now, and block the start."""
    for name, daemon in (("docker.pid", "dockerd"), ("docker/containerd/containerd.pid", "containerd")):
        path = machine.root / "var/run" / name
        try:
            process = _process(int(path.read_text()))
        except FileNotFoundError:
            continue
        except ValueError:
            process = None
        if process is None or process[0] != daemon:
            machine.say(f"removing {path}, left by an unclean end")
            path.unlink(missing_ok=True)


def _await_answer(machine: Machine, ended: Callable[[], str], *, log: str) -> None:
    """Wait until an engine answers at the usual sockets, or until its process has ended."""

    def attempt() -> None:
        gone = ended()  # asked first: it may answer and end in between
        try:
            connect(machine=machine).close()
        except EngineNotFoundError:
            if gone:
                raise _GoneError(gone) from None
            raise

    try:
        tenacity.Retrying(
            stop=tenacity.stop_after_delay(START_SECONDS),
            wait=tenacity.wait_fixed(0.1),
            retry=tenacity.retry_if_exception_type(EngineNotFoundError),
            reraise=True,
        )(attempt)
    except (EngineNotFoundError, _GoneError) as error:
        text = Path(log).read_text(errors="replace") if log else ""
        raise NotReadyError(
            "the container engine to answer",
            deadline=START_SECONDS,
            last_state=str(error),
            log=_tail(text, 15),
            hint="dockerd needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN; the log says what it lacks"
            if log
            else "look at that daemon's log",
        ) from None


class _GoneError(Exception):
    """The daemon ended while its answer was awaited."""


def _write_record(machine: Machine, record: Mapping[str, object]) -> None:
    machine.state.mkdir(parents=True, exist_ok=True)
    machine.record.write_text(json.dumps(record) + "\n")


def stop(*, machine: Machine = THIS) -> bool:
    """End the engine that we started; any other one stays.

    Args:
        machine: where it was started.

    Returns:
        Whether there was one of ours to end.

    Raises:
        EngineError: only root may end it.
        NotReadyError: it did not end in time.

    Example:
        >>> stop(machine=Machine(root=Path("/nowhere")))
        False
    """
    if not machine.record.exists():
        return False
    if not machine.is_root():
        raise EngineError("the engine that we started runs as root, and only root ends it", hint="use sudo")
    with _lock(machine):
        try:
            record = json.loads(machine.record.read_text())
        except FileNotFoundError:
            return False
        if unit := record.get("unit"):
            # The socket would start the service again.
            done = machine.run(["systemctl", "stop", f"{unit}.socket", f"{unit}.service"], None)
            if done.returncode:
                raise EngineError(f"systemd could not stop {unit}: {_tail(done.stderr, 5)}")
            ours = True
        else:
            process = _process(record["pid"])
            ours = process is not None and process[1] == record["started"]
            if ours:
                _end_process(record["pid"], deadline=STOP_SECONDS)
        machine.record.unlink(missing_ok=True)
    return ours


def _end_process(pid: int, *, deadline: float) -> None:
    """Send SIGTERM to a process and wait, at most `deadline` seconds, until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)

    def gone() -> bool:
        # Ours may be a child of this very process, and stay as a zombie.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return _process(pid) is None

    ended = tenacity.Retrying(
        stop=tenacity.stop_after_delay(deadline),
        wait=tenacity.wait_fixed(0.1),
        retry=tenacity.retry_if_result(lambda result: not result),
        retry_error_callback=lambda _: False,
    )(gone)
    if not ended:
        raise NotReadyError(
            f"process {pid} to end after SIGTERM",
            deadline=deadline,
            last_state="it still runs",
            hint="containers that do not stop hold it up: docker ps",
        )


# --- examining -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One thing about the engine.

    Attributes:
        name: what was looked at.
        value: what was found, in words.
        ok: whether nothing is lost by it.
        cost: what the lack costs; empty when there is none.
    """

    name: str
    value: str
    ok: bool = True
    cost: str = ""


_CAPABILITIES = {21: "SYS_ADMIN", 23: "SYS_NICE", 24: "SYS_RESOURCE"}
_CAPABILITY_COSTS = {
    "SYS_ADMIN": "no cgroup enforcement and no Apptainer",
    "SYS_NICE": "no task affinity under cgroup v2",
    "SYS_RESOURCE": "`--ulimit` above the current limits fails; older engines refuse `--privileged`",
}
_FAST_STORAGE = {"overlay2", "overlay", "overlayfs", "fuse-overlayfs", "btrfs", "zfs"}
_ELSEWHERE = "unknown, the engine runs on another machine"
_GIB = 1024**3


def examine(client: docker.DockerClient, *, machine: Machine = THIS) -> list[Finding]:
    """Say what the engine is and has, and what each lack costs.

    Args:
        client: the engine.
        machine: where the command line and the devices are looked for.

    Example:
        >>> [finding.name for finding in examine(connect())][0]
        'engine'
    """
    info = client.info()
    here = _is_here(info)
    return [
        _engine_finding(client),
        _buildx_finding(machine),
        _compose_finding(machine),
        _cgroup_finding(info),
        _storage_finding(info),
        _capability_finding(machine, here),
        _device_finding(machine, here, "FUSE", "dev/fuse", "Apptainer unpacks an image, about 15 s, before it runs"),
        _device_finding(machine, here, "KVM", "dev/kvm", "tests in virtual machines run 20 to 30 times slower"),
        _registry_finding(client),
        _amount("CPUs", int(info.get("NCPU", 0)), 2, "", "starts take longer; run the tests with -n 1"),
        _amount(
            "memory",
            info.get("MemTotal", 0) / _GIB,
            4,
            " GiB",
            "clusters with accounting may be killed in parallel tests",
        ),
    ]


def _is_here(info: Mapping[str, object]) -> bool:
    """Whether the engine shares this machine's kernel, so that what we see is what it sees."""
    return info.get("KernelVersion") == os.uname().release and info.get("Name") == socket.gethostname()


def _version_of(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _engine_finding(client: docker.DockerClient) -> Finding:
    about = client.version()
    names = [part.get("Name", "") for part in about.get("Components", [])]
    kind = "Podman" if any("podman" in name.lower() for name in names) else "Docker Engine"
    api = str(about.get("ApiVersion", ""))
    # start_interval of health checks came with API 1.44.
    recent = _version_of(api) >= (1, 44)
    value = f"{kind} {about.get('Version')} (API {api}, {about.get('Os')}/{about.get('Arch')})"
    cost = "a stack is seen as ready up to 5 s late: no start_interval for health checks"
    return Finding("engine", value, recent, "" if recent else cost)


def _cli(machine: Machine, *arguments: str) -> str:
    """What a docker command printed; empty when it, or docker itself, is missing."""
    if not (program := machine.which("docker")):
        return ""
    done = machine.run([program, *arguments], environment(machine=machine))
    return done.stdout.strip() if done.returncode == 0 else ""


def _buildx_finding(machine: Machine) -> Finding:
    version = _version_of(_cli(machine, "buildx", "version"))
    kit = re.search(r"^BuildKit(?: version)?:\s+(\S+)", _cli(machine, "buildx", "inspect"), re.MULTILINE)
    value = f"buildx {'.'.join(map(str, version)) or 'missing'}, BuildKit {kit[1] if kit else 'missing'}"
    ok = version >= (0, 13) and bool(kit)
    return Finding("BuildKit", value, ok, "" if ok else "images cannot be built: install docker-buildx 0.13 or newer")


def _compose_finding(machine: Machine) -> Finding:
    version = _version_of(_cli(machine, "compose", "version", "--short"))
    ok = version >= (2, 24)
    cost = "clusters of several containers cannot be started: install docker-compose 2.24 or newer"
    return Finding("compose", ".".join(map(str, version)) or "missing", ok, "" if ok else cost)


def _cgroup_finding(info: Mapping[str, object]) -> Finding:
    version, driver = info.get("CgroupVersion") or "unknown", info.get("CgroupDriver") or "unknown"
    costs = {"2": "", "1": "what only cgroup v2 has is not checkable here"}
    cost = costs.get(str(version), "jobs run without limits of memory, cores and devices")
    return Finding("cgroup", f"v{version}, driver {driver}".replace("vunknown", "unknown"), not cost, cost)


def _storage_finding(info: Mapping[str, object]) -> Finding:
    driver = str(info.get("Driver"))
    ok = driver in _FAST_STORAGE
    cost = "each container copies its whole image: seconds at every start, and the disk fills"
    return Finding("storage", driver, ok, "" if ok else cost)


def _capability_finding(machine: Machine, here: bool) -> Finding:
    name = "capabilities"
    if not here:
        return Finding(name, _ELSEWHERE, False, "tests that need one say so when they run")
    # A container gets at most what its engine has; of an engine that we cannot see, we share the bounds.
    status = Path(f"/proc/{_running_dockerd(machine) or 'self'}/status")
    missing = _missing_capabilities(status.read_text())
    value = f"without {', '.join(missing)}" if missing else f"{', '.join(_CAPABILITIES.values())} can be given"
    return Finding(name, value, not missing, "; ".join(_CAPABILITY_COSTS[capability] for capability in missing))


def _missing_capabilities(status: str) -> list[str]:
    """Which of the capabilities that we look for are not in a process's bounding set (/proc/PID/status)."""
    bounds = re.search(r"^CapBnd:\s+(\w+)", status, re.MULTILINE)
    mask = int(bounds[1], 16) if bounds else 0
    return [capability for bit, capability in _CAPABILITIES.items() if not mask >> bit & 1]


def _device_finding(machine: Machine, here: bool, name: str, path: str, cost: str) -> Finding:
    if not here:
        return Finding(name, _ELSEWHERE, False, "tests that need it say so when they run")
    there = (machine.root / path).exists()
    return Finding(name, f"/{path}" if there else "missing", there, "" if there else cost)


def registry_answers(client: docker.DockerClient, *, image: str = "debian:trixie-slim") -> bool:
    """Whether the engine can reach the registry of an image, asked without pulling anything.

    Args:
        client: the engine.
        image: an image that the registry has.

    Example:
        >>> registry_answers(connect(), image="nowhere.invalid/none:1")
        False
    """
    api = client.api
    # get_registry_data() has no time-out of its own, and a filtered network may never answer.
    url = f"{api.base_url}/v{api.api_version}/distribution/{image}/json"
    try:
        return api.get(url, timeout=REGISTRY_SECONDS).ok
    except requests.RequestException:
        return False


def _registry_finding(client: docker.DockerClient) -> Finding:
    ok = registry_answers(client)
    cost = "the base image is bootstrapped from Debian's packages, and images cannot be pulled"
    return Finding("registry", "answers" if ok else "no answer", ok, "" if ok else cost)


def _amount(name: str, amount: float, least: float, unit: str, cost: str) -> Finding:
    ok = amount >= least
    return Finding(name, f"{amount:.4g}{unit}", ok, "" if ok else cost)


# --- cleaning --------------------------------------------------------------------------------------------


def sweep(client: docker.DockerClient, *, owned_by: str = "", everything: bool = False) -> list[str]:
    """Remove the containers, networks and volumes of clusters whose owner has died.

    Args:
        client: the engine.
        owned_by: remove those of this owner as well, alive or not.
        everything: remove those of living owners, and those that `invoke up` started, as well.

    Returns:
        What was removed: kind and name.

    Example:
        >>> isinstance(sweep(connect()), list)
        True
    """

    def is_due(labels: Mapping[str, str] | None) -> bool:
        label = (labels or {}).get(LABEL_OWNER, "")
        return everything or (bool(label) and label == owned_by) or _is_dead(label)

    found: list[tuple[str, str, Mapping[str, str] | None, Callable[[], object]]] = []
    # Sparse: no inspection for each, which fails when another process removes one meanwhile.
    for container in client.containers.list(all=True, sparse=True, filters={"label": LABEL_CLUSTER}):
        name = (container.attrs.get("Names") or [container.id])[0].lstrip("/")
        action = functools.partial(container.remove, v=True, force=True)
        found.append(("container", name, container.attrs.get("Labels"), action))
    found += [
        ("network", str(network.name), network.attrs.get("Labels"), network.remove)
        for network in client.networks.list(filters={"label": LABEL_CLUSTER})
    ]
    found += [
        ("volume", str(volume.name), volume.attrs.get("Labels"), volume.remove)
        for volume in client.volumes.list(filters={"label": LABEL_CLUSTER})
    ]
    return [f"{kind} {name}" for kind, name, labels, action in found if is_due(labels) and _remove(kind, name, action)]


def _remove(kind: str, name: str, action: Callable[[], object]) -> bool:
    """Whether we removed it: another process may be quicker, and the engine may refuse, which is logged."""
    try:
        action()
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if "already in progress" in str(error.explanation):
            return False
        _log.warning("could not remove %s %s: %s", kind, name, error.explanation or error)
        return False
    return True


def remove_images(client: docker.DockerClient) -> list[str]:
    """Remove the images that carry our label; one that a container uses stays, with a warning.

    Args:
        client: the engine.

    Returns:
        Names, or ids, of the removed images.

    Example:
        >>> isinstance(remove_images(connect()), list)  # doctest: +SKIP
        True
    """
    names = [
        name
        for image in client.images.list(filters={"label": LABEL_INTERFACE})
        for name in image.tags or [str(image.id)]
    ]
    return [name for name in names if _remove("image", name, functools.partial(client.images.remove, name))]


def _tail(text: str, lines: int) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])
