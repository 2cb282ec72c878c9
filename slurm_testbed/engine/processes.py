"""Processes of this machine: who lives, who is dockerd, and how one is ended."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import tenacity

from slurm_testbed.engine.machine import THIS, Machine
from slurm_testbed.errors import NotReadyError


def live_process(pid: int) -> tuple[str, str] | None:
    """Name and start time of a live process; None when it is gone.

    The time is in clock ticks after boot, because the wall clock's may be corrected while we run.
    """
    if not Path("/proc/self/stat").exists():
        line = THIS.run(["ps", "-o", "lstart=,comm=", "-p", str(pid)], None).stdout.strip()  # macOS
        return (line[24:].strip(), line[:24]) if line else None
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return None if fields[0] in {"Z", "X"} else (name, fields[19])


def namespace_of(pid: int | str, kind: str) -> str:
    """The number of a process's namespace of a kind, as `pid` or `net`; empty where it cannot be seen."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink()).strip(f"{kind}:[]")
    except OSError:
        return ""


def running_dockerd(machine: Machine) -> int | None:
    """Process id of a dockerd that shares our network, whoever started it and wherever its socket is."""
    network = namespace_of("self", "net")
    for pid in machine.processes():
        process = live_process(pid)
        if process and process[0] == "dockerd" and namespace_of(pid, "net") == network:
            return pid
    return None


def end_process(pid: int, *, deadline: float) -> None:
    """Send SIGTERM to a process and wait, at most `deadline` seconds, until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)

    def gone() -> bool:
        # Ours may be a child of this very process, and stay as a zombie.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return live_process(pid) is None

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
