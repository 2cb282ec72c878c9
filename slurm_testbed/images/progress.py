"""Run bake, and show what it does: on a terminal, or a line for each step."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from slurm_testbed.children import child
from slurm_testbed.images.say import Say, to_stderr

#: Runs a command with an environment in a folder, shows what it does, and returns exit status and output.
Runner = Callable[[Sequence[str], Mapping[str, str], Path], tuple[int, str]]


def runner(say: Say) -> Runner:
    """What runs bake so that it suits the terminal, or what `say` stands for."""
    if os.environ.get("BUILDKIT_PROGRESS", "auto") not in {"auto", "tty"}:
        return lambda argv, env, cwd: _run_in_lines(argv, env, cwd, say)
    if say is to_stderr and sys.stderr.isatty():
        return _run_on_terminal
    return lambda argv, env, cwd: _run_in_lines(argv, env, cwd, _Steps(say).feed)


def _run_in_lines(argv: Sequence[str], env: Mapping[str, str], cwd: Path, feed: Say) -> tuple[int, str]:
    """Run bake without a terminal, and feed each line of its plain progress."""
    argv = [*argv, "--progress=plain"]
    lines = []
    with child(argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for raw in cast(IO[bytes], process.stdout):
            line = raw.decode(errors="replace").rstrip("\r\n")
            lines.append(line)
            feed(line)
        process.wait()
    return process.returncode, "\n".join(lines)


def run_silently(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
    """Run bake and show nothing of it."""
    return _run_in_lines(argv, env, cwd, lambda _: None)


def _run_on_terminal(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
    """Run bake with its own progress on the terminal, and keep what it wrote last, which has the error."""
    kept: deque[bytes] = deque(maxlen=200)
    screen = sys.stderr.fileno()
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    try:
        termios.tcsetwinsize(theirs, termios.tcgetwinsize(screen))
        with child(argv, env=env, cwd=cwd, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            theirs = -1
            # The kernel says that the last process has closed its end by an error.
            with contextlib.suppress(OSError):
                while chunk := os.read(ours, 1 << 16):
                    kept.append(chunk)
                    os.write(screen, chunk)
                    termios.tcsetwinsize(ours, termios.tcgetwinsize(screen))
            process.wait()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return process.returncode, b"".join(kept).decode(errors="replace")


class _Steps:
    """Says a line for each step of a build that took time, from BuildKit's plain progress."""

    _NAME = re.compile(r"#(\d+) (\[(?!internal).+|exporting .+)")
    _DONE = re.compile(r"#(\d+) (?:DONE ([\d.]+)s|ERROR: .*)")

    def __init__(self, say: Say) -> None:
        self._say = say
        self._names: dict[str, str] = {}

    def feed(self, line: str) -> None:
        """Take a line of the progress."""
        if match := self._NAME.fullmatch(line):
            self._names.setdefault(match[1], short(match[2]))
        elif (match := self._DONE.fullmatch(line)) and match[1] in self._names:
            name = self._names[match[1]]
            if match[2] is None:
                self._say(f"   failed  {name}")
            elif float(match[2]) > 0:
                self._say(f"{float(match[2]):7.1f} s  {name}")


def short(name: str) -> str:
    """The name of a step without mounts, variables, and what BuildKit shows of a heredoc."""
    name = re.sub(r"--(mount|from|link|chown)\S*\s+|<<\S+\s*|\(set -\S+\.\.\.\)", "", name)
    name = re.sub(r"\b[A-Z_]+=(\$\(.*?\)|\S+)\s+", "", name)
    name = re.sub(r"\s+", " ", name).strip()
    return name if len(name) <= 100 else f"{name[:99]}…"
