"""The container engine: found, installed, started, stopped, examined and swept."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import docker
import pytest
import tenacity

from slurm_testbed import engine
from slurm_testbed.engine import Machine
from slurm_testbed.errors import EngineError, EngineNotFoundError, NotReadyError

BOOKWORM = {"ID": "debian", "NAME": "Debian GNU/Linux", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}
TRIXIE = {"ID": "debian", "NAME": "Debian GNU/Linux", "VERSION_ID": "13", "VERSION_CODENAME": "trixie"}
UBUNTU = {"ID": "ubuntu", "NAME": "Ubuntu", "VERSION_ID": "24.04", "VERSION_CODENAME": "noble"}
ARCHIVE = "http://mirror.example/debian"

# A dockerd that answers what connect() asks, on the socket of the machine that the test made.
FAKE_DOCKERD = f"""#!{sys.executable}
import http.server, json, os, socketserver, sys

root = os.environ["FAKE_ROOT"]
mode = os.environ.get("FAKE_MODE", "")
print("arguments:", *sys.argv[1:], flush=True)
if mode == "fails":
    sys.exit("failed to mount: operation not permitted")

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "/distribution/silent" in self.path:
            return self.connection.recv(1)  # until the caller hangs up
        if "/distribution/none" in self.path:
            return self.send_error(404)
        body = b"OK" if self.path.endswith("_ping") else json.dumps({{"ApiVersion": "1.45"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
    def address_string(self): return ""

path = f"{{root}}/var/run/docker.sock"
if os.path.exists(path):
    os.unlink(path)
socketserver.ThreadingUnixStreamServer(path, Answer).serve_forever()
"""


@dataclass
class FakeCommands:
    """Stands in for apt and systemctl: notes what was asked, and answers as told."""

    answers: dict[str, str] = field(default_factory=dict)
    failing: str = "nothing"
    asked: list[str] = field(default_factory=list)
    effect: Callable[[str], None] = lambda _: None

    def __call__(self, argv: Sequence[str], _: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
        line = " ".join(argv)
        self.asked.append(line)
        self.effect(line)
        output = next((text for start, text in self.answers.items() if line.startswith(start)), "")
        if self.failing in line:
            return subprocess.CompletedProcess(argv, 100, "", "E: Unable to fetch some archives")
        return subprocess.CompletedProcess(argv, 0, output, "")

    def installed(self) -> list[str]:
        """Packages of the one `apt-get install`."""
        (line,) = (line for line in self.asked if " install " in line)
        return [word for word in line.split(" install ")[1].split() if not word.startswith("--")]


@dataclass
class Bench:
    """A machine in a temporary folder, and what it said and ran."""

    machine: Machine
    commands: FakeCommands
    said: list[str]
    bin: Path

    def add_dockerd(self) -> None:
        """Put the fake dockerd on the machine's PATH."""
        (self.bin / "dockerd").write_text(FAKE_DOCKERD)
        (self.bin / "dockerd").chmod(0o755)

    def pid(self) -> int:
        """Process id of the dockerd that was started."""
        return int(json.loads(self.machine.record.read_text())["pid"])


def known(*packages: str) -> str:
    """What `apt-cache policy` prints for packages that it knows."""
    return "".join(f"{name}:\n  Installed: (none)\n  Candidate: 1.0\n" for name in packages)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A machine as root without engine; whatever is started on it ends with the test."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
    # Sockets have short names only, and pytest's folders long ones.
    root = Path(tempfile.mkdtemp(prefix="engine-"))
    (root / "var/run").mkdir(parents=True)
    (root / "bin").mkdir()
    said: list[str] = []
    commands = FakeCommands()
    machine = Machine(
        root=root,
        environ={"PATH": str(root / "bin"), "FAKE_ROOT": str(root)},
        run=commands,
        is_root=lambda: True,
        os_release=lambda: TRIXIE,
        processes=list,
        say=said.append,
        ask=lambda question: pytest.fail(f"it asked: {question}"),
    )
    # A dockerd of the real machine does not stand on this one.
    monkeypatch.setattr(Machine, "which", lambda self, name: _which(self, name))
    yield Bench(machine, commands, said, root / "bin")
    engine.stop(machine=machine)
    subprocess.run(["rm", "-rf", str(root)], check=True)


def _which(machine: Machine, name: str) -> str | None:
    path = machine.root / "bin" / name
    return str(path) if path.exists() else None


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """The real engine; without one these tests fail, they are not skipped."""
    found = engine.connect()
    yield found
    found.close()


# --- finding


def test_connect_without_engine_says_what_to_install_with_status_3(bench: Bench) -> None:
    machine = replace(bench.machine, os_release=lambda: UBUNTU)

    with pytest.raises(EngineNotFoundError) as caught:
        engine.connect(machine=machine)

    assert str(caught.value) == (
        "no container engine answers here: install Docker Engine with buildx and compose "
        "(as root: apt-get install docker.io docker-buildx docker-compose-v2) and start it"
    ), f"it said: {caught.value}"
    assert caught.value.exit_status == 3, f"exit status {caught.value.exit_status}"


def test_connect_with_engine_installed_but_stopped_says_how_to_start_it(bench: Bench) -> None:
    bench.add_dockerd()
    (bench.machine.root / "run/systemd/system").mkdir(parents=True)

    with pytest.raises(EngineNotFoundError, match=r"does not run: start it as root with `systemctl start docker`"):
        engine.connect(machine=bench.machine)


def test_connect_honours_docker_host_and_tries_no_other(bench: Bench) -> None:
    environ = {**bench.machine.environ, "DOCKER_HOST": "unix:///nowhere.sock"}

    with pytest.raises(EngineNotFoundError, match=r"DOCKER_HOST says unix:///nowhere\.sock.*no such socket"):
        engine.connect(machine=replace(bench.machine, environ=environ, root=Path("/")))


def test_connect_honours_the_current_docker_context(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from docker.context import ContextAPI

    (tmp_path / "config.json").write_text('{"currentContext": "afar"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    ContextAPI.create_context("afar", host="unix:///afar.sock")

    with pytest.raises(EngineNotFoundError, match=r"the docker context afar says unix:///afar\.sock"):
        engine.connect(machine=bench.machine)


def test_connect_with_an_unknown_context_names_it(bench: Bench) -> None:
    environ = {**bench.machine.environ, "DOCKER_CONTEXT": "nosuch"}

    with pytest.raises(EngineNotFoundError, match="there is no docker context nosuch"):
        engine.connect(machine=replace(bench.machine, environ=environ))


@pytest.mark.parametrize("folder", ["runtime/podman", "run/podman"])
def test_environment_points_docker_at_the_socket_of_podman(bench: Bench, folder: str) -> None:
    """Podman is the fake daemon here: what matters is the place."""
    root = bench.machine.root
    environ = {**bench.machine.environ, "XDG_RUNTIME_DIR": str(root / "runtime")}
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()
    (root / folder).mkdir(parents=True)
    (root / "var/run/docker.sock").rename(root / folder / "podman.sock")

    env = engine.environment(machine=replace(bench.machine, environ=environ))

    assert env["DOCKER_HOST"] == f"unix://{root}/{folder}/podman.sock", f"DOCKER_HOST is {env.get('DOCKER_HOST')}"


def test_environment_of_the_default_socket_adds_nothing(client: docker.DockerClient) -> None:
    assert client.ping(), "the engine does not answer"

    env = engine.environment(machine=replace(engine.THIS, environ={"A": "1"}))

    assert env == {"A": "1"}, f"it added {env}"


def test_connect_where_the_user_has_no_rights_says_which_group(bench: Bench) -> None:
    text = engine._what_to_do(bench.machine, {"/var/run/docker.sock": "permission denied"})

    assert "may not use the container engine at /var/run/docker.sock" in text, text
    assert "usermod -aG docker" in text, text


# --- installing


def test_ensure_without_rights_installs_nothing(bench: Bench) -> None:
    with pytest.raises(EngineNotFoundError, match="apt-get install"):
        engine.ensure(machine=replace(bench.machine, is_root=lambda: False))

    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_ensure_when_forbidden_touches_nothing_and_says_why(bench: Bench) -> None:
    bench.add_dockerd()
    environ = {**bench.machine.environ, "SLURM_TESTBED_INSTALL_ENGINE": "0"}

    with pytest.raises(EngineNotFoundError) as caught:
        engine.ensure(machine=replace(bench.machine, environ=environ))

    assert "SLURM_TESTBED_INSTALL_ENGINE=0" in caught.value.hint, f"the hint is {caught.value.hint!r}"
    assert not bench.machine.state.exists(), "it started something"


def test_ensure_with_docker_host_never_installs_another(bench: Bench) -> None:
    environ = {**bench.machine.environ, "DOCKER_HOST": "unix:///nowhere.sock"}

    with pytest.raises(EngineNotFoundError, match="DOCKER_HOST says"):
        engine.ensure(machine=replace(bench.machine, environ=environ))

    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_ensure_on_another_distribution_says_what_to_install(bench: Bench) -> None:
    with pytest.raises(EngineNotFoundError, match="install Docker Engine with buildx and compose and start it"):
        engine.ensure(machine=replace(bench.machine, os_release=lambda: {"ID": "fedora"}))


@pytest.mark.parametrize(
    ("release", "packages"),
    [
        (TRIXIE, ["docker.io", "docker-cli", "docker-buildx", "docker-compose", "mmdebstrap"]),
        (UBUNTU, ["docker.io", "docker-buildx", "docker-compose-v2", "mmdebstrap"]),
    ],
    ids=["debian", "ubuntu"],
)
def test_ensure_without_terminal_says_so_installs_and_starts(
    bench: Bench, release: dict[str, str], packages: list[str]
) -> None:
    bench.commands.answers["apt-cache policy"] = known(*packages)
    bench.commands.effect = lambda line: bench.add_dockerd() if " install " in line else None

    client = engine.ensure(interactive=False, machine=replace(bench.machine, os_release=lambda: release))

    assert client.ping(), "the engine does not answer"
    assert bench.commands.installed() == packages, f"installed {bench.commands.installed()}"
    assert "SLURM_TESTBED_INSTALL_ENGINE=0 forbids it" in bench.said[0], f"it said {bench.said}"
    assert not (bench.machine.root / "usr/sbin/policy-rc.d").exists(), "policy-rc.d was left"
    client.close()


def test_install_keeps_packages_from_starting_a_daemon(bench: Bench) -> None:
    policy = bench.machine.root / "usr/sbin/policy-rc.d"
    seen: list[str] = []
    bench.commands.answers["apt-cache policy"] = known("docker.io", "docker-buildx", "docker-compose", "mmdebstrap")
    bench.commands.effect = lambda line: seen.append(policy.read_text()) if " install " in line else None

    engine._install(bench.machine, interactive=False)

    assert seen == ["#!/bin/sh\nexit 101\n"], f"policy-rc.d while installing: {seen}"


def test_ensure_on_a_terminal_asks_and_takes_no_for_an_answer(bench: Bench) -> None:
    asked: list[str] = []
    machine = replace(bench.machine, ask=lambda question: bool(asked.append(question)))

    with pytest.raises(EngineNotFoundError):
        engine.ensure(interactive=True, machine=machine)

    assert "docker.io" in asked[0], f"it asked {asked}"
    assert bench.commands.asked == [], f"it ran {bench.commands.asked}"


def test_install_on_debian_12_takes_the_engine_alone_from_trixie(bench: Bench) -> None:
    etc = bench.machine.root / "etc/apt"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list.d/debian.sources").write_text(
        f"# the archive\nTypes: deb deb-src\nURIs: {ARCHIVE}\nSuites: bookworm bookworm-updates\n"
        " bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        "Types: deb\nURIs: http://third.example/\nSuites: bookworm\nComponents: main\n\n"
        f"Types: deb\nEnabled: no\nURIs: {ARCHIVE}\nSuites: bookworm\nComponents: contrib\n"
    )
    (etc / "sources.list").write_text(
        f"deb [signed-by=/key.gpg] {ARCHIVE}-security bookworm-security main\n# deb {ARCHIVE} bookworm main\n"
        f"deb-src {ARCHIVE} bookworm main\ndeb http://third.example/ bookworm main\n"
    )
    (etc / "sources.list.d/off.list.disabled").write_text(f"deb {ARCHIVE} bookworm non-free\n")
    bench.commands.answers |= {
        "apt-get indextargets": f"Debian bookworm {ARCHIVE}/\nDebian bookworm-security {ARCHIVE}-security/\n"
        "Third bookworm http://third.example/\n",
        "apt-cache policy": known("docker.io", "docker-cli", "docker-buildx", "docker-compose", "mmdebstrap"),
    }

    engine._install(replace(bench.machine, os_release=lambda: BOOKWORM), interactive=False)

    stanza = (etc / "sources.list.d/slurm-testbed-engine.sources").read_text()
    assert stanza.splitlines() == [
        "Types: deb",
        f"Uris: {ARCHIVE}",
        "Suites: trixie trixie-updates",
        "Components: main",
        "Signed-by: /usr/share/keyrings/debian-archive-keyring.gpg",
    ], f"the new source is\n{stanza}"
    line = (etc / "sources.list.d/slurm-testbed-engine.list").read_text()
    assert line == f"deb [signed-by=/key.gpg] {ARCHIVE}-security trixie-security main\n", f"the line is {line!r}"
    pins = (etc / "preferences.d/slurm-testbed-engine").read_text()
    assert pins == (
        "Package: *\nPin: release n=trixie*\nPin-Priority: 100\n\n"
        "Package: docker.io docker-cli docker-buildx docker-compose containerd\n"
        "Pin: release n=trixie*\nPin-Priority: 600\n"
    ), f"the pins are\n{pins}"


def test_install_that_fails_takes_its_sources_back_and_tells_apts_reason(bench: Bench) -> None:
    etc = bench.machine.root / "etc/apt"
    etc.mkdir(parents=True)
    (etc / "sources.list").write_text(f"deb {ARCHIVE} bookworm main\n")
    bench.commands.failing = " install "
    bench.commands.answers |= {
        "apt-get indextargets": f"Debian bookworm {ARCHIVE}/\n",
        "apt-cache policy": known("docker.io", "docker-buildx", "docker-compose", "mmdebstrap"),
    }

    with pytest.raises(EngineNotFoundError, match="E: Unable to fetch some archives"):
        engine._install(replace(bench.machine, os_release=lambda: BOOKWORM), interactive=False)

    left = [path for path in etc.rglob("slurm-testbed*") if path.is_file()]
    assert left == [], f"it left {left}"


def test_install_names_the_package_that_apt_does_not_know(bench: Bench) -> None:
    bench.commands.answers["apt-cache policy"] = known("docker.io", "mmdebstrap")

    with pytest.raises(EngineNotFoundError, match="apt knows no package docker-buildx, docker-compose"):
        engine._install(bench.machine, interactive=False)


# --- starting and stopping


def test_ensure_starts_dockerd_detached_and_stop_ends_it(bench: Bench) -> None:
    bench.add_dockerd()

    client = engine.ensure(machine=bench.machine)
    pid = bench.pid()

    assert client.ping(), "the engine does not answer"
    assert os.getsid(pid) == pid, "it has no session of its own, so Ctrl-C would end it"
    log = bench.machine.log.read_text()
    assert f"--config-file {bench.machine.state}/daemon.json" in log, f"it was started with {log}"
    pools = json.loads((bench.machine.state / "daemon.json").read_text())["default-address-pools"]
    assert pools == [{"base": "10.213.0.0/16", "size": 24}], f"the pools are {pools}"
    client.close()
    assert engine.stop(machine=bench.machine), "stop says that nothing of ours runs"
    assert engine._process(pid) is None, f"process {pid} still runs"
    assert not engine.stop(machine=bench.machine), "a second stop says that it ended one"


def test_ensure_keeps_an_administrators_daemon_json(bench: Bench) -> None:
    bench.add_dockerd()
    (bench.machine.root / "etc/docker").mkdir(parents=True)
    (bench.machine.root / "etc/docker/daemon.json").write_text("{}")

    engine.ensure(machine=bench.machine).close()

    assert "--config-file" not in bench.machine.log.read_text(), bench.machine.log.read_text()


def test_ensure_twice_starts_one(bench: Bench) -> None:
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()
    first = bench.pid()

    engine.ensure(machine=bench.machine).close()

    assert bench.pid() == first, f"a second one was started: {first}, then {bench.pid()}"


def test_ensure_after_an_unclean_end_removes_the_stale_pid_files(bench: Bench) -> None:
    bench.add_dockerd()
    run = bench.machine.root / "var/run"
    (run / "docker/containerd").mkdir(parents=True)
    # The number now belongs to this very test, which is no dockerd.
    (run / "docker.pid").write_text(str(os.getpid()))
    (run / "docker/containerd/containerd.pid").write_text("no number")

    client = engine.ensure(machine=bench.machine)

    assert client.ping(), "the engine does not answer"
    left = list(run.rglob("*.pid"))
    assert left == [], f"it left {left}"
    client.close()


def test_start_never_puts_a_second_dockerd_beside_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one that does not answer is waited for, not doubled."""
    monkeypatch.setattr(engine, "START_SECONDS", 0.5)
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()
    pid = bench.pid()
    (bench.machine.root / "var/run/docker.sock").unlink()

    with pytest.raises(NotReadyError, match=r"waited 0\.5 s for the container engine to answer"):
        engine.ensure(machine=replace(bench.machine, processes=lambda: [os.getpid(), pid]))

    assert bench.pid() == pid, "a second one was started"
    assert engine._process(pid), "the first one was ended"


def test_dockerd_that_fails_is_told_at_once_with_its_log(bench: Bench) -> None:
    bench.add_dockerd()
    machine = replace(bench.machine, environ={**bench.machine.environ, "FAKE_MODE": "fails"})
    started = time.monotonic()

    with pytest.raises(NotReadyError) as caught:
        engine.ensure(machine=machine)

    assert time.monotonic() - started < engine.START_SECONDS / 2, "it waited for a process that had ended"
    assert caught.value.last_state == "dockerd exited with 1", f"last state: {caught.value.last_state}"
    assert "operation not permitted" in caught.value.log, f"the log's tail is {caught.value.log!r}"
    assert not machine.record.exists(), "it is noted as started"


def test_start_with_systemd_leaves_it_to_systemd(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "START_SECONDS", 0.2)
    bench.add_dockerd()
    (bench.machine.root / "run/systemd/system").mkdir(parents=True)

    with pytest.raises(NotReadyError):
        engine.ensure(machine=bench.machine)

    assert bench.commands.asked == ["systemctl start docker"], f"it ran {bench.commands.asked}"


def test_stop_without_rights_says_who_may(bench: Bench) -> None:
    bench.add_dockerd()
    engine.ensure(machine=bench.machine).close()

    with pytest.raises(EngineError, match="only root ends it"):
        engine.stop(machine=replace(bench.machine, is_root=lambda: False))

    assert engine._process(bench.pid()), "it was ended all the same"


def test_stop_leaves_a_process_that_is_not_the_one_it_started(bench: Bench) -> None:
    """The number was given again: same pid, another start time."""
    bench.machine.state.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        bench.machine.record.write_text(json.dumps({"pid": other.pid, "started": "1"}))

        stopped = engine.stop(machine=bench.machine)

        assert not stopped, "stop says that it ended one of ours"
        assert other.poll() is None, "it ended somebody else's process"
        other.kill()


def test_stop_of_a_process_that_ignores_sigterm_says_what_it_awaited() -> None:
    script = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()

        with pytest.raises(NotReadyError, match=f"process {stubborn.pid} to end after SIGTERM"):
            engine._end_process(stubborn.pid, deadline=0.3)

        stubborn.send_signal(signal.SIGKILL)


# --- examining


def test_examine_says_what_the_engine_is_and_what_each_lack_costs(client: docker.DockerClient) -> None:
    findings = {finding.name: finding for finding in engine.examine(client)}

    assert list(findings) == [
        *("engine", "BuildKit", "compose", "cgroup", "storage", "capabilities"),
        *("FUSE", "KVM", "registry", "CPUs", "memory"),
    ], f"found {list(findings)}"
    assert client.version()["Version"] in findings["engine"].value, findings["engine"]
    assert findings["CPUs"].value == str(client.info()["NCPU"]), findings["CPUs"]
    assert findings["FUSE"].ok == Path("/dev/fuse").exists(), findings["FUSE"]
    for finding in findings.values():
        assert finding.ok == (not finding.cost), f"a lack without cost, or a cost without lack: {finding}"


@pytest.mark.parametrize(
    ("bounds", "missing"),
    [
        ("000001ffffffffff", []),
        ("000001fffeffffff", ["SYS_RESOURCE"]),
        ("00000000a80425fb", ["SYS_ADMIN", "SYS_NICE", "SYS_RESOURCE"]),
    ],
)
def test_missing_capabilities_are_read_from_the_bounding_set(bounds: str, missing: list[str]) -> None:
    found = engine._missing_capabilities(f"Name:\tdockerd\nCapEff:\t0000\nCapBnd:\t{bounds}\nCapAmb:\t00\n")

    assert found == missing, f"found {found}"


@pytest.mark.parametrize(("image", "answers"), [("there:1", True), ("none:1", False), ("silent:1", False)])
def test_registry_answers_within_its_time_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, image: str, answers: bool
) -> None:
    monkeypatch.setattr(engine, "REGISTRY_SECONDS", 0.5)
    bench.add_dockerd()
    client = engine.ensure(machine=bench.machine)
    started = time.monotonic()

    found = engine.registry_answers(client, image=image)

    assert found == answers, f"{image}: {found}"
    assert time.monotonic() - started < 5, f"it took {time.monotonic() - started:.1f} s"
    client.close()


def test_registry_of_an_unknown_host_does_not_answer(client: docker.DockerClient) -> None:
    assert not engine.registry_answers(client, image="nowhere.invalid/none:1"), "a host that cannot be has a registry"


# --- sweeping


@pytest.fixture
def image(client: docker.DockerClient) -> Iterator[str]:
    """An image of one empty file; nothing of it is ever run."""
    tag = f"slurm-testbed-unit-{uuid.uuid4().hex[:12]}:empty"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    client.api.import_image_from_data(buffer.getvalue(), repository=tag.split(":")[0], tag="empty")
    yield tag
    client.images.remove(tag)


@pytest.fixture
def dead_owner() -> str:
    """The label of a process of this host that has ended."""
    code = "from slurm_testbed import engine; print(engine.owner())"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout.strip()


@dataclass
class Clusters:
    """Makes a container, a network and a volume with one owner's labels."""

    client: docker.DockerClient
    image: str
    made: dict[str, str] = field(default_factory=dict)

    def make(self, owner: str) -> str:
        """Make the three and return their common name."""
        name = f"slurm-testbed-unit-{uuid.uuid4().hex[:12]}"
        labels = {engine.LABEL_CLUSTER: name, engine.LABEL_OWNER: owner}
        container = self.client.containers.create(self.image, ["/empty"], name=name, labels=labels)
        self.made[name] = str(container.id)
        self.client.networks.create(name, labels=labels)
        self.client.volumes.create(name, labels=labels)
        return name

    def left(self, name: str) -> list[str]:
        """Which of the three are there."""
        label = {"label": f"{engine.LABEL_CLUSTER}={name}"}
        return [
            *("container" for _ in self.client.containers.list(all=True, sparse=True, filters=dict(label))),
            *("network" for _ in self.client.networks.list(filters=dict(label))),
            *("volume" for _ in self.client.volumes.list(filters=dict(label))),
        ]

    def left_at_last(self, name: str) -> list[str]:
        """Which of the three are there after at most 10 s."""
        return tenacity.Retrying(
            stop=tenacity.stop_after_delay(10),
            wait=tenacity.wait_fixed(0.1),
            retry=tenacity.retry_if_result(bool),
            retry_error_callback=lambda _: self.left(name),
        )(self.left, name)

    def remove(self) -> None:
        """Remove what the sweep left."""
        for name, container in self.made.items():
            for found in self.client.containers.list(all=True, sparse=True, filters={"id": container}):
                found.remove(force=True)
            for network in self.client.networks.list(names=[name]):
                network.remove()
            for volume in self.client.volumes.list(filters={"name": name}):
                volume.remove()


@pytest.fixture
def clusters(client: docker.DockerClient, image: str) -> Iterator[Clusters]:
    """Clusters that are gone after the test."""
    made = Clusters(client, image)
    yield made
    made.remove()


@pytest.mark.parametrize("living", ["this process", "another host", "invoke up"])
def test_sweep_removes_what_the_dead_left_and_nothing_of_the_living(
    client: docker.DockerClient, clusters: Clusters, dead_owner: str, living: str
) -> None:
    owner = {
        "this process": engine.owner(),
        "another host": f"not-this-host:{dead_owner.partition(':')[2]}",
        "invoke up": engine.UP_OWNER,
    }[living]
    dead, alive = clusters.make(dead_owner), clusters.make(owner)

    engine.sweep(client)

    # Another suite's sweep may have been quicker, and still be at it.
    left = clusters.left_at_last(dead)
    assert left == [], f"left of the dead: {left}"
    left = clusters.left(alive)
    assert left == ["container", "network", "volume"], f"left of the living: {left}"


def test_sweep_of_everything_takes_all_owners() -> None:
    """With a client of its own, because the real engine also carries the clusters of other suites."""
    removed: list[str] = []
    fake = FakeClient(removed, {"a": engine.owner(), "b": engine.UP_OWNER, "c": "not-this-host:1:1@1"})

    said = engine.sweep(fake, everything=True)  # type: ignore[arg-type]

    assert said == ["container a", "container b", "container c"], f"it said {said}"
    assert removed == ["a", "b", "c"], f"it removed {removed}"


class FakeClient:
    """As much of a docker client as a sweep of containers needs."""

    def __init__(self, removed: list[str], owners: dict[str, str]) -> None:
        self.removed, self.owners = removed, owners
        self.containers = self
        self.networks = self.volumes = type("Nothing", (), {"list": staticmethod(lambda **_: [])})

    def list(self, **_: object) -> list[object]:
        """One container for each owner."""
        return [self._container(name, owner) for name, owner in self.owners.items()]

    def _container(self, name: str, owner: str) -> object:
        attrs = {"Names": [f"/{name}"], "Labels": {engine.LABEL_OWNER: owner}}
        return type("C", (), {"attrs": attrs, "id": name, "remove": lambda _, **__: self.removed.append(name)})()


def test_owner_that_died_is_dead_and_this_process_is_not(dead_owner: str) -> None:
    assert engine._is_dead(dead_owner), f"{dead_owner} counts as alive"
    assert not engine._is_dead(engine.owner()), f"{engine.owner()} counts as dead"


def test_owner_with_a_number_given_again_is_dead() -> None:
    host, pid, rest = engine.owner().split(":", 2)

    assert engine._is_dead(f"{host}:{pid}:1@{rest.rpartition('@')[2]}"), "the start time does not count"


@pytest.mark.parametrize("label", ["", "up", "nonsense:x", "a:b:c"])
def test_owner_that_cannot_be_judged_is_not_dead(label: str) -> None:
    assert not engine._is_dead(label), f"{label!r} counts as dead"
