"""A machine without engine, with a fake dockerd that can be started on it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from slurm_testbed import engine
from slurm_testbed.engine import Machine

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
