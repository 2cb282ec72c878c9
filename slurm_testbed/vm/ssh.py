"""How this machine speaks to the guest: one SSH connection, which carries the engine's socket and ports."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from slurm_testbed import engine
from slurm_testbed.errors import SlurmTestbedError

_HOST = "127.0.0.1"
_GUEST_ENGINE = "/run/docker.sock"
#: sun_path of unix(7), less what ssh appends while it makes a socket.
_PATH_LENGTH = 108 - 18
#: What ssh, docker or the loader take for something else than a part of a path.
_SPECIAL = frozenset('"#$%:?\\')
#: Ports that are tried where the guest's own number is taken here.
_TRIES = 5


@dataclass(frozen=True)
class Connection:
    """The connection to one guest.

    The engine is reached by a socket that only its owner may open: a TCP port without TLS would make everybody on
    this machine root in the guest.

    Attributes:
        folder: of the machine that runs; its owner's alone.
        port: of this machine, that leads to the guest's SSH.
    """

    folder: Path
    port: int

    @property
    def key(self) -> Path:
        """The private key of this one machine, made for it."""
        return self.folder / "key"

    @property
    def engine_socket(self) -> Path:
        """Where the guest's engine answers on this machine."""
        return self.folder / "docker.sock"

    @property
    def _control(self) -> Path:
        return self.folder / "ssh"

    def check(self) -> None:
        """Look whether the folder can have sockets at all.

        Raises:
            SlurmTestbedError: its name is too long for them, or has what ssh or docker take for something else.
        """
        name = str(self.engine_socket)
        wrong = ""
        if len(name) > _PATH_LENGTH:
            wrong = "is too long for the name of a socket"
        elif special := "".join(sorted(_SPECIAL.intersection(name))):
            wrong = f"cannot be the name of a socket: ssh and docker take {special} for something else"
        if wrong:
            raise SlurmTestbedError(f"{name} {wrong}", hint="set XDG_CACHE_HOME to another path")

    def make_key(self) -> str:
        """Make the key, and return the credential that lets it in: systemd.system-credentials(7).

        Raises:
            SlurmTestbedError: there is no ssh-keygen.
        """
        public = self.key.with_suffix(".pub")
        for left in (self.key, public):  # of a start that was cut short: ssh-keygen would ask
            left.unlink(missing_ok=True)
        argv = [_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "slurm-testbed", "-f", str(self.key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        return f"ssh.authorized_keys.root:{b64encode(public.read_bytes()).decode()}"

    def answers(self) -> bool:
        """Whether the guest's sshd greets; QEMU accepts connections long before it does."""
        with contextlib.suppress(OSError), socket.create_connection((_HOST, self.port), timeout=5) as probe:
            return probe.recv(4) == b"SSH-"
        return False

    def open(self, *, timeout: float) -> None:
        """Open the connection, and with it the socket of the guest's engine.

        Args:
            timeout: seconds.

        Raises:
            SlurmTestbedError: with what ssh said.
        """
        log = self.folder / "ssh.log"
        argv = [*self._ssh(), "-f", "-N", "-M", "-E", str(log), "-o", f"ConnectTimeout={timeout:.0f}"]
        argv += ["-o", "ControlPersist=yes", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"]
        argv += ["-L", f"{self.engine_socket}:{_GUEST_ENGINE}", f"root@{_HOST}"]
        # Not captured: it goes on in the background, and would keep a pipe open.
        null = subprocess.DEVNULL
        done = subprocess.run(argv, check=False, stdin=null, stdout=null, stderr=null, timeout=timeout * 2)
        if done.returncode:
            raise SlurmTestbedError(f"ssh did not reach the virtual machine: {log.read_text().strip()}")

    def run(self, command: str, *, stdin: str = "", timeout: float) -> str:
        """Run a shell command in the guest as root and return what it printed.

        Raises:
            SlurmTestbedError: it failed, or took longer than `timeout` seconds.
        """
        argv = [*self._ssh(), f"root@{_HOST}", command]
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise SlurmTestbedError(f"{_first_word(command)} in the virtual machine took over {timeout:g} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise SlurmTestbedError(
                f"{_first_word(command)} in the virtual machine ended with {done.returncode}: {said}"
            )
        return done.stdout

    def forward(self, port: int) -> int:
        """Make a port of the guest's 127.0.0.1 one of this machine's, the same number where it is free here.

        Args:
            port: on which something listens there.

        Returns:
            The port here.

        Raises:
            SlurmTestbedError: no port can be had.
        """
        said = ""
        for here in [port, *(free_port() for _ in range(_TRIES))]:
            # A second time for the same pair is no error.
            argv = [*self._ssh(), "-O", "forward", "-L", f"{_HOST}:{here}:{_HOST}:{port}", f"root@{_HOST}"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if not done.returncode:
                return here
            said = done.stderr.strip()
        raise SlurmTestbedError(f"port {port} of the virtual machine cannot be reached from here: {said}")

    def close(self) -> None:
        """End the connection; nothing happens where there is none."""
        argv = [*self._ssh(), "-O", "exit", f"root@{_HOST}"]
        subprocess.run(argv, capture_output=True, check=False)

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ControlPath": str(self._control),
            "HostKeyAlias": "slurm-testbed-vm",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "LogLevel": "ERROR",
            # QEMU holds the port: who answers first is the guest, and nobody else may answer later.
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
        }
        argv = [_program("ssh"), "-F", "none", "-i", str(self.key), "-p", str(self.port)]
        # Quoted, for ssh splits what it is given there at blanks.
        return argv + [word for name, value in options.items() for word in ("-o", f'{name}="{value}"')]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    if not (path := engine.THIS.which(name)):
        raise SlurmTestbedError(
            f"there is no {name} here", hint="install it (Debian, Ubuntu: apt-get install openssh-client)"
        )
    return path


def _first_word(command: str) -> str:
    return shlex.split(command)[0]
