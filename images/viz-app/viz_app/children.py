"""The processes of a session: started with logs of their own, watched, and ended with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

#: Seconds that a process has to end after SIGTERM.
_PATIENCE = 5.0


class Children:
    """The processes of a session, which end with the block, the last first.

    Args:
        folder: of the session, for their logs.

    Example:
        >>> with Children(folder) as children:  # doctest: +SKIP
        ...     children.start("application", ["gedit"], {})
        ...     children.wait()
        ('application', 0)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes.values()):
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        for process in reversed(self._processes.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            _signal(process, signal.SIGKILL)  # also what it has left behind in its group
            process.wait()

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own.

        Args:
            name: what it is in the session.
            command: program and arguments.
            environment: all its variables.
            stdin: its standard input.
            pass_fds: what it inherits besides.
        """
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                process_group=0,
            )
        self._processes[name] = process
        return process

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self._folder / f"{name}.log"

    def wait(self) -> tuple[str, int]:
        """Wait until one of the processes ends; its name and exit status.

        As process 1 of a container we also reap those whose parents are gone.
        """
        while True:
            pid, status = os.wait()
            for name, process in self._processes.items():
                if process.pid == pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    return name, process.returncode


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def first_line(descriptor: int, seconds: float) -> str | None:
    """The line that a process writes to a pipe when it is ready.

    Args:
        descriptor: the end to read from; it is closed.
        seconds: how long to wait for it.

    Returns:
        The line; None where the process ended before, or took too long.
    """
    text, end = b"", time.monotonic() + seconds
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while not text.endswith(b"\n"):
            readable, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            chunk = pipe.read(100) if readable else b""
            if not chunk:
                return None
            text += chunk
    return text.decode().strip()
