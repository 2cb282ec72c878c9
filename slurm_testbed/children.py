"""Child processes that never outlive who asked for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

#: What ends a process that does not handle it: kill and CI, and the end of a terminal.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that what was begun is ended as after Ctrl-C.

    One that somebody else handles, or that nohup has us ignore, stays as it is.

    Example:
        >>> with sigterm_raises():  # doctest: +SKIP
        ...     process.wait()
    """

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    numbers = [number for number in _ENDING if ours and signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def child(argv: Sequence[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that never outlives the block, also on Ctrl-C, SIGTERM and SIGHUP.

    Args:
        argv: the command.
        options: of `subprocess.Popen`.

    Example:
        >>> with child(["true"]) as process:
        ...     process.wait()
        0
    """
    with sigterm_raises():
        # A group of its own, so that we alone pass signals on: docker, on a terminal, keeps them to itself.
        process = subprocess.Popen(  # type: ignore[call-overload]
            argv, stdin=subprocess.DEVNULL, process_group=0, **options
        )
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child and its own children; a build and mmdebstrap clean up after SIGTERM."""
    for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def output_of(argv: Sequence[str], **options: object) -> tuple[int, str]:
    """Run a command; its exit status, and standard output and error together.

    Args:
        argv: the command.
        options: of `subprocess.Popen`.

    Example:
        >>> output_of(["sh", "-c", "echo no >&2; exit 3"])
        (3, 'no\\n')
    """
    with child(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
        text = process.communicate()[0].decode(errors="replace")
    return process.returncode, text
