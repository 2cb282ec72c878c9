"""What every host of ours has, whatever carries it: a supervisor, logs, a configuration of cgroups, files."""

from __future__ import annotations

import io
import math
import tarfile
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.slurm import REST_PORT
from slurm_testbed.substrate import Substrate

#: Seconds in which an ordinary machine stops or starts a daemon; JupyterHub takes longest.
_SERVICE_SECONDS = 60
_SERVICES = "/run/slurm-testbed/services"
_COMMON = "/usr/lib/slurm-testbed/common.sh"
#: How a daemon that was started shows that it takes requests.
_LISTENS = {
    "munged": "test -S /run/munge/munge.socket.2",
    "slurmctld": "listening 6817",
    "slurmdbd": "listening 6819",
    "slurmrestd": f"listening {REST_PORT}",
    "jupyterhub": "listening 8081",
    "configurable-http-proxy": "listening 8000",
    "jupyter-lab": "listening 8888",
    "postgres": "test -S /run/postgresql/.s.PGSQL.5432",
    "slurm-observability": "listening 8080",
    "prometheus": "listening 9090",
}
#: Whether a service has a process, and another one than before.
_AGAIN = 'again() { local now; now=$(s6-svstat -o pid "$1"); [ "$now" != -1 ] && [ "$now" != "$2" ]; }'


def control(
    substrate: Substrate, host: str, daemon: str, action: Literal["stop", "start", "kill"], *, speed: float = 1.0
) -> None:
    """Stop, start or kill a daemon by its host's supervisor, s6; all slurmd of a host are one daemon here.

    Args:
        substrate: what carries the host.
        host: the host.
        daemon: the daemon.
        action: what is done with it.
        speed: how many times slower than an ordinary machine the host is.

    Raises:
        SlurmTestbedError: it did not; with the end of the daemon's log.

    Example:
        >>> control(slurm.substrate, "n1", "slurmd", "kill")  # doctest: +SKIP
    """
    seconds = math.ceil(_SERVICE_SECONDS * speed)
    act = {
        "stop": f"s6-svc -T {seconds}000 -wD -d $one",
        "start": f"s6-svc -T {seconds}000 -wu -u $one",
        # Not by -wr: on a busy machine it misses a process that is quick to come back, and waits in vain.
        "kill": "old=$(s6-svstat -o pid $one); s6-svc -k $one && await \"$one\" 'see its log.' again $one $old",
    }[action]
    # slurmd@n1, slurmd@n2 …, and not slurmdbd.
    each = f'set -- {daemon}@*; [ -e "$1" ] || set -- {daemon}'
    script = f". {_COMMON}; {_AGAIN}; cd {_SERVICES} || exit; {each}; for one; do {act} || exit; done"
    if action != "stop" and daemon in _LISTENS:
        # s6 knows that the process is there; the daemon takes requests once it listens.
        script += f"; await {daemon} 'see its log.' {_LISTENS[daemon]}"
    done = substrate.exec(host, ["bash", "-c", script], env={"SLURM_TESTBED_DEADLINE": str(seconds)})
    if done.returncode:
        raise SlurmTestbedError(
            f"{daemon} on {host} did not {action} within {seconds} s: {done.stderr.strip()}",
            hint=f"its log ends: {substrate.logs(host, daemon)[-500:]}",
        )


def log_of(substrate: Substrate, host: str, daemon: str) -> str:
    """The log of a daemon: each slurmd has one of its own, by the name of its node.

    Args:
        substrate: what carries the host.
        host: the host.
        daemon: the daemon.
    """
    files = "/var/log/munge/munged.log" if daemon == "munged" else f"/var/log/slurm/{daemon}.log"
    files = "/var/log/slurm/slurmd-*.log" if daemon == "slurmd" else files
    return substrate.exec(host, ["sh", "-c", f"cat {files}"]).stdout


def cgroup_of(conf: str) -> str:
    """The cgroup version that a host's cgroup.conf enforces.

    Example:
        >>> cgroup_of("CgroupPlugin=cgroup/v2 ConstrainRAMSpace=yes"), cgroup_of("")
        ('v2', 'none')
    """
    if "ConstrainRAMSpace=yes" not in conf:
        return "none"
    return "v2" if "cgroup/v2" in conf else "v1"


def archive(files: Mapping[str, bytes], mode: int) -> bytes:
    """Files by absolute path as a tar archive, which is unpacked at /.

    Example:
        >>> len(archive({"/etc/motd": b"hello"}, 0o644)) % 512
        0
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for path, data in files.items():
            member = tarfile.TarInfo(str(PurePosixPath(path).relative_to("/")))
            member.size, member.mode, member.mtime = len(data), mode, int(time.time())
            packed.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
